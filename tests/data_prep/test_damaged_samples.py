"""Truncated, empty, wrong-type and bit-flipped files: one sentence, exit code 2, and nothing written. `make drills` tries more places."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr
from damage import GROUND, HTML, PNG, REAL, Case, contents, copy, cut, outcome, prepare, protected

from scigpt.data_prep.formats.grib import require_whole
from scigpt.errors import UserError

SHARES = (0.0, 0.3, 0.99)
QUICK_FLIPS, FLIPS = 2, 24


def parts(path: Path) -> list[Path]:
    """The files that may be damaged: the file itself, or those of a store without which its values are not known."""
    if path.is_file():
        return [path]
    chunks = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
    return [
        *(
            max((c for c in chunks if c.parent.name == name), key=lambda c: c.stat().st_size)
            for name in sorted({c.parent.name for c in chunks})
        )
    ]


def refused(case: Case, path: Path, out: Path, about: str) -> None:
    what, told = outcome(case.source, case.words, path, out)
    assert what == "refused", f"{about}: {what}: {told}"
    assert path.name.split(".")[0] in told, f"{about}: the file is not named: {told}"


@pytest.mark.parametrize("case", REAL, ids=str)
def test_a_real_file_that_is_cut_off_empty_or_another_is_refused(case: Case, tmp_path: Path) -> None:
    path = copy(case, tmp_path / "damaged")
    for number, part in enumerate(parts(path)):
        whole = part.read_bytes()
        spoilt = {f"cut at {share:.0%}": cut(whole, share) for share in SHARES} | {"HTML": HTML, "PNG": PNG}
        for name, data in spoilt.items():
            part.write_bytes(data)
            refused(case, path, tmp_path / f"out{number}", f"{part.name}, {name}")
        part.write_bytes(whole)


def flips(path: Path, count: int) -> Iterator[tuple[bytes, int]]:
    """The file with one bit flipped, and where, at places that a checksum covers, spread over the file."""
    whole = path.read_bytes()
    ranges = np.array(protected(path), int).reshape(-1, 2)
    sizes = ranges[:, 1] - ranges[:, 0]
    for place in np.linspace(0, sizes.sum() - 1, count + 2)[1:-1].astype(int) if sizes.size else ():
        which = int(np.searchsorted(np.cumsum(sizes), place, side="right"))
        at = int(ranges[which, 0] + place - (np.cumsum(sizes)[which] - sizes[which]))
        flipped = bytearray(whole)
        flipped[at] ^= 1 << (at % 8)
        yield bytes(flipped), at


def flipped_is_refused_or_the_same(case: Case, tmp_path: Path, count: int) -> None:
    path = copy(case, tmp_path / "damaged")
    before: list[list[str]] | None = None
    whole = path.read_bytes()
    for number, (data, at) in enumerate(flips(path, count)):
        path.write_bytes(data)
        what, told = outcome(case.source, case.words, path, tmp_path / f"out{number}")
        assert what in ("refused", "accepted"), f"byte {at}: {told}"
        if what == "accepted":  # the bit belongs to what is not read
            if before is None:
                path.write_bytes(whole)
                assert prepare(case.source, case.words, path, tmp_path / "whole")[0] == 0
                before = contents(tmp_path / "whole")
            assert contents(tmp_path / f"out{number}") == before, f"a flipped bit at byte {at} was read as a value"


@pytest.mark.parametrize("case", [c for c in REAL if Path(c.path).suffix in (".zip", ".nc")], ids=str)
def test_a_flipped_bit_under_a_checksum_is_not_read_as_a_value(case: Case, tmp_path: Path) -> None:
    flipped_is_refused_or_the_same(case, tmp_path, QUICK_FLIPS)


@pytest.mark.drill
@pytest.mark.parametrize("case", [c for c in (*REAL, *GROUND) if not c.path.startswith("zarr")], ids=str)
def test_no_flipped_bit_under_a_checksum_is_read_as_a_value(case: Case, tmp_path: Path) -> None:
    flipped_is_refused_or_the_same(case, tmp_path, FLIPS)


@pytest.mark.drill
@pytest.mark.parametrize("case", [*REAL, *GROUND], ids=str)
def test_a_real_file_that_is_cut_off_anywhere_is_refused(case: Case, tmp_path: Path) -> None:
    path = copy(case, tmp_path / "damaged")
    number = itertools.count()
    for part in parts(path):
        whole = part.read_bytes()
        for name, data in (("HTML", HTML), ("PNG", PNG)):
            part.write_bytes(data)
            refused(case, path, tmp_path / f"out{next(number)}", f"{part.name}, {name}")
        for share in np.linspace(0.001, 0.999 if case in REAL else 0.985, 15):
            part.write_bytes(cut(whole, share))
            if case.open_end and whole[: len(part.read_bytes())].endswith(b"\n"):  # of whole rows
                continue
            refused(case, path, tmp_path / f"out{next(number)}", f"{part.name}, cut at {share:.2%}")
        part.write_bytes(whole)


# --- files made here by each format's own library


def hours(frames: int = 12) -> xr.Dataset:
    times = np.datetime64("2000-01-01", "ns") + np.arange(frames) * np.timedelta64(1, "h")
    values = np.random.default_rng(0).normal(280, 5, (frames, 16, 18))
    return xr.Dataset(
        {"t2m": (("time", "lat", "lon"), values.astype("f4"), {"units": "K"})},
        {"time": times, "lat": np.arange(16.0), "lon": np.arange(18.0)},
    )


def chunk_places(path: Path, name: str) -> list[int]:
    """A byte in the middle of each chunk of a variable, as HDF5 itself says where they lie."""
    with h5py.File(path) as file:
        dataset = file[name].id
        infos = [dataset.get_chunk_info(i) for i in range(dataset.get_num_chunks())]
    return [i.byte_offset + i.size // 2 for i in infos]


@pytest.mark.parametrize("filters", [{"zlib": True}, {"fletcher32": True}, {"zlib": True, "shuffle": True, "fletcher32": True}], ids=str)
def test_a_flipped_bit_in_any_chunk_of_netcdf4_is_refused(filters: dict[str, bool], tmp_path: Path) -> None:
    path = tmp_path / "a.nc"
    hours().to_netcdf(path, engine="netcdf4", encoding={"t2m": {**filters, "chunksizes": (4, 16, 18)}})
    whole = path.read_bytes()
    places = chunk_places(path, "t2m")
    assert len(places) == 3
    for place in places:
        flipped = bytearray(whole)
        flipped[place] ^= 16
        path.write_bytes(flipped)
        refused(Case("era5", "a.nc"), path, tmp_path / "out", f"byte {place}")
    path.write_bytes(whole)
    assert outcome("era5", ("split=train",), path, tmp_path / "out")[0] == "accepted"


@pytest.mark.parametrize("version", [2, 3])
def test_a_damaged_chunk_of_zarr_is_refused(version: int, tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    hours().to_zarr(path, zarr_format=version, consolidated=False, encoding={"t2m": {"chunks": (4, 16, 18)}})
    chunk = max((p for p in (path / "t2m").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    whole = chunk.read_bytes()
    for name, data in {"empty": b"", "half": whole[: len(whole) // 2], "short": whole[:-1], "HTML": HTML, "PNG": PNG}.items():
        chunk.write_bytes(data)
        refused(Case("era5", "a.zarr"), path, tmp_path / "out", name)


def grib(path: Path, messages: int = 3) -> list[int]:
    """Messages of one hour each; where each one begins, and the end of the file."""
    eccodes = pytest.importorskip("eccodes")
    begins = [0]
    with path.open("wb") as file:
        for hour in range(messages):
            handle = eccodes.codes_grib_new_from_samples("regular_ll_pl_grib2")
            for key, value in {"dataDate": 20200101, "dataTime": hour * 100, "shortName": "t", "level": 850}.items():
                eccodes.codes_set(handle, key, value)
            size = eccodes.codes_get_size(handle, "values")
            eccodes.codes_set_values(handle, np.random.default_rng(hour).normal(280, 5, size))
            eccodes.codes_write(handle, file)
            eccodes.codes_release(handle)
            begins.append(file.tell())
    return begins


def test_grib_whose_structure_is_broken_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.grib"
    begins = grib(path)
    whole = path.read_bytes()
    assert outcome("era5", ("split=train",), path, tmp_path / "whole")[0] == "accepted"
    second = begins[1]
    spoilt = {
        "the end mark of the last message": (begins[3] - 2, b"x"),
        "the end mark of the first message": (begins[1] - 2, b"x"),
        "the length of the second message": (second + 8, (77).to_bytes(8, "big")),
        "the length of a section": (second + 16, (1 << 20).to_bytes(4, "big")),
        "the mark of the second message": (second, b"GRAB"),
        "the edition of the second message": (second + 7, b"\x09"),
    }
    for name, (at, data) in spoilt.items():
        path.write_bytes(whole[:at] + data + whole[at + len(data) :])
        refused(Case("era5", "a.grib"), path, tmp_path / "out", name)
    for name, data in {"zeros within": whole[:second] + bytes(40) + whole[second + 40 :], "cut within the last": whole[:-30]}.items():
        path.write_bytes(data)
        refused(Case("era5", "a.grib"), path, tmp_path / "out", name)


KINDS_OF_GRIB = (
    "regular_ll_pl_grib1",
    "regular_ll_pl_grib2",
    "regular_gg_pl_grib1",
    "reduced_gg_pl_32_grib2",
    "reduced_gg_sfc_jpeg_grib2",
    "polar_stereographic_pl_grib2",
    "sh_ml_grib1",
)


@pytest.mark.parametrize("kind", KINDS_OF_GRIB)
def test_whole_grib_of_every_kind_is_whole_and_cut_at_any_byte_it_is_not(kind: str, tmp_path: Path) -> None:
    eccodes = pytest.importorskip("eccodes")
    handle = eccodes.codes_grib_new_from_samples(kind)
    message = eccodes.codes_get_message(handle)
    eccodes.codes_release(handle)
    path = tmp_path / "a.grib"
    header = b"\x01\r\r\n123\r\r\nHTXX85 KWBC 010000\r\r\n"
    for whole in (message, message * 3, header + message + bytes(119) + message + bytes(8)):
        path.write_bytes(whole)
        require_whole(path)
    for length in (*range(8, min(len(message), 400), 7), *range(400, len(message), len(message) // 20 + 1), len(message) - 1):
        path.write_bytes(message + message[:length])
        with pytest.raises(UserError, match=r"a\.grib is not a whole GRIB file: message 2, at byte \d+: "):
            require_whole(path)
    for damaged in (message + bytes(4096) + message, message + bytes(4096), message[4:] + message):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="belong to no message"):
            require_whole(path)
