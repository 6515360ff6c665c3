"""Which axis has stopped paying, and what to scale next.

All is read off a law fitted to the table, at a run of its largest budget, with bootstrap resamples of the fit. The *gain* of an axis is
the relative fall of the loss when that axis alone is doubled (a patch: halved). *Noise* is twice the relative standard deviation of the
loss between seeds; without seed repeats, of the residuals. *Surely* means in 90 % of the resamples. The *reference run* is the one of the
largest budget whose fitted loss is lowest.

repetition   saturated where the law with repetition beats the one without (AICc lower by 2), and surely, doubling the data with
             fresh data gains more than the noise while as many further passes over the data gain less than half of that. This is
             asked at the reference run and at the run of the largest budget with the most passes: on an isoFLOP line the small
             models see the data most often, and passes that no longer pay there are wasted as much as at the best size.
patch        saturated where the reference run has the finest patch of the largest budget, the law with a term of the patch beats
context      the one without (likewise), and surely, halving the patch gains more than the noise and more than the compute which
             that costs would gain if spent on N and D in the best proportion: then the floor belongs to the patch. Where a coarser
             patch of the table is better at equal compute, model and data are what is short. Context likewise, doubled.
model, data  saturated where surely, doubling it gains less than the noise and doubling the other (data: fresh) gains more.
predictability   saturated where surely nothing gains more than the noise: what is left is the floor.

The first three are asked first; of several the one that withholds most is named. The model of the noise is that of the fit: a table whose
law is wrong in another way can be judged wrongly, so residuals and warnings belong beside a verdict.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from scigpt.scaling.fit import Bootstrap, Fit, interval
from scigpt.scaling.frontier import largest_budget
from scigpt.scaling.laws import Repetition
from scigpt.scaling.select import EVIDENCE, flops, varies

Axis = Literal["repetition", "patch", "context", "model", "data", "predictability"]
SURE = 0.9
"""Share of the resamples that must agree."""
HALF = 0.5
"""Passes that gain less than this share of what fresh data gains have stopped paying."""
REFINED: dict[str, tuple[float, float]] = {"patch": (0.5, 4.0), "context": (2.0, 2.0)}
"""What an axis is multiplied by to refine it, and by how much that multiplies the compute of a sample where the table does not say: a map
has four times as many patches of half the side."""
SPLITS = np.linspace(0.0, 1.0, 21)
"""Shares of an extra compute that go to N, the rest to D."""


@dataclass(frozen=True, slots=True)
class Gain:
    """Relative fall of the loss: at the fit `value`, over the resamples `draws` `(R,)`."""

    value: float
    draws: np.ndarray

    def __sub__(self, other: Gain) -> Gain:
        return Gain(self.value - other.value, self.draws - other.draws)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Where a table stands.

    Attributes:
        gains: of each axis, doubled alone at the reference run. `repetition` is further passes over the same data, `data` fresh data.
        withheld: of repetition, what fresh data gains beyond further passes; of patch and context, what refining gains beyond the same
            compute spent on N and D.
        saturated: the axis, or None.
        floor_share: of the loss at the reference run, what neither N nor D (nor patch nor context) removes.
        noise: twice the relative standard deviation.
        at: columns of the reference run.
    """

    gains: dict[str, Gain]
    withheld: dict[str, Gain]
    saturated: Axis | None
    scale_next: str
    sentence: str
    floor_share: Gain
    noise: float
    at: dict[str, float]
    warnings: tuple[str, ...]


