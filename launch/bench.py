"""`scigpt bench ...`: how fast this machine does what training needs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scigpt.errors import UserError
from scigpt.launch.output import Json, show
from scigpt.launch.pretrain import Overrides

app = typer.Typer(help="Measure speed on this machine.", no_args_is_help=True, rich_markup_mode=None)


@app.command(epilog="Examples: scigpt bench data corpora/era5; scigpt bench data --equation all")
def data(
    corpus: Annotated[Path | None, typer.Argument(metavar="DIR", help="A corpus; by default a synthetic record of 498 MB.")] = None,
    equation: Annotated[str | None, typer.Option("--equation", metavar="NAME|all", help="Time a simulator instead, or all.")] = None,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Rounds of both readers, or trajectories of each simulator.")] = 5,
    json: Json = False,
) -> None:
    """Time random windows read by index beside a reader that loads whole members of the shards; or the simulators, in CPU time."""
    from scigpt.launch import bench_data

    if equation is not None:
        from scigpt.data_prep.pde import EQUATIONS
        from scigpt.launch.data import choose

        if corpus is not None:
            raise UserError(f"--equation {equation} times a simulator and the corpus {corpus} a reader; give one of them")
        chosen = EQUATIONS.values() if equation == "all" else [choose(EQUATIONS, equation, "equation")]
        show(bench_data.of_simulators([source() for source in chosen], rounds), json, bench_data.describe_simulators)
        return
    result = bench_data.synthetic(rounds) if corpus is None else bench_data.of_corpus(corpus, rounds)
    show(result, json, bench_data.describe)


@app.command(
    epilog="Examples: scigpt bench model --width 512 --depth 4; scigpt bench model --size base --precision bf16 --compile --side 256"
)
def model(
    size: Annotated[str, typer.Option("--size", help="nano, tiny, small, base, large, xl or 7b.")] = "nano",
    width: Annotated[int | None, typer.Option("--width", help="Overrides the size's width.")] = None,
    depth: Annotated[int | None, typer.Option("--depth", help="Overrides the size's depth.")] = None,
    frames: Annotated[int, typer.Option("--frames", min=1, help="Frames in, each of which predicts the next.")] = 4,
    side: Annotated[int, typer.Option("--side", min=1, help="Points along each side of the maps.")] = 128,
    patch: Annotated[int, typer.Option("--patch", min=1, help="Points along each side of a token.")] = 8,
    batch: Annotated[int, typer.Option("--batch", min=1)] = 4,
    precision: Annotated[str, typer.Option("--precision", help="fp32 or bf16.")] = "fp32",
    device: Annotated[str, typer.Option("--device", help="auto (a GPU where there is one), cpu or cuda.")] = "auto",
    attention: Annotated[str, typer.Option("--attention", help="sdpa or flash.")] = "sdpa",
    compile: Annotated[bool, typer.Option("--compile", help="Compile the blocks, and say what that cost.")] = False,
    recompute: Annotated[str, typer.Option("--recompute", help="Activation checkpointing: false, selective or true.")] = "false",
    peak: Annotated[
        float | None, typer.Option("--peak", min=1e-6, metavar="TFLOPS", help="For MFU, where the maker's is not known.")
    ] = None,
    profile: Annotated[
        Path | None, typer.Option("--profile", metavar="DIR", help="Write a trace of two steps and what holds memory.")
    ] = None,
    threads: Annotated[int, typer.Option("--threads", min=1)] = 1,
    rounds: Annotated[int, typer.Option("--rounds", min=1)] = 5,
    json: Json = False,
) -> None:
    """Time a full training step on maps (256 tokens a frame by default) beside a matrix product and the bare blocks."""
    from scigpt.launch import bench_model
    from scigpt.model.attention import KERNELS
    from scigpt.model.backbone import ModelConfig, Recompute

    if attention not in KERNELS:
        raise UserError(f"--attention {attention}: expected {' or '.join(KERNELS)}")
    again: dict[str, Recompute] = {"false": False, "selective": "selective", "true": True}
    if recompute not in again:
        raise UserError(f"--recompute {recompute}: expected {', '.join(again)}")
    result = bench_model.measure(
        ModelConfig(size=size, width=width, depth=depth, attention=attention), frames, side, patch, batch, precision, threads, rounds,
        device=device, compile=compile, recompute=again[recompute], peak=None if peak is None else peak * 1e12, profile=profile,
    )  # fmt: skip
    show(result, json, bench_model.describe)


@app.command(epilog="Examples: scigpt bench train; scigpt bench train config.yaml --steps 10 --rounds 5 train.precision=bf16")
def train(
    config: Annotated[
        Path | None, typer.Argument(metavar="CONFIG", help="A run's YAML file; by default a nano model on made-up maps.")
    ] = None,
    overrides: Overrides = None,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Of a round, of each kind; 10 or more on a GPU.")] = 1,
    rounds: Annotated[int, typer.Option("--rounds", min=1)] = 40,
    device: Annotated[str, typer.Option("--device", help="auto (a GPU where there is one), cpu or cuda.")] = "auto",
    profile: Annotated[
        Path | None, typer.Option("--profile", metavar="DIR", help="Write a trace of two steps and what holds memory.")
    ] = None,
    json: Json = False,
) -> None:
    """Time the training loop beside a bare loop on the same model and batches, and beside itself on synthetic batches made ahead."""
    from scigpt.launch import bench_train
    from scigpt.train.config import load

    settings = None if config is None else load(config, overrides or ())
    found = bench_train.measure(settings, bench_train.Amount(steps, rounds), device, profile)
    if found is not None:
        show(found, json, bench_train.describe)


@app.command(epilog="Examples: scigpt bench rollout --steps 32; scigpt bench rollout runs/demo --corpus navier-stokes")
def rollout(
    run: Annotated[Path | None, typer.Argument(metavar="RUN", help="A run, whose errors are compared too; by default random maps.")] = None,
    corpus: Annotated[str | None, typer.Option("--corpus", metavar="NAME", help="Of the run; by default its first.")] = None,
    split: Annotated[str, typer.Option("--split", metavar="NAME")] = "test",
    records: Annotated[int, typer.Option("--records", min=1, help="Forecasts of the run, at most.")] = 16,
    steps: Annotated[int, typer.Option("--steps", min=1)] = 32,
    context: Annotated[int, typer.Option("--context", min=1, help="Frames before the forecast, of random maps.")] = 8,
    window: Annotated[int, typer.Option("--window", min=1, help="Frames that the model is shown, of random maps.")] = 8,
    size: Annotated[str, typer.Option("--size", help="nano, tiny, small, base, large, xl or 7b.")] = "nano",
    side: Annotated[int, typer.Option("--side", min=1, help="Points along each side of the maps.")] = 64,
    patch: Annotated[int, typer.Option("--patch", min=1, help="Points along each side of a token.")] = 8,
    batch: Annotated[int, typer.Option("--batch", min=1)] = 4,
    threads: Annotated[int, typer.Option("--threads", min=1)] = 1,
    rounds: Annotated[int, typer.Option("--rounds", min=1)] = 3,
    json: Json = False,
) -> None:
    """Time free-running forecasts with and without the key-value cache, in CPU time; of a run, compare their errors too."""
    from scigpt.launch import bench_rollout
    from scigpt.model.backbone import ModelConfig

    if run is None:
        result = bench_rollout.speed(ModelConfig(size=size), context, steps, window, side, patch, batch, threads, rounds)
    else:
        result = bench_rollout.accuracy(run, corpus, split, records, steps)
    show(result, json, bench_rollout.describe)
