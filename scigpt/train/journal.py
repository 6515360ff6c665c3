"""Journal: JSON lines that are on their way to the disk when `write` returns, and are cut back to a checkpoint at resume."""

from __future__ import annotations

import errno
import json
import logging
import math
import os
from pathlib import Path
from typing import Any

from scigpt.data.files import DiskFull
from scigpt.errors import UserError

_log = logging.getLogger(__name__)


def number(value: float) -> float | None:
    """What JSON has no number for becomes null."""
    return value if math.isfinite(value) else None


class Journal:
    """Append-only lines; `size` bytes of what is there are kept, later lines belong to steps that will be done again."""

    def __init__(self, path: Path, size: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115  lives as long as the run
        there = self._file.tell()
        if there < size:
            _log.warning("%s has %d bytes and had %d at the checkpoint: lines of steps before it are lost", path, there, size)
        self._file.truncate(min(size, there))
        self._file.seek(0, os.SEEK_END)

    def write(self, record: dict[str, Any]) -> None:
        """Add one line.

        Raises:
            DiskFull: no room; the line is cut off at resume.
            UserError: a folder that cannot be written any more.
        """
        line = memoryview((json.dumps(record, separators=(",", ":"), allow_nan=False) + "\n").encode())
        try:
            while line:  # on a disk that is nearly full one write may take a part of it
                line = line[self._file.write(line) :]
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise UserError(
                    f"{self.path}: a line cannot be written ({error.strerror}); mend the folder and run the same command again, it goes on "
                    f"from the last checkpoint"
                ) from None
            raise DiskFull(
                f"{self.path}: no room for another line; make room and run the same command again, it goes on from the last checkpoint"
            ) from None

    def sync(self) -> int:
        """Put the lines on the disk; returns the size to keep, for the checkpoint."""
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        self._file.close()
