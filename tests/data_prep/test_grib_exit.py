"""A process that reads GRIB beside rasterio, pyproj and netCDF4 ends with status 0, whatever is imported first.

Some wheels of ecCodes bring libraries that abort the interpreter when it ends although every value was read.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

eccodes = pytest.importorskip("eccodes")

READ = """
import sys
from pathlib import Path
from scigpt.data_prep.sources.era5 import Era5
from scigpt.data_prep.sources.narr import Narr
for cls, path in zip((Era5, Narr), map(Path, sys.argv[1:])):
    source = cls([path])
    print(sum(s.values.size for s in source.samples(source.plan().refs)))
"""


@pytest.fixture(scope="module")
def grib(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One file on a regular grid, one on a Lambert grid."""
    folder = tmp_path_factory.mktemp("grib")
    made = {}
    for name, keys in {
        "regular": {},
        "lambert": {
            "gridType": "lambert", "Nx": 16, "Ny": 31, "latitudeOfFirstGridPointInDegrees": 20.0, "LaDInDegrees": 50.0,
            "longitudeOfFirstGridPointInDegrees": 190.0, "LoVInDegrees": 253.0, "DxInMetres": 32463, "DyInMetres": 32463,
            "Latin1InDegrees": 50.0, "Latin2InDegrees": 50.0, "jScansPositively": 1,
        },
    }.items():  # fmt: skip
        made[name] = folder / f"{name}.grib2"
        with made[name].open("wb") as file:
            for hour in range(4):
                handle = eccodes.codes_grib_new_from_samples("regular_ll_pl_grib2")
                for key, value in {**keys, "dataTime": 100 * hour, "shortName": "t", "level": 850}.items():
                    eccodes.codes_set(handle, key, value)
                eccodes.codes_set_values(handle, [280.0 + i % 7 for i in range(496)])
                eccodes.codes_write(handle, file)
                eccodes.codes_release(handle)
    return made


def ended(*command: str) -> str:
    """Standard output of a Python process that must end with status 0."""
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, f"status {done.returncode}: {done.stderr[-2000:]}"
    return done.stdout


@pytest.mark.parametrize(
    ("first", "last"),
    [
        ("", "import rasterio, pyproj, netCDF4; pyproj.Transformer.from_crs(4326, 3857).transform(1, 2)"),
        ("import rasterio, pyproj; pyproj.CRS.from_epsg(5070)", "import netCDF4"),
        ("import netCDF4, eccodes", "import pyproj, rasterio.crs; rasterio.crs.CRS.from_epsg(4326).to_wkt()"),
    ],
    ids=["GRIB first", "GRIB last", "netCDF4 and ecCodes first"],
)
def test_beside_libraries_of_rasters_in_any_order(grib: dict[str, Path], first: str, last: str) -> None:
    for library in ("rasterio", "pyproj"):
        pytest.importorskip(library)
    assert ended("-c", f"{first}\n{READ}\n{last}", *map(str, grib.values())).split() == 2 * [str(4 * 496)]


def test_inspect_and_prepare(grib: dict[str, Path], tmp_path: Path) -> None:
    cli = ("-m", "scigpt.launch.cli", "data")
    assert "air_temperature" in ended(*cli, "inspect", str(grib["regular"]), "--json")
    ended(*cli, "prepare", "era5", "--input", str(grib["regular"]), "--out", str(tmp_path / "corpus"), "split=train")
    assert (tmp_path / "corpus" / "manifest.json").is_file()
