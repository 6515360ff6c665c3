"""Where towers stand: the snapshot of the FLUXNET Shuttle, the site list of AmeriFlux, and the site information (BIF) of an archive."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from scigpt.data_prep.formats.fluxnet_csv import members, opened
from scigpt.data_prep.formats.opening import one_sentence
from scigpt.data_prep.suggest import nearest
from scigpt.errors import UserError

_COLUMNS = {
    "id": ("siteid", "site"),
    "latitude": ("locationlat", "latitudedegrees", "latitude", "lat"),
    "longitude": ("locationlong", "longitudedegrees", "longitude", "long", "lon"),
    "height": ("locationelev", "elevationm", "elevation"),
    "utc_offset": ("utcoffset",),
    "name": ("sitename", "name"),
    "igbp": ("igbp", "vegetationabbreviationigbp"),
    "network": ("network", "productsourcenetwork", "datahub"),
    "citation": ("productcitation", "citation"),
    "doi": ("productid", "doi"),
}
_BIF = {
    "LOCATION_LAT": "latitude", "LOCATION_LONG": "longitude", "LOCATION_ELEV": "height", "UTC_OFFSET": "utc_offset", "SITE_NAME": "name",
    "IGBP": "igbp", "DOI": "doi",
}  # fmt: skip
_NUMBERS = {"latitude": (-90.0, 90.0), "longitude": (-180.0, 360.0), "height": (-500.0, 9000.0), "utc_offset": (-12.0, 14.0)}
_HEAD = 1 << 14


@dataclass(frozen=True)
class Site:
    """What a list says of a site; None and empty where it says nothing."""

    latitude: float | None = None
    longitude: float | None = None
    height: float | None = None
    utc_offset: float | None = None
    name: str = ""
    igbp: str = ""
    network: str = ""
    citation: str = ""
    doi: str = ""

    def or_else(self, other: Site) -> Site:
        """With what the other knows where this one knows nothing."""
        return replace(self, **{f.name: getattr(other, f.name) for f in fields(self) if getattr(self, f.name) in (None, "")})


def is_sites(path: Path) -> bool:
    """Whether this CSV file is a list of sites or their information, by its header."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        line = file.readline(_HEAD)
    if b"\x00" in line:
        return False
    columns = _header(line)
    return _is_bif(columns) or all(_column(columns, wanted) is not None for wanted in ("id", "latitude", "longitude"))


def read_sites(path: Path, member: str = "") -> dict[str, Site]:
    """Sites by their id.

    Raises:
        UserError: neither of the lists, truncated, or a place that is none.
    """
    label = f"{path.name}, {member}" if member else path.name
    found: dict[str, Site] = {}
    with opened(path, member) as file, one_sentence(path):
        data = file.read(256 << 20)
    if not data.strip():
        raise UserError(f"{label} is empty; expected a list of sites")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    columns = _header(text.partition("\n")[0].encode())
    if _is_bif(columns):
        for id_, told in _bif(text, label):
            found[id_] = found.get(id_, Site()).or_else(Site(**told))
        return found
    wanted = {name: index for name in _COLUMNS if (index := _column(columns, name)) is not None}
    if not {"id", "latitude", "longitude"} <= wanted.keys():
        raise UserError(f"{label} is no list of sites; expected columns such as site_id, location_lat and location_long (a snapshot)")
    for number, row in enumerate(csv.reader(io.StringIO(text)), 1):
        if number == 1 or not row:
            continue
        if len(row) != len(columns):
            raise UserError(
                f"{label}, row {number}: {len(row)} cells and {len(columns)} columns; it is damaged or truncated, fetch it again"
            )
        told = {name: row[index].strip() for name, index in wanted.items()}
        id_ = told.pop("id")
        found[id_] = found.get(id_, Site()).or_else(Site(**_typed(told, f"{label}, row {number}")))
    return found


def sites_within(path: Path) -> dict[str, Site]:
    """What an archive says of its own site."""
    found: dict[str, Site] = {}
    for member in members(path, r"_(BIF|BADM)_[^/]*\.csv$"):
        for id_, site in read_sites(path, member).items():
            found[id_] = found.get(id_, Site()).or_else(site)
    return found


def _header(line: bytes) -> list[str]:
    return next(csv.reader([line.decode("utf-8-sig", errors="replace").rstrip("\r\n")]), [])


def _is_bif(columns: list[str]) -> bool:
    return {"SITE_ID", "VARIABLE", "DATAVALUE"} <= set(columns)


def _column(columns: list[str], wanted: str) -> int | None:
    plain = [re.sub(r"[^a-z]", "", c.lower()) for c in columns]
    return next((plain.index(alias) for alias in _COLUMNS[wanted] if alias in plain), None)


def _bif(text: str, label: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, row in enumerate(csv.DictReader(io.StringIO(text)), 2):
        name = _BIF.get((row["VARIABLE"] or "").strip())
        if name is not None:
            yield (row["SITE_ID"] or "").strip(), _typed({name: (row["DATAVALUE"] or "").strip()}, f"{label}, row {number}")


def _typed(told: Mapping[str, str], where: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, text in told.items():
        if name not in _NUMBERS:
            found[name] = text
            continue
        if text in ("", "NA", "-9999"):
            continue
        low, high = _NUMBERS[name]
        try:
            number = float(text)
        except ValueError:
            number = float("nan")
        if not low <= number <= high:
            raise UserError(f"{where}: {name} is {text[:30]!r}; expected a number from {low:g} to {high:g}")
        found[name] = number
    return found


def snapshot_rows(body: bytes, label: str, chosen: Mapping[str, tuple[str, ...] | None]) -> list[dict[str, str]]:
    """Rows of a snapshot of the Shuttle.

    Args:
        chosen: columns and the values that are wanted of them; None for all.

    Raises:
        UserError: no whole snapshot, or a value that is not in it.
    """
    rows: list[dict[str, str]] = list(csv.DictReader(io.StringIO(body.decode("utf-8-sig", errors="replace"))))
    needed = ("site_id", "data_hub", "igbp", "download_link", "fluxnet_product_name")
    if not rows or any(row.get(column) is None for row in rows for column in needed):
        raise UserError(f"{label[-100:]} is no whole snapshot of the Shuttle; expected rows with the columns {', '.join(needed)}")
    for column, wanted in chosen.items():
        known = {row[column] for row in rows}
        for word in wanted or ():
            if word not in known:
                told = nearest(word, known) or f"it has {', '.join(sorted(known))[:120]}"
                raise UserError(f"the snapshot has no {column} {word!r}; {told}")
        rows = [row for row in rows if wanted is None or row[column] in wanted]
    return rows
