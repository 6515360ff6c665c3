"""ILAMB: grids and sites in the units of each file, calendars and bounds kept, and never anything to train on."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
from readings import real, samples_of

from scigpt.data.corpus import Corpus
from scigpt.data_prep.convert import convert
from scigpt.data_prep.source import parse_options
from scigpt.data_prep.sources.ilamb import Ilamb, IlambFetch
from scigpt.errors import UserError

LAT, LON = np.arange(-75.0, 90.0, 30.0), np.arange(-165.0, 180.0, 30.0)
SITES = {"lat": np.array([42.5, 71.3, -15.4, 3.0]), "lon": np.array([-72.2, -156.6, 167.2, -60.2])}
REGISTRY = b"""gpp/FLUXCOM/gpp.nc sha1:11ad4622aafe707d393f86de0fce9c8c18a543c0
gpp/FLUXNET2015/gpp.nc sha1:16fd177e007caef2565687e2cd32884e20ef16e5
hfls/FLUXCOM/hfls.nc sha1:084da63a28da942ab6c75a9598c5f3fc0371231b
quantiles/quantiles_Whittaker_cmip5v6.parquet sha1:fefe159d6c8b2720be81d08026eecf5cc6d3b1d7
regions/Koppen.nc sha1:78df0cc91e143dc903c6c6c0f1901f982fb42857
"""


read = functools.partial(samples_of, Ilamb)


def write(path: Path, name: str, values: np.ndarray, units: str, sites: bool = False, **attrs: Any) -> Path:
    """Monthly values from January 1980, `(time, lat, lon)` or `(time, data)`, as ILAMB lays them out; NaN is stored as -999."""
    months = np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
    edges = 130 * 365 + np.concatenate([[0], np.cumsum(np.resize(months, len(values)))])
    with netCDF4.Dataset(path, "w") as file:
        file.setncatts({"title": "Example product", "institution": "University", "references": "ILAMB"})
        file.createDimension("nb", 2)
        file.createDimension("time", len(values))
        time = file.createVariable("time", "f8", ("time",))
        time.setncatts({"units": "days since 1850-01-01 00:00:00", "calendar": "noleap", "bounds": "time_bounds"})
        time[:] = (edges[1:] + edges[:-1]) / 2
        file.createVariable("time_bounds", "f8", ("time", "nb"))[:] = np.stack([edges[:-1], edges[1:]], axis=1)
        dims = ("data",) if sites else ("lat", "lon")
        sizes = (values.shape[1],) if sites else (LAT.size, LON.size)
        for dim, size in zip(dims, sizes, strict=True):
            file.createDimension(dim, size)
        for place, unit in (("lat", "degrees_north"), ("lon", "degrees_east")):
            coordinate = file.createVariable(place, "f8", ("data" if sites else place,))
            coordinate.units = unit
            coordinate[:] = SITES[place] if sites else {"lat": LAT, "lon": LON}[place]
        if sites:
            names = file.createVariable("site_name", str, ("data",))
            names[:] = np.array(["US-Ha1", "US-Atq", "VU-Coc", "BR-Ma2"], object)
        variable = file.createVariable(name, "f4", ("time", *dims), fill_value=np.float32(-999.0))
        variable.setncatts({"units": units, **attrs})
        variable[:] = np.where(np.isnan(values), -999.0, values)
    return path


def field(low: float, high: float, shape: tuple[int, ...] = (LAT.size, LON.size), frames: int = 24) -> np.ndarray:
    values = np.random.default_rng(0).uniform(low, high, (frames, *shape)).astype(np.float32)
    values.reshape(frames, -1)[:, 0] = np.nan
    values.reshape(frames, -1)[3, 2] = np.nan
    return values


def test_grid_in_a_noleap_calendar_with_bounds(tmp_path: Path) -> None:
    gpp = field(0, 1e-7)
    (sample,) = read(write(tmp_path / "gpp.nc", "gpp", gpp, "kg m-2 s-1"))
    assert [(v.name, v.unit) for v in sample.variables] == [("gross_primary_productivity", "kg m**-2 s**-1")]
    np.testing.assert_array_equal(sample.valid[:, 0, 0], np.isfinite(gpp))
    np.testing.assert_array_equal(sample.values[:, 0, 0][np.isfinite(gpp)], gpp[np.isfinite(gpp)])
    assert (sample.time.calendar, sample.geometry) == ("noleap", "sphere")
    assert sample.time.labels()[:2] == ["1980-01-16T12:00:00", "1980-02-15T00:00:00"]
    assert sample.time.bounds is not None
    days = np.diff(sample.time.bounds, axis=1)[:, 0] / 86400
    np.testing.assert_array_equal(days[:14], [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 31, 28])  # 1980 has no 29 February here
    np.testing.assert_array_equal(sample.coordinates["latitude"].values, LAT)
    assert sample.boundary.x == ("periodic", "periodic")
    assert sample.origin.attribution.startswith("University; Example product; ILAMB")


@pytest.mark.parametrize("unit", ["g m-2 day-1", "g m-2 d-1", "g/m2/day", "kg m-2 s-1"])
def test_carbon_comes_in_the_units_of_each_product(tmp_path: Path, unit: str) -> None:
    gpp = field(0, 12)
    factor = 1.0 if unit.startswith("kg") else 1e-3 / 86400.0
    stored = gpp * (1e-3 / 86400.0 if unit.startswith("kg") else 1.0)
    (sample,) = read(write(tmp_path / "gpp.nc", "gpp", stored, unit))
    known = np.isfinite(gpp)
    np.testing.assert_allclose(sample.values[:, 0, 0][known], (np.float32(stored).astype(np.float64) * factor)[known], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "unit", "high", "factor", "quantity"),
    [
        ("et", "mm d-1", 8, 1 / 86400, "evapotranspiration_flux"),
        ("pr", "mm/day", 8, 1 / 86400, "precipitation_flux"),
        ("mrro", "mm day-1", 8, 1 / 86400, "runoff_flux"),
        ("swe", "m", 0.5, 1000.0, "surface_snow_amount"),
        ("le", "W m-2", 200, 1.0, "surface_upward_latent_heat_flux"),
        ("lai", "m2 m-2", 6, 1.0, "leaf_area_index"),
        ("rhums", "%", 100, 1.0, "relative_humidity"),
        ("tasmax", "K", 300, 1.0, "air_temperature_maximum"),
    ],
)
def test_water_as_a_depth_and_names_of_the_products(
    tmp_path: Path, name: str, unit: str, high: float, factor: float, quantity: str
) -> None:
    values = field(0.9 * high, high)
    (sample,) = read(write(tmp_path / f"{name}.nc", name, values, unit))
    assert sample.variables[0].name == quantity
    known = np.isfinite(values)
    np.testing.assert_allclose(sample.values[:, 0, 0][known], values[known].astype(np.float64) * factor, rtol=1e-6)


def test_sites_on_one_dimension_become_points(tmp_path: Path) -> None:
    values = field(0, 200, (4,))
    samples = read(write(tmp_path / "hfls.nc", "hfls", values, "W m-2", sites=True), frames_per_sample=10)
    assert [len(s.time) for s in samples] == [8, 8, 8]
    for sample in samples:
        assert (sample.geometry, sample.values.shape[2:]) == ("points", (1, 1, 4))
        assert sample.boundary.x == ("open", "open")
        for name, short in (("latitude", "lat"), ("longitude", "lon")):
            assert sample.coordinates[name].axes == ("x",)
            np.testing.assert_array_equal(sample.coordinates[name].values, SITES[short])
    joined, valid = (np.concatenate([getattr(s, k)[:, 0, 0, 0] for s in samples]) for k in ("values", "valid"))
    np.testing.assert_array_equal(valid, np.isfinite(values))
    np.testing.assert_array_equal(joined[valid], values[valid])


def test_sites_along_the_first_dimension(tmp_path: Path) -> None:
    values = field(0, 200, (4,))
    write(tmp_path / "hfls.nc", "hfls", values, "W m-2", sites=True)
    with netCDF4.Dataset(tmp_path / "hfls.nc") as old, netCDF4.Dataset(tmp_path / "turned.nc", "w") as new:
        for name, size in (("time", 24), ("nb", 2), ("data", 4)):
            new.createDimension(name, size)
        for name in ("time", "time_bounds", "lat", "lon"):
            new.createVariable(name, "f8", old[name].dimensions)[:] = old[name][:]
            new[name].setncatts(old[name].__dict__)
        new.createVariable("hfls", "f4", ("data", "time"), fill_value=np.float32(-999.0)).units = "W m-2"
        new["hfls"][:] = old["hfls"][:].T
    (sample,) = read(tmp_path / "turned.nc")
    np.testing.assert_array_equal(sample.values[:, 0, 0, 0][np.isfinite(values)], values[np.isfinite(values)])


def test_nothing_goes_to_train(tmp_path: Path) -> None:
    path = write(tmp_path / "gpp.nc", "gpp", field(0, 1e-7, frames=240), "kg m-2 s-1")
    assert Ilamb.describe().use == "validate"
    assert {r.split for r in Ilamb([path]).plan().refs} == {"test"}
    assert {r.split for r in Ilamb([path], parse_options(Ilamb.Options, ["split=valid"])).plan().refs} == {"valid"}
    for refused in ("split=train", "split=none"):
        with pytest.raises(UserError, match="the source ilamb is for validation only"):
            Ilamb([path], parse_options(Ilamb.Options, [refused]))


@pytest.mark.parametrize("sites", [False, True])
def test_a_corpus_of_it_has_no_statistics(tmp_path: Path, sites: bool) -> None:
    path = write(tmp_path / "gpp.nc", "gpp", field(0, 1e-7, (4,) if sites else (LAT.size, LON.size)), "kg m-2 s-1", sites=sites)
    source = Ilamb([path])
    convert(source, tmp_path / "corpus", progress=False)
    corpus = Corpus.open(tmp_path / "corpus")
    assert corpus.splits == ("test",)
    assert corpus.stats.samples == 0
    kept, (made,) = corpus.read("test", 0), read(path)
    assert kept.geometry == ("points" if sites else "sphere")
    np.testing.assert_array_equal(kept.valid, made.valid)
    np.testing.assert_allclose(kept.values[kept.valid], made.values[made.valid], atol=1e-10)
    np.testing.assert_array_equal(kept.coordinates["longitude"].values, made.coordinates["longitude"].values)


def test_grids_and_sites_are_two_corpora(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{i}.nc", "gpp", field(0, 1e-7, (4,) if i else (6, 12)), "kg m-2 s-1", sites=bool(i)) for i in (0, 1)]
    with pytest.raises(UserError, match=r"1\.nc, variable gpp is on another grid"):
        read(paths)


def test_recognised_by_content(tmp_path: Path) -> None:
    assert Ilamb.recognises(write(tmp_path / "x.nc", "gpp", field(0, 1e-7), "kg m-2 s-1"))
    (tmp_path / "broken.nc").write_bytes((tmp_path / "x.nc").read_bytes()[:900])
    (tmp_path / "text.nc").write_text("ILAMB")
    assert not Ilamb.recognises(tmp_path / "broken.nc")
    assert not Ilamb.recognises(tmp_path / "text.nc")


def test_remotes_are_those_of_the_registry_with_its_checksums() -> None:
    asked: list[str] = []

    def get(url: str) -> bytes:
        asked.append(url)
        return REGISTRY

    found = list(Ilamb.remotes(IlambFetch(server="http://localhost:1/DATA/"), get))
    assert [(r.url, r.file, r.checksum) for r in found] == [
        ("http://localhost:1/DATA/gpp/FLUXCOM/gpp.nc", "gpp/FLUXCOM/gpp.nc", "sha1:11ad4622aafe707d393f86de0fce9c8c18a543c0"),
        ("http://localhost:1/DATA/gpp/FLUXNET2015/gpp.nc", "gpp/FLUXNET2015/gpp.nc", "sha1:16fd177e007caef2565687e2cd32884e20ef16e5"),
    ]
    assert asked == [IlambFetch.registry]
    (one,) = Ilamb.remotes(IlambFetch(("gpp", "hfls"), ("FLUXNET2015",)), get)
    assert one.url == "https://www.ilamb.org/ILAMB-Data/DATA/gpp/FLUXNET2015/gpp.nc"
    for options, sentence in (
        (IlambFetch(("gp",)), "the registry of ILAMB has no 'gp'; did you mean gpp?"),
        (IlambFetch(("gpp",), ("FLUXNET",)), "has no 'FLUXNET'; did you mean FLUXNET2015?"),
        (IlambFetch(("quantiles",)), "has no 'quantiles'; it has gpp, hfls, regions"),
    ):
        with pytest.raises(UserError) as caught:
            list(Ilamb.remotes(options, get))
        assert sentence in str(caught.value)
    for wrong in (b"<html>404</html>", b"../../etc/passwd.nc sha1:" + 40 * b"0", b"gpp/a.nc md5:12"):
        with pytest.raises(UserError, match="line 1 is not of the form"):
            list(Ilamb.remotes(IlambFetch(), lambda _, body=wrong: body))  # type: ignore[misc]


def test_layout_of_ilamb_equals_netcdf4() -> None:
    path = real("ilamb/layout_gpp_grid.nc")
    assert Ilamb.recognises(path)
    (sample,) = read(path)
    with netCDF4.Dataset(path) as file:
        gpp, latitude, longitude = file["gpp"][:], file["lat"][:], file["lon"][:]
        seconds, bounds = (
            (file[n][:].data - 150 * 365) * 86400.0 for n in ("time", "time_bounds")
        )  # noleap: 2000 is 150 years of 365 days on
    np.testing.assert_array_equal(sample.valid[:, 0, 0], ~np.ma.getmaskarray(gpp))
    np.testing.assert_array_equal(sample.values[:, 0, 0][sample.valid[:, 0, 0]], gpp.compressed())
    np.testing.assert_allclose(sample.time.seconds, seconds, atol=1e-3)
    assert sample.time.bounds is not None
    np.testing.assert_allclose(sample.time.bounds, bounds, atol=1e-3)
    assert (sample.time.calendar, len(sample.time)) == ("noleap", 60)
    np.testing.assert_array_equal(sample.coordinates["latitude"].values, latitude)
    np.testing.assert_array_equal(sample.coordinates["longitude"].values, longitude)
    assert sample.origin.files[0].name == path.name
