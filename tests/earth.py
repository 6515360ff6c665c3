"""Small files of public sources, made by each format's own library, of weather that moves: what comes next can be learned."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

MODIS_SIDE = 1111950.5196666666
MODIS_RADIUS = 6371007.181
REFLECTANCE = {"units": "reflectance", "valid_range": [-100, 16000], "_FillValue": -28672, "scale_factor": 10000.0, "add_offset": 0.0}
_HDF_TYPES = {"int8": "INT8", "int16": "INT16", "uint16": "UINT16", "uint32": "UINT32"}


def waves(frames: int, rows: int, columns: int, seed: int = 0, drift: float = 1.0) -> np.ndarray:
    """Smooth fields of zero mean and about unit deviation that move along X, float64 `(frames, rows, columns)`."""
    rng = np.random.default_rng(seed)
    y, x = np.arange(rows)[:, None] / rows, np.arange(columns) / columns
    found = np.zeros((frames, rows, columns))
    for k in range(1, 5):
        amplitude, phase, tilt = rng.normal() / k, rng.uniform(0, 2 * np.pi), rng.integers(-2, 3)
        moved = 2 * np.pi * k * (x + 0.02 * drift * np.arange(frames)[:, None, None]) + 2 * np.pi * tilt * y + phase
        found += amplitude * np.cos(moved)
    return found / found.std()


def era5(path: Path, frames: int = 60) -> Path:
    """NetCDF of the new data store: two levels of two variables, a surface pressure, and orography without time."""
    latitude, longitude = np.linspace(90, -90, 17), np.arange(32) * 11.25
    dims = ("valid_time", "pressure_level", "latitude", "longitude")
    levels = np.stack([waves(frames, 17, 32, s) for s in (1, 2)], axis=1)
    xr.Dataset(
        {
            "t": (dims, 260 + 12 * levels, {"units": "K"}),
            "z": (dims, 3e4 + 900 * levels[:, ::-1], {"units": "m**2 s**-2"}),
            "sp": ((dims[0], *dims[2:]), 1e5 + 800 * waves(frames, 17, 32, 3), {"units": "Pa"}),
            "orog": (dims[2:], np.maximum(1500 * waves(1, 17, 32, 4)[0], 0), {"units": "m", "standard_name": "surface_altitude"}),
        },
        coords={
            "valid_time": np.datetime64("2020-01-01", "ns") + np.arange(frames) * np.timedelta64(6, "h"),
            "pressure_level": ("pressure_level", np.array([850.0, 500.0]), {"units": "hPa"}),
            "latitude": ("latitude", latitude, {"units": "degrees_north"}),
            "longitude": ("longitude", longitude, {"units": "degrees_east"}),
        },
    ).astype("f4").to_netcdf(path, engine="netcdf4")
    return path


def cmip6_ocean(path: Path, months: int = 60) -> Path:
    """Monthly sea surface temperature on a curvilinear grid, noleap calendar, with land."""
    import netCDF4

    rows, columns = 24, 36
    j, i = np.mgrid[:rows, :columns]
    latitude = -78 + 7 * j + 3 * np.sin(2 * np.pi * i / columns)
    longitude = (10 * i + 4 * np.sin(np.pi * j / rows)) % 360
    values = (15 + 8 * waves(months, rows, columns, 5)).astype(np.float32)
    values[:, (j > 8) & (j < 16) & (i < 7)] = 1e20
    with netCDF4.Dataset(path, "w") as file:
        file.setncatts({"source_id": "TOY-1", "experiment_id": "historical", "mip_era": "CMIP6", "license": "CC-BY-4.0"})
        for name, size in (("time", None), ("nlat", rows), ("nlon", columns), ("bnds", 2)):
            file.createDimension(name, size)
        days = np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
        edges = np.concatenate([[0], np.cumsum(np.tile(days, -(-months // 12)))])[: months + 1].astype(float)
        time = file.createVariable("time", "f8", ("time",))
        time.setncatts({"units": "days since 2000-01-01", "calendar": "noleap", "standard_name": "time", "bounds": "time_bnds"})
        time[:] = (edges[:-1] + edges[1:]) / 2
        file.createVariable("time_bnds", "f8", ("time", "bnds"))[:] = np.stack([edges[:-1], edges[1:]], axis=1)
        for name, numbers, unit in (("lat", latitude, "degrees_north"), ("lon", longitude, "degrees_east")):
            variable = file.createVariable(name, "f8", ("nlat", "nlon"))
            variable.setncatts({"units": unit, "standard_name": "latitude" if name == "lat" else "longitude"})
            variable[:] = numbers
        tos = file.createVariable("tos", "f4", ("time", "nlat", "nlon"), fill_value=np.float32(1e20))
        tos.setncatts({"units": "degC", "standard_name": "sea_surface_temperature", "coordinates": "lat lon"})
        tos[:] = values
    return path


def prism(folder: Path, days: int = 60) -> list[Path]:
    """Mean temperature, a BIL in a zip for each day, with sea."""
    rows, columns, cell = 24, 32, 1 / 24
    header = (
        f"BYTEORDER I\nLAYOUT BIL\nNROWS {rows}\nNCOLS {columns}\nNBANDS 1\nNBITS 32\nBANDROWBYTES {columns * 4}\n"
        f"TOTALROWBYTES {columns * 4}\nPIXELTYPE FLOAT\nULXMAP -120\nULYMAP 45\nXDIM {cell}\nYDIM {cell}\nNODATA -9999\n"
    )
    place = (
        'GEOGCS["GCS_North_American_1983",DATUM["D_North_American_1983",SPHEROID["GRS_1980",6378137.0,298.257222101]],'
        'PRIMEM["Greenwich",0.0],UNIT["Degree",0.017453292519943295]]'
    )
    values = (12 + 6 * waves(days, rows, columns, 6)).astype("<f4")
    values[:, :, :4] = -9999
    folder.mkdir()
    made = []
    for day in range(days):
        stem = f"PRISM_tmean_stable_4kmD2_{np.datetime64('2011-01-01') + day}_bil".replace("-", "")
        made.append(folder / f"{stem}.zip")
        with zipfile.ZipFile(made[-1], "w", zipfile.ZIP_DEFLATED) as archive:
            for suffix, content in (("bil", values[day].tobytes()), ("hdr", header.encode()), ("prj", place.encode())):
                archive.writestr(f"{stem}.{suffix}", content)
    return made


def hls(folder: Path, dates: int = 40) -> Path:
    """Three bands and an Fmask with a drifting cloud, every two to five days."""
    import rasterio

    side, rng = 32, np.random.default_rng(7)
    fields = {band: 2000 + 500 * waves(dates, side, side, s) for s, band in enumerate(("B03", "B04", "B05"))}
    day = 100
    for n in range(dates):
        day += int(rng.integers(2, 6))
        stem = f"HLS.L30.T06WVS.{2023 + day // 365}{day % 365 + 1:03d}T211159.v2.0"
        flags = np.full((side, side), 128, np.uint8)
        flags[4:10, n % 24 : n % 24 + 8] |= 2
        for band, values in {**{b: f[n].astype(np.int16) for b, f in fields.items()}, "Fmask": flags}.items():
            path = folder / stem / f"{stem}.{band}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            profile = {
                "driver": "GTiff", "count": 1, "height": side, "width": side, "dtype": values.dtype, "crs": "EPSG:32606", "tiled": True,
                "blockxsize": 32, "blockysize": 32, "compress": "deflate", "nodata": 255 if band == "Fmask" else -9999,
                "transform": rasterio.Affine(30, 0, 399960, 0, -30, 7200000),
            }  # fmt: skip
            with rasterio.open(path, "w", **profile) as file:
                file.write(values, 1)
    return folder


def _struct_metadata(grids: Mapping[str, tuple[tuple[int, int], list[str]]], tile: tuple[int, int]) -> str:
    """StructMetadata as the archive writes it."""
    left, top = (tile[0] - 18) * MODIS_SIDE, (9 - tile[1]) * MODIS_SIDE
    text = "GROUP=SwathStructure\nEND_GROUP=SwathStructure\nGROUP=GridStructure\n"
    for i, (name, ((rows, columns), fields)) in enumerate(grids.items(), 1):
        text += (
            f'\tGROUP=GRID_{i}\n\t\tGridName="{name}"\n\t\tXDim={columns}\n\t\tYDim={rows}\n'
            f"\t\tUpperLeftPointMtrs=({left:.6f},{top:.6f})\n\t\tLowerRightMtrs=({left + MODIS_SIDE:.6f},{top - MODIS_SIDE:.6f})\n"
            f"\t\tProjection=GCTP_SNSOID\n\t\tProjParams=({MODIS_RADIUS:.6f},0,0,0,0,0,0,0,0,0,0,0,0)\n\t\tSphereCode=-1\n\t\tGROUP=DataField\n"
        )
        for k, field in enumerate(fields, 1):
            text += f'\t\t\tOBJECT=DataField_{k}\n\t\t\t\tDataFieldName="{field}"\n\t\t\tEND_OBJECT=DataField_{k}\n'
        text += f"\t\tEND_GROUP=DataField\n\tEND_GROUP=GRID_{i}\n"
    return text + "END_GROUP=GridStructure\nEND\n"


def _core_metadata(product: str, day: str, tile: tuple[int, int], dates: tuple[str, str]) -> str:
    """The part of CoreMetadata that is read."""
    name = f"{product}.A{day}.h{tile[0]:02d}v{tile[1]:02d}.061.2021000000000.hdf"
    entries = {"LOCALGRANULEID": name, "RANGEBEGINNINGDATE": dates[0], "RANGEENDINGDATE": dates[1]}
    return "".join(
        f'\n    OBJECT                 = {k}\n      NUM_VAL              = 1\n      VALUE                = "{v}"\n'
        f"    END_OBJECT             = {k}\n"
        for k, v in entries.items()
    )


def modis_tile(
    path: Path,
    fields: Mapping[str, tuple[str, np.ndarray, Mapping[str, Any]]],
    product: str = "MOD09GA",
    day: str = "2008296",
    dates: tuple[str, str] = ("2008-10-22", "2008-10-22"),
    tile: tuple[int, int] = (9, 5),
) -> Path:
    """An HDF4-EOS file made by pyhdf: fields `(grid, stored numbers, attributes)`."""
    from pyhdf import SD

    file = SD.SD(str(path), SD.SDC.WRITE | SD.SDC.CREATE | SD.SDC.TRUNC)
    grids: dict[str, tuple[tuple[int, int], list[str]]] = {}
    for name, (grid, values, attrs) in fields.items():
        grids.setdefault(grid, (values.shape, []))[1].append(name)  # type: ignore[arg-type]
        data = file.create(name, getattr(SD.SDC, _HDF_TYPES[values.dtype.name]), values.shape)
        data.setcompress(SD.SDC.COMP_DEFLATE, 6)
        for key, value in attrs.items():
            if key == "_FillValue":
                data.setfillvalue(value)
            else:
                setattr(data, key, value)
        data[:] = values
        data.endaccess()
    file.attr("StructMetadata.0").set(SD.SDC.CHAR8, _struct_metadata(grids, tile))
    file.attr("CoreMetadata.0").set(SD.SDC.CHAR8, _core_metadata(product, day, tile, dates))
    file.attr("identifier_product_doi").set(SD.SDC.CHAR8, f"10.5067/MODIS/{product}.061")
    file.end()
    return path


def modis(folder: Path, days: int = 40) -> list[Path]:
    """Two bands of MOD09GA for each day, with the state of the clouds."""
    folder.mkdir()
    fields = {f"sur_refl_b0{b}_1": 1500 + 400 * waves(days, 24, 24, 10 + b) for b in (1, 2)}
    made = []
    for n in range(days):
        state = np.zeros((12, 12), np.uint16)
        state[2:5, n % 8 : n % 8 + 3] = 1
        stored: dict[str, tuple[str, np.ndarray, Mapping[str, Any]]] = {
            "state_1km_1": ("MODIS_Grid_1km_2D", state, {"units": "bit field", "_FillValue": 65535}),
            "QC_500m_1": ("MODIS_Grid_500m_2D", np.full((24, 24), 1 << 30, np.uint32), {"units": "bit field", "_FillValue": 787410671}),
            **{name: ("MODIS_Grid_500m_2D", f[n].astype(np.int16), REFLECTANCE) for name, f in fields.items()},
        }
        date = str(np.datetime64("2010-01-01") + n)
        day = f"2010{n + 1:03d}"
        made.append(modis_tile(folder / f"MOD09GA.A{day}.h09v05.061.2021000000000.hdf", stored, day=day, dates=(date, date)))
    return made
