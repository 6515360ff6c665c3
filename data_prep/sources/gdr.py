"""Geothermal Data Repository: fibre-optic recordings, surveys and well logs of Utah FORGE, EGS Collab, Brady (PoroTomo) and others."""

from __future__ import annotations

import fnmatch
import re
import urllib.parse
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from scigpt.data_prep.fibres import Fibres
from scigpt.data_prep.repository import Repository
from scigpt.data_prep.source import Description, Remote
from scigpt.errors import UserError


@dataclass(frozen=True)
class GdrFetch:
    """What to fetch; the buckets are open to everyone.

    Args:
        bucket: `nrel-pds-porotomo` (Brady Hot Springs, March 2016) or `gdr-data-lake` (FORGE, EGS Collab, Imperial Valley, San Emidio).
        prefix: a folder in it; DAS/H5/DASV is the fibre in a well (40 MB a file), DAS/H5/DASH that in the ground (1 GB a file).
        pattern: of the names below it.
        limit: most files.
        server: address of the buckets.
    """

    bucket: str = "nrel-pds-porotomo"
    prefix: str = "DAS/H5/DASV/20160318/"
    pattern: str = "*.h5"
    limit: int = 2
    server: str = "https://{bucket}.s3.amazonaws.com"


class Gdr(Repository):
    """Files of the Geothermal Data Repository."""

    name = "gdr"
    Fetch: ClassVar[type | None] = GdrFetch

    @classmethod
    def describe(cls) -> Description:
        return Description(
            "gdr",
            "subsurface: fibre-optic sensing, surveys, well logs",
            "HDF5, SEG-Y, LAS",
            "CC-BY-4.0",
            "Geothermal Data Repository, US Department of Energy (gdr.openei.org), and the authors of the submission",
        )

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Fibres alone: well logs of no stated origin are rather of the Energy Data eXchange."""
        return Fibres.recognises(path)

    @classmethod
    def remotes(cls, options: Any, get: Callable[[str], bytes]) -> Iterator[Remote]:
        if not options.bucket or options.limit < 1:
            raise UserError("fetching from gdr needs bucket=NAME and limit= of 1 or more")
        server = options.server.replace("{bucket}", options.bucket).rstrip("/")
        if re.search(r"[{}]", server):
            raise UserError(f"server={options.server} has other words in braces than {{bucket}}; expected the address of the buckets")
        words, found = {"list-type": "2", "prefix": options.prefix.lstrip("/")}, 0
        while True:
            keys, words["continuation-token"] = _listing(get(f"{server}/?{urllib.parse.urlencode(words)}"), server)
            for key, size, etag in keys:
                if size and fnmatch.fnmatchcase(key.rsplit("/", 1)[-1], options.pattern):
                    checksum = f"md5:{etag}" if re.fullmatch(r"[0-9a-f]{32}", etag) else None
                    yield Remote(f"{server}/{urllib.parse.quote(key)}", key, bytes=size, checksum=checksum)
                    found += 1
                    if found >= options.limit:
                        return
            if not words["continuation-token"]:
                return


def _listing(body: bytes, server: str) -> tuple[list[tuple[str, int, str]], str]:
    """Key, size and ETag of each object of one page, and where the next page begins (empty: nowhere)."""
    try:
        root = ElementTree.fromstring(body)
        if not root.tag.endswith("ListBucketResult"):
            raise ValueError
        space = root.tag.removesuffix("ListBucketResult")
        keys = [
            (str(c.findtext(f"{space}Key")), int(str(c.findtext(f"{space}Size"))), (c.findtext(f"{space}ETag") or "").strip('"'))
            for c in root.iter(f"{space}Contents")
        ]
        return keys, root.findtext(f"{space}NextContinuationToken") or ""
    except (ElementTree.ParseError, ValueError):
        raise UserError(f"the answer of {server} is not the listing of a bucket; check bucket= and server=, or try again later") from None
