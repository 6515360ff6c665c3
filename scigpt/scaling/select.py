"""Which law a table supports: information criterion, error on larger budgets than were fitted, residuals, and what the table cannot tell.

AICc (Hurvich and Tsai 1989) needs a likelihood. That of a Huber fit is the density whose negative logarithm is Huber's loss up to a scale
s, `exp(-H(r) / s) / Z(s)` (Huber 1964): normal within delta, exponential tails beyond. s is estimated, so it counts as a parameter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import erf
from scipy.stats import pearsonr

from scigpt.errors import UserError
from scigpt.scaling.cost import Cost
from scigpt.scaling.fit import Bootstrap, Fit, fit
from scigpt.scaling.frontier import budgets
from scigpt.scaling.laws import CHINCHILLA, CONTEXT, PASSES, PATCH, PATCH_CONTEXT, REPETITION, TIED, Law
from scigpt.scaling.runs import Runs

FEW = 15
"""Fewer runs than this cannot tell alpha from beta: tied exponents."""
EVIDENCE = 2.0
"""A law counts as better where its AICc is lower by this much (Burnham and Anderson 2002, section 2.6)."""
SPANS = {"params": 10.0, "tokens": 10.0, "ratio": 10**1.5}
"""A table should span these factors in N, D and D/N; the reference designs that identify the exponents do."""
DECADES = 2.5
"""Of compute."""
WIDE = 3.0
"""An interval whose ends differ by more than this factor leaves the parameter open."""
CONDITION = 1e4
"""Of the Jacobian with columns scaled to length 1: beyond it some parameters only shift the loss together."""
CHANCE = 0.01
"""A correlation of residuals is told where chance gives one as large with less than this probability."""
STEPS = 6
"""Thresholds of compute in the study of held-out error."""


def flops(runs: Runs) -> np.ndarray:
    """FLOPs of each run, 6 N D where the table does not state them."""
    return runs["flops"] if "flops" in runs else Cost().flops(runs["params"], runs["tokens"])


def varies(runs: Runs, name: str) -> bool:
    return name in runs and bool(np.ptp(np.log(runs[name])) > 1e-9)


def epochs(runs: Runs) -> np.ndarray | None:
    """Passes over the unique data, None where the table does not say."""
    return np.maximum(runs["tokens"] / runs["unique_tokens"], 1.0) if "unique_tokens" in runs else None


def candidates(runs: Runs) -> list[Law]:
    """The laws of N and D worth comparing on a table, the plainest first.

    Where patch or context vary, a token is not the same amount of data in every run: D is `samples` where the table has them.
    """
    patch, context = varies(runs, "patch"), varies(runs, "context")
    laws: list[Law] = [TIED] if len(runs.fitted()) < FEW else [TIED, CHINCHILLA]
    if patch and context:
        laws += [PATCH, CONTEXT, PATCH_CONTEXT]
    elif patch or context:
        laws.append(PATCH if patch else CONTEXT)
    elif "unique_tokens" in runs and REPETITION.lacks(runs.fitted().columns) is None:
        laws += [PASSES, REPETITION]
    return [counted(law, runs) for law in laws]


def counted(law: Law, runs: Runs) -> Law:
    """The law with D in samples where patch or context vary and the table has samples."""
    return law.on({"tokens": "samples"}) if "samples" in runs and (varies(runs, "patch") or varies(runs, "context")) else law


def huber_deviance(objective: float, points: int, delta: float) -> float:
    """-2 log likelihood of residuals whose Huber losses sum to `objective`, at the scale that makes it least."""

    def deviance(log_scale: float) -> float:
        s = math.exp(log_scale)
        tails = 2 * s / delta * math.exp(-(delta**2) / (2 * s)) if delta**2 / (2 * s) < 700 else 0.0
        z = math.sqrt(2 * math.pi * s) * float(erf(delta / math.sqrt(2 * s))) + tails
        return 2 * points * math.log(z) + 2 * objective / s

    mean = math.log(max(objective / points, 1e-30))
    return float(minimize_scalar(deviance, bounds=(mean - 3, mean + 3), method="bounded", options={"xatol": 1e-9}).fun)


def aicc(found: Fit) -> float | None:
    """Small-sample information criterion; None where the runs are too few for it."""
    k = found.theta.size + 1
    if found.points - k - 1 <= 0:
        return None
    return huber_deviance(found.objective, found.points, found.delta) + 2 * k + 2 * k * (k + 1) / (found.points - k - 1)


@dataclass(frozen=True, slots=True)
class Ahead:
    """A law fitted to the cheaper runs only: `error` is the RMS of the log ratio of loss to prediction over the `above` dearer ones."""

    fitted_up_to: float
    points: int
    error: float
    above: int


def by_compute(law: Law, runs: Runs, delta: float) -> list[Ahead]:
    """Fits on runs up to x FLOPs, errors on those above, for up to `STEPS` thresholds; the last holds out the largest budget alone.

    Runs of the role hold-out take no part. Empty where the cheaper runs cannot be fitted.
    """
    runs = runs.fitted()
    spent = flops(runs)
    parts = budgets(spent)
    if len(parts) < 2:
        return []
    ends = np.unique(np.linspace(1, len(parts) - 1, min(STEPS, len(parts) - 1)).round().astype(int))
    found = []
    for end in ends:
        below, above = np.concatenate(parts[:end]), np.concatenate(parts[end:])
        if below.size < len(law.parameters) + 2:
            continue
        try:
            fitted = fit(law, runs.select(below), delta)
        except UserError:  # a column that does not vary below x
            continue
        beyond = runs.select(above)
        ratio = np.log(beyond["loss"] / fitted.predict(beyond.columns))
        found.append(Ahead(float(spent[below].max()), below.size, float(np.sqrt(np.mean(ratio**2))), above.size))
    return found


@dataclass(frozen=True, slots=True)
class Candidate:
    """A law tried on a table; `fit` is None where it cannot be fitted, `ahead` its study by compute, and `reason` says why it was or
    was not taken."""

    law: Law
    fit: Fit | None
    aicc: float | None
    ahead: tuple[Ahead, ...]
    reason: str

    @property
    def held_out_error(self) -> float | None:
        """On the largest budget, fitted below it."""
        return self.ahead[-1].error if self.ahead else None


def compare(laws: Sequence[Law], runs: Runs, delta: float) -> list[Candidate]:
    """Fit each law; the reason tells how its AICc and its error on the largest budget compare with the best."""
    tried = [_try(law, runs, delta) for law in laws]
    least = min((t.aicc for t in tried if t.aicc is not None), default=None)
    return [t if t.fit is None else replace(t, reason=_standing(t, least)) for t in tried]


def _try(law: Law, runs: Runs, delta: float) -> Candidate:
    try:
        found = fit(law, runs, delta)
    except UserError as error:
        return Candidate(law, None, None, (), str(error))
    return Candidate(law, found, aicc(found), tuple(by_compute(law, runs, delta)), "")


def _standing(tried: Candidate, least: float | None) -> str:
    if tried.aicc is None or least is None:
        said = "too few runs for AICc"
    elif tried.aicc == least:
        said = "lowest AICc"
    else:
        behind = tried.aicc - least
        said = f"AICc {behind:.1f} above the lowest" + ("" if behind > EVIDENCE else ", which is no evidence against it")
    if tried.held_out_error is not None:
        said += f"; misses the largest budget by {100 * tried.held_out_error:.2g} % when fitted below it"
    return said


def best(tried: Sequence[Candidate]) -> Candidate | None:
    """The plainest law (`tried` has it first) that is within `EVIDENCE` of the lowest AICc; without an AICc, the plainest that was fitted.

    Tied exponents stand for chinchilla only where the runs are too few to tell the two apart, not because they happen to agree: an interval
    of alpha and one of beta say more.
    """
    fitted = [t for t in tried if t.fit is not None and (t.law.name != "tied" or t.fit.points < FEW)]
    scored = [t for t in fitted if t.aicc is not None]
    if not scored:
        return next(iter(fitted), None)
    lowest = min(t.aicc for t in scored if t.aicc is not None)
    return next(t for t in scored if t.aicc is not None and t.aicc <= lowest + EVIDENCE)


def correlations(found: Fit, data: str) -> dict[str, dict[str, float]]:
    """Of the residuals with log N, log D, their (centred) product and log C: Pearson's r and how often chance gives one as large.

    A correlation with the product means that the terms of N and D interact (Farseer, Li et al. 2025): the law is then a local fit.
    """
    n, d = np.log(found.runs["params"]), np.log(found.runs[data])
    shapes = {"log N": n, "log D": d, "log N log D": (n - n.mean()) * (d - d.mean()), "log C": np.log(flops(found.runs))}
    usable = {k: v for k, v in shapes.items() if np.ptp(v) > 1e-9 and np.ptp(found.residuals) > 0 and v.size > 2}
    tests = {name: pearsonr(values, found.residuals) for name, values in usable.items()}
    return {name: {"r": float(t.statistic), "p": float(t.pvalue)} for name, t in tests.items()}


def condition(found: Fit) -> float:
    """Condition number of the Jacobian, its columns scaled to length 1; infinite where a parameter has no effect."""
    jacobian = found.jacobian()
    length = np.linalg.norm(jacobian, axis=0)
    return float(np.linalg.cond(jacobian / length)) if (length > 0).all() else math.inf


def identifiability(found: Fit, boot: Bootstrap, data: str) -> list[str]:
    """What the table leaves open, in sentences."""
    runs, said = found.runs, list(found.warnings)
    said += found.law.unclear(runs.columns)
    spans = {"params": runs["params"], "tokens": runs["tokens"], "ratio": runs["tokens"] / runs["params"]}
    names = {"params": "N", "tokens": "D", "ratio": "D/N"}
    for name, values in spans.items():
        factor = float(values.max() / values.min())
        if factor < SPANS[name]:
            said.append(f"{names[name]} spans a factor of {factor:.2g} only; {SPANS[name]:.2g} are needed to see how the loss bends")
    spent = flops(runs)
    decades = math.log10(spent.max() / spent.min())
    if decades < DECADES:
        said.append(f"compute spans {decades:.1f} decades; exponents are steady from {DECADES} on")
    number = condition(found)
    if number > CONDITION:
        size = "infinite" if math.isinf(number) else f"{number:.1g}"
        said.append(f"the Jacobian's condition number is {size}: some parameters only act together; trust the losses, not the parameters")
    low, high = found.law.bounds
    for name, value, lowest, highest in zip(found.law.parameters, found.theta, low, high, strict=True):
        if value <= lowest or value >= highest:
            said.append(f"{name} is at the bound of what the fit allows: the runs do not hold it")
    for name, (lower, upper) in boot.intervals().items():
        if lower <= 0 < upper:
            said.append(f"the interval of {name} reaches 0")
        elif lower > 0 and upper / lower > WIDE and name not in ("A", "B", "K", "K_T"):
            said.append(f"the interval of {name} spans a factor of {upper / lower:.2g}: the runs leave it open")
    if boot.converged < 0.95:
        said.append(f"{100 * (1 - boot.converged):.0f} % of the resamples did not converge; the intervals are rough")
    for name, test in correlations(found, data).items():
        if test["p"] < CHANCE:
            more = ": the terms of N and D interact" if name == "log N log D" else ""
            said.append(f"the residuals correlate with {name} (r = {test['r']:.2f}){more}; the law bends otherwise than the runs")
    return said
