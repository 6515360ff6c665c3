"""CPU seconds to equal held-out VRMSE: SciGPT beside a Fourier neural operator on simulated families.

Each budget of seconds is a whole training with its own schedule of the learning rate, so that a point of a curve is what that many seconds
give, and not the middle of a longer training. SciGPT is trained by `scigpt.train.engine`, the operators by `scigpt.evaluate.fno`: the
same windows in the same order and the same normalisation; one operator has the FLOPs of SciGPT for a window, one has a million parameters.
One-step VRMSE on the test split is that of `scigpt evaluate`. Nothing is tuned for a family.
"""

from __future__ import annotations

import math
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from compare import Device, Threads, markdown, prepare, run, seconds

from scigpt.data.corpus import Corpus
from scigpt.data.loader import scales_of
from scigpt.data.mixture import CorpusConfig, DataConfig
from scigpt.errors import UserError
from scigpt.evaluate import fno
from scigpt.evaluate.evaluate import TrainedRun
from scigpt.evaluate.plan import Options, Subject, plan
from scigpt.evaluate.rollout import Model
from scigpt.evaluate.study import MODEL, study
from scigpt.launch.output import Json, show
from scigpt.model.backbone import ModelConfig, SciGPT, Vocabulary
from scigpt.train.config import RunConfig, TrainConfig
from scigpt.train.engine import train
from scigpt.train.optim import OptimConfig
from scigpt.train.report import ReportConfig

OURS, EQUAL, SMALL = "SciGPT", "FNO of equal FLOPs", "FNO of 1M parameters"
PILOT = 8
"""Steps that are timed to know how many a budget holds."""


@dataclass(frozen=True)
class Setting:
    """What all contenders share on one family."""

    corpus: Corpus
    data: DataConfig
    model: ModelConfig
    rate: float
    threads: int
    device: str

    @property
    def own(self) -> CorpusConfig:
        return self.data.corpora[0]

    def ours(self, folder: Path, steps: int, seed: int) -> Model:
        """SciGPT after so many steps."""
        config = RunConfig(
            run=str(folder / "run"),
            data=self.data,
            seed=seed,
            model=self.model,
            train=TrainConfig(
                steps=steps, groups=1, validate_every=steps, validate_windows=1, checkpoint_every=steps, threads=self.threads
            ),
            optim=OptimConfig(lr=self.rate, warmup=max(1, min(50, steps // 10)), decay=0.3),
            report=ReportConfig(mlflow=False),
        )
        train(config)
        return TrainedRun.open(Path(config.run)).model.to(self.device)

    def equal(self, folder: Path, steps: int, seed: int) -> Model:
        """The operator whose FLOPs for a window are SciGPT's."""
        flops = SciGPT(self.model, Vocabulary.from_corpora([self.corpus])).flops
        return fno.train_beside(folder, self.corpus, self.own, self.data, seed, steps, flops, self.device, progress=False)[0]

    def small(self, folder: Path, steps: int, seed: int) -> Model:
        """The operator of the defaults of a transfer study."""
        return fno.train_few(folder, self.corpus, self.own, self.data, seed, fno.FnoConfig(), steps, 1, self.device, progress=False)[0]


def measure(
    paths: Sequence[Path], budgets: Sequence[float], model: ModelConfig, windows: int, seeds: int, rate: float, threads: int, device: str
) -> dict[str, Any]:
    """Curves of every contender on every corpus, medians over the seeds.

    Args:
        windows: in a step, of 8 frames.

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
        settings = CorpusConfig(str(path))
        z, y, x = corpus.layout.grid
        tokens = windows * 7 * math.prod(max(1, n // 8) for n in (z, y, x))
        setting = Setting(corpus, DataConfig([settings], frames=8, tokens=tokens), model, rate, threads, device)
        families[corpus.name] = _family(setting, budgets, seeds, place)
    return {"budgets": list(budgets), "seeds": seeds, "device": device, "threads": threads, "families": families}


def _family(setting: Setting, budgets: Sequence[float], seeds: int, place: torch.device) -> dict[str, Any]:
    work = plan(
        Subject(setting.corpus, setting.own, setting.data.frames, setting.data.patch, scales_of(setting.corpus, setting.own)),
        "test",
        Options(rollouts=0),
    )
    contenders: dict[str, Callable[[Path, int, int], Model]] = {OURS: setting.ours, EQUAL: setting.equal, SMALL: setting.small}
    curves: dict[str, list[dict[str, Any]]] = {}
    sizes: dict[str, int] = {}
    baselines: dict[str, float] = {}

    def trained(name: str, steps: int, seed: int) -> tuple[Model, float]:
        with tempfile.TemporaryDirectory(prefix="scigpt-bench-") as folder:
            began = seconds(place)
            model = contenders[name](Path(folder), steps, seed)
            return model, seconds(place) - began

    for name in contenders:
        trained(name, 1, 0)  # imports and warm-up
        once, many = trained(name, 1, 0)[1], trained(name, 1 + PILOT, 0)[1]
        step = max(many - once, 1e-3) / PILOT
        curves[name] = []
        for budget in budgets:
            steps, found, spent = max(2, round((budget - once) / step)), [], []
            for seed in range(seeds):
                model, took = trained(name, steps, seed)
                scores = study(model, work, setting.device).numbers["summary"]["vrmse"]
                found.append(scores.pop(MODEL))
                spent.append(took)
                sizes[name], baselines = sum(p.numel() * (1 + p.is_complex()) for p in model.parameters()), scores  # type: ignore[attr-defined]
            curves[name].append({"steps": steps, "seconds": statistics.median(spent), "vrmse": statistics.median(found), "each": found})
    return {
        "parameters": sizes,
        "baselines": baselines,
        "curves": curves,
        "equal": {n: equal(curves[OURS], curves[n]) for n in (EQUAL, SMALL)},
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
            scores = [f"{point['vrmse']:.4f} ({point['steps']} steps)" for point in curve]
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
    windows: Annotated[int, typer.Option("--windows", min=1, help="Windows of 8 frames in a step.")] = 4,
    rate: Annotated[float, typer.Option("--rate", help="SciGPT's learning rate.")] = 3e-3,
    records: Annotated[int, typer.Option("--records", min=1, help="Training records of a simulated family.")] = 64,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Seeds; medians are told.")] = 1,
    threads: Threads = 1,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """CPU seconds to equal held-out VRMSE: SciGPT beside FNO. Example: python benchmarks/quality.py --budgets 20,40,80 --rounds 1"""
    try:
        asked = sorted(float(b) for b in budgets.split(","))
    except ValueError:
        raise UserError(f"--budgets {budgets}: expected seconds with commas between them, as 20,40,80") from None
    with tempfile.TemporaryDirectory(prefix="scigpt-bench-") as folder:
        paths = corpus or simulated(Path(folder), records)
        show(measure(paths, asked, ModelConfig(size=size), windows, rounds, rate, threads, device), json, describe)


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
