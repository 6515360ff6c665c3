"""The Well's own loader beside ours on the same trajectories: windows and megabytes per CPU second.

Both give the same windows of float32 in an order drawn at random, as batches of tensors, in one process: `the_well.data.WellDataset`
behind torch's `DataLoader` without workers, and `scigpt.data.loader.BatchLoader` on the corpus that `scigpt data prepare the-well` makes of
the same files. Everything is read once before it is timed, so the files are in the cache of the system. Neither normalises here: SciGPT
does so in the model. Fields that are constant are channels of a window in ours and tensors of their own in The Well's.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import h5py
import numpy as np
import torch
import typer
from compare import Device, Missing, Threads, in_turn, markdown, needed, prepare, ratio, run

from scigpt.data.corpus import Corpus
from scigpt.data.loader import BatchLoader, scales_of
from scigpt.data.mixture import CorpusConfig, DataConfig, Mixture
from scigpt.data.patching import choose_patch, token_count
from scigpt.data_prep.convert import convert
from scigpt.data_prep.sources.the_well import TheWell
from scigpt.errors import UserError
from scigpt.launch.output import Json, show

OURS, THEIRS = "scigpt", "the_well"


def measure(files: list[Path], frames: int, batch: int, batches: int, rounds: int, threads: int, device: str) -> dict[str, Any]:
    """Both loaders in turn on HDF5 files in The Well's format.

    Args:
        frames: of a window; the last one is what The Well predicts.
        batches: in a round, of `batch` windows each.
    """
    place = prepare(device, threads)
    with tempfile.TemporaryDirectory(prefix="scigpt-bench-") as name:
        folder = Path(name)
        train = folder / "well" / "train"
        train.mkdir(parents=True)
        for file in files:
            (train / file.name).symlink_to(file.resolve())
        corpus = Corpus.open(convert(TheWell([train]), folder / "corpus", progress=False))
        bytes_of: dict[str, int] = {}
        rows: dict[str, dict[str, Any]] = {}
        work: dict[str, Callable[[], None]] = {}
        for loader, make in ((OURS, _ours), (THEIRS, _theirs)):
            try:
                batches_of = make(corpus, train, frames, batch)
            except Missing as missing:
                rows[loader] = {"missing": str(missing)}
                continue

            def read(loader: str = loader, batches_of: Iterator[torch.Tensor] = batches_of) -> None:
                bytes_of[loader] = sum(fields.to(place).nbytes for fields in itertools.islice(batches_of, batches))

            read()  # warms up
            work[loader] = read
        times = in_turn(work, rounds, place)
        stored = {OURS: corpus.path, THEIRS: train}
        for loader, took in times.items():
            middle = statistics.median(took)
            rows[loader] = {
                "windows_per_second": batch * batches / middle,
                "mb_per_second": bytes_of[loader] / middle / 1e6,
                "mb_per_window": bytes_of[loader] / batch / batches / 1e6,
                "mb_stored": sum(f.stat().st_size for f in stored[loader].iterdir()) / 1e6,
                "speed": ratio(times[THEIRS], took) if THEIRS in times else None,
            }
    return {"frames": frames, "batch": batch, "rounds": rounds, "device": device, "threads": threads, "loaders": rows}


def _ours(corpus: Corpus, train: Path, frames: int, batch: int) -> Iterator[torch.Tensor]:
    settings = CorpusConfig(str(corpus.path))
    layout = corpus.layout
    tokens = batch * (frames - 1) * token_count(layout.grid, choose_patch(layout.grid, DataConfig.patch, layout.geometry))
    data = DataConfig([settings], frames=frames, tokens=tokens)
    loader = BatchLoader(Mixture([corpus], data, 0), [scales_of(corpus, settings)])
    return _drained(loader, batch)


def _drained(loader: BatchLoader, batch: int) -> Iterator[torch.Tensor]:
    with loader:
        for _, (loaded,) in loader:
            assert len(loaded) == batch
            yield loaded.values


def _theirs(corpus: Corpus, train: Path, frames: int, batch: int) -> Iterator[torch.Tensor]:
    well = needed("the_well.data", "pip install --no-deps the_well")
    dataset = well.WellDataset(path=str(train), n_steps_input=frames - 1, n_steps_output=1)
    if len(dataset) < batch:
        raise UserError(f"{train}: holds {len(dataset)} windows of {frames} frames, and a batch has {batch}; give --batch or --frames less")

    def epochs() -> Iterator[torch.Tensor]:
        order = torch.Generator().manual_seed(0)
        while True:
            for loaded in torch.utils.data.DataLoader(dataset, batch, shuffle=True, generator=order, drop_last=True):
                yield torch.cat([loaded["input_fields"], loaded["output_fields"]], 1)

    return epochs()


def written(path: Path, trajectories: int, frames: int, side: int) -> Path:
    """A file in The Well's format: smooth waves that travel, one scalar and one vector, on a periodic square."""
    draw = np.random.default_rng(0)
    points = np.arange(side) / side
    values = np.zeros((trajectories, frames, side, side, 3), np.float32)
    for trajectory, channel in itertools.product(range(trajectories), range(3)):
        for kx, ky, speed, phase in zip(*draw.integers(1, 6, (2, 8)), *draw.random((2, 8)), strict=True):
            wave = kx * points[:, None] + ky * points
            turn = np.arange(frames)[:, None, None] * speed / 8
            values[trajectory, ..., channel] += np.sin(2 * np.pi * (wave + turn + phase))
    flags = {"sample_varying": False, "time_varying": False}
    with h5py.File(path, "w") as file:
        file.attrs.update({"dataset_name": "bench", "grid_type": "cartesian", "n_spatial_dims": 2, "n_trajectories": trajectories})
        file.attrs["simulation_parameters"] = []
        dimensions = file.create_group("dimensions")
        dimensions.attrs["spatial_dims"] = ["x", "y"]
        for name, axis in (("x", points), ("y", points), ("time", np.arange(frames) / 10)):
            dimensions[name] = axis.astype(np.float32)
            dimensions[name].attrs["sample_varying"] = False
        for name in ("x", "y"):
            side_of = file.create_group(f"boundary_conditions/{name}_periodic")
            side_of["mask"] = np.isin(np.arange(side), (0, side - 1))
            side_of.attrs.update(flags | {"associated_dims": [name], "associated_fields": [], "bc_type": "PERIODIC"})
        file.create_group("scalars").attrs["field_names"] = []
        for order, fields in enumerate(({"density": values[..., 0]}, {"velocity": values[..., 1:]}, {})):
            group = file.create_group(f"t{order}_fields")
            group.attrs["field_names"] = list(fields)
            for name, field in fields.items():
                group[name] = field
                group[name].attrs.update({"dim_varying": [True, True], "sample_varying": True, "time_varying": True, "symmetric": False})
    return path


