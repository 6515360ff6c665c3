"""Input files: found, not empty, told apart by their first bytes, and fingerprinted."""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from scigpt.data.files import sha256_of
from scigpt.data_prep import embedded
from scigpt.errors import UserError

LONG = 2_000_000_000
"""Bytes from which on hashing shows its progress, where there is a terminal."""

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


def members(path: Path) -> list[Path]:
    """The files and Zarr stores in a folder, in order, without hidden ones; anything else (a Zarr store too) as it is.

    Raises:
        UserError: a folder that holds none.
    """
    if not path.is_dir() or kind(path) == "zarr":
        return [path]
    found: list[Path] = []
    for base, below, names in os.walk(path):
        folder = Path(base)
        stores = [name for name in below if kind(folder / name) == "zarr"]
        below[:] = [name for name in below if name not in stores and not name.startswith(".")]
        found += [folder / name for name in (*stores, *names) if not name.startswith(".")]
    if not found:
        raise UserError(f"the folder {path} holds no file; give files, stores or a folder of them as --input")
    return sorted(found)


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
    return fingerprints([path])[path]


def fingerprints(paths: Iterable[Path]) -> dict[Path, str]:
    """SHA-256 of files and folders; several files are read at once, because hashing holds no lock."""
    paths = list(dict.fromkeys(paths))
    folders = {path: sorted(_files(path)) for path in paths if path.is_dir()}
    with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
        every = [p for path in paths for p in ([path] if path not in folders else (path / name for name in folders[path]))]
        sizes = [p.stat().st_size for p in every]
        found = {}
        with tqdm(total=sum(sizes), desc="hashes of the input", unit="B", unit_scale=True, disable=sum(sizes) < LONG or None) as bar:
            for path, size, digest in zip(every, sizes, pool.map(sha256_of, every), strict=True):
                found[path] = digest
                bar.update(size)
    for path, names in folders.items():
        total = hashlib.sha256()
        for name in names:
            total.update(f"{name}\0{found[path / name]}\n".encode())
        found[path] = total.hexdigest()
    return {path: found[path] for path in paths}


def _files(folder: Path) -> Iterator[str]:
    """Relative names of all files below a folder."""
    for base, _, names in os.walk(folder):
        below = os.path.relpath(base, folder)
        yield from (name if below == "." else f"{below}/{name}".replace(os.sep, "/") for name in names)
