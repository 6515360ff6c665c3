"""CPU seconds to equal held-out VRMSE: SciGPT beside Fourier neural operators on simulated families.

Each budget of seconds is a whole training with its own schedule of the learning rate, so that a point of a curve is what that many seconds
give, and not the middle of a longer training. SciGPT is trained by `scigpt.train.engine`, the operators by `scigpt.evaluate.fno`: windows
of the same corpus in the same order, where their number in a step is the same, and the same normalisation. One operator has the FLOPs of
SciGPT for a window, one has a million parameters, one is small and quick. One-step VRMSE on the test split is that of `scigpt evaluate`.
Nothing is tuned for a family, unless several learning rates or numbers of windows are given: all are then trained for every budget, the
best by the score on the test split counts, and the seconds are those of its training alone. Imports, and finding the width that gives an
operator its size, are not timed.
"""

from __future__ import annotations

import math
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from compare import Device, Threads, markdown, prepare, run, seconds

from scigpt.data.corpus import Corpus
from scigpt.data.loader import scales_of
from scigpt.data.mixture import CorpusConfig, DataConfig, Window
from scigpt.data.patching import Extent, choose_patch, token_count
from scigpt.errors import UserError
from scigpt.evaluate import fno
from scigpt.evaluate.evaluate import TrainedRun
from scigpt.evaluate.plan import Options, Subject, plan
from scigpt.evaluate.rollout import Model
from scigpt.evaluate.study import MODEL, study
from scigpt.launch.output import Json, show
from scigpt.model.backbone import ModelConfig
from scigpt.model.sizes import forward_flops
from scigpt.train.config import RunConfig, TrainConfig
from scigpt.train.engine import train
from scigpt.train.optim import OptimConfig
from scigpt.train.report import ReportConfig

OURS, EQUAL, SMALL = "SciGPT", "FNO of equal FLOPs", "FNO of 1M parameters"
PILOT = 8
"""Steps that are timed to know how many a budget holds."""
FRAMES = 8


@dataclass(frozen=True)
class Quick:
    """The further operator: wavenumbers kept along each axis (half of them negative) and channels."""

    modes: int = 16
    width: int = 16

    def __str__(self) -> str:
        return f"FNO of {self.modes} modes, width {self.width}"


@dataclass(frozen=True)
class Tries:
    """Learning rates and windows in a step; each pair of them is a training, and the best one counts."""

    rates: Sequence[float]
    windows: Sequence[int]


