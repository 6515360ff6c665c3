"""Duplicates in one corpus and across corpora: told where they are, and nothing told that is none."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from toy import ToySource, smooth_sample

from scigpt.data.corpus import Corpus
from scigpt.data.duplicates import Duplicate, describe, duplicates
from scigpt.data.sample import Coordinate, Origin, Sample, SourceFile, Time, Variable
from scigpt.data_prep.convert import convert
from scigpt.data_prep.source import Description, Plan, SampleRef, Source, Split

DAY = 86400.0


class Weather(Source):
    """Samples of given seeds, days, longitudes and files: `seed:day:longitude:file:split`."""

    name = "weather"

    @dataclass(frozen=True)
    class Options:
        samples: tuple[str, ...] = ()
        scale: float = 1.0
        constant: bool = False
        curvilinear: bool = False

    options: Options

    @classmethod
    def describe(cls) -> Description:
        return Description("weather", "tests", "none", "CC0-1.0")

    def plan(self) -> Plan:
        refs = [SampleRef(f"{i:03d}", text.split(":")[4], {"text": text}) for i, text in enumerate(self.options.samples)]
        splits = tuple(dict.fromkeys(r.split for r in refs))
        files = dict.fromkeys(text.split(":")[3] for text in self.options.samples)
        refs.sort(key=lambda r: splits.index(r.split))
        return Plan(tuple(refs), tuple(Split(s) for s in splits), tuple((f"{f}.nc", f * 64) for f in files), 1024)

    def samples(self, refs: Sequence[SampleRef]) -> Iterator[Sample]:
        for ref in refs:
            seed, day, longitude, file, _ = ref.spec["text"].split(":")
            sample = smooth_sample(int(seed), 4, (1, 4, 5), ("air_temperature",))
            rounded = np.round(sample.values * 64) / 64  # so that a scale of 4 gives the same bytes when packed
            values = rounded * 0 + 7 if self.options.constant else rounded * np.float32(self.options.scale)
            latitude, longitudes = np.arange(4.0), np.arange(5.0) + float(longitude)
            axes = (("y",), latitude), (("x",), longitudes)
            if self.options.curvilinear:
                axes = tuple((("y", "x"), g) for g in np.meshgrid(latitude, longitudes, indexing="ij"))
            units = ("degrees_north", "degrees_east")
            coordinates = {n: Coordinate(a, v, u) for n, (a, v), u in zip(("latitude", "longitude"), axes, units, strict=True)}
            yield replace(
                sample,
                values=values.astype(np.float32) + np.float32(280),
                variables=(Variable("air_temperature", "K"),),
                time=Time.regular(float(day) * DAY, 6 * 3600.0, 4, "standard"),
                origin=Origin("weather", "CC0-1.0", (SourceFile(f"{file}.nc", file * 64),)),
                geometry="sphere",
                coordinates=coordinates,
            )


@pytest.fixture(autouse=True)
def unrefused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A corpus that leaks into itself is not made otherwise."""
    monkeypatch.setattr("scigpt.data_prep.convert.duplicates", lambda corpora: [])


def corpus(folder: Path, *samples: str, **options: object) -> Corpus:
    return Corpus.open(convert(Weather((), Weather.Options(samples, **options)), folder, progress=False))  # type: ignore[arg-type]


def pairs(found: Sequence[Duplicate]) -> set[tuple[str, ...]]:
    return {(d.kind, d.first.corpus.name, d.first.split, d.first.key, d.second.corpus.name, d.second.split, d.second.key) for d in found}


def test_a_held_out_sample_that_is_trained_on_is_a_leak(tmp_path: Path) -> None:
    found = duplicates([corpus(tmp_path / "a", "1:0:0:a:train", "2:9:0:a:train", "1:0:0:b:test", "2:9:0:a:train", "3:0:0:b:test")])
    assert pairs(found) == {
        ("sample", "a", "train", "000", "a", "test", "002"),
        ("sample", "a", "train", "001", "a", "train", "003"),
    }
    assert [d.leak for d in sorted(found, key=lambda d: d.first.key)] == [True, False]
    leak = next(d for d in found if d.leak)
    assert describe(leak) == (
        f"{tmp_path / 'a'}, split train, sample 000 and {tmp_path / 'a'}, split test, sample 002 hold the same values: "
        f"what is tested was trained on"
    )
    other = next(d for d in found if not d.leak)
    assert describe(other).endswith("sample 001 and sample 003 of the same split hold the same values")


