"""Where FLUXNET is fetched from: the archives that a snapshot of the FLUXNET Shuttle lists."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from scigpt.data_prep.files import locate
from scigpt.data_prep.formats.fluxnet_sites import snapshot_rows
from scigpt.data_prep.formats.opening import one_sentence
from scigpt.data_prep.source import Remote
from scigpt.errors import UserError


@dataclass(frozen=True)
class FluxnetFetch:
    """What to fetch from the hubs of the FLUXNET Shuttle.

    Args:
        snapshot: path or address of the list that `fluxnet-shuttle listall` writes.
        sites: ids; none means all of the list.
        hubs: AmeriFlux, ICOS, TERN; none means all.
        igbp: land covers (`ENF`, `GRA`); none means all.
    """

    snapshot: str = ""
    sites: tuple[str, ...] | None = None
    hubs: tuple[str, ...] | None = None
    igbp: tuple[str, ...] | None = None


def remotes(options: FluxnetFetch, get: Callable[[str], bytes]) -> Iterator[Remote]:
    """The archives of the sites chosen."""
    if not options.snapshot:
        raise UserError(
            "give snapshot=FILE, the list of sites and download links: pip install git+https://github.com/AMF-FLX/fluxnet-shuttle-lib, "
            "then fluxnet-shuttle listall writes it"
        )
    if re.match(r"https?://", options.snapshot):
        body = get(options.snapshot)
    else:
        if not Path(options.snapshot).is_file():
            raise UserError(
                f"snapshot={options.snapshot[-100:]} is no file here; `fluxnet-shuttle listall` writes it (pip install "
                "git+https://github.com/AMF-FLX/fluxnet-shuttle-lib): give its path or address as snapshot="
            )
        path = locate(Path(options.snapshot))
        with one_sentence(path):
            body = path.read_bytes()
    chosen = {"site_id": options.sites, "data_hub": options.hubs, "igbp": options.igbp}
    rows = snapshot_rows(body, options.snapshot, chosen)
    for row in rows:
        link, name = row["download_link"].strip(), row["fluxnet_product_name"].strip()
        if not link.startswith(("https://", "http://")) or not re.fullmatch(r"[A-Za-z0-9][\w.-]*\.zip", name):
            raise UserError(f"the snapshot gives {row['site_id'][:10]} the link {link[:80]!r} and file {name[:60]!r}; make a new one")
        yield Remote(link, name)