def verdict(boot: Bootstrap, s: float, data: str, sigma: float, plainer: float | None, own: float | None) -> Verdict:
    """Judge the table that `boot` was fitted to.

    Args:
        s: exponent of N in the cost of training, `C = k N^s D`.
        data: the column that is D in the law.
        sigma: relative standard deviation of the loss, of seeds or residuals.
        plainer, own: AICc of the best law without the terms of repetition, patch and context, and of this one; None where there is none.
    """
    fit = boot.fit
    runs, law = fit.runs, fit.law
    top = largest_budget(flops(runs))
    order = top[np.argsort(fit.predict(runs.columns)[top], kind="stable")]
    at = _columns(fit, int(order[0]))
    noise = 2 * sigma
    evident = own is not None and plainer is not None and own + EVIDENCE < plainer
    warnings: list[str] = []
    repeated = isinstance(law, Repetition)
    fresh = {data: 2.0, "unique_tokens": 2.0} if repeated else {data: 2.0}
    gains = {"model": gain(boot, at, {"params": 2.0}), "data": gain(boot, at, fresh)}
    withheld: dict[str, Gain] = {}
    found: dict[Axis, tuple[float, str]] = {}
    if repeated:
        gains["repetition"] = gain(boot, at, {data: 2.0})
        withheld["repetition"] = gains["data"] - gains["repetition"]
        passes = runs[data] / runs["unique_tokens"]
        for row in dict.fromkeys((int(order[0]), int(top[np.argmax(passes[top])]))):
            here = _columns(fit, row)
            new, again = gain(boot, here, fresh), gain(boot, here, {data: 2.0})
            stale = (new.draws > noise) & (again.draws < HALF * new.draws)
            if evident and passes[row] > 1 and stale.mean() >= SURE and new.value - again.value > found.get("repetition", (0.0, ""))[0]:
                told = (
                    f"after {passes[row]:.3g} passes over the data, as many again lower the loss by {_percent(again.value)},"
                    f" as much fresh data by {_percent(new.value)}"
                )
                found["repetition"] = new.value - again.value, told
    refined: tuple[Axis, ...] = ("patch", "context")
    for axis in refined:
        if axis not in law.columns:
            continue
        factor, assumed = REFINED[axis]
        measured = dearer(fit, axis, data)
        times = assumed if measured is None else measured
        if measured is None:
            warnings.append(f"the table does not say what a sample costs by {axis}; refining it is taken to cost {assumed:g} times as much")
        gains[axis] = gain(boot, at, {axis: factor})
        else_ = _spent(boot, at, times, s, data)
        withheld[axis] = gains[axis] - else_
        stale = (gains[axis].draws > noise) & (withheld[axis].draws > 0)
        finest = (runs[axis][top].min() if factor < 1 else runs[axis][top].max()) == at[axis]
        if evident and finest and stale.mean() >= SURE:
            finer = "half the patch" if axis == "patch" else "twice the frames"
            told = (
                f"{finer} lowers the loss by {_percent(gains[axis].value)} and costs {times:.2g} times as much,"
                f" which spent on model and data lowers it by {_percent(else_.value)}"
            )
            found[axis] = withheld[axis].value, told
    model, fresh_gain = gains["model"].draws > noise, gains["data"].draws > noise
    if not found:
        others = np.stack([g.draws for g in gains.values()])
        low = f"doubling it lowers the loss by {{}}, less than the noise of {_percent(noise)}"
        if (~model & fresh_gain).mean() >= SURE:
            found["model"] = 0.0, low.format(_percent(gains["model"].value))
        elif (model & ~fresh_gain).mean() >= SURE:
            found["data"] = 0.0, low.format(_percent(gains["data"].value))
        elif (others <= noise).all(0).mean() >= SURE:
            found["predictability"] = 0.0, f"no axis, doubled alone, lowers the loss by more than the noise of {_percent(noise)}"
    by_loss = sorted(found, key=lambda a: found[a][0])
    axis_found = by_loss[-1] if by_loss else None
    floor = Gain(fit.parameters["E"] / float(fit.predict(at)[0]), boot.parameters["E"] / boot.predict(at)[:, 0])
    if axis_found is None:
        sentence = "No axis is surely saturated at the largest budget: " + ", ".join(
            f"{_NAMES[a]} {_percent(g.value)}" for a, g in gains.items()
        )
    else:
        sentence = f"Saturated: {axis_found}; {found[axis_found][1]}"
    return Verdict(gains, withheld, axis_found, _next(axis_found, gains), sentence + ".", floor, noise, at, tuple(warnings))


_NAMES = {
    "model": "twice the model gains",
    "data": "twice the fresh data",
    "repetition": "twice the passes",
    "patch": "half the patch",
    "context": "twice the frames",
}


def gain(boot: Bootstrap, at: Mapping[str, float], factors: Mapping[str, float]) -> Gain:
    """Of multiplying columns at a point."""
    moved = {name: value * factors.get(name, 1.0) for name, value in at.items()}
    value = 1 - boot.fit.predict(moved)[0] / boot.fit.predict(at)[0]
    return Gain(float(value), 1 - boot.predict(moved)[:, 0] / boot.predict(at)[:, 0])


def bounds(gain: Gain, level: float) -> tuple[float, float]:
    low, high = interval(gain.draws, level)
    return float(low), float(high)


def dearer(fit: Fit, axis: str, data: str) -> float | None:
    """By what factor refining the axis multiplies the FLOPs of a sample: least squares of log(C / samples) on log N and the logs of patch
    and context. None where the table has no samples."""
    runs = fit.runs
    if data != "samples":
        return None
    names = ["params"] + [name for name in ("patch", "context") if varies(runs, name)]
    design = np.stack([np.ones(len(runs)), *(np.log(runs[name]) for name in names)], 1)
    slopes = np.linalg.lstsq(design, np.log(flops(runs) / runs["samples"]), rcond=None)[0]
    return max(float(REFINED[axis][0] ** slopes[1 + names.index(axis)]), 1.0)


def _spent(boot: Bootstrap, at: Mapping[str, float], times: float, s: float, data: str) -> Gain:
    """The gain of `times` the compute spent on N and D alone, in the best of `SPLITS`."""
    grown = dict(at) | {"params": at["params"] * times ** (SPLITS / s), data: at[data] * times ** (1 - SPLITS)}
    value = 1 - boot.fit.predict(grown) / boot.fit.predict(at)[0]
    return Gain(float(value.max()), (1 - boot.predict(grown) / boot.predict(at)[:, :1]).max(1))


def _columns(fit: Fit, row: int) -> dict[str, float]:
    return {name: float(fit.runs[name][row]) for name in fit.law.columns}


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"


_REMEDIES: dict[Axis, str] = {
    "repetition": "fresh data; further passes over these are spent compute.",
    "patch": "the patch, a smaller one at the same model and samples.",
    "context": "the context, more frames at the same model and samples.",
    "model": "the data; the model is large enough for what it sees.",
    "data": "the model; it has seen what it can hold.",
    "predictability": "none of these; what is left is the floor of this target and these inputs.",
}


def _next(axis: Axis | None, gains: Mapping[str, Gain]) -> str:
    if axis is not None:
        return f"Scale next: {_REMEDIES[axis]}"
    first = "model" if gains["model"].value >= gains["data"].value else "data"
    return f"Scale next: model and data together, along the optimum; of the two the {first} gains more when doubled alone."
