"""Everything a table of runs can tell, as one JSON object: the fit with intervals, optima, minima, frontier, laws compared, held-out
errors, residuals, saturation, sensitivity. Nothing is drawn here.

Unknown is null, and a reason or a warning beside it says why. An interval is `{"value", "low", "high"}`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from scigpt.data.keyed import generator
from scigpt.errors import UserError
from scigpt.scaling.cost import Cost
from scigpt.scaling.fit import DELTA, LEVEL, Bootstrap, Fit, bootstrap, fit, interval
from scigpt.scaling.frontier import (
    Line,
    akima_minimum,
    budgets,
    envelope,
    fit_frontier,
    lines,
    parabola_minimum,
    power,
)
from scigpt.scaling.laws import LAWS, Law
from scigpt.scaling.runs import Runs
from scigpt.scaling.saturation import Gain, bounds, verdict
from scigpt.scaling.select import (
    EVIDENCE,
    Ahead,
    Candidate,
    best,
    candidates,
    compare,
    condition,
    correlations,
    counted,
    epochs,
    flops,
    identifiability,
    varies,
)

RESAMPLES = 1000
AHEAD = (1.0, 3.0, 10.0, 30.0)
"""Budgets of the optima where none are asked for, in units of the largest of the table."""
DELTAS = (1e-4, 1e-3, 1e-2, 1e-1)
"""Of the sensitivity."""
PLAIN = ("tied", "chinchilla")
FORMS: dict[str, Law] = {law.name: law for law in LAWS.values() if "params" in law.columns}
"""Laws of N and D: what `analyse` fits."""

JSON = dict[str, Any]
Minimum = tuple[float, float, np.ndarray]
"""FLOPs of a line, its lowest loss, resamples of that."""


@dataclass(frozen=True, slots=True)
class Analysis:
    """Of `runs` by the law `fit.law`; `report` holds what `to_json` gives."""

    runs: Runs
    fit: Fit
    bootstrap: Bootstrap
    cost: Cost
    report: JSON

    def to_json(self) -> JSON:
        """Floats or null, never NaN."""
        return _clean(self.report)


def analyse(
    runs: Runs,
    form: str = "auto",
    delta: float = DELTA,
    resamples: int = RESAMPLES,
    budgets: Sequence[float] | None = None,
    seed: int = 0,
    other: Runs | None = None,
) -> Analysis:
    """Fit a table and judge it.

    Args:
        form: one of `FORMS`, or `auto`: the plainest law whose AICc nothing beats clearly, among `select.candidates`.
        budgets: FLOPs whose optimum is asked for; without them, `AHEAD` of the largest budget.
        other: the same table with N counted otherwise (backbone instead of total), for the sensitivity.

    Raises:
        UserError: an unknown form; budgets that are not positive; a table that the law cannot be fitted to.
    """
    tried = compare(candidates(runs), runs, delta)
    law = _law(form, runs, tried)
    same = next((t for t in tried if t.law.name == law.name), None)
    if same is None:
        same = compare([law], runs, delta)[0]
        tried.append(replace(same, reason="asked for"))
    if same.fit is None:
        raise UserError(same.reason)
    found = same.fit
    boot = bootstrap(found, resamples, seed)
    data = "samples" if "samples" in law.columns else "tokens"
    fitted = found.runs
    spent = flops(fitted)
    seeds = runs.seed_sigma()
    sigma = found.sigma if seeds is None else seeds
    cost, per_sample, fixed = _cost(fitted, law, data)
    if budgets is not None and (not len(budgets) or any(not 0 < b < math.inf for b in budgets)):
        raise UserError(f"budgets are {list(budgets)}; expected FLOPs above 0, as 1e21")
    asked = [float(spent.max()) * a for a in AHEAD] if budgets is None else [float(b) for b in budgets]
    plain = [t.aicc for t in tried if t.law.name in PLAIN and t.aicc is not None]
    if law.name in PLAIN:
        plain = []
    judged = verdict(boot, cost.s, data, sigma, min(plain) if plain else None, same.aicc)
    found_lines = _lines(found)
    isoflop, minima = _isoflop(found, found_lines, resamples, seed)
    warnings = identifiability(found, boot, data) + list(judged.warnings) + _said(fitted, found_lines, cost, data, seeds)
    report = {
        "source": runs.source,
        "form": law.name,
        "delta": delta,
        "objective": found.objective,
        "reduction": "sum",
        "points": found.points,
        "dropped": [dict(d) for d in runs.dropped],
        "held_out_points": len(runs.held_out()),
        "count": runs.count,
        "data": data,
        "parameters": {name: _span(value, boot.parameters[name]) for name, value in found.parameters.items()},
        "level": LEVEL,
        "resamples": resamples,
        "clusters": boot.clusters,
        "sigma": {"seed": seeds, "residual": found.sigma},
        "cost": {"k": cost.k, "s": cost.s, "worst": cost.worst, "at": fixed},
        "optimum": [_optimum(boot, cost, data, per_sample, fixed, c) for c in asked],
        "exponents": {
            name: _span(float(value), draws)
            for (name, value), draws in zip(cost.exponents(found.parameters).items(), cost.exponents(boot.parameters).values(), strict=True)
        },
        "isoflop": isoflop,
        "envelope": _envelope(fitted),
        "frontier": _frontier(minima),
        "models": [_model(t, law) for t in tried],
        "held_out": _held_out(boot, runs.held_out(), max(sigma, found.sigma), seed),
        "held_out_by_compute": [_ahead(a) for a in same.ahead],
        "residuals": _residuals(found),
        "diagnostics": {"correlations": correlations(found, data), "condition": condition(found), "converged": boot.converged},
        "warnings": list(dict.fromkeys(warnings)),
        "saturation": {
            "axes": {
                name: {"doubling": _gain(g), "withheld": _gain(judged.withheld[name]) if name in judged.withheld else None}
                for name, g in judged.gains.items()
            },
            "saturated": judged.saturated,
            "scale_next": judged.scale_next,
            "floor_share": _gain(judged.floor_share),
            "noise": judged.noise,
            "at": judged.at,
            "sentence": judged.sentence,
        },
        "sensitivity": _sensitivity(runs, other, law, delta, float(spent.max())),
    }
    return Analysis(runs, found, boot, cost, report)


def _law(form: str, runs: Runs, tried: Sequence[Candidate]) -> Law:
    if form == "auto":
        chosen = best(tried)
        if chosen is None:
            raise UserError(tried[0].reason if tried else f"{runs.source} has no usable run")
        return chosen.law
    if form not in FORMS:
        raise UserError(f"the form {form!r} is unknown; expected auto or one of {', '.join(FORMS)}")
    return counted(FORMS[form], runs)


def _cost(runs: Runs, law: Law, data: str) -> tuple[Cost, float, dict[str, float]]:
    """The cost `C = k N^s D`, tokens per unit of D, and the patch and context at which both hold: those of the run of lowest loss."""
    lowest = int(runs["loss"].argmin())
    fixed: dict[str, float] = {name: float(runs[name][lowest]) for name in ("patch", "context") if name in law.columns}
    same = np.ones(len(runs), bool)
    for name, value in fixed.items():
        same &= np.abs(np.log(runs[name] / value)) < 1e-9
    part = runs.select(same)
    if data == "tokens":
        return Cost.of(part), 1.0, fixed
    columns = dict(part.columns) | {"flops": flops(part), "tokens": part[data]}
    return Cost.of(replace(part, columns=columns)), float(np.exp(np.mean(np.log(part["tokens"] / part[data])))), fixed


def _point(law: Law, data: str, params: Any, amount: Any, fixed: Mapping[str, float]) -> dict[str, Any]:
    """Columns of fresh data."""
    values = {"params": params, data: amount, "unique_tokens": amount, **fixed}
    return {name: values[name] for name in law.columns}


def _optimum(boot: Bootstrap, cost: Cost, data: str, per_sample: float, fixed: Mapping[str, float], budget: float) -> JSON:
    """N*, D* and L* with fresh data, at the patch and context of the best run."""
    law, found = boot.fit.law, boot.fit
    point = cost.optimum(found.parameters, budget)
    draws = cost.optimum(boot.parameters, budget)
    loss = np.nan if not np.isfinite(point.params) else float(found.predict(_point(law, data, point.params, point.tokens, fixed))[0])
    usable = np.isfinite(draws.params) & (draws.params > 0)
    losses = np.full(usable.shape, np.nan)
    if usable.any():
        part = Bootstrap(found, boot.theta[usable], boot.clusters, boot.converged)
        losses[usable] = _each(part, _point(law, data, draws.params[usable], draws.tokens[usable], fixed))
    tokens, token_draws = point.tokens * per_sample, draws.tokens * per_sample
    result = {
        "flops": budget,
        "params": _span(float(point.params), draws.params),
        "tokens": _span(float(tokens), token_draws),
        "tokens_per_param": _span(float(tokens / point.params), token_draws / draws.params),
        "loss": _span(loss, losses),
    }
    return result | ({"samples": _span(float(point.tokens), draws.tokens)} if data == "samples" else {})


def _each(boot: Bootstrap, columns: Mapping[str, Any]) -> np.ndarray:
    """The loss of resample r at `columns[name][r]`: `(R,)`."""
    parts = []
    wide = {name: np.broadcast_to(value, boot.theta.shape[:1]) for name, value in columns.items()}
    for first in range(0, boot.theta.shape[0], 64):  # the diagonal of small blocks: a prediction is of all resamples at all points
        part = slice(first, first + 64)
        block = Bootstrap(boot.fit, boot.theta[part], boot.clusters, boot.converged)
        parts.append(np.diagonal(block.predict({name: values[part] for name, values in wide.items()})))
    return np.concatenate(parts)


def _lines(found: Fit) -> list[Line]:
    runs = found.runs
    cells = [runs[name] for name in ("patch", "context") if varies(runs, name)]
    return lines(runs["params"], runs["tokens"], runs["loss"], flops(runs), cells)


def _isoflop(found: Fit, found_lines: Sequence[Line], resamples: int, seed: int) -> tuple[list[JSON], list[Minimum]]:
    """Each line with its minimum, and of the bracketed ones budget, lowest loss and its resamples.

    The interval is that of the basic bootstrap: residuals of the law are drawn anew onto the law, the minimum is taken as it was of the
    runs, and its distance from the law's own is what the minimum of the runs may be wrong by.
    """
    runs = found.runs
    log_loss = np.log(runs["loss"])
    smooth = log_loss - found.residuals
    inflated = found.residuals - found.residuals.mean()
    inflated = inflated * math.sqrt(found.points / max(found.points - found.theta.size, 1))
    draws = generator(seed, "scaling", "isoflop").integers(0, found.points, (resamples, found.points))
    drawn = smooth + inflated[draws]
    report, minima = [], []
    for each in found_lines:
        x, y = np.log(each.params), each.mean(log_loss)
        first = int(each.rows[0][0])
        cell = {name: float(runs[name][first]) for name in ("patch", "context") if varies(runs, name)}
        entry: JSON = {"flops": each.flops, **cell, "points": [[float(n), float(v)] for n, v in zip(each.params, np.exp(y), strict=True)]}
        entry |= {"minimum": None, "parabola": None, "reason": each.reason}
        around = parabola_minimum(x, y)
        if each.reason is None:
            place, height = (float(v[0]) for v in akima_minimum(x, y[None]))
            own_place, own_height = (float(v[0]) for v in akima_minimum(x, each.mean(smooth)[None]))
            places, heights = akima_minimum(x, each.mean(drawn))
            places, heights = place - (places - own_place), height - (heights - own_height)
            entry["minimum"] = {
                "params": _span(math.exp(place), np.exp(places)),
                "tokens": _span(math.exp(float(each.tokens(np.array(place)))), np.exp(each.tokens(places))),
                "loss": _span(math.exp(height), np.exp(heights)),
            }
            minima.append((each.flops, math.exp(height), np.exp(heights)))
            if around is not None:
                entry["parabola"] = {"params": math.exp(around[0]), "loss": math.exp(around[1])}
        report.append(entry)
    return report, _lowest(minima)


def _lowest(minima: Sequence[Minimum]) -> list[Minimum]:
    """Of the lines of one budget (several patches), the lowest."""
    if not minima:
        return []
    spent = np.array([m[0] for m in minima])
    return [min((minima[i] for i in part), key=lambda m: m[1]) for part in budgets(spent)]


def _envelope(runs: Runs) -> JSON | None:
    """Approach 1, of the runs at the patch and context of the best run."""
    lowest = int(runs["loss"].argmin())
    same = np.ones(len(runs), bool)
    for name in ("patch", "context"):
        if varies(runs, name):
            same &= np.abs(np.log(runs[name] / runs[name][lowest])) < 1e-9
    part = runs.select(same)
    at, params, loss = envelope(part["params"], flops(part), part["loss"])
    if np.unique(params).size < 2:
        return None
    slope, _ = power(np.log(at), np.log(params))
    return {"a": float(slope), "points": [[float(c), float(n), float(v)] for c, n, v in zip(at, params, loss, strict=True)]}


def _frontier(minima: Sequence[Minimum]) -> JSON:
    """L*(C) of the isoFLOP minima with and without a floor."""
    if len(minima) < 3:
        said = f"{len(minima)} budgets have a bracketed minimum; a frontier needs 3 or more"
        return {"floor": None, "power": None, "preferred": "undecided", "points": [], "sentence": said}
    at = np.array([m[0] for m in minima])
    loss = np.array([m[1] for m in minima])
    draws = np.stack([m[2] for m in minima], 1)
    result: JSON = {"points": [[float(c), float(v)] for c, v in zip(at, loss, strict=True)]}
    for name, floor in (("floor", True), ("power", False)):
        one, many = fit_frontier(at, loss[None], floor), fit_frontier(at, draws, floor)
        values: JSON = {"gamma": _span(float(one.gamma[0]), many.gamma)}
        k, ks = one.coefficient * one.reference**one.gamma, many.coefficient * many.reference**many.gamma
        values["K"] = _span(float(k[0]), ks)
        if floor:
            values["E"] = _span(float(one.floor[0]), many.floor)
        count = 4 if floor else 3
        room = at.size - count - 1
        squares = max(float(one.squares[0]), 1e-30)
        fitted = at.size * (math.log(2 * math.pi * squares / at.size) + 1)
        values["aicc"] = fitted + 2 * count + 2 * count * (count + 1) / room if room > 0 else None
        values["held_out"] = None
        if at.size > count - 1:
            before = fit_frontier(at[:-1], loss[None, :-1], floor)
            values["held_out"] = abs(float(np.log(loss[-1] / before.loss(at[-1])[0])))
        result[name] = values
    result["preferred"], result["sentence"] = _floor_or_none(result["floor"], result["power"])
    return result


def _floor_or_none(floor: JSON, power: JSON) -> tuple[str, str]:
    """A floor where AICc and the error on the largest budget agree on it, likewise none. Without AICc the interval of E speaks."""
    ahead = None if floor["held_out"] is None or power["held_out"] is None else floor["held_out"] < power["held_out"]
    if floor["aicc"] is not None and power["aicc"] is not None:
        behind = power["aicc"] - floor["aicc"]
        said = f"AICc {'favours' if behind > 0 else 'disfavours'} a floor by {abs(behind):.1f}"
        clear = abs(behind) > EVIDENCE
        favoured = behind > 0
    else:
        low, high = floor["E"]["low"], floor["E"]["high"]
        said = f"too few budgets for AICc; the interval of E is {low:.3g} to {high:.3g}"
        clear, favoured = low > 0, True
    if ahead is not None:
        with_, without = 100 * floor["held_out"], 100 * power["held_out"]
        said += f"; fitted below the largest budget, the law with a floor misses it by {with_:.2g} %, without by {without:.2g} %"
    if not clear or (ahead is not None and ahead != favoured):
        return "undecided", f"With or without a floor is undecided: {said}."
    return ("floor", f"The frontier has a floor: {said}.") if favoured else ("power", f"The frontier shows no floor: {said}.")


def _model(tried: Candidate, law: Law) -> JSON:
    return {
        "form": tried.law.name,
        "parameters": len(tried.law.parameters),
        "objective": None if tried.fit is None else tried.fit.objective,
        "aicc": tried.aicc,
        "held_out_error": tried.held_out_error,
        "preferred": tried.law.name == law.name,
        "reason": tried.reason,
    }


def _held_out(boot: Bootstrap, runs: Runs, sigma: float, seed: int) -> list[JSON]:
    """Prediction intervals: the fit's uncertainty, and the scatter of single runs about the law (no less than that of seeds)."""
    if not len(runs):
        return []
    law = boot.fit.law
    lacking = next((name for name in law.columns if name not in runs), None)
    assert lacking is None, lacking
    noise = generator(seed, "scaling", "held-out").standard_normal((boot.theta.shape[0], len(runs)))
    point, draws = boot.fit.predict(runs.columns), boot.predict(runs.columns) * np.exp(sigma * noise)
    report = []
    for i in range(len(runs)):
        span = _span(float(point[i]), draws[:, i])
        loss = float(runs["loss"][i])
        inside = span["low"] is not None and span["low"] <= loss <= span["high"]
        row = {"id": runs.ids[i], "params": float(runs["params"][i]), "tokens": float(runs["tokens"][i]), "flops": float(flops(runs)[i])}
        report.append(row | {"loss": loss, "predicted": span, "inside": bool(inside)})
    return report


