"""`scigpt evaluate`: score a run beside the baselines and write its card."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from scigpt.launch.output import Json, show, table


def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")],
    corpus: Annotated[
        list[Path] | None, typer.Option("--corpus", metavar="DIR", help="Instead of the run's own corpora; may be repeated.")
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", metavar="NAME", help="Only this split; every split not trained on by default.")
    ] = None,
    windows: Annotated[int, typer.Option(help="One-step windows per split, at most.")] = 64,
    rollouts: Annotated[int, typer.Option(help="Free-running forecasts per split, at most.")] = 16,
    steps: Annotated[int, typer.Option(help="Longest lead of a rollout, in frames; 0 for none.")] = 30,
    json: Json = False,
) -> None:
    """Score a run on every split it was not trained on, beside persistence, linear extrapolation and means; write RUN/card."""
    from scigpt.evaluate.evaluate import CARD, PAGE
    from scigpt.evaluate.evaluate import evaluate as run_evaluation
    from scigpt.evaluate.study import Options

    results = run_evaluation(run, corpus or (), split, Options(windows, rollouts, steps))
    show(results, json, lambda found: f"{_summary(found)}\n\nThe card is {run / CARD / PAGE}")


def _summary(results: dict[str, Any]) -> str:
    from scigpt.evaluate.card import factor, figure

    def number(value: float | None) -> str:
        return "-" if value is None else figure(value)

    rows = []
    for corpus in results["corpora"]:
        for part in corpus["splits"]:
            found = part["summary"]
            best, ratio = found["best_baseline"], found["ratio"]
            verdict = "-" if ratio is None else factor(ratio)
            rows.append(
                [
                    corpus["name"],
                    part["split"],
                    part["distribution"],
                    number(found["vrmse"]["model"]),
                    best or "-",
                    number(found["vrmse"].get(best)),
                    verdict,
                ]
            )
    return table(("corpus", "split", "distribution", "VRMSE", "best baseline", "its VRMSE", "the model is"), rows)