def describe(result: dict[str, Any]) -> str:
    """One table; a row for each loader."""
    rows = []
    for name, row in result["loaders"].items():
        if "missing" in row:
            rows.append((name, row["missing"], "", "", "", ""))
            continue
        speed = "" if row["speed"] is None else f"{row['speed']:.2f}"
        rates = (f"{row['windows_per_second']:.0f}", f"{row['mb_per_second']:.0f}")
        rows.append((name, *rates, f"{row['mb_per_window']:.2f}", f"{row['mb_stored']:.1f}", speed))
    unit = "CPU s" if result["device"] == "cpu" else "s"
    return markdown(("loader", f"windows per {unit}", f"MB per {unit}", "MB a window", "MB stored", "times as fast"), rows)


def main(
    files: Annotated[list[Path] | None, typer.Argument(help="HDF5 files in The Well's format; by default one is made.")] = None,
    frames: Annotated[int, typer.Option("--frames", min=3, help="Of a window.")] = 5,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Windows in a batch.")] = 4,
    batches: Annotated[int, typer.Option("--batches", min=1, help="Batches in a round.")] = 10,
    side: Annotated[int, typer.Option("--side", min=8, help="Points along each side of the file that is made.")] = 128,
    rounds: Annotated[int, typer.Option("--rounds", min=1)] = 9,
    threads: Threads = 1,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """The Well's loader beside ours. Examples: python benchmarks/loaders.py; python benchmarks/loaders.py data/train/*.hdf5 --frames 5"""
    with tempfile.TemporaryDirectory(prefix="scigpt-bench-") as folder:
        given = files or [written(Path(folder) / "waves.hdf5", trajectories=8, frames=8 * frames, side=side)]
        show(measure(given, frames, batch, batches, rounds, threads, device), json, describe)


if __name__ == "__main__":
    run(main)
