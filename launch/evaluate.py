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
    fno: Annotated[bool, typer.Option("--fno", help="Train an FNO beside it: same windows, same FLOPs (needs the extra fno).")] = False,
    json: Json = False,
) -> None:
    """Score a run on every split it was not trained on, beside persistence, linear extrapolation and means; write RUN/card."""
    from scigpt.evaluate.evaluate import CARD, PAGE
    from scigpt.evaluate.evaluate import evaluate as run_evaluation
    from scigpt.evaluate.plan import Options

    results = run_evaluation(run, corpus or (), split, Options(windows, rollouts, steps), with_fno=fno)
    show(results, json, lambda found: f"{_summary(found)}\n\nThe card is {run / CARD / PAGE}")


def _summary(results: dict[str, Any]) -> str:
    from scigpt.evaluate.card import conclusion, figure, interval

    rows = []
    for corpus in results["corpora"]:
        for part in corpus["splits"]:
            found = part["summary"]
            best = found["best_baseline"]
            rows.append(
                [
                    corpus["name"],
                    part["split"],
                    part["distribution"],
                    figure(found["vrmse"]["model"]),
                    best or "-",
                    figure(found["vrmse"].get(best)),
                    interval(found["difference"]),
                    conclusion(found),
                ]
            )
    return table(("corpus", "split", "distribution", "VRMSE", "best baseline", "its VRMSE", "difference (95 %)", "the model is"), rows)
