"""Bad input: one sentence naming the file, whatever is wrong with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
import xarray as xr

from scigpt.data_prep.formats.netcdf3 import expected_bytes
from scigpt.data_prep.inspect import inspect
from scigpt.data_prep.source import Source, parse_options
from scigpt.data_prep.sources import SOURCES
from scigpt.errors import UserError


def fields(frames: int = 12, **attrs: Any) -> xr.Dataset:
    times = np.datetime64("2000-01-01", "ns") + np.arange(frames) * np.timedelta64(1, "h")
    values = np.full((frames, 8, 9), 280.0)
    return xr.Dataset(
        {"t2m": (("time", "lat", "lon"), values, {"units": "K"} | attrs)},
        coords={"time": times, "lat": np.arange(8.0), "lon": np.arange(9.0)},
    )


def refused(path: Path | str, name: str = "era5", *words: str) -> str:
    """The sentence with which a source refuses a file."""
    cls: type[Source] = SOURCES[name]

    def read() -> None:
        source = cls([Path(path)], parse_options(cls.Options, words))
        list(source.samples(source.plan().refs))

    with pytest.raises(UserError) as caught:
        read()
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert len(sentence) < 400
    return sentence


@pytest.mark.parametrize("name", ["era5", "cmip6", "ostia", "miniseed"])
def test_wrong_path_names_the_nearest(tmp_path: Path, name: str) -> None:
    (tmp_path / "tas_2000.nc").write_bytes(b"x")
    assert "did you mean" in refused(tmp_path / "tas_200.nc", name)
    assert "tas_2000.nc" in refused(tmp_path / "tas_200.nc", name)
    assert "there is no embedded data file 'A1B.nc'" in refused("embedded:A1B.nc", name)


@pytest.mark.parametrize("name", ["era5", "miniseed"])
def test_empty_file_and_wrong_type(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.nc").write_bytes(b"")
    assert "a.nc is empty (0 bytes)" in refused(tmp_path / "a.nc", name)
    (tmp_path / "b.nc").write_text("<html>404 not found</html>")
    assert "b.nc" in refused(tmp_path / "b.nc", name)
    assert "by its first bytes" in refused(tmp_path / "b.nc", name)
    (tmp_path / "folder").mkdir()
    assert "folder" in refused(tmp_path / "folder", name)


@pytest.mark.parametrize("form", ["NETCDF3_CLASSIC", "NETCDF3_64BIT", "NETCDF3_64BIT_DATA", "NETCDF4"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.99])
def test_truncated_netcdf(tmp_path: Path, form: str, share: float) -> None:
    dataset = fields(40)
    dataset.to_netcdf(tmp_path / "a.nc", engine="netcdf4", format=form, unlimited_dims=["time"])
    whole = (tmp_path / "a.nc").read_bytes()
    (tmp_path / "cut.nc").write_bytes(whole[: int(share * len(whole))])
    assert "cut.nc" in refused(tmp_path / "cut.nc")
    with pytest.raises(UserError, match=r"cut\.nc"):
        inspect(tmp_path / "cut.nc")


@pytest.mark.parametrize("form", ["NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET", "NETCDF3_64BIT_DATA"])
@pytest.mark.parametrize("unlimited", [True, False])
def test_expected_length_of_whole_classic_files(tmp_path: Path, form: Any, unlimited: bool) -> None:
    with netCDF4.Dataset(tmp_path / "a.nc", "w", format=form) as file:
        file.title = "three"
        file.createDimension("t", None if unlimited else 5)
        file.createDimension("x", 3)
        kinds = (("t", "f8", ("t",)), ("b", "i1", ("t", "x")), ("s", "i2", ("x",)), ("v", "f4", ("t", "x")), ("c", "i4", ()))
        for name, kind, dims in kinds:
            variable = file.createVariable(name, kind, dims)
            variable.units = "1"
            variable[...] = np.ones([5 if d == "t" else 3 for d in dims])
    size = (tmp_path / "a.nc").stat().st_size
    assert size - 4 < expected_bytes(tmp_path / "a.nc") <= size


def test_truncated_grib(tmp_path: Path) -> None:
    eccodes = pytest.importorskip("eccodes")
    with (tmp_path / "a.grib").open("wb") as file:
        for hour in range(3):
            handle = eccodes.codes_grib_new_from_samples("regular_ll_pl_grib2")
            for key, value in {"dataTime": hour * 100, "shortName": "t", "level": 850}.items():
                eccodes.codes_set(handle, key, value)
            eccodes.codes_write(handle, file)
    whole = (tmp_path / "a.grib").read_bytes()
    for cut in (40, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.grib").write_bytes(whole[:cut])
        assert "cut.grib" in refused(tmp_path / "cut.grib")


@pytest.mark.parametrize("cut", [60, 700, 2000])
def test_truncated_miniseed(tmp_path: Path, cut: int) -> None:
    obspy = pytest.importorskip("obspy")
    data = np.random.default_rng(0).integers(-1000, 1000, 3000).astype(np.int32)
    obspy.Trace(data, {"channel": "BHZ", "station": "ABC"}).write(str(tmp_path / "a.mseed"), format="MSEED", reclen=512)
    whole = (tmp_path / "a.mseed").read_bytes()
    (tmp_path / "cut.mseed").write_bytes(whole[:cut])
    assert "cut.mseed" in refused(tmp_path / "cut.mseed", "miniseed")


def test_damaged_values_are_found_when_read(tmp_path: Path) -> None:
    random = fields(40)
    random["t2m"] = random.t2m + np.random.default_rng(0).standard_normal(random.t2m.shape)
    random.t2m.attrs["units"] = "K"
    random.to_netcdf(tmp_path / "a.nc", engine="netcdf4", encoding={"t2m": {"zlib": True, "fletcher32": True}})
    damaged = bytearray((tmp_path / "a.nc").read_bytes())
    damaged[len(damaged) // 2 : len(damaged) // 2 + 64] = bytes(64)
    (tmp_path / "a.nc").write_bytes(damaged)
    assert "a.nc" in refused(tmp_path / "a.nc")


def test_units(tmp_path: Path) -> None:
    fields(units="m").to_netcdf(tmp_path / "a.nc", engine="netcdf4")
    assert "a.nc, variable t2m: the unit 'm' cannot be converted to 'K'" in refused(tmp_path / "a.nc")
    fields(units="bananas").to_netcdf(tmp_path / "b.nc", engine="netcdf4")
    assert "b.nc, variable t2m: the unit 'bananas' cannot be converted" in refused(tmp_path / "b.nc")
    without = fields()
    del without.t2m.attrs["units"]
    without.to_netcdf(tmp_path / "c.nc", engine="netcdf4")
    assert "c.nc, variable t2m has no units attribute; expected one that converts to 'K'" in refused(tmp_path / "c.nc")


def test_unknown_variable_names_the_nearest(tmp_path: Path) -> None:
    fields().to_netcdf(tmp_path / "a.nc", engine="netcdf4")
    assert "a.nc has no variable 't2n'; did you mean t2m?" in refused(tmp_path / "a.nc", "era5", "variables=t2n")
    assert "did you mean air_temperature?" in refused(tmp_path / "a.nc", "era5", "variables=air_temprature")


def test_no_valid_value_at_all(tmp_path: Path) -> None:
    (fields() * np.nan).assign(t2m=lambda d: d.t2m.assign_attrs(units="K")).to_netcdf(tmp_path / "a.nc", engine="netcdf4")
    assert "a.nc: air_temperature has no valid value at all from 2000-01-01T00:00:00" in refused(tmp_path / "a.nc")


def test_grids_times_and_options_that_do_not_fit(tmp_path: Path) -> None:
    fields().isel(time=0, drop=True).to_netcdf(tmp_path / "map.nc", engine="netcdf4")
    assert "map.nc has no variable that the source era5 can use: t2m: it has no time" in refused(tmp_path / "map.nc")
    xr.Dataset(
        {"t2m": (("time", "cell"), np.ones((2, 5)), {"units": "K"})},
        coords={"time": fields().time[:2], "lat": ("cell", np.arange(5.0)), "lon": ("cell", np.arange(5.0))},
    ).to_netcdf(tmp_path / "mesh.nc", engine="netcdf4")
    assert "share one dimension" in refused(tmp_path / "mesh.nc")
    fields().to_netcdf(tmp_path / "a.nc", engine="netcdf4")
    assert "must be three fractions" in refused(tmp_path / "a.nc", "era5", "splits=0.5,0.5")
    assert "is not of the form 1980-2010" in refused(tmp_path / "a.nc", "era5", "period=1980:2010")
    assert "gap=-1 must be" in refused(tmp_path / "a.nc", "era5", "gap=-1")
    assert "frames_per_sample=0 must be 1 or more" in refused(tmp_path / "a.nc", "era5", "frames_per_sample=0")
    assert "accumulation_hours=0.0 must be" in refused(tmp_path / "a.nc", "era5", "accumulation_hours=0")
    fields().assign_coords(lat=np.arange(8.0) + 50).to_netcdf(tmp_path / "b.nc", engine="netcdf4")
    assert "b.nc" in refused(tmp_path / "a.nc", "era5", f"ood_input={tmp_path / 'b.nc'}")
    assert "is on another grid" in refused(tmp_path / "a.nc", "era5", f"ood_input={tmp_path / 'b.nc'}")
    with pytest.raises(UserError, match="the source era5 needs a file: give --input PATH"):
        SOURCES["era5"]().plan()


def test_a_pickle_codec_is_never_read(tmp_path: Path) -> None:
    fields(2).to_zarr(tmp_path / "a.zarr", zarr_format=2, consolidated=False)
    metadata = tmp_path / "a.zarr" / "t2m" / ".zarray"
    metadata.write_text(metadata.read_text().replace('"filters": null', '"filters": [{"id": "pickle", "protocol": 5}]'))
    assert '"pickle"' in metadata.read_text()
    assert "a.zarr/t2m/.zarray asks for a pickle codec" in refused(tmp_path / "a.zarr")


MISSING = (
    ("obspy", "embedded:AS.CTAO.LH.mseed", "miniseed", "scigpt[demo]"),
    ("iris_sample_data", "embedded:ostia_monthly.nc", "ostia", "scigpt[demo]"),
    ("obspy", "a.mseed", "miniseed", "scigpt[seismic]"),
    ("cfgrib", "a.grib", "era5", "scigpt[grib]"),
)
"""A package that is not there, an input, its source, and the extra that has the package."""


def test_a_missing_package_names_its_extra(tmp_path: Path) -> None:
    eccodes = pytest.importorskip("eccodes")
    (tmp_path / "a.grib").write_bytes(eccodes.codes_get_message(eccodes.codes_grib_new_from_samples("regular_ll_pl_grib2")))
    (tmp_path / "a.mseed").write_bytes(b"000001D " + bytes(504))
    program = (
        f"import sys\ncases = {[case[:3] for case in MISSING]!r}\n"
        "sys.modules |= {module: None for module, _, _ in cases}\n"
        "from pathlib import Path\n"
        "from scigpt.data_prep.sources import SOURCES\n"
        "from scigpt.errors import UserError\n"
        "for _, given, source in cases:\n"
        "    try:\n"
        "        SOURCES[source]([Path(given)]).plan()\n"
        "        print('nothing')\n"
        "    except UserError as error:\n"
        "        print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    told = done.stdout.splitlines()
    assert len(told) == len(MISSING), done.stderr
    for sentence, case in zip(told, MISSING, strict=True):
        assert case[-1] in sentence, case
