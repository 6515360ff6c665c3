"""Datasets in the format of SeisBench, made with h5py and the real one, against h5py and plain text."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

pytest.importorskip("obspy")

from tests.readings import real, refusal_of, samples_of

from scigpt.data.sample import Sample
from scigpt.data_prep.source import SampleRef
from scigpt.data_prep.sources.earthscope import EarthScope


def channel(sample: Sample, name: str) -> tuple[np.ndarray, np.ndarray]:
    at = [v.name for v in sample.variables].index(name)
    return sample.values[:, at, 0, 0, 0], sample.valid[:, at, 0, 0, 0]


def dataset(folder: Path, rows: Sequence[dict[str, Any]], arrays: np.ndarray, **form: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / "waveforms.hdf5", "w") as file:
        file["data/bucket0"] = arrays
        for key, value in {"component_order": "ZNE", "dimension_order": "CW", "sampling_rate": 100, "unit": "counts", **form}.items():
            file[f"data_format/{key}"] = value
    columns = list(dict.fromkeys(c for r in rows for c in r))
    lines = [",".join(columns)] + [",".join(f'"{r.get(c, "")}"' for c in columns) for r in rows]
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


def row(i: int, **more: Any) -> dict[str, Any]:
    return {
        "trace_name": f"bucket0${i},:3,:400",
        "trace_start_time": f"2020-01-0{i + 1}T00:00:00.5",
        "station_network_code": "XA",
        "station_code": "AA",
        "station_latitude_deg": 1,
        "station_longitude_deg": 2,
        "station_elevation_m": 3,
        "source_latitude_deg": 1.1,
        "source_longitude_deg": 2,
        "source_depth_km": 5,
        "source_id": f"ev{i // 2}",
        **more,
    }


def test_a_seisbench_dataset_with_arrivals_noise_and_a_missing_component(tmp_path: Path) -> None:
    data = np.random.default_rng(0).normal(size=(4, 3, 500))
    data[1, 2] = 0.0  # this is how these files say that there is no east
    data[2, 0, 100:120] = np.nan
    rows = [
        row(0, trace_Pn_arrival_sample=120.5, trace_Pg_arrival_sample=118.25, trace_S_arrival_sample=200, split="train"),
        row(1, trace_P_arrival_sample=90, split="dev"),
        row(2, trace_category="noise", split="test"),
        row(3, split="test"),
    ]
    folder = dataset(tmp_path / "a", rows, data)
    source = EarthScope([folder], EarthScope.Options(split_by="given", label_width=4.0))
    plan = source.plan()
    assert [r.split for r in plan.refs] == ["train", "valid", "test", "test"]
    samples = [s for s in source.samples(plan.refs) if s is not None]
    assert samples[0].values.shape == (400, 5, 1, 1, 1)
    for i, sample in enumerate(samples):
        for name, order in (("up", 0), ("north", 1), ("east", 2)):
            values, valid = channel(sample, f"seismic_counts_{name}")
            expected = data[i, order, :400]
            np.testing.assert_array_equal(valid, np.isfinite(expected) & np.any(expected != 0))
            np.testing.assert_array_equal(values[valid], expected[valid].astype(np.float32))
    p, known = channel(samples[0], "p_arrival")
    assert known.all()
    np.testing.assert_allclose(p, np.exp(-((np.arange(400) - 118.25) ** 2) / 32), atol=1e-6)
    assert not channel(samples[1], "s_arrival")[1].any()
    assert channel(samples[2], "p_arrival")[1].all()
    assert not channel(samples[2], "p_arrival")[0].any()
    assert samples[0].time.labels()[0].startswith("2020-01-01T00:00:00.5")
    np.testing.assert_allclose(np.diff(samples[0].time.seconds), 0.01, atol=2e-7)
    refs = EarthScope([folder], EarthScope.Options(splits=(0.5, 0.5, 0.0))).plan().refs
    events = [s.origin.about["event"]["id"] for s in source.samples(refs) if s is not None]
    assert set(zip(events, (r.split for r in refs), strict=True)) in (
        {("ev0", "train"), ("ev1", "valid")},
        {("ev1", "train"), ("ev0", "valid")},
    )


def test_a_plan_keeps_little_of_a_row(tmp_path: Path) -> None:
    """A million rows must fit: what the table says of each is read again, by where its line begins."""
    rows = [row(i, station_code=f"A{i}", note="two\nlines", trace_P_arrival_sample=10 * i) for i in range(4)]
    folder = dataset(tmp_path / "a", rows, np.random.default_rng(0).normal(size=(4, 3, 400)))
    source = EarthScope([folder], EarthScope.Options(split="train"))
    refs = source.plan().refs
    assert len({id(r.spec["corpus"]) for r in refs}) == 1
    assert all(len(json.dumps({k: v for k, v in r.spec.items() if k != "corpus"})) < 120 for r in refs)
    for i, ref in reversed(list(enumerate(refs))):
        (sample,) = EarthScope([folder], source.options).samples([SampleRef(ref.key, ref.split, json.loads(json.dumps(dict(ref.spec))))])
        assert sample is not None
        assert sample.origin.place == f"XA.A{i}.."
        np.testing.assert_allclose(channel(sample, "p_arrival")[0], np.exp(-((np.arange(400) - 10 * i) ** 2) / 18), atol=1e-6)


def test_seisbench_units_orders_and_what_is_refused(tmp_path: Path) -> None:
    data = np.random.default_rng(0).normal(size=(2, 400, 3))
    folder = dataset(
        tmp_path / "a",
        [row(0, trace_name="bucket0$0,:400,:3"), row(1, trace_name="bucket0$1,:400,:3")],
        data,
        dimension_order="NWC",
        unit="nm/s",
    )
    (one, _) = samples_of(EarthScope, folder, split="train")
    assert [(v.name, v.unit) for v in one.variables] == [(f"ground_velocity_{d}", "m s**-1") for d in ("east", "north", "up")]
    np.testing.assert_allclose(channel(one, "ground_velocity_up")[0], data[0, :, 0] * 1e-9, rtol=1e-6)
    data = np.zeros((2, 3, 400)) + 1
    cases: tuple[tuple[list[dict[str, Any]], dict[str, Any], str], ...] = (
        ([row(0)], {"unit": "furlong"}, "states the unit 'furlong' of its samples"),
        ([row(0)], {"sampling_rate": 0}, "no sampling rate"),
        ([row(0)], {"component_order": "XY"}, "the order of the components is 'XY'"),
        ([row(5)], {}, "are not in the array file"),
        ([row(0, trace_name="bucket0$0,:3,:9999")], {}, "asks for more than the (3, 400) samples that are there"),
        ([row(0, trace_start_time="noon")], {}, "trace_start_time is 'noon'"),
        ([row(0, source_depth_km="deep")], {}, "'deep' is not a number"),
    )
    for i, (rows, form, told) in enumerate(cases):
        assert told in refusal_of(EarthScope, dataset(tmp_path / str(i), rows, data, **form))
    whole = dataset(tmp_path / "w", [row(0), row(1)], data)
    text, arrays = (whole / "metadata.csv").read_bytes(), (whole / "waveforms.hdf5").read_bytes()
    for name, cut in (
        ("metadata.csv", text[:-40]),
        ("waveforms.hdf5", arrays[: len(arrays) // 2]),
        ("metadata.csv", b""),
        ("waveforms.hdf5", b""),
    ):
        shutil.copytree(whole, tmp_path / "cut", dirs_exist_ok=True)
        (tmp_path / "cut" / name).write_bytes(cut)
        assert refusal_of(EarthScope, tmp_path / "cut")
    (whole / "waveforms.hdf5").unlink()
    assert "waveforms.hdf5 is not among the inputs" in refusal_of(EarthScope, whole)


def test_real_seisbench_dataset_all_traces() -> None:
    table, arrays = real("earthscope/metadata.csv"), real("earthscope/waveforms.hdf5")
    source = EarthScope([table, arrays], EarthScope.Options())
    plan = source.plan()
    assert len(plan.refs) == 100
    lines = [line.split('"') for line in table.read_text().splitlines()[1:]]
    found = {s.origin.about["trace"]: s for s in source.samples(plan.refs) if s is not None}
    with h5py.File(arrays) as file:
        for before, name, after in lines:
            sample = found[name]
            bucket, _, at = name.partition("$")
            data = file[f"data/{bucket}"][int(at.partition(",")[0])]
            for order, direction in enumerate(("up", "north", "east")):
                values, valid = channel(sample, f"seismic_counts_{direction}")
                assert valid.all() == bool(np.any(data[order] != 0))
                np.testing.assert_array_equal(values[valid], data[order].astype(np.float32)[valid])
            cells, rest = before.split(","), after.split(",")
            when = np.datetime64(cells[0].replace("/", "-").replace(" ", "T"), "ns")
            assert sample.time.seconds[0] == pytest.approx((when - np.datetime64("2000-01-01", "ns")) / np.timedelta64(1, "s"), abs=1e-6)
            np.testing.assert_allclose(np.diff(sample.time.seconds), 0.05, atol=1e-7)
            assert sample.origin.about["event"]["latitude"] == float(cells[1])
            assert sample.origin.about["event"]["magnitude"] == float(cells[5])
            assert float(sample.coordinates["latitude"].values[0]) == float(rest[4])
    assert any("no event has a pick" in n for n in plan.notes)
