"""Guard: a step whose loss or gradient cannot be trusted is left out exactly, and what caused it is kept."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scigpt.errors import UserError


@dataclass(frozen=True)
class GuardConfig:
    """What counts as a spike.

    Args:
        factor: a gradient norm above this multiple of the running median is a spike.
        window: steps the median looks back.
        grace: good steps before spikes are looked for (non-finite numbers are refused from the first step).
        patience: skipped steps in a row after which the run stops.
    """

    factor: float = 20.0
    window: int = 200
    grace: int = 50
    patience: int = 10

    def __post_init__(self) -> None:
        if self.factor <= 1 or self.window < 1 or self.grace < 1 or self.patience < 1:
            raise UserError("expected a factor above 1, and window, grace and patience of at least 1")


class Guard:
    """Judges each step. Its history holds accepted norms only, so one bad step cannot spoil the judgement of the next."""

    def __init__(self, config: GuardConfig) -> None:
        self.config = config
        self._norms: deque[float] = deque(maxlen=config.window)
        self.row = 0  # skipped steps since the last good one

    def judge(self, loss: float, norm: float) -> str | None:
        """None when the update may happen, else why not."""
        reason = self._reason(loss, norm)
        if reason is not None:
            return self.refuse(reason)
        self._norms.append(norm)
        self.row = 0
        return None

    def refuse(self, reason: str) -> str:
        """Count a step that is skipped for a reason of the caller's."""
        self.row += 1
        return reason

    def _reason(self, loss: float, norm: float) -> str | None:
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if not math.isfinite(norm):
            return f"the gradient norm is {norm}"
        if len(self._norms) >= min(self.config.grace, self.config.window) and norm > self.config.factor * self.median:
            return f"the gradient norm {norm:.4g} is more than {self.config.factor:g} times the running median {self.median:.4g}"
        return None

    @property
    def median(self) -> float:
        """Running median of accepted gradient norms; NaN before the first."""
        return statistics.median(self._norms) if self._norms else math.nan

    @property
    def exhausted(self) -> bool:
        """More steps in a row were skipped than the configuration bears."""
        return self.row > self.config.patience

    def state(self) -> dict[str, Any]:
        return {"norms": [n.hex() for n in self._norms], "row": self.row}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._norms = deque((float.fromhex(n) for n in state["norms"]), maxlen=self.config.window)
        self.row = int(state["row"])
