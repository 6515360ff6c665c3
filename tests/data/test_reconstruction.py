"""Masked reconstruction: places are hidden in all frames, asked for, and nothing of them is among the inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import lines, settings, write
from toy import ToySource, smooth_sample
from toys import make_batch

from scigpt.data.batches import Batch, collate, target_weight
from scigpt.data.corpus import Corpus
from scigpt.data.normalize import Scales, normalize
from scigpt.data.reconstruction import Reconstruction, seen_as
from scigpt.data.sample import Coordinate, Sample, Variable
from scigpt.data.tasks import TaskConfig, build_task
from scigpt.data_prep.convert import convert
from scigpt.data_prep.source import SampleRef
from scigpt.errors import UserError
from scigpt.evaluate.baselines import filled_in
from scigpt.evaluate.evaluate import evaluate
from scigpt.evaluate.plan import Options
from scigpt.train.config import load
from scigpt.train.engine import train

STATIONS = 24


class Stations(ToySource):
    """A wave that runs over 24 stations with gaps, and a static altitude."""

    def samples(self, refs: Sequence[SampleRef]) -> Iterator[Sample]:
        rng = np.random.default_rng(0)
        latitude, longitude = rng.uniform(40, 60, STATIONS), rng.uniform(0, 20, STATIONS)
        for ref in refs:
            seed, t = ref.spec["seed"], self.options.frames
            own = np.random.default_rng(seed)
            phase = own.uniform(0, 2 * np.pi) + 0.3 * np.arange(t)[:, None]
            wave = np.sin(latitude / 5 + phase) + np.cos(longitude / 6)
            values = np.stack([wave, np.broadcast_to(latitude, wave.shape)], 1)[:, :, None, None].astype(np.float32)
            valid = own.random(values.shape) > 0.1
            valid[:, 1] = True
            variables = (Variable("concentration", "1"), Variable("altitude", "m", "static"))
            places = {
                "latitude": Coordinate(("x",), latitude, "degrees_north"),
                "longitude": Coordinate(("x",), longitude, "degrees_east"),
            }
            sample = smooth_sample(seed, t, (1, 1, STATIONS), ("concentration", "altitude"))
            yield replace(sample, values=values, valid=valid, variables=variables, geometry="points", coordinates=places)


@pytest.fixture(scope="module")
def stations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stations")
    return convert(Stations(options=Stations.Options(samples=40, frames=4)), folder / "stations", progress=False)


def viewed(path: Path, hidden: float = 0.25, positions: Sequence[int] = (0, 1, 2)) -> tuple[Batch, Batch]:
    corpus = Corpus.open(path)
    scales = Scales.from_stats(corpus.layout, corpus.stats.to_json())
    batch = collate([corpus.read("train", i) for i in range(3)], scales, corpus.name)
    task = build_task(TaskConfig("reconstruction", hidden=hidden), corpus, scales, 7)
    assert isinstance(task, Reconstruction)
    view = task.view(batch, positions)
    assert task.shape(batch.layout, 3, 4) == (view.layout, 3, 4)
    return batch, view


def test_hidden_stations_are_asked_for_and_not_shown(stations: Path) -> None:
    batch, view = viewed(stations)
    assert [(v.name, v.role) for v in view.layout.variables] == [
        ("concentration", "forcing"),
        ("altitude", "static"),
        ("concentration", "diagnostic"),
    ]
    assert seen_as(view.layout, 2) == 0
    assert seen_as(batch.layout, 0) is None
    asked, seen = view.valid[:, :, 2], view.valid[:, :, 0]
    assert not (asked & seen).any()
    assert torch.equal(asked | seen, batch.valid[:, :, 0])
    assert (asked.any(1).sum((1, 2, 3)) == STATIONS // 4).all()
    hidden = asked.any(1, keepdim=True)
    assert torch.equal(asked, batch.valid[:, :, 0] & hidden)  # in all frames
    assert torch.equal(target_weight(view) > 0, torch.cat([torch.zeros_like(view.valid[:, 1:, :2]), view.valid[:, 1:, 2:]], 2))
    assert torch.equal(view.values[:, :, 2][asked], batch.values[:, :, 0][asked])


def test_what_is_hidden_depends_on_the_place_in_the_order_of_the_data(stations: Path) -> None:
    _, view = viewed(stations)
    _, again = viewed(stations)
    _, other = viewed(stations, positions=(0, 1, 3))
    assert torch.equal(view.valid, again.valid)
    assert torch.equal(view.valid[:2], other.valid[:2])
    assert not torch.equal(view.valid[2], other.valid[2])


def test_nothing_of_the_hidden_values_is_among_the_inputs(stations: Path) -> None:
    _, view = viewed(stations)
    changed = replace(view, values=torch.where(view.valid & (torch.arange(3) == 2).view(1, 1, 3, 1, 1, 1), 1e3, view.values))
    a, b = normalize(view), normalize(changed)
    for name in ("value", "increment", "valid", "log_amplitude", "log_increment", "base", "unit"):
        if name == "base":  # of what is asked it is the value before, which may not count
            continue
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    assert (a.base[:, :, 2] == 0).all()
    assert (b.base[:, :, 2] == 0).all()
    assert not torch.equal(a.target, b.target)


@pytest.mark.parametrize(("hidden", "count"), [(0.001, 1), (0.999, STATIONS - 1)])
def test_one_place_is_hidden_at_least_and_one_seen(stations: Path, hidden: float, count: int) -> None:
    _, view = viewed(stations, hidden)
    assert view.valid[:, :, 2].any(1).sum((1, 2, 3)).tolist() == [count] * 3


def test_of_a_grid_whole_patches_are_hidden() -> None:
    batch = replace(make_batch((3, 1, 10, 16), ("a", "b")), patch=(1, 4, 4))
    view = Reconstruction(0.5).view(batch, [0, 1])
    hidden = ~view.valid[:, :, 0]
    assert torch.equal(hidden, ~view.valid[:, :, 1])  # of all variables at once
    assert torch.equal(hidden, view.valid[:, :, 2])
    padded = torch.zeros(2, 3, 1, 12, 16, dtype=torch.bool)
    padded[..., :10, :] = hidden
    blocks = padded.unflatten(4, (4, 4)).unflatten(3, (3, 4)).float()
    inside = blocks[:, :, :, :2].mean((4, 6))
    assert ((inside == 0) | (inside == 1)).all()
    assert hidden[:, 0, 0, ::4, ::4].sum((1, 2)).tolist() == [6, 6]  # of 3 x 4 places


def test_the_mean_of_the_nearest_three(stations: Path) -> None:
    """Against haversines, one place at a time."""
    batch, view = viewed(stations)
    found = filled_in(view, 2, 0)["nearest three"]
    assert view.latitude is not None
    assert view.longitude is not None
    phi, lam = np.deg2rad(view.latitude[0, 0].double().numpy()), np.deg2rad(view.longitude[0, 0].double().numpy())
    for t in range(1, 4):
        for x in view.valid[0, :, 2, 0, 0].any(0).nonzero()[:, 0].tolist():
            h = np.sin((phi - phi[x]) / 2) ** 2 + np.cos(phi) * np.cos(phi[x]) * np.sin((lam - lam[x]) / 2) ** 2
            h[~view.valid[0, t, 0, 0, 0].numpy()] = np.inf
            near = np.argsort(h)[:3]
            assert float(found[0, t - 1, 0, 0, 0, x]) == pytest.approx(batch.values[0, t, 0, 0, 0, near].mean().item(), rel=1e-5)


def test_it_is_trained_and_evaluated_beside_the_nearest_three(tmp_path: Path, stations: Path) -> None:
    data = settings([stations], tmp_path / "run", steps=80, validate_every=80)
    data |= {"task": {"name": "reconstruction"}}
    data["data"] |= {"tokens": 288, "frames": 4}
    train(load(write(data, tmp_path / "run.yaml")))
    losses = [line["loss"] for line in lines(tmp_path / "run")]
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])
    part = evaluate(tmp_path / "run", options=Options(6, 0, 0), progress=False)["corpora"][0]["splits"][0]
    scores = part["summary"]["vrmse"]
    assert set(scores) == {"model", "nearest three", "mean"}
    assert scores["model"] < scores["mean"]


def test_what_cannot_be_hidden_is_told(stations: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="hidden is 1"):
        TaskConfig("reconstruction", hidden=1.0)
    corpus = Corpus.open(convert(ToySource(options=ToySource.Options(size=1)), tmp_path / "single", progress=False))
    with pytest.raises(UserError, match="holds single places"):
        build_task(TaskConfig("reconstruction"), corpus, Scales.from_stats(corpus.layout, corpus.stats.to_json()))
