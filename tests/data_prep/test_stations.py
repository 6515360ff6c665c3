"""The engine of stations, on a source of the simplest kind: one JSON file for each station or for several."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from readings import refusal_of, samples_of

from scigpt.data.corpus import Corpus
from scigpt.data.sample import Sample, Variable
from scigpt.data_prep import stations
from scigpt.data_prep.convert import convert
from scigpt.data_prep.neighbours import groups_of, homes, on_sphere, together
from scigpt.data_prep.source import Description
from scigpt.data_prep.station_records import DAY, Clock, Readings, Station
from scigpt.data_prep.stations import StationOptions, StationSource
from scigpt.errors import UserError

TEMPERATURE, RAIN = Variable("air_temperature", "K"), Variable("precipitation_amount", "kg m**-2")
ALTITUDE = Variable("surface_altitude", "m", "static")


class Toy(StationSource):
    """`{"clock": [step, interval], "stations": [{id, latitude, longitude, begins, values: {name: [...]}, ...}]}`."""

    name = "toy"
    Options = StationOptions

    @classmethod
    def describe(cls) -> Description:
        return Description("toy", "a test", "JSON", "CC0", "nobody")

    @property
    def clock(self) -> Clock:
        return Clock(*json.loads(self.inputs[0].read_text())["clock"])

    def open(self, path: Path) -> list[Station]:
        return [self._station(s) for s in json.loads(path.read_text())["stations"]]

    def _station(self, told: dict[str, Any]) -> Station:
        begins = np.array(told["begins"], "datetime64[s]")
        names = {"air_temperature": TEMPERATURE, "precipitation_amount": RAIN}
        values = np.array([[np.nan if v is None else v for v in told["values"][n]] for n in told["values"]], np.float32).T
        static = {ALTITUDE: told["altitude"]} if "altitude" in told else {}
        return Station(
            told["id"],
            told["latitude"],
            told["longitude"],
            tuple(names[n] for n in told["values"]),
            begins.min(),
            begins.max(),
            lambda: Readings(begins, values),
            told.get("height"),
            told.get("whole", ""),
            static,
            {"country": told["id"][:2]},
        )


def station(
    name: str, place: tuple[float, float], first: str, values: dict[str, list[float | None]], step: int = DAY, **more: Any
) -> dict[str, Any]:
    count = len(next(iter(values.values())))
    begins = np.datetime64(first, "s") + step * np.arange(count)
    return {"id": name, "latitude": place[0], "longitude": place[1], "begins": begins.astype(str).tolist(), "values": values, **more}


def written(path: Path, *told: dict[str, Any], clock: tuple[int | None, bool] = (DAY, True)) -> Path:
    path.write_text(json.dumps({"clock": clock, "stations": told}))
    return path


def network(folder: Path, count: int = 12, days: int = 60, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    told = [
        station(f"AA{i:03d}", tuple(rng.uniform(-60, 60, 2)), "2001-01-01", {"air_temperature": rng.uniform(270, 300, days).tolist()})
        for i in range(count)
    ]
    return written(folder / f"network{seed}.json", *told)


def one(samples: list[Sample]) -> Sample:
    assert len(samples) == 1
    return samples[0]


def test_stations_stand_side_by_side_and_what_one_lacks_is_a_gap(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.json",
        station("b", (48.0, 11.0), "2001-01-02", {"precipitation_amount": [1.0, None, 3.0]}, altitude=520.0, height=520.0),
        station("a", (60.0, 5.0), "2001-01-01", {"air_temperature": [280.0, 281.0, 282.0, 283.0]}),
    )
    sample = one(samples_of(Toy, path, split="train"))
    assert sample.geometry == "points"
    assert [v.key for v in sample.variables] == ["air_temperature", "precipitation_amount", "surface_altitude"]
    assert sample.variables[2].role == "static"
    values = np.where(sample.valid, sample.values, np.nan)[:, :, 0, 0]
    nan = np.nan
    np.testing.assert_array_equal(values[:, 0], [[280, nan], [281, nan], [282, nan], [283, nan]])
    np.testing.assert_array_equal(values[:, 1], [[nan, nan], [nan, 1], [nan, nan], [nan, 3]])
    np.testing.assert_array_equal(values[:, 2], [[nan, 520]] * 4)
    assert sample.coordinates["latitude"].values.tolist() == [60.0, 48.0]
    np.testing.assert_array_equal(sample.coordinates["height"].values, [nan, 520.0])
    assert sample.origin.about == {"stations": ["a", "b"], "country": ["a", "b"]}
    assert sample.time.labels()[0] == "2001-01-01T12:00:00"
    assert sample.time.bounds is not None
    np.testing.assert_array_equal(np.diff(sample.time.bounds, axis=1)[:, 0], [DAY] * 4)


def test_a_series_spans_what_its_station_recorded(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.json",
        station("a", (60.0, 5.0), "2001-01-01", {"air_temperature": [280.0] * 10}),
        station("b", (48.0, 11.0), "2001-01-05", {"air_temperature": [290.0, 291.0]}),
    )
    first, second = samples_of(Toy, path, split="train", layout="series")
    assert first.values.shape == (10, 1, 1, 1, 1)
    assert second.values.ravel().tolist() == [290.0, 291.0]
    assert second.time.labels()[0] == "2001-01-05T12:00:00"
    assert second.origin.place == "b"
    assert second.origin.about == {"station": "b", "country": "b"}


def test_months_have_their_own_lengths_and_instants_no_bounds(tmp_path: Path) -> None:
    told = station("a", (0.0, 0.0), "2004-01-01", {"air_temperature": [280.0, 281.0, 282.0]})
    told["begins"] = ["2004-01-01T00:00:00", "2004-02-01T00:00:00", "2004-03-01T00:00:00"]
    sample = one(samples_of(Toy, written(tmp_path / "m.json", told, clock=(None, True)), split="train"))
    assert sample.time.bounds is not None
    assert (np.diff(sample.time.bounds, axis=1)[:, 0] / DAY).tolist() == [31, 29, 31]
    told = station("a", (0.0, 0.0), "2004-01-01T00:10", {"air_temperature": [280.0, 281.0, 282.0]}, step=1800)
    sample = one(samples_of(Toy, written(tmp_path / "h.json", told, clock=(1800, False)), split="train"))
    assert sample.time.bounds is None
    assert sample.time.labels() == ["2004-01-01T00:10:00", "2004-01-01T00:40:00", "2004-01-01T01:10:00"]


def test_two_clocks_make_no_sample_of_points(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.json",
        station("a", (60.0, 5.0), "2001-01-01T00:00", {"air_temperature": [280.0] * 4}, step=3600),
        station("b", (48.0, 11.0), "2001-01-01T00:30", {"air_temperature": [290.0] * 4}, step=3600),
        clock=(3600, True),
    )
    assert "layout=series" in refusal_of(Toy, path)
    assert [s.time.labels()[0][11:16] for s in samples_of(Toy, path, layout="series", split="train")] == ["00:30", "01:00"]


def test_a_station_of_several_files_is_one(tmp_path: Path) -> None:
    a = written(tmp_path / "2001.json", station("a", (60.0, 5.0), "2001-12-30", {"air_temperature": [280.0, 281.0]}))
    b = written(tmp_path / "2002.json", station("a", (60.0, 5.0), "2001-12-31", {"air_temperature": [281.0, 283.0]}))
    assert one(samples_of(Toy, [b, a], split="train")).values.ravel().tolist() == [280.0, 281.0, 283.0]
    c = written(tmp_path / "c.json", station("a", (60.0, 5.0), "2001-12-31", {"air_temperature": [281.5, 283.0]}))
    assert "has air_temperature 281.5 at 2001-12-31" in refusal_of(Toy, [a, c])
    d = written(tmp_path / "d.json", station("a", (61.0, 5.0), "2002-01-05", {"air_temperature": [281.5, 283.0]}))
    assert "lies at 60 5" in refusal_of(Toy, [a, d])


@pytest.mark.parametrize(
    ("begins", "said"),
    [
        (["2001-01-01", "2001-01-01"], "one value for each step of 86400 s"),
        (["2001-01-02", "2001-01-01"], "one value for each step of 86400 s"),
        (["2001-01-01", "2001-01-02T06:00"], "one value for each step of 86400 s"),
    ],
)
def test_values_that_are_not_on_the_clock_are_refused(tmp_path: Path, begins: list[str], said: str) -> None:
    told = station("a", (60.0, 5.0), "2001-01-01", {"air_temperature": [280.0, 281.0]}) | {"begins": begins}
    assert said in refusal_of(Toy, written(tmp_path / "a.json", told), split="train")


def test_blocks_of_time_are_common_to_all_stations(tmp_path: Path) -> None:
    source = Toy([network(tmp_path)], StationOptions(stations_per_sample=4, frames_per_sample=10, gap=3))
    ends: dict[str, list[float]] = {}
    made = zip(source.plan().refs, source.samples(source.plan().refs), strict=True)
    for ref, sample in made:
        assert sample is not None
        assert sample.values.shape[-1] == 4
        ends.setdefault(ref.split, []).extend(sample.time.seconds[[0, -1]])
    assert min(ends["valid"]) - max(ends["train"]) == (3 + 1) * DAY
    assert min(ends["test"]) - max(ends["valid"]) == (3 + 1) * DAY


def test_a_split_by_station_keeps_neighbours_and_basins_together(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    told = []
    for i in range(30):
        place = tuple(rng.uniform(-60, 60, 2))
        for k in range(2):  # two gauges a kilometre apart
            near = (place[0] + 0.009 * k, place[1])
            told.append(station(f"S{i:02d}{k}", near, "2001-01-01", {"air_temperature": [280.0] * 8}, whole=f"basin{i // 2}"))
    source = Toy([written(tmp_path / "a.json", *told)], StationOptions(split_by="station", stations_per_sample=4))
    plan = source.plan()
    home: dict[str, set[str]] = {}
    for ref, sample in zip(plan.refs, source.samples(plan.refs), strict=True):
        assert sample is not None
        for name in sample.origin.about["stations"]:
            home.setdefault(f"basin{int(name[1:3]) // 2}", set()).add(ref.split)
    assert all(len(splits) == 1 for splits in home.values())
    assert len(home) == 15
    assert {s for splits in home.values() for s in splits} == {"train", "valid", "test"}


def test_groups_have_one_size_hold_every_place_and_are_compact() -> None:
    places = np.random.default_rng(2).uniform((-60, -180), (60, 180), (103, 2))
    groups = groups_of(places, 10)
    assert {len(set(g)) for g in groups} == {10}
    assert {i for g in groups for i in g} == set(range(103))
    points = on_sphere(places)
    spread = np.mean([points[g].std(0).sum() for g in groups])
    assert spread < 0.5 * points.std(0).sum()


def test_near_means_kilometres_on_the_globe() -> None:
    places = np.array([[0.0, 179.999], [0.0, -179.999], [80.0, 0.0], [80.0, 0.5]])
    assert len(set(together(places, 1.0))) == 3  # 0.2 km across the date line; 9.7 km at 80 degrees
    assert len(set(together(places, 10.0))) == 2
    notes: list[str] = []
    assert homes(["a", "b", "c", "d"], places, 10.0, (0.8, 0.1, 0.1), notes) == {"train": [0, 1, 2, 3]}
    assert "too few" in notes[0]


def test_choices(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.json",
        station("USA", (40.0, -100.0), "2001-01-01", {"air_temperature": [280.0] * 40, "precipitation_amount": [0.0] * 40}),
        station("USB", (41.0, 260.5), "2001-01-20", {"air_temperature": [280.0] * 4}),
        station("FRA", (45.0, 2.0), "2001-01-01", {"air_temperature": [280.0] * 40}),
    )

    def chosen(**options: Any) -> list[str]:
        return one(samples_of(Toy, path, split="train", **options)).origin.about["stations"]

    assert chosen(stations=("US*",)) == ["USA", "USB"]
    assert chosen(box=(30.0, 50.0, -110.0, -90.0)) == ["USA", "USB"]
    assert chosen(box=(30.0, 50.0, 350.0, 10.0)) == ["FRA"]  # across Greenwich
    assert chosen(min_span=0.5) == ["FRA", "USA"]
    assert chosen(variables=("precipitation_amount",)) == ["USA"]
    assert "matches no station" in refusal_of(Toy, path, stations=("DE*",))
    assert "holds none" in refusal_of(Toy, path, box=(-50.0, -40.0, 0.0, 10.0))
    assert "did you mean air_temperature" in refusal_of(Toy, path, variables=("air_temperatur",))
    assert "lies outside" in refusal_of(Toy, path, period="1990-1995")
    for wrong in ({"box": (1.0, 2.0)}, {"min_span": 2.0}, {"split": "trian"}, {"stations_per_sample": 0}):
        with pytest.raises(UserError):
            StationOptions(**wrong)  # type: ignore[arg-type]


def test_samples_without_enough_values_are_left_out(tmp_path: Path) -> None:
    values: list[float | None] = [280.0] * 8 + [None] * 16 + [281.0, None, None, None, None, None, None, 282.0]
    path = written(tmp_path / "a.json", station("a", (60.0, 5.0), "2001-01-01", {"air_temperature": values}))
    made = samples_of(Toy, path, split="train", layout="series", frames_per_sample=8)
    assert [int(s.valid.sum()) for s in made] == [8, 2]
    assert len(samples_of(Toy, path, split="train", layout="series", frames_per_sample=8, min_valid=0.5)) == 1


def test_a_corpus_of_points_is_the_same_in_memory_and_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = network(tmp_path)
    options = StationOptions(stations_per_sample=6, frames_per_sample=8)
    convert(Toy([path], options), tmp_path / "one", progress=False)
    monkeypatch.setattr(stations, "IN_MEMORY", 1)
    convert(Toy([path], options), tmp_path / "other", progress=False)
    one, other = (Corpus.open(tmp_path / n) for n in ("one", "other"))
    assert one.manifest["shards"] == other.manifest["shards"]
    assert one.layout.grid == (1, 1, 6)
    assert one.read("train", 0).origin.about["stations"]


def test_two_files_of_one_station_on_two_clocks_are_refused(tmp_path: Path) -> None:
    a = written(
        tmp_path / "a.json", station("a", (60.0, 5.0), "2001-01-01T00:00", {"air_temperature": [280.0] * 4}, step=1800), clock=(1800, True)
    )
    b = written(
        tmp_path / "b.json", station("a", (60.0, 5.0), "2001-01-02T00:10", {"air_temperature": [281.0] * 4}, step=1800), clock=(1800, True)
    )
    for layout in ("points", "series"):
        assert "0 s after a step of the clock in a.json and 600 s in b.json" in refusal_of(Toy, [a, b], split="train", layout=layout)


def test_a_record_is_read_once_however_many_samples_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stations, "IN_MEMORY", 1)
    read: list[str] = []

    class Counted(Toy):
        def _station(self, told: dict[str, Any]) -> Station:
            made = super()._station(told)

            def counted() -> Readings:
                read.append(made.id)
                return made.read()

            return replace(made, read=counted)

    source = Counted([network(tmp_path)], StationOptions(stations_per_sample=6, frames_per_sample=5, split="train"))
    refs = source.plan().refs
    for ref in refs:  # a shard each
        list(source.samples([ref]))
    assert len(refs) == 24
    assert sorted(read) == sorted(set(read))