def test_two_corpora_are_compared(tmp_path: Path) -> None:
    one = corpus(tmp_path / "a", "1:0:0:a:train", "2:0:0:a:train")
    two = corpus(tmp_path / "b", "2:0:0:b:test", "5:0:0:b:train", "1:0:0:b:train")
    assert pairs(duplicates([one, two])) == {
        ("sample", "a", "train", "001", "b", "test", "000"),
        ("sample", "a", "train", "000", "b", "train", "002"),
    }
    assert [d.leak for d in duplicates([two, one])].count(True) == 1
    assert duplicates([one]) == duplicates([two]) == []


@pytest.mark.parametrize("other", ["1:1:0:b:test", "1:0:9:b:test"], ids=["another day", "another place"])
@pytest.mark.parametrize("curvilinear", [False, True])
def test_equal_values_at_another_time_or_place_are_no_duplicates(tmp_path: Path, other: str, curvilinear: bool) -> None:
    assert duplicates([corpus(tmp_path / "a", "1:0:0:a:train", other, curvilinear=curvilinear)]) == []
    same = duplicates([corpus(tmp_path / "b", "1:0:0:a:train", "1:0:0:b:test", curvilinear=curvilinear)])
    assert len(same) == 1


def test_fields_of_another_scale_that_are_packed_into_the_same_bytes_are_no_duplicates(tmp_path: Path) -> None:
    one, two = (corpus(tmp_path / f"{s}", "1:0:0:a:train", scale=s) for s in (1.0, 4.0))
    members = [json.loads((c.path / "train-000000.index.json").read_bytes())["samples"][0]["members"] for c in (one, two)]
    assert members[0]["values.npy"]["sha256"] == members[1]["values.npy"]["sha256"]
    assert duplicates([one, two]) == []


def test_constant_fields_collide_honestly(tmp_path: Path) -> None:
    assert duplicates([corpus(tmp_path / "a", "1:0:0:a:train", "1:0:0:b:test", constant=True)]) == []


def test_simulated_samples_are_compared_by_their_values_alone(tmp_path: Path) -> None:
    toys = [convert(ToySource((), ToySource.Options(seed=s, samples=10)), tmp_path / f"{s}", progress=False) for s in (0, 9)]
    found = duplicates([Corpus.open(t) for t in toys])
    # trajectory 9 is held out of the first corpus and the first of the second
    assert pairs(found) == {("sample", "9", "train", "000000", "0", "valid", "000009")}
    assert found[0].leak


def test_a_file_that_trains_one_corpus_and_tests_another_is_told_where_the_times_overlap(tmp_path: Path) -> None:
    one = corpus(tmp_path / "a", "1:0:0:a:train", "2:5:0:a:train", "3:9:0:c:train")
    two = corpus(tmp_path / "b", "11:5:2:a:test", "12:0:0:b:test", "13:0:0:a:train", "14:5:2:a:test")
    (found,) = duplicates([one, two])
    assert (found.kind, found.file, found.leak) == ("file", "a.nc", True)
    assert (found.first.key, found.second.key) == ("001", "000")
    assert describe(found) == (
        f"{tmp_path / 'a'}, split train, and {tmp_path / 'b'}, split test, hold the same times of the file a.nc (such as the samples 001 "
        f"and 000): what is tested there was trained on here"
    )
    later = corpus(tmp_path / "later", "11:30:0:a:test")
    elsewhere = corpus(tmp_path / "elsewhere", "11:5:100:a:test")
    assert duplicates([one, later]) == duplicates([one, elsewhere]) == []
    wrapped = corpus(tmp_path / "wrapped", "11:5:-358:a:test")
    assert [d.kind for d in duplicates([one, wrapped])] == ["file"]
