"""Which earthquake a record of the Broadband Platform is of: the source description that lies nearest to it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scigpt.data_prep.formats.bbp import read_rupture, read_source
from scigpt.errors import UserError


@dataclass(frozen=True)
class Event:
    """The earthquake of a folder: what people and what splits call it, its source description, rupture, and the files that say so."""

    name: str
    key: str
    source: Mapping[str, float | str]
    rupture: Mapping[str, Any]
    files: tuple[Path, ...]


class Events:
    """The earthquakes of an input.

    A record is of the description in its folder or the nearest one above, else of that in a folder of the same name (`indata/ID` of
    `outdata/ID`), else of the only description of the input, where it is of no other record. Without one, its folder stands for it.

    Args:
        about: `.src` and `.srf` files among others, and `records`, by absolute paths.
    """

    def __init__(self, about: Sequence[Path], records: Sequence[Path]) -> None:
        self._folders: dict[Path, list[Path]] = {}
        for path in about:
            if path.suffix.lower() in (".src", ".srf"):
                self._folders.setdefault(path.parent, []).append(path)
        self._described = [f for f, own in self._folders.items() if _sources(own)]
        self._homes = {folder: self._home(folder) for folder in {p.parent for p in records}}
        everywhere = [p for f in self._described for p in _sources(self._folders[f])]
        if len(everywhere) == 1 and not any(self._homes.values()):
            self._homes = dict.fromkeys(self._homes, everywhere[0].parent)
        self._events: dict[Path, Event] = {}

    def of(self, record: Path) -> Event:
        """Raises:
        UserError: a folder that describes several earthquakes.
        """
        home = self._homes[record.parent]
        if home is None:
            folder = record.parent
            return Event(folder.name, f"{folder.parent.name}/{folder.name}", {}, {}, ())
        if home not in self._events:
            self._events[home] = _event(home, self._folders[home])
        return self._events[home]

    def idle(self, records: Sequence[Path]) -> list[Path]:
        """Source descriptions that are of none of these records."""
        used = {self._homes[p.parent] for p in records}
        return [p for f in self._described if f not in used for p in _sources(self._folders[f])]

    def _home(self, folder: Path) -> Path | None:
        """The folder that describes the earthquake of the records in a folder."""
        if not self._described:
            return None
        above = next((f for f in (folder, *folder.parents) if f in self._described), None)
        if above is not None:
            return above
        named = [f for f in self._described if f.name == folder.name]
        near = [len(Path(os.path.commonpath([f, folder])).parts) for f in named]
        return named[near.index(max(near))] if named and near.count(max(near)) == 1 else None


def _sources(files: Sequence[Path]) -> list[Path]:
    return [p for p in files if p.suffix.lower() == ".src"]


def _event(folder: Path, files: Sequence[Path]) -> Event:
    sources = _sources(files)
    read = [read_source(p) for p in sources]
    # one earthquake may be there in several realisations, which differ by their seed alone
    same = {k: v for k, v in read[0].items() if all(r.get(k) == v for r in read)}
    if any(set(r) - {"SEED"} != set(same) - {"SEED"} for r in read):
        names = ", ".join(p.name for p in sources)
        raise UserError(f"the folder {folder.name} describes several earthquakes ({names[:150]}); give each a folder of its own")
    ruptures = [p for p in files if p not in sources]
    rupture = read_rupture(ruptures[0]) if len(ruptures) == 1 else {}
    key = " ".join(f"{k}={v}" for k, v in sorted(same.items()) if k != "SEED")
    return Event(sources[0].stem, key, same, rupture, (*sources, *(ruptures if rupture else ())))
