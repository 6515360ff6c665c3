"""Climatology: exact on a known seasonal cycle, from the training split alone, absent where there is none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cftime
import numpy as np
import pytest
from worlds import Mover, make

from scigpt.data.corpus import Corpus
from scigpt.data.mixture import CorpusConfig, DataConfig
from scigpt.data.sample import Coordinate, Origin, Sample, Time, Variable
from scigpt.data_prep.convert import convert
from scigpt.data_prep.source import Description, Plan, SampleRef, Source, Split
from scigpt.evaluate.climatology import Climatology
from scigpt.evaluate.plan import Options, Subject, plan
from scigpt.evaluate.study import CLIMATOLOGY, Beside, study

LATITUDE, LONGITUDE = np.array([60.0, 20.0, -20.0, -60.0]), np.arange(8) * 45.0


# values are stored as 16-bit integers, with an error below 1e-3 of the increment of some 7 K


def cycle(month: np.ndarray) -> np.ndarray:
    """A value for each month (1 to 12) and point, `(T, 1, 1, 4, 8)`."""
    place = np.sin(np.radians(LATITUDE))[:, None] * (1 + 0.1 * np.cos(np.radians(LONGITUDE)))
    return (280 + 15 * np.sin(month / 12 * 2 * np.pi)[:, None, None] * place + 3 * place)[:, None, None].astype(np.float32)


class Seasons(Source):
    """Records of some months: of the training split each month is seen once 1 K too warm and once as much too cold."""

    name = "seasons"

    @dataclass(frozen=True)
    class Options:
        years: int = 4
        moved: bool = False

    @classmethod
    def describe(cls) -> Description:
        return Description("seasons", "tests", "none", "CC0-1.0", "nobody")

    def plan(self) -> Plan:
        every = self.options.years // 2
        refs = tuple(SampleRef(f"{i:06d}", s, {"start": i * every, "place": i}) for i, s in enumerate(("train", "train", "valid")))
        return Plan(refs, (Split("train"), Split("valid", "in", "later")))

    def samples(self, refs: Sequence[SampleRef]) -> Iterator[Sample]:
        for ref in refs:
            count = 12 * max(1, self.options.years // 2)
            dates = [cftime.datetime(2000 + ref.spec["start"] + i // 12, 1 + i % 12, 15, calendar="standard") for i in range(count)]
            month, year = np.array([d.month for d in dates]), np.array([d.year for d in dates])
            noise = 0.0 if ref.split == "valid" else np.where(year % 2 == 0, 1.0, -1.0)[:, None, None, None, None]
            values = (cycle(month) + noise).astype(np.float32)
            valid = np.ones(values.shape, bool)
            valid[month == 7, ..., 0, 0] = False  # a point that is never seen in July
            values[~valid] = np.nan
            shift = 5.0 * ref.spec["place"] if self.options.moved else 0.0
            yield Sample(
                values,
                valid,
                (Variable("air_temperature", "K"),),
                Time.from_dates(np.array(dates)),
                Origin("seasons", "CC0-1.0"),
                geometry="sphere",
                coordinates={
                    "latitude": Coordinate(("y",), LATITUDE, "degrees_north"),
                    "longitude": Coordinate(("x",), LONGITUDE + shift, "degrees_east"),
                },
            )


def subject(folder: Path, crop: list[int] | None = None, **options: object) -> Subject:
    path = folder / "seasons"
    convert(Seasons((), Seasons.Options(**options)), path, "seasons", 1)  # type: ignore[arg-type]
    config = CorpusConfig(str(path), crop=crop)
    return Subject.of(Corpus.open(path), config, DataConfig(frames=4))


def test_the_cycle_is_found_in_the_training_split(tmp_path: Path) -> None:
    given = subject(tmp_path)
    found = Climatology.of(given.corpus, given.config, given.scales)
    assert found is not None
    expected = cycle(np.arange(1, 13))
    means = found.means.numpy()
    assert np.delete(means, 6, 0) == pytest.approx(np.delete(expected, 6, 0), abs=2e-3)
    assert means[6, ..., 1:, :] == pytest.approx(expected[6, ..., 1:, :], abs=2e-3)
    assert means[6, 0, 0, 0, 0] == pytest.approx(np.delete(expected, 6, 0)[:, 0, 0, 0, 0].mean(), abs=2e-3)


@pytest.mark.parametrize("crop", [None, [2, 4]])
def test_it_is_a_baseline_of_one_step_and_rollouts_and_of_crops(tmp_path: Path, crop: list[int] | None) -> None:
    given = subject(tmp_path, crop)
    beside = Beside({}, Climatology.of(given.corpus, given.config, given.scales))
    numbers = study(Mover(), plan(given, "valid", Options(windows=8, rollouts=4)), beside=beside).numbers
    (row,) = numbers["one_step"].values()
    assert row["methods"][CLIMATOLOGY]["rmse"] < 2e-3
    assert row["methods"]["persistence"]["rmse"] > 1
    assert numbers["summary"]["best_baseline"] == CLIMATOLOGY
    (curves,) = numbers["rollout"]["variables"].values()
    assert max(curves[CLIMATOLOGY]["vrmse"]) < 2e-3


def test_there_is_none_without_dates_with_too_little_data_or_of_places_that_differ(tmp_path: Path) -> None:
    for kind in ("line", "map", "steady"):
        path = make(tmp_path, kind)
        given = Subject.of(Corpus.open(path), CorpusConfig(str(path)), DataConfig(frames=4))
        assert Climatology.of(given.corpus, given.config, given.scales) is None
    for name, options in {"short": {"years": 1}, "moved": {"moved": True}}.items():
        given = subject(tmp_path / name, **options)
        assert Climatology.of(given.corpus, given.config, given.scales) is None
