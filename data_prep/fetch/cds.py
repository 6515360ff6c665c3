"""Requests to the climate data store of Copernicus, through its own client `cdsapi`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scigpt.data_prep.fetch.errors import Refused, Transient
from scigpt.data_prep.fetch.network import Network
from scigpt.data_prep.fetch.part import Part, refuse_page
from scigpt.errors import UserError

HELP = "register at https://cds.climate.copernicus.eu and write its `url:` and `key:` lines into ~/.cdsapirc (https://cds.climate.copernicus.eu/how-to-api)"


def available() -> bool:
    """Whether there is a key where cdsapi looks for it."""
    return bool(os.environ.get("CDSAPI_KEY")) or Path(os.environ.get("CDSAPI_RC") or Path.home() / ".cdsapirc").is_file()


def download(network: Network, part: Part, grown: Callable[[int], None]) -> dict[str, Any]:
    """The answer to one request into its part; the store prepares it first, which can take hours.

    Raises:
        UserError: no cdsapi, no key, terms that are not accepted, or a request that the store refuses.
    """
    try:
        import cdsapi
    except ImportError:
        raise Refused(
            f"fetching from the climate data store needs cdsapi, which is not installed; run: pip install cdsapi, then {HELP}"
        ) from None
    name, request = part.remote.url, dict(part.remote.select)

    def attempt() -> None:
        part.begin()
        try:
            cdsapi.Client(quiet=True, progress=False).retrieve(name, request, str(part.file))
        except Exception as error:  # cdsapi raises bare exceptions whose texts alone tell them apart
            raise _told(name, " ".join(str(error).split())) from None
        with open(part.file, "rb") as file:
            refuse_page(part.remote, file.read(512))

    network.persist(attempt, name)
    grown(part.size)
    return {}


def _told(name: str, said: str) -> Exception:
    low = said.lower()
    if "licence" in low or "license" in low or "terms" in low:
        return Refused(
            f"{name}: the licence of these data is not accepted; accept it at "
            f"https://cds.climate.copernicus.eu/datasets/{name}?tab=download, then run the same command again"
        )
    if "401" in low or "authentication" in low or "missing/incomplete configuration" in low:
        return Refused(f"{name}: the climate data store does not accept the key; {HELP}")
    if "400" in low or "invalid" in low or "404" in low or "not found" in low:
        return UserError(f"{name}: the climate data store refuses the request; check variables, dates and levels of the fetch")
    return Transient("the climate data store did not answer the request")
