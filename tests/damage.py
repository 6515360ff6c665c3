"""Damaged copies of real files, what of a file a checksum covers, and what the program makes of each copy."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from scigpt.data.verify import verify
from scigpt.launch.cli import main

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360606060000000050001a5f645400000000049454e44ae426082"
)
HTML = b"<!DOCTYPE html>\n<html><head><title>503</title></head><body>Service Unavailable</body></html>\n"
LONGEST = 450
"""Characters of a sentence."""


@dataclass(frozen=True)
class Case:
    """A real sample: the source that reads it, its path below the folder of samples, and options.

    Args:
        beside: files that the source reads with it: paths below the folder of samples, or the text itself by name.
        open_end: whether a file that ends after a whole row (or trace, or record) cannot be told from a whole one.
    """

    source: str
    path: str
    words: tuple[str, ...] = ("split=train",)
    beside: tuple[str | tuple[str, str], ...] = ()
    open_end: bool = False

    def __str__(self) -> str:
        return self.path.rpartition("/")[2][:40]


REAL = (
    Case("era5", "era5/era5-2mt-2019-03-uk.grib"),
    Case("era5", "era5/era5-levels-members.grib"),
    Case("era5", "era5/fields_with_missing_values.grib"),
    Case("era5", "era5/era5_1995-07-14T12.nc"),
    Case("cmip6", "cmip6/tas_day_CESM2-WACCM_historical_r1i1p1f1_gn_20000101-20091231.nc"),
    Case("cmip6", "cmip6/tasmax_Amon_MRI-ESM2-0_historical_r1i1p1f1_gn_185001-201412.nc"),
    Case("cmip6", "cmip6/tasmax_day_HadGEM2-CC_rcp85_r1i1p1_na10kgrid_qm-moving-50bins-detrend_2095.nc"),
    Case("cmip6", "cmip6/tos_Omon_CESM2-FV2_historical_r1i1p1f1_gn_200001.nc"),
    Case("daymet", "daymet/layout_daymet_v4_daily_na_prcp_2019.nc"),
    Case("daymet", "daymet/demo_data.csv"),
    Case("prism", "prism/PRISM_ppt_stable_4kmD2_20110101_bil.zip"),
    Case("narr", "narr/layout_narr_air.2m.nc"),
    Case("narr", "narr/nam.t00z.awp21100.tm00.grib2"),
    Case("modis", "modis/MOD09GA.A2008296.h14v17.006.2015181011753.hdf", ("split=train", "tile=600")),
    Case("hls", "hls/HLS.L30.T06WVS.2024120T211159.v2.0.Fmask.tif"),
    Case(
        "hls",
        "hls/segmentation_test_0_input.tif",
        (
            "split=train",
            "date=2020-07-01",
            "stack_scale=hls",
            "bands=blue,green,red,nir,swir_1,swir_2,red_edge_1,red_edge_2,red_edge_3,nir_broad",
        ),
    ),
    Case("ilamb", "ilamb/layout_gpp_grid.nc", ()),
    Case("era5", "zarr/test_zarr"),
)
CANADIAN = f"CA006105978  45.3833  -75.7167   79.0 ON {'OTTAWA CDA RCS':30} {'':3} {'':3} {'':5}\n"
GROUND = (
    Case("ghcn", "ghcn/1763-1764.csv", open_end=True),
    Case("ghcn", "ghcn/CA006105978.dly", beside=(("ghcnd-stations.txt", CANADIAN),), open_end=True),
    Case("grdc", "grdc/test_caravan_file.nc"),
    Case("grdc", "grdc/test_file_grdc_Q_Day.Cmd.txt"),
    Case(
        "fluxnet",
        "fluxnet/FLX_FR-Pue_FLUXNET2015_FULLSET_MM_2007-2014_2-3.csv",
        ("latitude=43.7413", "longitude=3.5957", "split=train"),
    ),
    Case("arm", "arm/layout_sgparmbecldradC1.c1.20200101.nc", ()),
    Case("arm", "arm/sgp30ecorE14.b1.20190601.000000.cdf", ()),
    Case("arm", "arm/sgpmetE13.b1.20190101.000000.cdf", ()),
    Case("segy", "segy/small.sgy", open_end=True),
    Case("segy", "segy/shot-gather.sgy", open_end=True),
    Case("segy", "segy/viking_small.segy", open_end=True),
    Case("miniseed", "earthscope/gaps.mseed", open_end=True),
    Case("scec-bbp", "scec_bbp/s01.merged.bbp"),
    Case("scec-bbp", "scec_bbp/2002-SYL.acc.bbp", ("split=train", "quantity=acceleration"), open_end=True),
    Case("edx", "edx_gdr/6038187_v1.2.las", ("split=train", "licence=CC0-1.0")),
    Case("gdr", "edx_gdr/neubrex_dss_forge.h5", ("split=train", "tile=16384")),
)
"""Stations, waveforms and the subsurface."""


def real(case: Case) -> Path:
    if "SCIGPT_REALDATA" not in os.environ:
        pytest.skip("SCIGPT_REALDATA is not set")
    return Path(os.environ["SCIGPT_REALDATA"]) / case.path


def cut(data: bytes, share: float) -> bytes:
    """The first part, a little less than the share: a GRIB file that ends with a message is whole, and messages are alike."""
    return data[: max(0, int(share * len(data)) - 50)]


def copy(case: Case, folder: Path) -> Path:
    """A copy that can be written to, under the same name (some sources read the date off it), with what belongs beside it."""
    path = real(case)
    folder.mkdir(parents=True, exist_ok=True)
    for other in case.beside:
        if isinstance(other, str):
            shutil.copyfile(path.parents[1] / other, folder / Path(other).name)
        else:
            (folder / other[0]).write_text(other[1])
    target = folder / path.name
    if path.is_dir():
        shutil.copytree(path, target, copy_function=shutil.copyfile)
    else:
        shutil.copyfile(path, target)
    return target


def prepare(source: str, words: Sequence[str], path: Path, out: Path) -> tuple[int, str]:
    """`scigpt data prepare` in this process: exit code and what it says."""
    told = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(told):
        try:
            main(["data", "prepare", source, "--input", str(path), "--out", str(out), *words])
        except SystemExit as left:
            code = int(left.code or 0)
    return code, spoken(source, told.getvalue())


def spoken(source: str, text: str) -> str:
    """What was said, without progress bars and without notes about the plan."""
    lines = text.replace("\r", "\n").splitlines()
    return "\n".join(li for li in lines if li.strip() and "%|" not in li and "sample/s" not in li and not li.startswith(f"{source}: "))


def contents(corpus: Path) -> list[list[str]]:
    """Hashes of values and gaps of each sample, by key: the same for the same data, whatever the file was called."""
    found = []
    for index in sorted(corpus.glob("*.index.json")):
        for sample in json.loads(index.read_bytes())["samples"]:
            found.append([index.name, sample["key"], *(sample["members"][m]["sha256"] for m in ("values.npy", "valid.npy"))])
    return found


def outcome(source: str, words: Sequence[str], path: Path, out: Path) -> tuple[str, str]:
    """`refused` with its sentence, `accepted`, or `wrong` with what is wrong about the way it ended."""
    code, told = prepare(source, words, path, out)
    if code == 0:
        problems = verify(out)
        return ("wrong", f"the corpus does not verify: {problems}") if problems else ("accepted", told)
    left = [p.name for p in out.parent.iterdir() if out.name in p.name]
    if code != 2 or left:
        return "wrong", f"exit code {code}, left behind {left}: {told}"
    if told.count("\n") or not told.startswith("scigpt: ") or len(told) > LONGEST:
        return "wrong", f"not one sentence: {told}"
    return "refused", told


def protected(path: Path) -> list[tuple[int, int]]:
    """Ranges of bytes that a checksum covers: members of a zip, and zlib streams (NetCDF-4, HDF4, TIFF) with the checksum at their end."""
    data = path.read_bytes()
    if data[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(path) as archive:
            ranges = []
            for info in archive.infolist():
                name, extra = struct.unpack_from("<HH", data, info.header_offset + 26)
                start = info.header_offset + 30 + name + extra
                ranges.append((start, start + info.compress_size))
        return ranges
    found, at = [], 0
    while (at := data.find(b"\x78", at)) >= 0:
        if (data[at] * 256 + data[at + 1 : at + 2][0] if at + 1 < len(data) else 1) % 31 == 0:
            stream = zlib.decompressobj()
            try:
                unpacked = len(stream.decompress(data[at:], 1 << 26))
            except zlib.error:
                unpacked = 0
            if stream.eof and unpacked >= 64:
                end = len(data) - len(stream.unused_data)
                found.append((at, end))
                at = end
                continue
        at += 1
    return found
