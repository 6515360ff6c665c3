"""Energy Data eXchange of the National Energy Technology Laboratory: well logs, surveys and fibres of carbon storage, oil, gas and heat."""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from scigpt.data_prep.repository import Repository
from scigpt.data_prep.source import Description, Remote
from scigpt.errors import UserError

PAGE = 250
"""Most datasets that one answer lists."""


@dataclass(frozen=True)
class EdxFetch:
    """What to fetch; every download needs the key of a free account.

    Args:
        query: words of the search, `"well log Illinois"`; or `package`: the name of one dataset, as in its address.
        formats: of the files.
        limit: most files.
        server: address of the exchange.
    """

    query: str = ""
    package: str = ""
    formats: tuple[str, ...] = ("LAS",)
    limit: int = 10
    server: str = "https://edx.netl.doe.gov"


class Edx(Repository):
    """Files of the Energy Data eXchange."""

    name = "edx"
    Fetch: ClassVar[type | None] = EdxFetch

    @classmethod
    def describe(cls) -> Description:
        return Description(
            "edx",
            "subsurface: well logs, surveys, fibres",
            "LAS, SEG-Y, HDF5",
            "by dataset (state it with licence=)",
            "Energy Data eXchange, National Energy Technology Laboratory, US Department of Energy (edx.netl.doe.gov), and the authors",
            extra="wells",
            redistributable=False,
        )

    @classmethod
    def remotes(cls, options: Any, get: Callable[[str], bytes]) -> Iterator[Remote]:
        if bool(options.query) == bool(options.package):
            raise UserError("fetching from edx needs query=WORDS for its search, or package=NAME of one dataset (and not both)")
        if options.limit < 1:
            raise UserError(f"limit={options.limit} must be a number of files, 1 or more")
        wanted = {f.upper().lstrip(".") for f in options.formats}
        taken: set[str] = set()
        for package in _packages(options, get):
            folder = _plain(str(package.get("name") or "dataset"))
            for resource in _mappings(package.get("resources"), options.server):
                name = _plain(str(resource.get("name") or resource.get("id") or "file"))
                form = str(resource.get("format") or "").upper().lstrip(".") or name.rpartition(".")[2].upper()
                url = str(resource.get("url") or "")
                if form not in wanted or not url.startswith(("https://", "http://")):
                    continue
                name = name if "." in name else f"{name}.{form.lower()}"
                file = f"{folder}/{name}"
                if file in taken:
                    file = f"{folder}/{_plain(str(resource.get('id'))[:8])}-{name}"
                taken.add(file)
                size = str(resource.get("size") or "")
                yield Remote(url, file, bytes=int(size) or None if size.isdigit() else None, login="edx")
                if len(taken) >= options.limit:
                    return


def _packages(options: Any, get: Callable[[str], bytes]) -> Iterator[Mapping[str, Any]]:
    """Datasets that the search finds, page by page, or the one asked for."""
    action = f"{options.server.rstrip('/')}/api/3/action"
    if options.package:
        yield _result(get(f"{action}/package_show?{urllib.parse.urlencode({'id': options.package})}"), options.server)
        return
    start, count = 0, 1
    while start < count:
        answer = _result(
            get(f"{action}/package_search?{urllib.parse.urlencode({'q': options.query, 'rows': PAGE, 'start': start})}"), options.server
        )
        found, total = _mappings(answer.get("results"), options.server), answer.get("count")
        if not isinstance(total, int):
            raise _no_answer(options.server)
        count = total
        yield from found
        if not found:
            return
        start += len(found)


def _result(body: bytes, server: str) -> Mapping[str, Any]:
    try:
        answer = json.loads(body)
        if answer["success"] and isinstance(answer["result"], Mapping):
            return answer["result"]
    except (ValueError, KeyError, TypeError):
        pass
    raise _no_answer(server)


def _mappings(found: Any, server: str) -> list[Mapping[str, Any]]:
    """A list of the answer; `null` is one without entries."""
    if not isinstance(found, list | None) or not all(isinstance(each, Mapping) for each in found or ()):
        raise _no_answer(server)
    return found or []


def _no_answer(server: str) -> UserError:
    return UserError(f"the answer of {server} is not one of CKAN's search; try again later, or check server= and package=")


def _plain(name: str) -> str:
    """A name of the catalogue as one of a file."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._")[:120] or "file"
