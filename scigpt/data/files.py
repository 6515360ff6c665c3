"""Files that are either whole or absent: atomic writing, hashes and JSON with one spelling."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from scigpt.errors import UserError


class DiskFull(UserError):
    """No room left on the disk; what was finished before stays and the same command goes on from there."""


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that appears under its name only when it is whole and on the disk.

    Raises:
        DiskFull: no space, quota or file size left. The temporary file is removed after any error.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DiskFull(
                f"{path}: {os.strerror(error.errno)} while writing; make room and run the same command again, it keeps what is finished"
            ) from None
        raise


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk, so that a rename survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_folder(folder: Path, target: Path) -> None:
    """Give a folder its name, in the place of an older one."""
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        os.replace(target, old)
    os.replace(folder, target)
    sync_folder(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def write_bytes(path: Path, data: bytes) -> None:
    with atomic(path) as file:
        file.write(data)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def dump_json(data: Any, indent: int | None = None) -> bytes:
    """JSON with sorted keys: equal data gives equal bytes. NaN is refused (it is not JSON)."""
    separators = (",", ":") if indent is None else (",", ": ")
    return (json.dumps(data, sort_keys=True, indent=indent, separators=separators, allow_nan=False) + "\n").encode()


def load_json(path: Path, what: str) -> Any:
    """Parsed JSON file.

    Raises:
        UserError: a file that is missing, unreadable or not JSON; `what` says what it should have been.
    """
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot read {what}: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path}: {what} is not valid JSON ({error}); the file is damaged, restore it or make it again") from None
