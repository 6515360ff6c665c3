"""`scigpt sweep predict`: the best division of a budget by the law of a sweep, and a configuration that is ready to train."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scigpt.errors import UserError
from scigpt.launch.output import Json, show
from scigpt.launch.plan import DEVICES, MFU, hardware
from scigpt.launch.sweep.fit import Delta, Form, Resamples, largest
from scigpt.launch.sweep.report import RunsOf

if TYPE_CHECKING:
    from scigpt.launch.sweep.ladder import Shape
    from scigpt.scaling.analysis import Analysis
    from scigpt.train.config import RunConfig

FAR = 10.0
"""A budget so many times the largest one that was fitted is called far."""


def predict(
    runs: RunsOf,
    flops: Annotated[float | None, typer.Option("--flops", help="The budget.")] = None,
    params: Annotated[float | None, typer.Option("--params", help="The size: the budget at which it is the best one.")] = None,
    tokens: Annotated[float | None, typer.Option("--tokens", help="The data: the budget at which it is the best amount.")] = None,
    device_hours: Annotated[float | None, typer.Option("--device-hours", help="The budget, by --peak or --device and --mfu.")] = None,
    peak: Annotated[float | None, typer.Option("--peak", min=0.0, help="TFLOP/s of a device.")] = None,
    device: Annotated[
        str | None, typer.Option("--device", help=f"One of {', '.join(DEVICES)}; without it and --peak, this machine.")
    ] = None,
    mfu: Annotated[float, typer.Option("--mfu", min=0.001, max=1.0, help="Share of the peak that training reaches.")] = MFU,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="CONFIG.yaml", help="Of a sweep: write its base configuration with that size and length."),
    ] = None,
    form: Form = "auto",
    delta: Delta = 1e-3,
    resamples: Resamples = 4000,
    json: Json = False,
) -> None:
    """Say which size and how much data suit a budget, and the loss to expect, with 95 % intervals and how far beyond the sweep that is."""
    from scigpt.launch.sweep.table import FILE
    from scigpt.scaling.analysis import analyse
    from scigpt.scaling.runs import Runs

    given = {"--flops": flops, "--params": params, "--tokens": tokens, "--device-hours": device_hours}
    named = {name: value for name, value in given.items() if value is not None}
    if len(named) != 1:
        raise UserError(f"{' and '.join(named) or 'no budget'} given; give exactly one of {', '.join(given)}")
    for name, value in named.items():
        if not 0 < value < float("inf"):
            raise UserError(f"{name} is {value:g}; expected a number above 0")
    source = runs.parent if runs.name == FILE else runs
    if out is not None:
        _writable(out, source)
    found = Runs.read(source)
    top = largest(found)
    if device_hours is not None:
        flops = 3600 * device_hours * _rate(device, peak, mfu, source)
    elif flops is None:
        flops = budget(analyse(found, form, delta, 1), params, tokens)
    analysis = analyse(found, form, delta, resamples, [flops])
    result = _result(analysis, flops, top)
    if out is not None:
        best = result["params"]["value"], result["tokens"]["value"]
        config, shape = ready(source, out, *best, analysis.report["cost"]["at"])
        out.write_text(config.to_yaml())
        about = {"depth": shape.depth, "width": shape.width, "heads": shape.heads, "params": shape.params}
        result |= {"config": str(out), "model": about, "steps": config.train.steps, "warmup": config.optim.warmup}
    show(result, json, _text)


def budget(analysis: Analysis, params: float | None, tokens: float | None) -> float:
    """FLOPs at which so many parameters, or so many tokens, are the best.

    There `alpha A N^-alpha = s beta B D^-beta` (see `Cost.optimum`), from which either gives the other.

    Raises:
        UserError: a law without an optimum.
    """
    cost, p, first = analysis.cost, analysis.fit.parameters, analysis.report["optimum"][0]
    a, b, alpha = p["A"], p["B"], p["alpha"]
    beta = p.get("beta", alpha)
    if not (a > 0 and b > 0):
        raise UserError(
            f"{analysis.runs.source}: the law has no best division, its term of {'N' if a <= 0 else 'D'} is 0; run other sizes and lengths"
        )
    if tokens is not None:
        data = tokens * first[analysis.report["data"]]["value"] / first["tokens"]["value"]
        return float(cost.flops((alpha * a / (cost.s * beta * b * data**-beta)) ** (1 / alpha), data))
    assert params is not None
    return float(cost.flops(params, (cost.s * beta * b / (alpha * a * params**-alpha)) ** (1 / beta)))


def ready(sweep: Path, out: Path, params: float, tokens: float, at: dict[str, float]) -> tuple[RunConfig, Shape]:
    """The sweep's base with the shape of the ladder nearest to `params`, steps for `tokens`, and the sweep's share of warm-up.

    Args:
        at: patch and context of the sweep's best run, where they were varied.
    """
    from scigpt.data.corpus import Corpus
    from scigpt.data.mixture import BLOCK, Mixture
    from scigpt.launch.sweep.config import load_sweep
    from scigpt.launch.sweep.ladder import Ladder
    from scigpt.launch.sweep.table import CONFIG
    from scigpt.model.backbone import Vocabulary
    from scigpt.train.account import account

    config, base = load_sweep(sweep / CONFIG)
    corpora = [Corpus.open(c.path) for c in base.data.corpora]
    vocabulary = Vocabulary.from_corpora(corpora)
    shape = Ladder(base.model, vocabulary, config.ladder.aspect).nearest(params)
    varied = {name: round(at[key]) for key, name in (("patch", "patch"), ("context", "frames")) if key in at}
    data = replace(base.data, **varied)  # type: ignore[arg-type]
    whole = account(Mixture(corpora, data, base.seed), shape.of(base.model), 16 * BLOCK)
    steps = max(1, round(tokens / (whole.data.tokens / (16 * BLOCK) * base.train.groups)))
    train = replace(base.train, steps=steps, keep_steps=[], branch_from=None)
    decay = base.optim.decay if config.decay is None else config.decay
    optim = replace(base.optim, warmup=round(config.warmup * steps), decay=decay)
    return replace(base, run=str(Path("runs") / out.stem), data=data, model=shape.of(base.model), train=train, optim=optim), shape


def _writable(out: Path, source: Path) -> None:
    from scigpt.launch.sweep.table import CONFIG

    if not (source / CONFIG).is_file():
        raise UserError(
            f"{source}: has no {CONFIG}, so there is no base configuration for {out}; give the folder of a sweep, or leave out --out"
        )
    if out.exists():
        raise UserError(f"{out}: is there already; choose another --out")
    if not out.absolute().parent.is_dir():
        raise UserError(f"{out}: its folder does not exist; make it, or choose another --out")


def _rate(device: str | None, peak: float | None, mfu: float, source: Path) -> float:
    """FLOP/s that training reaches on the device."""
    from scigpt.launch.sweep.config import load_sweep
    from scigpt.launch.sweep.table import CONFIG

    if peak is not None:
        return peak * 1e12 * mfu
    train = load_sweep(source / CONFIG)[1].train if (source / CONFIG).is_file() else None
    return hardware(device, None, None, mfu, train.precision if train else "bf16", train.threads if train else None).peak * mfu


def _result(analysis: Analysis, flops: float, top: float) -> dict[str, Any]:
    report = analysis.to_json()
    best = report["optimum"][0]
    if best["params"]["value"] is None:
        raise UserError(
            f"{report['source']}: the law {report['form']} has no best division of {flops:.3g} FLOPs; run other sizes and lengths"
        )
    ratio = flops / top
    warnings = list(report["warnings"])
    if ratio > FAR:
        warnings.insert(
            0, f"{flops:.3g} FLOPs are {ratio:.3g} times the largest budget that was fitted; what the law does not know grows there"
        )
    told = {"source": report["source"], "form": report["form"], **best, "level": report["level"]}
    return told | {"largest": top, "extrapolation": ratio, "warnings": warnings, "config": None}


def _text(found: dict[str, Any]) -> str:
    from scigpt.launch.sweep.words import amount, interval

    lines = [
        f"{found['flops']:.3g} FLOPs, {found['extrapolation']:.3g} times the largest budget that was fitted, by {found['form']}",
        f"  parameters            {interval(found['params'], amount)}",
        f"  tokens                {interval(found['tokens'], amount)}",
        f"  tokens per parameter  {interval(found['tokens_per_param'])}",
        f"  loss                  {interval(found['loss'])}",
    ]
    if found["config"]:
        model = found["model"]
        shape = f"depth {model['depth']}, width {model['width']}, {amount(model['params'])} parameters, {found['steps']:,} steps"
        lines.append(f"{found['config']}: {shape}; check it with `scigpt plan {found['config']}`")
    return "\n".join([*lines, *(f"warning: {w}" for w in found["warnings"])])
