"""What pretraining is worth in examples of the task: effective data, the transfer gap, and where pretraining stops helping.

Two curves of the loss against the number of examples f, `E + K f^-gamma` each: of models trained from scratch and of fine-tuned ones.
The effective data of a fine-tuned model is the number of examples with which training from scratch reaches its loss (Hernandez et al. 2021,
arXiv 2102.01293, section 2). Where fine-tuning was done from several amounts of pretraining data p, `L = (A p^-alpha + G) f^-beta + E` is
fitted to it: G, the transfer gap, is what no amount of pretraining data closes.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scigpt.errors import UserError
from scigpt.scaling.fit import DELTA, LEVEL, RESAMPLES, Bootstrap, Fit, bootstrap, fit
from scigpt.scaling.laws import FRONTIER, TRANSFER
from scigpt.scaling.runs import Runs

SCRATCH, FINETUNED = "scratch", "finetuned"
CURVE = FRONTIER.on({"flops": "examples"})
REACH = 1e3
"""The crossing is looked for up to so many times the largest number of examples."""
POINTS = 400
UNBOUNDED = 1e12
"""So many examples are more than there are."""


@dataclass(frozen=True, slots=True)
class Table:
    """Runs on one task: trained from scratch, and fine-tuned. Columns `examples`, `loss`; `pretraining` where fine-tuned runs have it."""

    scratch: Runs
    finetuned: Runs

    @classmethod
    def read(cls, path: Path) -> Table:
        """A CSV file with columns kind (scratch or finetuned), examples, loss, and optionally pretraining (data of pretraining, of
        fine-tuned runs) and group (runs of one group are not independent).

        Raises:
            UserError: a column that is missing, an unknown kind, a number that is not positive.
        """
        import pandas as pd

        try:
            frame = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True)
        except (ValueError, OSError) as error:
            raise UserError(f"{path} cannot be read as csv: {str(error).splitlines()[0]}") from None
        for name in ("kind", "examples", "loss"):
            if name not in frame.columns:
                near = difflib.get_close_matches(name, list(frame.columns), 1, 0.5)
                hint = f"rename {near[0]!r} if that is it" if near else f"it has {', '.join(frame.columns)}"
                raise UserError(f"{path} has no column {name!r}; {hint}; kind, examples and loss are needed")
        unknown = frame.loc[~frame["kind"].isin([SCRATCH, FINETUNED]), "kind"]
        if len(unknown):
            raise UserError(
                f"{path}: the kind {unknown.iloc[0]!r} in row {unknown.index[0] + 1} is unknown; expected {SCRATCH} or {FINETUNED}"
            )
        parts = []
        for kind in (SCRATCH, FINETUNED):
            part = frame[frame["kind"] == kind]
            names = ["examples", "loss"] + (["pretraining"] if kind == FINETUNED and "pretraining" in frame.columns else [])
            numbers: dict[str, Any] = {name: pd.to_numeric(part[name], errors="coerce").to_numpy(np.float64) for name in names}
            group = part["group"].tolist() if "group" in frame.columns else None
            ids = [str(i + 1) for i in part.index]
            parts.append(Runs.of(numbers.pop("loss"), group=group, id=ids, source=f"{path} ({kind})", **numbers))
        return cls(*parts)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its interval; infinite where no amount suffices, NaN where it is not defined."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, draws: np.ndarray, level: float) -> Estimate:
        """From bootstrap draws, infinite ones too."""
        known = draws[~np.isnan(draws)]
        tail = (1 - level) / 2
        ends = np.quantile(known, (tail, 1 - tail), method="inverted_cdf") if known.size else (np.nan, np.nan)
        return cls(float(value), float(ends[0]), float(ends[1]))

    def to_json(self) -> dict[str, float | None]:
        return {n: v if np.isfinite(v) else None for n, v in (("value", self.value), ("low", self.low), ("high", self.high))}


@dataclass(frozen=True, slots=True)
class Effective:
    """At `examples` of the task: how many would be needed from scratch, and over `examples` how many times as many. `extrapolated`: more
    than any run from scratch has seen."""

    examples: float
    data: Estimate
    multiplier: Estimate
    extrapolated: bool


@dataclass(frozen=True, slots=True)
class Transfer:
    """What pretraining is worth on one task.

    Attributes:
        scratch, finetuned: the two curves.
        effective: at each number of examples that was fine-tuned on.
        crossing: examples beyond which training from scratch is as good; infinite where the curves do not cross within `REACH` times the
            largest number of examples; the smallest number where pretraining helps nowhere.
        gap: the transfer gap G, in units of loss times examples^beta; None without several amounts of pretraining data.
        level: of the intervals.
    """

    scratch: Fit
    finetuned: Fit
    effective: tuple[Effective, ...]
    crossing: Estimate
    gap: Estimate | None
    level: float

    @property
    def sentence(self) -> str:
        """For the reader."""
        last = self.effective[-1]
        worth = last.multiplier
        if worth.value * last.examples > UNBOUNDED:
            told = f"no number of examples from scratch reaches what fine-tuning reaches with {last.examples:,.4g}"
        else:
            bound = f"{worth.high:.3g}" if worth.high * last.examples < UNBOUNDED else "without bound"
            span = f"{worth.low:.3g} to {bound}"
            told = f"{last.examples:,.4g} examples are worth {worth.value:.3g} times as many from scratch ({span})"
            told += ", beyond what was trained from scratch" if last.extrapolated else ""
        if np.isinf(self.crossing.value):
            return f"{told}; pretraining helps at every number of examples within reach"
        return f"{told}; from {self.crossing.value:,.3g} examples on pretraining does not help"

    def to_json(self) -> dict[str, Any]:
        """Numbers, None for what is infinite or undefined."""
        effective = [
            {"examples": e.examples, "data": e.data.to_json(), "multiplier": e.multiplier.to_json(), "extrapolated": e.extrapolated}
            for e in self.effective
        ]
        return {
            "scratch": self.scratch.parameters,
            "finetuned": self.finetuned.parameters,
            "effective": effective,
            "crossing": self.crossing.to_json(),
            "gap": None if self.gap is None else self.gap.to_json(),
            "level": self.level,
            "sentence": self.sentence,
        }


def transfer(table: Table, delta: float = DELTA, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0) -> Transfer:
    """Fit both curves and compare them; the runs of each are resampled on their own.

    Where fine-tuning was done from several amounts of pretraining data, its curve is that of the largest amount.

    Raises:
        UserError: too few runs of a kind (a curve needs 4, the transfer gap 6).
    """
    tuned, gap = table.finetuned, None
    if "pretraining" in tuned and np.ptp(np.log(tuned["pretraining"])) > 1e-9:
        whole = fit(TRANSFER, tuned, delta)
        gap = Estimate.of(whole.parameters["G"], bootstrap(whole, resamples, seed + 2).parameters["G"], level)
        tuned = tuned.select(tuned["pretraining"] == tuned["pretraining"].max())
    scratch, finetuned = fit(CURVE, table.scratch, delta), fit(CURVE, tuned, delta)
    from_scratch, from_tuned = bootstrap(scratch, resamples, seed), bootstrap(finetuned, resamples, seed + 1)
    examples, most = np.unique(tuned["examples"]), float(table.scratch["examples"].max())
    needed = _inverse(scratch.parameters, finetuned.predict({"examples": examples}))
    draws = _inverse(from_scratch.parameters, from_tuned.predict({"examples": examples}))
    effective = tuple(
        Effective(
            float(f),
            Estimate.of(needed[i], draws[:, i], level),
            Estimate.of(needed[i] / f, draws[:, i] / f, level),
            bool(needed[i] > most),
        )
        for i, f in enumerate(examples)
    )
    return Transfer(scratch, finetuned, effective, _crossing(from_scratch, from_tuned, level), gap, level)


def _inverse(parameters: Any, loss: np.ndarray) -> np.ndarray:
    """Examples with which `E + K f^-gamma` reaches the loss `(..., m)`; infinite at the floor or below it."""
    floor, scale, gamma = (np.asarray(parameters[name])[..., None] for name in ("E", "K", "gamma"))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(loss > floor, (scale / (loss - floor)) ** (1 / gamma), np.inf)


def _crossing(scratch: Bootstrap, finetuned: Bootstrap, level: float) -> Estimate:
    seen = np.concatenate([scratch.fit.runs["examples"], finetuned.fit.runs["examples"]])
    log_f = np.linspace(np.log(seen.min()), np.log(seen.max() * REACH), POINTS)
    grid = {"examples": np.exp(log_f)}
    value = _first_crossing(np.log(finetuned.fit.predict(grid) / scratch.fit.predict(grid))[None], log_f)[0]
    return Estimate.of(value, _first_crossing(np.log(finetuned.predict(grid) / scratch.predict(grid)), log_f), level)


def _first_crossing(advantage: np.ndarray, log_f: np.ndarray) -> np.ndarray:
    """Where `advantage` `(R, m)`, negative while fine-tuning is better, first reaches 0; infinite where it does not."""
    worse = advantage >= 0
    last = worse.argmax(1)
    first = np.maximum(last - 1, 0)
    row = np.arange(len(advantage))
    before, after = advantage[row, first], advantage[row, last]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(last > first, -before / (after - before), 0.0)
    return np.where(worse.any(1), np.exp(log_f[first] + share * (log_f[last] - log_f[first])), np.inf)
