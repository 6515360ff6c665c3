"""`make demo`: from nothing to a result a person can look at, through the same functions as the commands."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from importlib.resources import as_file, files

import typer

from scigpt.errors import UserError

CORPORA: Mapping[str, Sequence[str]] = {
    "navier-stokes": ("make", "navier-stokes", "train=64", "valid=8", "test=16", "ood=4", "--workers", "2"),
    "poisson": ("make", "poisson", "train=3072", "valid=64", "test=128", "ood=128", "--workers", "2"),
    "climate": (
        "prepare", "cmip6", "--input", "embedded:A1B_north_america.nc", "ood_input=embedded:E1_north_america.nc", "ood_period=2000-2099"
    ),
    "sea-surface": ("prepare", "ostia", "--input", "embedded:ostia_monthly.nc", "splits=0.6,0.2,0.2"),
    "seismograms": ("prepare", "miniseed", "--input", "embedded:CH.BALST.LH.mseed"),
}  # fmt: skip
"""Name of each corpus and the words after `scigpt data` that make it."""


def main() -> None:
    """Prepare the corpora, pretrain, evaluate, and say where everything is. What is there already is not made again."""
    from scigpt.launch.cli import app

    start = time.perf_counter()
    for name, words in CORPORA.items():
        _run(app, ["data", *words, "--out", f"corpora/demo/{name}"])
    with as_file(files("scigpt") / "configs" / "demo.yaml") as config:
        _run(app, ["pretrain", str(config)])
    _run(app, ["evaluate", "runs/demo"])
    typer.echo(f"\nThe demo took {(time.perf_counter() - start) / 60:.1f} minutes. Look at:")
    typer.echo("  card        runs/demo/card/index.html")
    typer.echo("  checkpoint  runs/demo/checkpoints/")
    typer.echo("  MLflow      mlflow ui --backend-store-uri sqlite:///runs/mlflow.db")


def _run(app: typer.Typer, words: list[str]) -> None:
    typer.echo(f"\n$ scigpt {' '.join(words)}")
    app(words, standalone_mode=False)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        typer.echo(f"scigpt: {error}", err=True)
        sys.exit(2)
