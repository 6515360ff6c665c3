"""The catalogues of CMIP6: the search of the Earth System Grid Federation (NetCDF files), and Pangeo's table of Zarr stores.

Retracted datasets and superseded versions are never offered; the version stays in the path that a file is fetched to.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlencode

from scigpt.data_prep.source import Remote
from scigpt.data_prep.suggest import nearest
from scigpt.errors import UserError

SEARCH = "https://esgf-node.ornl.gov/esgf-1-5-bridge"
PANGEO = "https://storage.googleapis.com/cmip6/pangeo-cmip6.json"
PAGE = 200
FACETS = {
    "variable": "variable_id",
    "table": "table_id",
    "source_id": "source_id",
    "experiment": "experiment_id",
    "member": "member_id",
    "grid": "grid_label",
}
_DRS = ("activity_id", "institution_id", "source_id", "experiment_id", "member_id", "table_id", "variable_id", "grid_label")


@dataclass(frozen=True)
class Fetch:
    """Options of `scigpt data fetch cmip6`; several values are given with commas.

    Args:
        variable, table: such as tas and Amon (monthly), day, Omon (ocean), fx (orography, land fraction).
        source_id: the models; `all` for every one.
        experiment, member: such as historical and r1i1p1f1.
        grid: gn (native), gr (regridded by the modellers); none means any.
        period: years, `1980-2010`; files that lie outside are left out, stores are cut.
        catalogue: `esgf` (NetCDF, every dataset) or `pangeo` (Zarr, not extended any more).
        server: address of another search or table (a CSV, or the JSON beside it).
    """

    variable: tuple[str, ...] = ("tas",)
    table: tuple[str, ...] = ("Amon",)
    source_id: tuple[str, ...] = ()
    experiment: tuple[str, ...] = ("historical",)
    member: tuple[str, ...] = ("r1i1p1f1",)
    grid: tuple[str, ...] = ()
    period: str | None = None
    catalogue: Literal["esgf", "pangeo"] = "esgf"
    server: str | None = None

    def wanted(self) -> dict[str, tuple[str, ...]]:
        """The values asked for, by the catalogue's name of the facet."""
        found = {facet: getattr(self, option) for option, facet in FACETS.items()}
        return {f: v for f, v in found.items() if v and v != ("all",)}


def remotes(options: Fetch, get: Callable[[str], bytes]) -> Iterator[Remote]:
    """The files or stores that the catalogue holds of what is asked for, in the order of their paths.

    Raises:
        UserError: no model named, nothing found, or an answer that is not the catalogue's.
    """
    if not options.source_id:
        raise UserError(
            "say of which model with source_id=, such as source_id=MRI-ESM2-0 (several with commas; source_id=all for every one)"
        )
    years = _years(options.period)
    if options.catalogue == "pangeo":
        yield from _stores(options, years, get)
    else:
        yield from _files(options, years, get)


def _asked(options: Fetch) -> str:
    return " ".join(f"{f}={','.join(v)}" for f, v in options.wanted().items()) + (f" period={options.period}" if options.period else "")


# Pangeo


def _stores(options: Fetch, years: tuple[int, int] | None, get: Callable[[str], bytes]) -> Iterator[Remote]:
    table, column = options.server or PANGEO, ""
    if table.endswith(".json"):
        described = _json(table, get)
        table, column = _served(str(described.get("catalog_file", ""))), str(described.get("assets", {}).get("column_name", ""))
        if not table:
            raise UserError(f"{options.server or PANGEO} names no catalog_file; expected the description of an intake-esm catalogue")
    with io.StringIO(get(table).decode("utf-8", errors="replace")) as text:
        rows = csv.DictReader(text)
        columns = list(rows.fieldnames or ())
        store = next((c for c in (column, "zstore", "path") if c in columns), None)
        lacking = [f for f in FACETS.values() if f not in columns]
        if store is None or lacking:
            what = ", ".join([*lacking, *([] if store else ["zstore"])])
            raise UserError(f"the catalogue {table} has no column {what}; expected the table of an intake-esm catalogue of CMIP6 stores")
        newest: dict[tuple[str, ...], tuple[str, str]] = {}
        seen: dict[str, set[str]] = {f: set() for f in FACETS.values()}
        wanted = options.wanted()
        for row in rows:
            for facet in seen:
                seen[facet].add(row[facet] or "")
            if not all(row[f] in values for f, values in wanted.items()) or _true(row.get("retracted")):
                continue
            key = tuple(row.get(c) or "" for c in (*_DRS, "dcpp_init_year"))
            newest[key] = max(newest.get(key, ("", "")), (str(row.get("version") or ""), row[store] or ""))
    if not newest:
        raise UserError(f"the catalogue {table} holds no store of {_asked(options)}{_hint(wanted, seen)}")
    for key, (version, url) in sorted(newest.items()):
        select: dict[str, Any] = {"variables": [key[_DRS.index("variable_id")]]}
        if years is not None and key[_DRS.index("table_id")] not in ("fx", "Ofx"):
            # whole months, which every calendar has
            select |= {"start": f"{years[0]:04d}-01", "stop": f"{years[1]:04d}-12"}
        version = version if not version or version.startswith("v") else f"v{version}"
        folder = "/".join(_word(part) for part in ("CMIP6", *key[: len(_DRS)], version) if part)
        yield Remote(url.rstrip("/"), f"{folder}/{_word(key[_DRS.index('variable_id')])}.zarr", "zarr", select=select)


