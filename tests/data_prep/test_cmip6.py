"""CMIP6: calendars, bounds, curvilinear grids, records of several experiments, and the scenario test that ships with the demo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cftime
import netCDF4
import numpy as np
import pytest
import xarray as xr
from readings import real

from scigpt.data.corpus import Corpus
from scigpt.data.sample import TIME_UNITS, Sample
from scigpt.data.verify import verify
from scigpt.data_prep.convert import convert
from scigpt.data_prep.embedded import resolve
from scigpt.data_prep.source import Source
from scigpt.data_prep.sources.cmip6 import Cmip6
from scigpt.data_prep.sources.era5 import Era5
from scigpt.data_prep.sources.miniseed import Miniseed
from scigpt.errors import UserError

REAL = (
    "tas_day_CESM2-WACCM_historical_r1i1p1f1_gn_20000101-20091231.nc",
    "tasmax_Amon_MRI-ESM2-0_historical_r1i1p1f1_gn_185001-201412.nc",
    "tasmax_day_HadGEM2-CC_rcp85_r1i1p1_na10kgrid_qm-moving-50bins-detrend_2095.nc",
    "tos_Omon_CESM2-FV2_historical_r1i1p1f1_gn_200001.nc",
)


def read(*paths: Path | str, **options: Any) -> list[Sample]:
    source = Cmip6([Path(p) for p in paths], Cmip6.Options(**options))
    return list(source.samples(source.plan().refs))


def monthly(path: Path, calendar: str, months: int = 36, **attrs: str) -> np.ndarray:
    """A small CMIP6-like file written by netCDF4; returns the values as stored."""
    values = np.random.default_rng(months).uniform(220, 310, (months, 4, 6)).astype("f4")
    with netCDF4.Dataset(path, "w", format="NETCDF4_CLASSIC") as file:
        for name, size in (("time", None), ("bnds", 2), ("lat", 4), ("lon", 6)):
            file.createDimension(name, size)
        file.setncatts(attrs)
        units = "days since 0001-01-01 00:00:00"
        starts = [cftime.datetime(2000 + m // 12, m % 12 + 1, 1, calendar=calendar) for m in range(months + 1)]
        edges = np.asarray(cftime.date2num(starts, units, calendar), float)
        time = file.createVariable("time", "f8", ("time",))
        time.setncatts({"units": units, "calendar": calendar, "axis": "T", "standard_name": "time", "bounds": "time_bnds"})
        time[:] = (edges[:-1] + edges[1:]) / 2
        file.createVariable("time_bnds", "f8", ("time", "bnds"))[:] = np.stack([edges[:-1], edges[1:]], axis=1)
        for name, axis, unit, numbers in (
            ("lat", "Y", "degrees_north", np.arange(-67.5, 90, 45)),
            ("lon", "X", "degrees_east", np.arange(0, 360, 60)),
        ):
            variable = file.createVariable(name, "f8", (name,))
            variable.setncatts({"axis": axis, "units": unit})
            variable[:] = numbers
        tas = file.createVariable("tas", "f4", ("time", "lat", "lon"), fill_value=1e20)
        tas.setncatts({"units": "K", "standard_name": "air_temperature", "missing_value": np.float32(1e20), "cell_methods": "time: mean"})
        tas[:] = values
        tas[1, 2, 3] = 1e20
    return values


@pytest.mark.parametrize("calendar", ["noleap", "360_day", "standard", "proleptic_gregorian"])
def test_calendars_and_bounds_are_kept(tmp_path: Path, calendar: str) -> None:
    values = monthly(tmp_path / "a.nc", calendar)
    (sample,) = read(tmp_path / "a.nc", split="train")
    assert sample.time.calendar == calendar
    assert len(sample.time) == 36  # months of unequal length are not holes
    assert sample.time.bounds is not None
    first = cftime.num2date(sample.time.bounds[1, 0], TIME_UNITS, calendar)
    assert (first.year, first.month, first.day) == (2000, 2, 1)
    assert (sample.time.bounds[:, 0] < sample.time.seconds).all()
    assert (sample.time.seconds < sample.time.bounds[:, 1]).all()
    expected = np.ones((36, 4, 6), bool)
    expected[1, 2, 3] = False
    np.testing.assert_array_equal(sample.valid[:, 0, 0], expected)
    np.testing.assert_array_equal(sample.values[:, 0, 0][expected], values[expected])
    assert sample.boundary.x == ("periodic", "periodic")
    assert sample.boundary.y == ("pole", "pole")


def test_experiments_are_records_of_their_own_and_share_the_blocks_of_time(tmp_path: Path) -> None:
    for name in ("historical", "piControl"):
        monthly(tmp_path / f"{name}.nc", "noleap", 120, source_id="M", experiment_id=name, variant_label="r1i1p1f1", grid_label="gn")
    source = Cmip6([tmp_path / "historical.nc", tmp_path / "piControl.nc"])
    plan = source.plan()
    spans: dict[str, set[tuple[float, float]]] = {}
    places = set()
    for ref, sample in zip(plan.refs, source.samples(plan.refs), strict=True):
        spans.setdefault(ref.split, set()).add((sample.time.seconds[0], sample.time.seconds[-1]))
        places.add(sample.origin.place)
        assert len(sample.origin.files) == 1
    assert places == {"M_historical_r1i1p1f1_gn", "M_piControl_r1i1p1f1_gn"}
    assert max(b for _, b in spans["train"]) < min(a for a, _ in spans["valid"]) < min(a for a, _ in spans["test"])


def test_curvilinear_grid_with_missing_coordinates_over_land(tmp_path: Path) -> None:
    y, x = np.meshgrid(np.linspace(-65, 65, 9), np.linspace(0, 345, 24), indexing="ij")
    latitude, longitude = y + 2 * np.sin(np.deg2rad(x)), (x + 0.1 * y) % 360
    latitude[4, 5] = longitude[4, 5] = np.nan
    values = np.random.default_rng(0).uniform(0, 30, (2, 9, 24)).astype("f4")
    dataset = xr.Dataset(
        {"tos": (("time", "j", "i"), values, {"units": "degC", "standard_name": "sea_surface_temperature"})},
        coords={
            "time": xr.date_range("2000-01-01", periods=2, freq="MS", calendar="noleap", use_cftime=True),
            "lat": (("j", "i"), latitude, {"standard_name": "latitude", "units": "degrees_north"}),
            "lon": (("j", "i"), longitude, {"standard_name": "longitude", "units": "degrees_east"}),
        },
    )
    dataset.to_netcdf(tmp_path / "tos.nc", engine="netcdf4")
    (sample,) = read(tmp_path / "tos.nc")
    coordinate = sample.coordinates["latitude"]
    assert coordinate.axes == ("y", "x")
    assert np.isfinite(coordinate.values).all()
    assert coordinate.values[4, 5] in (latitude[4, 4], latitude[4, 6], latitude[3, 5], latitude[5, 5])
    assert not sample.valid[:, 0, 0, 4, 5].any()
    assert sample.valid.sum() == sample.valid.size - 2
    np.testing.assert_allclose(sample.values[sample.valid], (values + 273.15)[sample.valid[:, 0, 0]], rtol=1e-6)
    assert sample.boundary.x == ("periodic", "periodic")
    assert sample.boundary.y == ("open", "open")


def test_a_daily_maximum_is_never_taken_for_the_mean(tmp_path: Path) -> None:
    monthly(tmp_path / "a.nc", "noleap")
    with netCDF4.Dataset(tmp_path / "a.nc", "a") as file:
        extra = file.createVariable("tasmax", "f4", ("time", "lat", "lon"))
        extra.setncatts({"units": "K", "standard_name": "air_temperature", "cell_methods": "time: maximum"})
        extra[:] = 300.0
    (sample,) = read(tmp_path / "a.nc", split="train")
    assert [v.name for v in sample.variables] == ["air_temperature", "air_temperature_maximum"]
    (sample,) = read(tmp_path / "a.nc", split="train", variables=("tasmax",))
    assert [v.name for v in sample.variables] == ["air_temperature_maximum"]
    assert (sample.values == 300.0).all()


def test_a_period_of_years_and_one_outside_the_record(tmp_path: Path) -> None:
    monthly(tmp_path / "a.nc", "360_day")
    (sample,) = read(tmp_path / "a.nc", split="train", period="2001")
    assert sample.time.labels()[0].startswith("2001-01")
    assert len(sample.time) == 12
    with pytest.raises(UserError, match=r"a\.nc has no frame in the period 1850-1900; it runs from 2000-01-16"):
        read(tmp_path / "a.nc", period="1850-1900")


def test_embedded_scenarios_train_on_a1b_and_test_on_e1_after_2000() -> None:
    source = Cmip6()
    plan = source.plan()
    assert [(s.name, s.distribution) for s in plan.splits] == [("train", "in"), ("valid", "in"), ("test", "in"), ("ood", "out")]
    assert [name for name, _ in plan.inputs] == ["A1B_north_america.nc", "E1_north_america.nc"]
    files = {split: netCDF4.Dataset(resolve(f"embedded:{name}_north_america.nc")) for split, name in (("in", "A1B"), ("out", "E1"))}
    np.testing.assert_array_equal(files["in"]["air_temperature"][:140], files["out"]["air_temperature"][:140])
    frames: dict[str, int] = {}
    for ref, sample in zip(plan.refs, source.samples(plan.refs), strict=True):
        which = "out" if ref.split == "ood" else "in"
        years = [d.year for d in sample.time.dates()]
        assert ref.split != "ood" or min(years) >= 2000
        expected = files[which]["air_temperature"][years[0] - 1860 : years[-1] - 1859]
        np.testing.assert_array_equal(sample.values[:, 0, 0], np.asarray(expected))
        assert sample.origin.licence == "OGL-UK-3.0"
        frames[ref.split] = frames.get(ref.split, 0) + len(sample.time)
    assert frames == {"train": 192, "valid": 22, "test": 22, "ood": 100}


@pytest.mark.parametrize("name", REAL)
def test_real_files_equal_netcdf4(name: str) -> None:
    path, short = real(f"cmip6/{name}"), name.split("_")[0]
    with netCDF4.Dataset(path) as file:
        masked = file[short][:].astype(np.float64)
        stored = np.where(np.isfinite(masked.filled(np.nan)), masked.filled(np.nan), np.nan) + (273.15 if short == "tos" else 0.0)
        days = cftime.num2date(file["time"][:], file["time"].units, file["time"].calendar)
        latitude = np.ma.getdata(file["lat"][:]).astype(np.float64)
    samples = read(path, split="train")
    assert [d.timetuple()[:4] for s in samples for d in s.time.dates()] == [d.timetuple()[:4] for d in days]
    values, valid = (np.concatenate([getattr(s, a)[:, 0, 0] for s in samples]) for a in ("values", "valid"))
    np.testing.assert_array_equal(valid, np.isfinite(stored))
    np.testing.assert_array_equal(values[valid], stored[valid].astype(np.float32))
    coordinate, known = samples[0].coordinates["latitude"].values, np.abs(latitude) <= 90  # the ocean grid marks land by 9.97e36
    np.testing.assert_array_equal(coordinate[known], latitude[known])
    assert (np.abs(coordinate) <= 90).all()
    if coordinate.ndim == 2:
        assert not known.all()
        assert not valid[:, ~known].any()


# the GRIB file takes longer than all others; `tests/system/test_real_mixture.py` prepares it and compares its values, too
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("era5/era5-2mt-2019-03-uk.grib", marks=pytest.mark.drill),
        *(f"cmip6/{n}" for n in REAL),
        "earthscope/gaps.mseed",
    ],
)
def test_real_files_become_corpora(name: str, tmp_path: Path) -> None:
    cls: type[Source] = {"era5": Era5, "cmip6": Cmip6, "earthscope": Miniseed}[name.split("/")[0]]
    source = cls([real(name)])
    out = convert(source, tmp_path / "corpus", progress=False)
    assert verify(out) == []
    corpus = Corpus.open(out)
    plan = source.plan()
    counts = dict.fromkeys((r.split for r in plan.refs), 0)
    for ref, made in zip(plan.refs, source.samples(plan.refs), strict=True):
        stored = corpus.read(ref.split, counts[ref.split])
        counts[ref.split] += 1
        np.testing.assert_array_equal(stored.valid, made.valid)
        for c in range(made.values.shape[1]):
            known = made.valid[:, c]
            steps = np.diff(made.values[:, c].astype(np.float64), axis=0)[known[1:] & known[:-1]]
            allowed = 1e-3 * float(np.sqrt((steps**2).mean())) if steps.size else 0.0
            np.testing.assert_allclose(stored.values[:, c][known], made.values[:, c][known], rtol=1e-7, atol=allowed)
        np.testing.assert_array_equal(stored.time.seconds, made.time.seconds)
    assert counts == {s: len(corpus.entries(s)) for s in counts}


def test_a_few_cells_far_apart_are_no_globe() -> None:
    """Longitudes 0, 125 and 250, latitudes -90 and 4."""
    read_real = read(real("cmip6/tas_day_CESM2-WACCM_historical_r1i1p1f1_gn_20000101-20091231.nc"))
    assert read_real[0].boundary.x == ("open", "open")
    assert read_real[0].boundary.y == ("open", "open")
