"""What a fetch would do: which files, how much, whose login, and whether the disk has room."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from scigpt.data.files import dump_json, sha256_of
from scigpt.data_prep.fetch import armlive, cds, earthdata, edx, stores
from scigpt.data_prep.fetch.errors import Refused, public
from scigpt.data_prep.fetch.network import Network
from scigpt.data_prep.fetch.objects import refuse_local
from scigpt.data_prep.fetch.receipts import read
from scigpt.data_prep.source import Description, Remote
from scigpt.errors import UserError

_CHECKSUMS = {"sha256": 64, "md5": 32, "sha1": 40}
_OURS = (".part", ".part.json", ".tmp")


_LOGINS = {
    "earthdata": f"these files need a NASA Earthdata account; {earthdata.HELP}",
    "cds": f"these requests need an account of the climate data store; {cds.HELP}",
    "edx": f"every download of the Energy Data eXchange needs a key; {edx.HELP}",
    "arm": f"these files need an account of ARM Live; {armlive.HELP}",
}


@dataclass(frozen=True)
class Item:
    """One remote, its place, and whether it is there already."""

    remote: Remote
    target: Path
    there: bool

    @property
    def known(self) -> dict[str, Any]:
        """What its receipt must agree with."""
        return {"url": public(self.remote.url), "select": json.loads(dump_json(dict(self.remote.select)))}


@dataclass(frozen=True)
class Listing:
    """All that was asked for.

    Args:
        sizes: bytes of the remotes to come by file, where they are known (of a part of a Zarr store before compression).
    """

    out: Path
    about: Description
    items: tuple[Item, ...]
    sizes: Mapping[str, int]
    free: int
    logins: Mapping[str, bool] = field(default_factory=dict)

    @property
    def pending(self) -> tuple[Item, ...]:
        return tuple(item for item in self.items if not item.there)

    @property
    def needed(self) -> int:
        """Bytes still to come, where they are known; what is in a `.part` file counts as there."""
        parts = (item.target.with_name(item.target.name + ".part") for item in self.pending)
        there = sum(p.stat().st_size for p in parts if p.is_file())
        return max(sum(self.sizes.values()) - there, 0)

    def require(self, accepted_licence: str | None) -> None:
        """Raises UserError where a licence is not accepted, a login is missing or the disk is too small."""
        licence = self.about.licence
        if accepted_licence not in (None, licence):
            raise UserError(f"--accept-licence {accepted_licence}: the licence of {self.about.name} is {licence!r}; name that one")
        if not self.about.redistributable and accepted_licence is None:
            raise UserError(f"{self.about.name}: these data come under terms that must be accepted; add --accept-licence '{licence}'")
        for login, sentence in _LOGINS.items():
            if not self.logins.get(login, True):
                raise Refused(f"{self.about.name}: {sentence}")
        if self.needed > self.free:
            raise UserError(
                f"{self.out}: {self.needed / 1e9:.1f} GB are to be fetched and the disk has {self.free / 1e9:.1f} GB free; "
                "fetch less, make room, or choose another --out"
            )

    def summary(self) -> dict[str, Any]:
        """As JSON, for `--dry-run`."""
        unknown = sum(item.remote.file not in self.sizes for item in self.pending)
        return {
            "out": str(self.out),
            "files": len(self.items),
            "already_there": len(self.items) - len(self.pending),
            "bytes_to_fetch": self.needed,
            "files_of_unknown_size": unknown,
            "disk_free": self.free,
            "licence": self.about.licence,
            "attribution": self.about.attribution,
            "licence_must_be_accepted": not self.about.redistributable,
            "logins": dict(self.logins),
            "list": [
                {
                    "file": item.remote.file,
                    "url": public(item.remote.url),
                    "kind": item.remote.kind,
                    "bytes": self.sizes.get(item.remote.file, item.remote.bytes),
                    "login": item.remote.login,
                    "there": item.there,
                }
                for item in self.items
            ],
        }


def look(remotes: Iterable[Remote], out: Path, about: Description, network: Network) -> Listing:
    """Check the list of a catalogue and compare it with what is in the folder.

    Raises:
        UserError: nothing to fetch; a place outside the folder; two things in one place; an address of this machine; a file
            there that was not fetched.
    """
    by_file: dict[str, Remote] = {}
    for remote in remotes:
        place = _place(remote, out)
        if by_file.setdefault(place, remote) != remote:
            raise UserError(f"the catalogue names two different things {remote.file!r}; narrow the options of the fetch")
    if not by_file:
        raise UserError(f"{about.name}: nothing was found under these options; widen them (dates, area, variables)")
    receipts = read(out)
    items = tuple(_item(remote, out / file, receipts.get(file)) for file, remote in by_file.items())
    pending = [item for item in items if not item.there]
    sizes = {i.remote.file: i.remote.bytes for i in pending if i.remote.bytes is not None}
    sizes |= {i.remote.file: stores.size(network, i.remote) for i in pending if i.remote.kind == "zarr" and i.remote.bytes is None}
    needed = {i.remote.login or ("cds" if i.remote.kind == "cds" else None) for i in pending}
    checks = {
        "earthdata": network.earthdata.available,
        "cds": cds.available,
        "edx": network.edx.available,
        "arm": network.arm.available,
    }
    return Listing(
        out,
        about,
        items,
        sizes,
        shutil.disk_usage(next(p for p in (out, *out.absolute().parents) if p.exists())).free,
        {name: check() for name, check in checks.items() if name in needed},
    )


def _place(remote: Remote, out: Path) -> str:
    path = PurePosixPath(remote.file)
    odd = not remote.file or "\\" in remote.file or any(ord(c) < 32 for c in remote.file) or str(path) != remote.file
    if odd or path.is_absolute() or ".." in path.parts or any(part.startswith(".fetched.") for part in path.parts):
        raise UserError(f"the catalogue names a file {remote.file!r}, which is no plain path below {out}; nothing is written")
    if remote.file.endswith(_OURS):
        raise UserError(f"the catalogue names a file {remote.file!r}, whose ending is kept for files that are still coming")
    if not (out / path).resolve().is_relative_to(out.resolve()):
        raise UserError(f"{out / path} lies outside {out} by a symbolic link; remove the link or choose another --out")
    if remote.kind != "cds":
        refuse_local(remote.url)
    kind, _, digest = (remote.checksum or "").partition(":")
    if remote.checksum and (len(digest) != _CHECKSUMS.get(kind) or not set(digest.lower()) <= set("0123456789abcdef")):
        raise UserError(
            f"the catalogue gives {remote.file} the checksum {remote.checksum[:80]!r}; expected sha256:, md5: or sha1: and hex digits"
        )
    return remote.file


def _item(remote: Remote, target: Path, receipt: dict[str, Any] | None) -> Item:
    item = Item(remote, target, False)
    if not os.path.lexists(target):
        return item
    if receipt is not None:
        same = all(receipt.get(key) == value for key, value in item.known.items()) and _agrees(remote, receipt)
        coming = target.with_name(target.name + ".part").exists()
        whole = target.is_dir() if remote.kind == "zarr" else target.is_file() and target.stat().st_size == receipt.get("bytes")
        if remote.kind == "zarr" and not same:
            raise UserError(f"{target} holds another part of a store than these options ask for; remove it or choose another --out")
        return Item(remote, target, same and whole and not coming)
    if remote.checksum and remote.checksum.startswith("sha256:") and target.is_file() and sha256_of(target) == remote.checksum[7:].lower():
        return Item(remote, target, True)
    raise UserError(f"{target} is already there and was not fetched by this command; move it away or choose another --out")


def _agrees(remote: Remote, receipt: Mapping[str, Any]) -> bool:
    """Whether the catalogue still promises what was fetched."""
    changed = remote.checksum and receipt.get("checksum") not in (None, remote.checksum)
    return not changed and remote.bytes in (None, receipt.get("bytes"))
