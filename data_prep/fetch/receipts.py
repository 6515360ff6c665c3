"""What was fetched, from where and when: `.fetched.json` in the target folder.

While a fetch runs, finished files are lines of `.fetched.log` (writing the whole list for each of ten thousand files would be
slower than fetching them); they are merged when the fetch ends and when the next one starts.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from scigpt.data.files import dump_json, load_json, write_bytes
from scigpt.errors import UserError

RECEIPTS = ".fetched.json"
LOG = ".fetched.log"


class Receipts:
    """By file: `url`, `bytes`, `sha256`, `etag`, `last_modified`, `retrieved`, `licence`, `attribution`, `select`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.entries = read(folder)
        self._lock = threading.Lock()

    def add(self, file: str, entry: Mapping[str, Any]) -> None:
        """Note a file, safe against a kill at any moment."""
        with self._lock, open(self.folder / LOG, "ab") as log:
            self.entries[file] = dict(entry)
            log.write(dump_json({file: entry}))
            log.flush()
            os.fsync(log.fileno())

    def merge(self) -> None:
        """The log becomes part of the list."""
        if self.entries:
            write_bytes(self.folder / RECEIPTS, dump_json({"schema": 1, "files": self.entries}, indent=1))
        (self.folder / LOG).unlink(missing_ok=True)


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """The receipts of a folder; of a log its whole lines.

    Raises:
        UserError: a list that was damaged.
    """
    entries: dict[str, dict[str, Any]] = {}
    if (folder / RECEIPTS).exists():
        stored = load_json(folder / RECEIPTS, "the list of fetched files")
        files = stored.get("files") if isinstance(stored, dict) else None
        if not isinstance(files, dict) or not all(isinstance(e, dict) for e in files.values()):
            raise UserError(f"{folder / RECEIPTS} is not a list of fetched files; move it away, the files are then fetched again")
        entries |= files
    if (folder / LOG).exists():
        for line in (folder / LOG).read_bytes().splitlines():
            with contextlib.suppress(ValueError):  # the last line of a process that was killed
                entries |= json.loads(line)
    return entries


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[Receipts]:
    """The receipts of a folder, for one process at a time; merged whatever happens.

    Raises:
        UserError: another process fetches into it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder}: another fetch is writing there; wait for it, or choose another --out") from None
        except OSError:  # a network file system without locks
            pass
        receipts = Receipts(folder)
        receipts.merge()
        try:
            yield receipts
        finally:
            receipts.merge()
    finally:
        os.close(lock)