def _ahead(a: Ahead) -> JSON:
    return {"fitted_up_to": a.fitted_up_to, "points": a.points, "error": a.error, "above": a.above}


def _residuals(found: Fit) -> list[JSON]:
    runs, passes, spent = found.runs, epochs(found.runs), flops(found.runs)
    return [
        {
            "id": runs.ids[i],
            "params": float(runs["params"][i]),
            "tokens": float(runs["tokens"][i]),
            "flops": float(spent[i]),
            "epochs": None if passes is None else float(passes[i]),
            "role": runs.roles[i],
            "group": int(runs.clusters[i]),
            "residual": float(found.residuals[i]),
        }
        for i in range(len(runs))
    ]


def _sensitivity(runs: Runs, other: Runs | None, law: Law, delta: float, budget: float) -> list[JSON]:
    """The same law under other choices: delta, each budget left out (lines of three runs or more), what N counts."""
    fitted = runs.fitted()
    choices: list[tuple[str, Runs, float]] = [(f"delta {d:g}", runs, d) for d in DELTAS]
    for part in budgets(flops(fitted)):
        if part.size >= 3:
            kept = np.setdiff1d(np.arange(len(fitted)), part)
            choices.append((f"without the budget of {np.exp(np.log(flops(fitted)[part]).mean()):.3g} FLOPs", fitted.select(kept), delta))
    if other is not None:
        choices += [(f"N counts {runs.count or 'as given'}", runs, delta), (f"N counts {other.count or 'otherwise'}", other, delta)]
    report = []
    for said, table, threshold in choices:
        entry: JSON = {"choice": said, "parameters": None, "N*": None, "L*": None}
        try:
            again = fit(law, table, threshold)
        except UserError as error:
            report.append(entry | {"reason": str(error)})
            continue
        data = "samples" if "samples" in law.columns else "tokens"
        cost, _, fixed = _cost(again.runs, law, data)
        point = cost.optimum(again.parameters, budget)
        entry["parameters"] = again.parameters
        if np.isfinite(point.params):
            entry["N*"] = float(point.params)
            entry["L*"] = float(again.predict(_point(law, data, point.params, point.tokens, fixed))[0])
        report.append(entry)
    return report


