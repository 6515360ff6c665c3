"""Packages of CSV tables as ESS-DIVE keeps them: file-level metadata, data dictionaries, methods of installation and lists of sites.

A package is a folder, or a zip, or files that are given one by one. What a file is, its column names say, not its own name. Nothing is
unpacked: members of a zip are read where they are.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Literal

from scigpt.data_prep.formats.package_files import Entry
from scigpt.data_prep.formats.unit_words import spelled_short
from scigpt.errors import UserError

Kind = Literal["files", "dictionary", "installations", "sites", "description", "data", "other"]
NOTHING = ("", "n/a", "na", "nan", "-9999", "-9999.0", "none", "null")
"""What metadata write where there is nothing to say."""
SITE_NAMES = ("site_id", "site", "location_id", "station_id", "station", "well_id", "sensor_id", "site_name")
_PLACEHOLDER = re.compile(r"\[(INSERT|HEADER FOR|REPLACE)[^\]]*\]", re.IGNORECASE)
_ADVICE = re.compile(r"(Required|Optional|Conditional|Recommended|NOTE)\b")
DESCRIPTION = "package.jsonld"


@dataclass(frozen=True)
class FileNote:
    """A line of the file-level metadata; None and empty where it says nothing."""

    file: str
    description: str = ""
    dictionary: str = ""
    header_rows: int | None = None
    position: int | None = None
    missing: tuple[str, ...] = ()
    utc_offset: str = ""
    latitude: float | None = None
    longitude: float | None = None


@dataclass(frozen=True)
class Column:
    """What a data dictionary says of a column."""

    unit: str
    definition: str
    type: str
    missing: tuple[str, ...]
    told_by: str


@dataclass(frozen=True)
class Place:
    """A site or an installed sensor; what is not known is None or empty."""

    id: str
    site: str
    latitude: float | None
    longitude: float | None
    height: float | None
    depth: float | None
    depth_reference: str
    about: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class Package:
    """All metadata that the files of one package hold."""

    files: list[FileNote] = field(default_factory=list)
    dictionaries: dict[str, dict[str, Column]] = field(default_factory=dict)
    installations: dict[str, Place] = field(default_factory=dict)
    sites: dict[str, Place] = field(default_factory=dict)
    data: list[Entry] = field(default_factory=list)
    other: list[Entry] = field(default_factory=list)
    described: dict[str, Any] = field(default_factory=dict)

    def note(self, name: str) -> FileNote:
        """Of a file; one that names it goes before one with a wildcard."""
        found = [n for n in self.files if fnmatch.fnmatchcase(name.lower(), PurePosixPath(n.file.lower()).name)]
        return min(found, key=lambda n: "*" in n.file) if found else FileNote(name)

    def columns(self, entry: Entry) -> dict[str, Column]:
        """Columns by name in lower case: of the dictionary that the file-level metadata name, of the one called like the file, or of all.

        Raises:
            UserError: two dictionaries of all files say different units.
        """
        stem = entry.name.lower().rpartition(".")[0]
        for wanted in (self.note(entry.name).dictionary.lower(), f"{stem}_dd.csv"):
            if wanted in self.dictionaries:
                return self.dictionaries[wanted]
        found: dict[str, Column] = {}
        names = {e.name.lower().rpartition(".")[0] + "_dd.csv" for e in self.data}
        for file, own in self.dictionaries.items():
            for name, column in own.items() if file not in names else ():
                if found.setdefault(name, column).unit != column.unit:
                    raise UserError(
                        f"{entry.label}: the column {name} is in {found[name].unit!r} by {found[name].told_by} and in {column.unit!r} by "
                        f"{column.told_by}; correct one of them"
                    )
        return found


def kind_of(entry: Entry, encoding: str = "utf-8") -> Kind:
    """By the names of its columns."""
    if entry.name.lower().endswith(".jsonld"):
        return "description"
    if not entry.name.lower().endswith((".csv", ".csv.txt")):
        return "other"
    first = next((row for _, row in entry.rows(encoding) if not row[0].startswith("#")), [])
    names = {_key(c) for c in first}
    if {"file_name", "file_description"} <= names:
        return "files"
    if "unit" in names and "definition" in names and names & {"column_or_row_name", "name", "column_name"}:
        return "dictionary"
    if {"installationmethod_id", "installationmethod_description"} <= names:
        return "installations"
    timed = any(re.match(r"(date|time)", n) for n in names)
    return "sites" if {"latitude", "longitude"} <= names and names & set(SITE_NAMES) and not timed else "data"


def gather(entries: Sequence[Entry], encoding: str = "utf-8") -> Package:
    """The metadata of a package.

    Raises:
        UserError: a template that nobody filled in, a damaged file, an id that is described twice.
    """
    package = Package()
    for entry in entries:
        match kind_of(entry, encoding):
            case "files":
                package.files.extend(_file_note(row) for _, row in records(entry, encoding) if row.get("file_name"))
            case "dictionary":
                package.dictionaries[entry.name.lower()] = _dictionary(entry, encoding)
            case "description":
                package.described.update(_description(entry))
            case "data":
                package.data.append(entry)
            case "other":
                package.other.append(entry)
            case _:
                pass
    depth = next((c.unit for own in package.dictionaries.values() for n, c in own.items() if n == "depth"), "")
    for entry in entries:
        kind = kind_of(entry, encoding)
        if kind in ("installations", "sites"):
            into = package.installations if kind == "installations" else package.sites
            key = "installationmethod_id" if kind == "installations" else None
            for line, row in records(entry, encoding):
                place = _place(entry, line, row, key, depth)
                if (old := into.setdefault(place.id, place)) is not place and (old.latitude, old.longitude) != (
                    place.latitude, place.longitude,
                ):  # fmt: skip
                    raise UserError(f"{entry.label}, line {line}: {place.id} was described before, elsewhere; remove one of the rows")
    return package


def records(entry: Entry, encoding: str = "utf-8") -> Iterator[tuple[int, dict[str, str]]]:
    """Line and cells, by the name of their column in lower case, of a table of metadata."""
    names: list[str] = []
    for line, row in entry.rows(encoding):
        if row[0].startswith("#"):
            continue
        refuse_template(entry, line, row)
        if not names:
            names = [_key(c) for c in row]
            continue
        if any(row[len(names) :]) or len(row) < len([n for n in names if n]):
            raise UserError(
                f"{entry.label}, line {line}: {len(row)} cells under {len(names)} names; it may be damaged or truncated, fetch it again"
            )
        yield line, {n: c for n, c in zip(names, row, strict=False) if n}


def refuse_template(entry: Entry, line: int, row: Sequence[str]) -> None:
    """Raises UserError for what only a template of a reporting format says."""
    told = [c for c in row if c]
    found = next((m[0] for c in told if (m := _PLACEHOLDER.search(c))), None)
    if found is None and (row[0].startswith("NOTE: ") or (len(told) > 1 and all(_ADVICE.match(c) for c in told))):
        found = told[0]
    if found is not None:
        raise UserError(
            f"{entry.label}, line {line} says {found.strip()[:60]!r}: this is a template of a reporting format that is not filled in; "
            "fill it in, or leave it out"
        )


def number_of(text: str) -> float | None:
    """None for what is missing or no number."""
    try:
        return None if text.strip().lower() in NOTHING else float(text)
    except ValueError:
        return None


def _key(name: str) -> str:
    return re.sub(r"\W+", "_", name.strip().lstrip("\ufeff")).strip("_").lower()


def _codes(text: str) -> tuple[str, ...]:
    return tuple(c for c in (w.strip().strip("\"'") for w in re.split(r"[;,|]", text)) if c)


def _file_note(row: Mapping[str, str]) -> FileNote:
    def whole(key: str) -> int | None:
        value = number_of(row.get(key, ""))
        return None if value is None or value != int(value) else int(value)

    offset = row.get("utc_offset", "")
    return FileNote(
        row["file_name"],
        row["file_description"],
        row.get("data_dictionary_file_name", ""),
        whole("header_rows"),
        whole("column_or_row_name_position"),
        _codes(row.get("missing_value_codes", row.get("missing_value_code", ""))),
        "" if offset.lower() in NOTHING else offset,
        number_of(row.get("latitude", "")),
        number_of(row.get("longitude", "")),
    )


def _dictionary(entry: Entry, encoding: str) -> dict[str, Column]:
    found: dict[str, Column] = {}
    for line, row in records(entry, encoding):
        name = next(row[k] for k in ("column_or_row_name", "column_name", "name") if k in row)
        column = Column(row["unit"], row["definition"], row.get("data_type", ""), _codes(row.get("missing_value_code", "")), entry.label)
        if found.setdefault(name.lower(), column).unit != column.unit:
            raise UserError(f"{entry.label}, line {line}: {name} has two units, {found[name.lower()].unit!r} and {column.unit!r}")
    return found


def _place(entry: Entry, line: int, row: Mapping[str, str], key: str | None, depth_unit: str) -> Place:
    site = next((row[k] for k in SITE_NAMES if row.get(k, "").lower() not in NOTHING), "")
    own = row[key] if key else site
    latitude, longitude = number_of(row.get("latitude", "")), number_of(row.get("longitude", ""))
    if (latitude is not None and abs(latitude) > 90) or (longitude is not None and abs(longitude) > 360):
        raise UserError(f"{entry.label}, line {line}: {own} lies at {latitude} {longitude}; expected decimal degrees")
    reference, above = row.get("depth_reference", ""), row.get("elevation_reference", "")
    unit = row.get("depth_unit", "") or reference.split(" ")[0] or depth_unit
    depth, metres = (
        number_of(row.get("depth", "")),
        {"m": 1.0, "cm": 0.01, "mm": 0.001, "foot": 0.3048}.get(spelled_short(unit.split("_")[0])),
    )
    height = number_of(row.get("elevation", ""))
    sea = re.match(r"met(er|re)s?\b", above, re.IGNORECASE) and re.search(r"sea.level|NAVD|NGVD|geoid", above, re.IGNORECASE)
    told = {k: row[k] for k in ("site_name", "water_name", "site_type", "configuration") if row.get(k, "").lower() not in NOTHING}
    return Place(
        own,
        site,
        latitude,
        longitude,
        height if sea else None,
        None if depth is None or metres is None else depth * metres,
        reference,
        told,
    )


def _description(entry: Entry) -> dict[str, Any]:
    """The dataset of an answer of the package service."""
    try:
        with entry.open() as file:
            answer = json.loads(file.read())
        found = answer.get("dataset", answer)
        if not isinstance(found, dict):
            raise TypeError(type(found).__name__)
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{entry.label} is no JSON-LD of a package ({type(error).__name__}); fetch it again, or leave it out") from None
    return {**found, "id": answer.get("id", "")}
