"""Input files: found, not empty, told apart by their first bytes, and fingerprinted."""

from __future__ import annotations

import difflib
import hashlib
from pathlib import Path
from typing import Literal

from scigpt.data.files import sha256_of
from scigpt.data_prep import embedded
from scigpt.errors import UserError

FileKind = Literal["netcdf3", "netcdf4", "grib", "zarr", "other"]


def locate(path: Path | str) -> Path:
    """The existing, non-empty file or folder behind a path or an `embedded:` name.

    Raises:
        UserError: nothing there (naming the nearest neighbour), or empty.
    """
    found = embedded.resolve(path)
    if not found.exists():
        folder = found.parent
        names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
        near = difflib.get_close_matches(found.name, names, n=1)
        hint = f"did you mean {folder / near[0]}?" if near else "check the path given as --input"
        raise UserError(f"{path} does not exist; {hint}")
    if found.is_file() and found.stat().st_size == 0:
        raise UserError(f"{path} is empty (0 bytes); fetch it again")
    return found


def kind(path: Path) -> FileKind:
    """What the first bytes say, whatever the file is called."""
    if path.is_dir():
        markers = (".zgroup", ".zmetadata", "zarr.json")
        return "zarr" if any((path / m).is_file() for m in markers) else "other"
    with path.open("rb") as file:
        head = file.read(1024)
    if head[:3] == b"CDF" and head[3:4] in (b"\x01", b"\x02", b"\x05"):
        return "netcdf3"
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return "netcdf4"
    return "grib" if b"GRIB" in head else "other"


def sha256(path: Path) -> str:
    """Of a file's bytes; of a folder's relative names and bytes in sorted order."""
    if path.is_file():
        return sha256_of(path)
    total = hashlib.sha256()
    for member in sorted(p for p in path.rglob("*") if p.is_file()):
        total.update(f"{member.relative_to(path).as_posix()}\0{sha256(member)}\n".encode())
    return total.hexdigest()
