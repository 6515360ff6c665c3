"""Records of a step: its line of metrics, its line in the ledger of samples, and the post-mortem of a skipped one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from scigpt.data.batches import Batch
from scigpt.data.mixture import Group, Mixture
from scigpt.train.journal import number
from scigpt.train.objective import Share
from scigpt.train.processes import Place, Processes

Read = tuple[Group, list[Batch]]


@dataclass(slots=True)
class Step:
    """What became of one step. `rate` is the learning rate, `skipped` why there was no update; `seconds` count the wait for data too."""

    rate: float
    loss: float = 0.0
    norm: float = 0.0
    skipped: str | None = None
    tokens: int = 0
    flops: int = 0
    seconds: float = 0.0
    data_wait: float = 0.0
    _losses: list[Tensor] = field(default_factory=list)
    _sums: dict[str, tuple[tuple[str, ...], Tensor, Tensor]] = field(default_factory=dict)

    def add(self, batch: Batch, part: Share, tokens: int, flops: int) -> None:
        """Take in one micro-batch; nothing waits for the device."""
        self._losses.append(part.loss.detach())
        self.tokens, self.flops = self.tokens + tokens, self.flops + flops
        keys, errors, weights = self._sums.get(batch.corpus, (tuple(v.key for v in batch.layout.variables), 0, 0))
        self._sums[batch.corpus] = (keys, part.errors + errors, part.weights + weights)

    def sum_over(self, processes: Processes) -> None:
        """The loss, tokens and FLOPs of all micro-batches of all processes."""
        here = [math.fsum(torch.stack(self._losses).double().tolist()) if self._losses else 0.0, self.tokens, self.flops]
        self.loss, tokens, flops = processes.total(here)
        self.tokens, self.flops = int(tokens), int(flops)

    def variables(self, processes: Processes) -> dict[str, dict[str, float | None]]:
        """Mean loss by corpus and predicted variable, over all processes."""
        here = [x for _, errors, weights in self._sums.values() for x in (*errors.tolist(), *weights.tolist())]
        found, everywhere = {}, iter(processes.total(here))
        for corpus, (keys, _, _) in self._sums.items():
            errors, weights = ([next(everywhere) for _ in keys] for _ in range(2))
            found[corpus] = {k: number(e / w) for k, e, w in zip(keys, errors, weights, strict=True) if w > 0}
        return found


def metrics_line(step: int, done: Step, groups: Sequence[Read]) -> dict[str, Any]:
    """`step` counts the steps done. The loss stands there in full and in hex, so that two runs can be compared to the last bit."""
    return {
        "step": step,
        "loss": number(done.loss),
        "loss_hex": done.loss.hex(),
        "grad_norm": number(done.norm),
        "lr": done.rate,
        "skipped": done.skipped is not None,
        "corpora": [batches[0].corpus for _, batches in groups],
        "tokens": done.tokens,
        "flops": done.flops,
        "seconds": round(done.seconds, 6),
        "data_wait": round(done.data_wait, 6),
    }


def ledger_line(step: int, mixture: Mixture, groups: Sequence[Read]) -> dict[str, Any]:
    """Every window the step has seen. The bytes behind a key are pinned by the corpus's fingerprint in `provenance.json`."""
    return {"step": step, "groups": [_about(mixture, group) for group, _ in groups]}


def _about(mixture: Mixture, group: Group) -> dict[str, Any]:
    corpus, config = mixture.corpora[group.corpus], mixture.config.corpora[group.corpus]
    entries = corpus.entries(config.train)
    items = [[entries[i.entry].key, i.start, i.y, i.x, i.epoch] for i in group.items]
    return {"group": group.index, "corpus": corpus.name, "split": config.train, "items": items}


def incident(step: int, done: Step, median: float, mixture: Mixture, groups: Sequence[Read]) -> dict[str, Any]:
    """What is needed to understand why a step was skipped: the windows, and, of the part this process has seen of them, the loss of each
    variable and statistics of the values given."""
    return {
        "step": step,
        "reason": done.skipped,
        "loss": number(done.loss),
        "grad_norm": number(done.norm),
        "median_grad_norm": number(median),
        "lr": done.rate,
        "loss_by_variable": done.variables(Processes(Place(), None)),
        "groups": [{**_about(mixture, group), "statistics": [_statistics(b) for b in batches]} for group, batches in groups],
    }


def _statistics(batch: Batch) -> dict[str, dict[str, float | None]]:
    found = {}
    for c, variable in enumerate(batch.layout.variables):
        valid = batch.valid[:, :, c]
        values = batch.values[:, :, c][valid].double()
        good = values[torch.isfinite(values)]
        found[variable.key] = {
            "valid_share": float(valid.double().mean()),
            "not_finite": float(values.numel() - good.numel()),
            "min": float(good.min()) if good.numel() else None,
            "max": float(good.max()) if good.numel() else None,
            "mean": number(float(good.mean())),
            "std": number(float(good.std(correction=0))) if good.numel() else None,
        }
    return found