@dataclass(frozen=True)
class Setting:
    """What all contenders share on one family."""

    corpus: Corpus
    model: ModelConfig
    threads: int
    device: str

    @property
    def own(self) -> CorpusConfig:
        return CorpusConfig(str(self.corpus.path))

    @property
    def patch(self) -> Extent:
        return choose_patch(self.corpus.layout.grid, DataConfig.patch, self.corpus.layout.geometry)

    @property
    def shown(self) -> int:
        """Frames of a window that are followed by one to predict."""
        return Window.of(self.corpus, self.own, FRAMES).frames - 1

    @property
    def coefficients(self) -> int:
        return len(self.corpus.stats.to_json()["coefficients"])

    @property
    def flops(self) -> float:
        """Of SciGPT to predict one frame."""
        depth, width, _ = self.model.resolved()
        parts = forward_flops(self.corpus.layout, self.patch, 1, self.shown + 1, width, depth, self.model.window_tokens)
        return sum(parts.values()) / self.shown

    def data(self, windows: int) -> DataConfig:
        return DataConfig([self.own], frames=FRAMES, tokens=windows * self.shown * token_count(self.corpus.layout.grid, self.patch))

    def ours(self, folder: Path, steps: int, seed: int, rate: float, windows: int) -> Model:
        """SciGPT after so many steps."""
        config = RunConfig(
            run=str(folder / "run"),
            data=self.data(windows),
            seed=seed,
            model=self.model,
            train=TrainConfig(
                steps=steps, groups=1, validate_every=steps, validate_windows=1, checkpoint_every=steps, threads=self.threads
            ),
            optim=OptimConfig(lr=rate, warmup=max(1, min(50, steps // 10)), decay=0.3),
            report=ReportConfig(mlflow=False),
        )
        train(config)
        return TrainedRun.open(Path(config.run)).model.to(self.device)

    def operators(self, quick: Quick | None) -> dict[str, fno.FnoConfig]:
        """Modes on either side of zero and width of each operator."""
        layout, told = self.corpus.layout, self.coefficients
        fitting = [w for w in fno.WIDTHS if fno.Shape.of(layout, told, w).forward_flops() <= self.flops]
        half = fno.MODES[sum(n > 1 for n in layout.grid)] // 2
        found = {
            EQUAL: fno.FnoConfig(modes=half, width=max(fitting, default=fno.WIDTHS[0])),
            SMALL: fno.FnoConfig(width=fno.FnoConfig().shape(layout, told).width),
        }
        return found if quick is None else found | {str(quick): fno.FnoConfig(modes=quick.modes // 2, width=quick.width)}

    def operator(self, size: fno.FnoConfig, folder: Path, steps: int, seed: int, rate: float, windows: int) -> Model:
        """An operator after so many steps."""
        config, data = replace(size, rate=rate), self.data(windows)
        return fno.train_few(folder, self.corpus, self.own, data, seed, config, steps, 1, self.device, progress=False)[0]


def measure(
    paths: Sequence[Path],
    budgets: Sequence[float],
    model: ModelConfig,
    tries: Tries,
    fno_tries: Tries,
    quick: Quick | None,
    seeds: int,
    threads: int,
    device: str,
) -> dict[str, Any]:
    """Curves of every contender on every corpus, medians over the seeds.

    Args:
        tries: of SciGPT; `fno_tries` of every operator.
        quick: a further operator.

    Raises:
        UserError: no corpus of a grid with a test split, or `neuraloperator` is not installed.
    """
    place = prepare(device, threads)
    fno.require()
    families = {}
    for path in paths:
        corpus = Corpus.open(path)
        if not fno.applicable(corpus.layout):
            raise UserError(f"{path}: an FNO needs a grid; give a corpus of series, maps or volumes")
        families[corpus.name] = _family(Setting(corpus, model, threads, device), budgets, tries, fno_tries, quick, seeds, place)
    return {"budgets": list(budgets), "seeds": seeds, "device": device, "threads": threads, "families": families}


def _family(
    setting: Setting, budgets: Sequence[float], tries: Tries, fno_tries: Tries, quick: Quick | None, seeds: int, place: torch.device
) -> dict[str, Any]:
    scales = scales_of(setting.corpus, setting.own)
    work = plan(Subject(setting.corpus, setting.own, FRAMES, DataConfig.patch, scales), "test", Options(rollouts=0))
    contenders: dict[str, tuple[Callable[..., Model], Tries]] = {OURS: (setting.ours, tries)}
    for name, size in setting.operators(quick).items():
        contenders[name] = partial(setting.operator, size), fno_tries
    curves: dict[str, list[dict[str, Any]]] = {}
    sizes: dict[str, int] = {}
    baselines: dict[str, float] = {}

    def trained(name: str, steps: int, seed: int, rate: float, windows: int) -> tuple[Model, float]:
        with tempfile.TemporaryDirectory(prefix="scigpt-bench-") as folder:
            began = seconds(place)
            model = contenders[name][0](Path(folder), steps, seed, rate, windows)
            return model, seconds(place) - began

    def tried(name: str, steps: int, rate: float, windows: int) -> dict[str, Any]:
        found, spent = [], []
        for seed in range(seeds):
            model, took = trained(name, steps, seed, rate, windows)
            scores = study(model, work, setting.device).numbers["summary"]["vrmse"]
            found.append(scores.pop(MODEL))
            spent.append(took)
            sizes[name] = sum(p.numel() * (1 + p.is_complex()) for p in model.parameters())  # type: ignore[attr-defined]
            baselines.update(scores)
        score, took = (statistics.median(math.inf if x is None or math.isnan(x) else x for x in values) for values in (found, spent))
        at = f"{setting.corpus.name}, {name}: {steps} steps of {windows} windows at {rate:g}"
        sys.stderr.write(f"{at}: {score:.4f} in {took:.1f} s\n")
        return {"rate": rate, "windows": windows, "steps": steps, "seconds": took, "vrmse": score, "each": found}

    for name, (_, asked) in contenders.items():
        trained(name, 1, 0, asked.rates[0], asked.windows[0])  # imports and warm-up
        cost = {}
        for windows in asked.windows:
            once, many = (trained(name, steps, 0, asked.rates[0], windows)[1] for steps in (1, 1 + PILOT))
            cost[windows] = once, max(many - once, 1e-3) / PILOT
        curves[name] = []
        for budget in budgets:
            steps = {windows: max(2, round((budget - once) / step)) for windows, (once, step) in cost.items()}
            found = [tried(name, steps[windows], rate, windows) for windows in asked.windows for rate in asked.rates]
            curves[name].append(min(found, key=lambda t: t["vrmse"]) | {"tries": found})
    return {
        "parameters": sizes,
        "baselines": baselines,
        "curves": curves,
        "equal": {n: equal(curves[OURS], curves[n]) for n in contenders if n != OURS},
    }


def equal(ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The lowest VRMSE that both curves reach, and the seconds of each to it."""
    goal = max(min(point["vrmse"] for point in curve) for curve in (ours, theirs))
    return {"vrmse": goal, "ours": reached(ours, goal), "theirs": reached(theirs, goal)}


def reached(curve: Sequence[dict[str, Any]], goal: float) -> float:
    """Seconds after which a curve is at `goal`, between its points by straight lines of the logarithms; infinite where it never is. Before
    the first point nothing is known: that point's seconds."""
    before: dict[str, Any] | None = None
    for point in curve:
        if point["vrmse"] <= goal:
            if before is None or point["vrmse"] == goal:
                return point["seconds"]
            share = math.log(before["vrmse"] / goal) / math.log(before["vrmse"] / point["vrmse"])
            return before["seconds"] * (point["seconds"] / before["seconds"]) ** share
        before = point
    return math.inf


def describe(result: dict[str, Any]) -> str:
    """One table; a row for each family and model."""
    rows = []
    for family, found in result["families"].items():
        rows += [(family, name, "", *[f"{vrmse:.4f}"] * len(result["budgets"]), "") for name, vrmse in found["baselines"].items()]
        for name, curve in found["curves"].items():
            scores = [f"{p['vrmse']:.4f} ({p['steps']} steps of {p['windows']} at {p['rate']:g})" for p in curve]
            verdict = _verdict(found["equal"][name], found["curves"][OURS][0]["seconds"]) if name in found["equal"] else ""
            rows.append((family, name, f"{found['parameters'][name] / 1e6:.2f}M", *scores, verdict))
    unit = "CPU s" if result["device"] == "cpu" else "s"
    points = (f"VRMSE after {budget:g} {unit}" for budget in result["budgets"])
    return markdown(("family", "model", "parameters", *points, f"{unit} to equal VRMSE"), rows)


def _verdict(found: dict[str, float], first: float) -> str:
    most = "at most " if found["ours"] <= first else ""
    return f"{found['theirs']:.0f} to {found['vrmse']:.4f}, {OURS} {most}{found['ours']:.0f}"


def main(
    corpus: Annotated[list[Path] | None, typer.Argument(help="Corpora with a test split; by default two are simulated.")] = None,
    budgets: Annotated[str, typer.Option("--budgets", metavar="S,S,...", help="Seconds of each training.")] = "20,40,80",
    size: Annotated[str, typer.Option("--size", help="Of SciGPT.")] = "nano",
    rates: Annotated[str, typer.Option("--rates", metavar="R,R,...", help="SciGPT's learning rates; the best counts.")] = "3e-3",
    windows: Annotated[str, typer.Option("--windows", metavar="N,N,...", help="Windows of 8 frames in a step; the best counts.")] = "4",
    fno_rates: Annotated[str, typer.Option("--fno-rates", metavar="R,R,...", help="Of every FNO.")] = "2e-3",
    fno_windows: Annotated[str | None, typer.Option("--fno-windows", metavar="N,N,...", help="Of every FNO; by default SciGPT's.")] = None,
    fno_modes: Annotated[int, typer.Option("--fno-modes", min=2, help="Of the quick FNO, along each axis.")] = Quick.modes,
    fno_width: Annotated[int, typer.Option("--fno-width", min=0, help="Of the quick FNO; 0: none.")] = Quick.width,
    records: Annotated[int, typer.Option("--records", min=1, help="Training records of a simulated family.")] = 64,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Seeds; medians are told.")] = 1,
    threads: Threads = 1,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """CPU seconds to equal held-out VRMSE: SciGPT beside FNO. Example: python benchmarks/quality.py --budgets 20,40,80 --rounds 1"""
    asked = sorted(numbers("--budgets", budgets))
    ours = Tries(numbers("--rates", rates), whole("--windows", windows))
    theirs = Tries(numbers("--fno-rates", fno_rates), ours.windows if fno_windows is None else whole("--fno-windows", fno_windows))
    quick = Quick(fno_modes, fno_width) if fno_width else None
    with tempfile.TemporaryDirectory(prefix="scigpt-bench-") as folder:
        paths = corpus or simulated(Path(folder), records)
        show(measure(paths, asked, ModelConfig(size=size), ours, theirs, quick, rounds, threads, device), json, describe)


def numbers(option: str, text: str) -> list[float]:
    """Several numbers above 0 of a command line.

    Raises:
        UserError: anything else.
    """
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(0 < n < math.inf for n in found):
        raise UserError(f"{option} {text}: expected numbers above 0 with commas between them")
    return found


def whole(option: str, text: str) -> list[int]:
    """The same of whole numbers."""
    found = numbers(option, text)
    if any(n != int(n) for n in found):
        raise UserError(f"{option} {text}: expected whole numbers above 0 with commas between them")
    return [int(n) for n in found]


def simulated(folder: Path, records: int) -> list[Path]:
    """Navier-Stokes and shallow water, 64 x 64 points, 32 frames, 8 records to test on."""
    from scigpt.data_prep.convert import convert
    from scigpt.data_prep.pde import EQUATIONS

    for name in ("navier-stokes", "shallow-water"):
        source = EQUATIONS[name]
        convert(source((), source.Options(train=records, valid=2, test=8, ood=0)), folder / name)
    return [folder / "navier-stokes", folder / "shallow-water"]


if __name__ == "__main__":
    run(main)
