"""Where discharge is fetched from: GRDC-Caravan at Zenodo. The portal of GRDC itself cannot be asked by a program."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from scigpt.data_prep.source import Remote
from scigpt.errors import UserError


@dataclass(frozen=True)
class GrdcFetch:
    """What to fetch.

    Args:
        route: `caravan`, the open part (CC-BY-4.0, one zip of 7.6 GB), or `portal`, which no program can ask.
        record: number of the version at Zenodo.
        files: those whose name holds this.
        server: the records of Zenodo, or of another place that answers like it.
    """

    route: Literal["caravan", "portal"] = "caravan"
    record: str = "15349031"
    files: str = "_nc.zip"
    server: str = "https://zenodo.org/api/records"


def remotes(options: GrdcFetch, get: Callable[[str], bytes]) -> Iterator[Remote]:
    """Files of a record, with the sizes and checksums that it states."""
    if options.route == "portal":
        raise UserError(
            "the portal of GRDC sends files by mail only: choose stations at https://portal.grdc.bafg.de, accept its terms, unpack what "
            "comes and give the *_Q_Day.Cmd.txt as --input; route=caravan fetches the open part"
        )
    url = f"{options.server.rstrip('/')}/{options.record}"
    try:
        record = json.loads(get(url))
        files = [(f["key"], f["links"]["self"], f.get("size"), f.get("checksum") or "") for f in record["files"]]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        raise UserError(f"{url} did not answer with a record of files; check record= (a number) and server=") from None
    chosen = [f for f in files if options.files in f[0]]
    if not chosen:
        raise UserError(f"files={options.files}: the record {options.record} has {', '.join(f[0] for f in files)[:200]}")
    for key, link, size, checksum in chosen:
        yield Remote(link, key, bytes=size, checksum=checksum if checksum.startswith(("md5:", "sha256:")) else None)
