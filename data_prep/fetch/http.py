"""One file over HTTP: gone on with where it broke off, begun anew where it has changed."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import requests

from scigpt.data_prep.fetch.errors import Transient
from scigpt.data_prep.fetch.network import Network
from scigpt.data_prep.fetch.part import Part, refuse_page

_CHUNK = 1 << 18


def download(network: Network, part: Part, grown: Callable[[int], None]) -> dict[str, Any]:
    """All bytes of the remote into its part.

    Args:
        grown: told how many bytes came, or went (negative) where the file is begun anew.

    Returns:
        `etag` and `last_modified` where the server says them.
    """
    grown(part.size)
    network.persist(lambda: _attempt(network, part, grown), part.remote.url, lambda: part.size)
    note = part.note()
    return {key: note[key] for key in ("etag", "last_modified") if note.get(key)}


def _attempt(network: Network, part: Part, grown: Callable[[int], None]) -> None:
    note, remote = part.note(), part.remote
    have = part.size if note else 0
    if have and have == note.get("total"):
        return
    headers = {"Accept-Encoding": "identity"}
    etag, modified = note.get("etag"), note.get("last_modified")
    if have and (validator := etag if etag and not etag.startswith("W/") else modified):
        headers |= {"Range": f"bytes={have}-", "If-Range": validator}
    elif have and remote.checksum:
        headers["Range"] = f"bytes={have}-"
    with network.open(remote.url, headers, remote.login) as response:
        decode = _encoded(response, remote.file)
        if response.status_code == 416 or (response.status_code == 206 and not _continues(response, have, note)):
            _restart(part, grown)
            raise Transient("the file changed while it was fetched")
        length = None if decode else response.headers.get("Content-Length")
        resumed = response.status_code == 206
        total = have + int(length) if resumed and length else int(length) if length else None
        if not resumed:
            refuse_page(remote, b"", response.headers.get("Content-Type", ""))
            _restart(part, grown)
            part.begin(etag=response.headers.get("ETag"), last_modified=response.headers.get("Last-Modified"), total=total)
        if length:
            part.room(int(length))
        _store(network, response, part, grown, decode)
    if total is not None and part.size < total:
        raise Transient(f"the body ended after {part.size} of {total} bytes")


def _store(network: Network, response: requests.Response, part: Part, grown: Callable[[int], None], decode: bool) -> None:
    pieces = response.raw.stream(_CHUNK, decode_content=decode)
    while True:
        network.sleep(0)
        with network.reading():
            piece = next(pieces, None)
        if piece is None:
            return
        if not part.size:
            refuse_page(part.remote, piece)
        part.append(piece)
        grown(len(piece))


def _restart(part: Part, grown: Callable[[int], None]) -> None:
    grown(-part.size)
    part.discard()


def _continues(response: requests.Response, have: int, note: dict[str, Any]) -> bool:
    """Whether a 206 goes on exactly where we are, in the same version of the file."""
    place = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", response.headers.get("Content-Range", "").strip())
    if place is None or int(place[1]) != have or not have:
        return False
    same_total = place[3] == "*" or note.get("total") in (None, int(place[3]))
    return same_total and response.headers.get("ETag", note.get("etag")) == note.get("etag")


def _encoded(response: requests.Response, file: str) -> bool:
    """Whether the body is packed for the way although we asked for it as it is; of a `.gz` file the packing is the file."""
    coding = response.headers.get("Content-Encoding", "identity").strip().lower()
    return coding not in ("", "identity") and not file.endswith(".gz")
