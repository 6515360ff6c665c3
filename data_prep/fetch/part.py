"""A file that is still coming: its bytes in `NAME.part`, what they are a part of in `NAME.part.json`."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from scigpt.data.files import DiskFull, dump_json, sync_folder, write_bytes
from scigpt.data_prep.fetch.errors import bare, public
from scigpt.data_prep.source import Remote
from scigpt.errors import UserError

_SIGNATURES: dict[str, tuple[bytes, ...]] = {
    ".nc": (b"CDF", b"\x89HDF"),
    ".nc4": (b"CDF", b"\x89HDF"),
    ".h5": (b"\x89HDF",),
    ".hdf": (b"\x0e\x03\x13\x01", b"\x89HDF"),
    ".tif": (b"II", b"MM"),
    ".tiff": (b"II", b"MM"),
    ".zip": (b"PK",),
    ".gz": (b"\x1f\x8b",),
}


class Unlike(UserError):
    """What came is whole but not what the catalogue promises."""


class Part:
    """The growing file of a remote whose place is `target`."""

    def __init__(self, remote: Remote, target: Path) -> None:
        self.remote, self.target = remote, target
        self.file, self.note_file = (target.with_name(target.name + end) for end in (".part", ".part.json"))

    @property
    def size(self) -> int:
        return self.file.stat().st_size if self.file.is_file() else 0

    def note(self) -> dict[str, Any]:
        """What the bytes there are a part of: `etag`, `last_modified`, `total`; empty where nothing can be gone on with."""
        try:
            note = json.loads(self.note_file.read_bytes())
        except (OSError, ValueError):
            return {}
        same = isinstance(note, dict) and note.get("url") == public(self.remote.url) and self.size > 0
        return note if same and self.size <= (note.get("total") or self.size) else {}

    def begin(self, **note: Any) -> None:
        """Start from nothing. The bytes go before the note that speaks of them."""
        self.discard()
        self.target.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(self.note_file, dump_json({"url": public(self.remote.url), **note}))
        self.file.touch()

    def append(self, data: bytes) -> None:
        """Bytes at the end.

        Raises:
            DiskFull: no room left; what came before stays.
        """
        try:
            with open(self.file, "ab", buffering=0) as file:
                view = memoryview(data)
                while view:
                    view = view[file.write(view) :]
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise DiskFull(f"{self.file}: {os.strerror(error.errno)}; make room and run the same command again") from None
            raise

    def discard(self) -> None:
        self.file.unlink(missing_ok=True)
        self.note_file.unlink(missing_ok=True)

    def check(self) -> tuple[int, str]:
        """Size and SHA-256 of what came.

        Raises:
            Unlike: nothing at all, or another size or checksum than the catalogue says.
        """
        remote, size = self.remote, self.size
        if not size:
            raise Unlike(f"{bare(remote.url)}: an empty file came; the provider may still be making it, try again later")
        if remote.bytes is not None and size != remote.bytes:
            raise Unlike(f"{bare(remote.url)}: {size} bytes came and the catalogue says {remote.bytes}; the file was changed or is damaged")
        kind, _, wanted = (remote.checksum or "").partition(":")
        sums = {name: hashlib.new(name, usedforsecurity=False) for name in {"sha256", kind or "sha256"}}
        with open(self.file, "rb") as file:
            while block := file.read(1 << 20):
                for total in sums.values():
                    total.update(block)
        if wanted and sums[kind].hexdigest() != wanted.lower():
            raise Unlike(
                f"{bare(remote.url)}: what came does not have the {kind} that the catalogue says; the file was changed or is damaged"
            )
        return size, sums["sha256"].hexdigest()

    def finish(self) -> None:
        """Give the file its name."""
        with open(self.file, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(self.file, self.target)
        self.note_file.unlink(missing_ok=True)
        sync_folder(self.target.parent)

    def room(self, more: int) -> None:
        """Raises DiskFull where so many bytes more cannot be stored."""
        free = shutil.disk_usage(self.target.parent).free
        if more > free:
            raise DiskFull(
                f"{self.target}: {more} bytes are to come and the disk has {free} free; make room and run the same command again"
            )


def refuse_page(remote: Remote, head: bytes, content_type: str = "") -> None:
    """A web page or a message in the place of data is not stored as data.

    Raises:
        UserError: the beginning of a body, or its type, is that of a page; or text where the file's name promises a binary format.
    """
    suffix = "." + remote.file.lower().rpartition(".")[2]
    if suffix in (".html", ".htm", ".xml", ".xhtml"):
        return
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:512]
    if content_type.lower().startswith("text/html") or start.lower().startswith((b"<!doctype", b"<html")):
        login = "; the login may not be accepted, or the data's terms may not be" if remote.login else ""
        raise UserError(
            f"{bare(remote.url)}: a web page came instead of the data{login}; open the address in a browser to see what it says"
        )
    if suffix in _SIGNATURES and start and not head.startswith(_SIGNATURES[suffix]) and all(32 <= b < 127 or b in b"\t\r\n" for b in start):
        said = " ".join(start.decode("ascii").split())[:120]
        raise UserError(f"{bare(remote.url)}: a message came instead of the data: {said!r}; the provider may limit how often one may ask")