def _served(address: str) -> str:
    """Of a public bucket, the same by HTTPS."""
    for scheme, server in (("gs://", "https://storage.googleapis.com/{}/{}"), ("s3://", "https://{}.s3.amazonaws.com/{}")):
        if address.startswith(scheme):
            return server.format(*address.removeprefix(scheme).split("/", 1))
    return address


def _hint(wanted: Mapping[str, tuple[str, ...]], seen: Mapping[str, set[str]]) -> str:
    for facet, values in wanted.items():
        for value in values:
            if value not in seen[facet]:
                return f"; {facet} has no {value}: {nearest(value, seen[facet]) or 'see the catalogue'}"
    return "; the combination does not exist, ask for fewer facets"


# ESGF


def _files(options: Fetch, years: tuple[int, int] | None, get: Callable[[str], bytes]) -> Iterator[Remote]:
    server = (options.server or SEARCH).rstrip("/")
    fixed = {"project": "CMIP6", "type": "File", "latest": "true", "format": "application/solr+json"}
    query = fixed | {f: ",".join(v) for f, v in options.wanted().items()}
    newest: dict[str, tuple[str, bool, str, Remote]] = {}
    offset, found = 0, 1
    while offset < found:
        answer = _json(f"{server}?{urlencode(query | {'limit': PAGE, 'offset': offset})}", get).get("response")
        if not isinstance(answer, Mapping) or not isinstance(answer.get("docs"), list) or not isinstance(answer.get("numFound"), int):
            raise UserError(
                f"{server} did not answer as an ESGF search does (response.numFound and response.docs); give another with server="
            )
        found = answer["numFound"]
        if not answer["docs"]:
            break
        offset += len(answer["docs"])
        for document in answer["docs"]:
            # nodes do not all heed what the query says of retracted and superseded datasets
            if _true(document.get("retracted")) or document.get("latest") in (False, "false", [False]):
                continue
            remote = _remote(document)
            if remote is None or not _overlaps(remote.file, years):
                continue
            place, version = remote.file.rsplit("/", 2)[0], _dataset(document)[-1]
            key = f"{place}/{remote.file.rsplit('/', 1)[1]}"
            candidate = (version, not _true(document.get("replica")), remote.url, remote)
            if key not in newest or _better(candidate, newest[key]):
                newest[key] = candidate
    if not newest:
        raise UserError(f"{server} offers no file of {_asked(options)}; check the names, or leave out grid= and period=")
    for _, _, _, remote in (newest[k] for k in sorted(newest)):
        yield remote


def _better(one: tuple[str, bool, str, Remote], other: tuple[str, bool, str, Remote]) -> bool:
    """A newer version, then the original before a copy, then the first address."""
    return one[:2] > other[:2] or (one[:2] == other[:2] and one[2] < other[2])


def _dataset(document: Mapping[str, Any]) -> list[str]:
    """The words of the dataset's name, the version last."""
    return _first(document.get("dataset_id")).split("|")[0].split(".")


def _remote(document: Mapping[str, Any]) -> Remote | None:
    """A file by plain HTTP; None where a node offers it otherwise only."""
    links = [str(u).split("|") for u in document.get("url", [])]
    url = next((link[0] for link in links if link[-1] == "HTTPServer"), None)
    name = _first(document.get("title")) or (url or "").rsplit("/", 1)[-1]
    words = _dataset(document)
    if url is None or len(words) < 2:
        return None
    kind, checksum = _first(document.get("checksum_type")).lower().replace("-", ""), _first(document.get("checksum")).lower()
    size = _first(document.get("size"))
    return Remote(
        url,
        "/".join(_word(w) for w in (*words, name)),
        bytes=int(size) if size.isdigit() else None,
        checksum=f"{kind}:{checksum}" if kind in ("sha256", "md5") and checksum else None,
    )


def _overlaps(file: str, years: tuple[int, int] | None) -> bool:
    """Whether the dates at the end of a file's name reach into the years; a file without dates does."""
    dates = re.search(r"_(\d{4})\d*-(\d{4})\d*(?:-clim)?\.nc$", file)
    return years is None or dates is None or (int(dates[1]) <= years[1] and int(dates[2]) >= years[0])


def _years(period: str | None) -> tuple[int, int] | None:
    if period is None:
        return None
    match = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", period.strip())
    if match is None or int(match[1]) > int(match[2] or match[1]):
        raise UserError(f"period {period!r} is not of the form 1980-2010 (years, both included)")
    return int(match[1]), int(match[2] or match[1])


def _json(url: str, get: Callable[[str], bytes]) -> dict[str, Any]:
    body = get(url)
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise UserError(f"{url.split('?')[0]} did not answer with a JSON object; try again later or give another with server=")
    return answer


def _first(value: Any) -> str:
    value = value[0] if isinstance(value, list) and value else value
    return "" if value is None or value == [] else str(value)


def _true(value: Any) -> bool:
    return _first(value).lower() == "true"


def _word(part: str) -> str:
    """A name as part of a path; nothing of a catalogue leads out of the target folder."""
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", part):
        raise UserError(f"the catalogue names {part[:80]!r}, which is no plain file name; expected letters, digits, dots, - and _")
    return part
