"""Granules found in NASA's common metadata repository (UMM-JSON), page by page, for the sources that an Earthdata account opens."""

from __future__ import annotations

import json
import sys
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from scigpt.data_prep.source import Remote
from scigpt.errors import UserError

SERVER = "https://cmr.earthdata.nasa.gov/search"
CHECKSUMS: Mapping[str, str] = {"MD5": "md5", "SHA-256": "sha256"}
PAGE = 500
"""Granules that one answer of the search lists."""


def granules(server: str, query: Mapping[str, str], get: Callable[[str], bytes], limit: int = sys.maxsize) -> Iterator[tuple[Remote, ...]]:
    """The files of each granule, oldest first; `file` is the name alone, which of them to fetch and to what path is the caller's choice.

    Args:
        query: `short_name`, `version`, `temporal` and whatever else the search of granules takes.
        limit: most granules, of which some may have no files.

    Raises:
        UserError: the answer is not that of the repository.
    """
    page, seen, end = 1, 0, limit
    while seen < end:
        words = {**query, "sort_key": "start_date", "page_size": str(min(PAGE, limit)), "page_num": str(page)}
        body = get(f"{server.rstrip('/')}/granules.umm_json?{urllib.parse.urlencode(words)}")
        try:
            answer = json.loads(body)
            found = [tuple(_files(item["umm"])) for item in answer["items"]]
            end = min(limit, int(answer["hits"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"the answer of {server} is not a list of granules ({type(error).__name__}); "
                "expected the JSON of NASA's CMR, try again later or check server="
            ) from None
        yield from found[: limit - seen]
        if not found:
            return
        seen, page = seen + len(found), page + 1


def _files(granule: Mapping[str, Any]) -> Iterator[Remote]:
    archive = granule.get("DataGranule", {}).get("ArchiveAndDistributionInformation", [])
    for link in granule.get("RelatedUrls", []):  # a few granules of HLS have none
        url = link["URL"]
        if link.get("Type") != "GET DATA" or not url.startswith(("https://", "http://")):
            continue
        name = url.rsplit("/", 1)[1]
        own: Mapping[str, Any] = next((a for a in archive if a.get("Name") == name), {})
        checksum, size = own.get("Checksum", {}), own.get("SizeInBytes")
        kind = CHECKSUMS.get(checksum.get("Algorithm", ""))
        yield Remote(
            url,
            name,
            bytes=None if size is None else int(size),
            checksum=None if kind is None else f"{kind}:{checksum['Value'].lower()}",
            login="earthdata",
        )
