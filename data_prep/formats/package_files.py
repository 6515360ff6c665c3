"""The files of a data package, on disk or within a zip, and the rows of its tables. Nothing is unpacked to disk."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from scigpt.data_prep.formats.opening import one_sentence
from scigpt.errors import UserError


@dataclass(frozen=True)
class Entry:
    """A file of a package: on disk, or the member of a zip."""

    path: Path
    member: str = ""

    @property
    def name(self) -> str:
        return PurePosixPath(self.member).name if self.member else self.path.name

    @property
    def label(self) -> str:
        return f"{self.path.name}/{self.member}" if self.member else self.path.name

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        if self.member:
            with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as file:
                yield file
        else:
            with self.path.open("rb") as file:
                yield file

    def rows(self, encoding: str = "utf-8", ended: bool = False) -> Iterator[tuple[int, list[str]]]:
        """Number of the last line and cells, without blanks around them, of each row that is not blank.

        Args:
            ended: whether the last line must end, as a sign that the file is whole (zips have checksums).

        Raises:
            UserError: not text, quotes that are not closed, or an end within a line.
        """
        coding = "utf-8-sig" if encoding.lower().replace("-", "") == "utf8" else encoding
        try:
            with self.open() as raw:
                reader = csv.reader(_lines(raw, coding, self.label, ended and not self.member), strict=True)
                for cells in reader:
                    row = [c.strip() for c in cells]
                    if any(row):
                        yield reader.line_num, row
        except (UnicodeDecodeError, LookupError) as error:
            raise UserError(f"{self.label} is not text in {encoding} ({error}); give encoding=latin-1, or fetch it again") from None
        except (csv.Error, zipfile.BadZipFile) as error:
            raise UserError(f"{self.label} cannot be read ({error}); it may be damaged or truncated, fetch it again") from None


def _lines(raw: IO[bytes], coding: str, label: str, ended: bool) -> Iterator[str]:
    line = "\n"
    for line in io.TextIOWrapper(raw, coding, newline=""):
        if "\0" in line:
            raise UserError(f"{label} has bytes of zero in it; it is no table, or damaged, fetch it again")
        yield line
    if ended and not line.endswith(("\n", "\r")):
        raise UserError(f"{label} ends within its last line; it is truncated, fetch it again (or end the line, if it is whole)")


def entries_of(path: Path) -> list[Entry]:
    """A file itself; the files of a zip.

    Raises:
        UserError: a zip that is damaged or whose names lead out of it.
    """
    if not (path.is_file() and zipfile.is_zipfile(path)) or path.suffix.lower() != ".zip":
        return [Entry(path)]
    with one_sentence(path), zipfile.ZipFile(path) as archive:
        names = [i.filename for i in archive.infolist() if not i.is_dir()]
        if any(i.flag_bits & 1 for i in archive.infolist()):
            raise UserError(f"{path.name} is encrypted; unpack it and give the folder as --input")
    for name in names:
        if name.startswith(("/", "\\")) or ".." in PurePosixPath(name.replace("\\", "/")).parts or re.match(r"[A-Za-z]:", name):
            raise UserError(f"{path.name} holds a file {name[:80]!r} that leads out of it; it is no archive of ESS-DIVE")
    return [Entry(path, n) for n in sorted(names) if not any(p.startswith((".", "__MACOSX")) for p in PurePosixPath(n).parts)]