def _said(runs: Runs, found_lines: Sequence[Line], cost: Cost, data: str, seeds: float | None) -> list[str]:
    said = []
    if seeds is None:
        said.append("no run was repeated with another seed: the noise is taken from the residuals, which also hold what the law misses")
    if "flops" not in runs:
        said.append("the table has no column flops: compute is 6 N D, which leaves out attention, tokenizer and heads")
    if cost.worst > 0.05:
        said.append(f"C = k N^s D misses the stated FLOPs by up to {100 * cost.worst:.2g} %; optima carry that error")
    if data == "tokens" and (varies(runs, "patch") or varies(runs, "context")):
        said.append("patch or context vary and there is no column samples: D is in tokens, which hold different amounts of data")
    bracketed = sum(f.reason is None for f in found_lines)
    if found_lines and bracketed < len(found_lines):
        said.append(f"{len(found_lines) - bracketed} of {len(found_lines)} isoFLOP lines do not bracket a minimum")
    return said


def _span(value: float, draws: np.ndarray) -> JSON:
    usable = draws[np.isfinite(draws)]
    if usable.size < draws.size / 2:
        return {"value": value, "low": None, "high": None}
    low, high = interval(usable)
    return {"value": value, "low": float(low), "high": float(high)}


def _gain(gain: Gain) -> JSON:
    low, high = bounds(gain, LEVEL)
    return {"value": gain.value, "low": low, "high": high}


def _clean(value: Any) -> Any:
    """NaN and infinities to null."""
    if isinstance(value, dict):
        return {k: _clean(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(v) for v in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value
