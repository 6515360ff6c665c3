"""Well logs: the curves of LAS files as series along depth, by mnemonic, in one unit for each quantity.

Frames run along depth: the time of a frame is its depth in metres, without a calendar. A curve that is not known, has no unit or one that
does not fit is left out with the reason; `curves=` takes it by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from scigpt.data.sample import Coordinate, Origin, Sample, SourceFile, Time, Variable
from scigpt.data.variables import QUANTITIES, convert
from scigpt.data_prep.datamap import Channel
from scigpt.data_prep.files import fingerprints
from scigpt.data_prep.formats.las import API, UNITS, Las, degrees, is_las, open_las
from scigpt.data_prep.recordings import Along, Recorded, connected, deal, files_of, segments_of
from scigpt.data_prep.source import Description, Plan, SampleRef, Source
from scigpt.data_prep.suggest import nearest
from scigpt.data_prep.tracks import make_variable
from scigpt.errors import UserError

MNEMONICS: Mapping[str, tuple[str, ...]] = {
    "gamma_ray_index": ("GR", "SGR", "GRGC", "ECGR", "GAMN", "GAMMA", "GRD", "GRS", "GRN"),
    "bulk_density": ("RHOB", "RHOZ", "ZDEN", "DEN", "DENS", "RHO8"),
    "neutron_porosity": ("NPHI", "TNPH", "NPOR", "CNC", "CNCF", "NPLS", "NPSS"),
    "sonic_slowness": ("DT", "DTC", "DTCO", "AC", "DT24", "DTLN"),
    "shear_sonic_slowness": ("DTS", "DTSM"),
    "electrical_resistivity": ("RT", "ILD", "LLD", "AT90", "AHT90", "RILD", "RDEP", "RESD", "RES", "LL3", "LN", "SN", "ILM", "LLS"),
    "spontaneous_potential": ("SP", "SPBR", "SSP"),
    "borehole_diameter": ("CALI", "CAL", "HCAL", "CALS", "LCAL", "C1"),
    "photoelectric_factor": ("PEF", "PE", "PEFZ", "PEF8"),
    "borehole_temperature": ("TEMP", "WTBH", "BHT", "CTEM", "DTEM", "HTEM", "MTEM", "TMP"),
}
"""Of each quantity the mnemonics that stand for it, the best first."""
_PLACE = {"latitude": (("LATI", "LAT", "LATITUDE", "SLAT"), 90.0), "longitude": (("LONG", "LON", "LONGITUDE", "SLON"), 360.0)}
_NO_NAME = ("", "NA", "NONE", "NULL", "UNKNOWN", "UNKNOWNWELL", "UNNAMED", "WELL", "TEST", "99925", "999925")
"""What headers say where they name no well, without case and punctuation."""
_ABOUT = ("WELL", "UWI", "API", "COMP", "FLD", "LOC", "CNTY", "STAT", "PROV", "CTRY", "SRVC", "DATE")


@dataclass(frozen=True)
class WellOptions:
    """Options of well logs.

    Args:
        curves: these only, each `MNEMONIC`, `MNEMONIC:NAME` or `MNEMONIC:NAME:UNIT` (a name of the registry or your own, the unit in the
            file); by default all whose mnemonic is known.
        whole: refuse a log that ends before the depth that its header names.
        frames_per_sample: depths of a sample at most.
        split_by: what stays in one split: `well` (files that share API, UWI or WELL), or blocks of `depth`, of a well at the same depths in
            all its files; wells by default where there are enough.
        splits, gap: shares of train, valid and test, and depths between blocks.
        split: put everything into this one split instead.
    """

    curves: tuple[str, ...] | None = None
    whole: bool = True
    frames_per_sample: int = 1024
    split_by: Literal["well", "depth"] | None = None
    splits: tuple[float, ...] = (0.8, 0.1, 0.1)
    gap: int = 64
    split: str | None = None


@dataclass(frozen=True)
class Chosen:
    """A column of a file and what it becomes."""

    column: int
    unit: str
    variable: Variable


class WellLogs(Source):
    """LAS files of any origin."""

    name = "well_logs"
    Options: ClassVar[type] = WellOptions
    options: WellOptions

    @classmethod
    def describe(cls) -> Description:
        return Description("well_logs", "subsurface: well logs", "LAS 1.2, 2.0", "as the files' source states", extra="wells")

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return is_las(path)

    def plan(self) -> Plan:
        o, notes = self.options, list[str]()
        for word in o.curves or ():
            if not any(c.mnemonic.upper() == word.partition(":")[0].upper() for log in self._logs for c in log.curves):
                there = sorted({c.mnemonic for log in self._logs for c in log.curves[1:]})
                told = nearest(word.partition(":")[0].upper(), there) or f"there are {', '.join(there)[:160]}"
                raise UserError(f"option curves={word}: no file has this curve; {told}")
        variables = self._variables
        self._tell(notes)
        if not variables:
            held = ", ".join(c.mnemonic for c in self._logs[0].curves[1:])[:120]
            told = "none of its curves is known or has a unit that fits"
            raise UserError(f"{self._logs[0].path.name}: {told} ({held}); name some with curves=MNEMONIC:NAME:UNIT")
        places = all(self._place(log) for log in self._logs)
        wells = _wells(self._logs)
        records = []
        for number, log in enumerate(self._logs):
            chosen = self._chosen[number]
            if not chosen:
                notes.append(f"{log.path.name} is left out: it has none of the curves")
                continue
            depth, values = log.read([c.column for c in chosen], o.whole)
            segments = segments_of(depth, f"{log.path.name}, depths", "m")
            segments = tuple(s for s in segments if np.isfinite(values[s[0] : s[1]]).any())
            if segments:
                spec = {"file": number, "places": places, "sha256": self._digests[log.path]}
                records.append(Recorded(_name(log), wells[number], Along.of(depth, segments), spec))
            else:
                notes.append(f"{log.path.name} is left out: its curves hold no value")
        if not records:
            raise UserError(f"{self._logs[0].path.name}: its curves hold no value; check the missing-value mark of its header (NULL)")
        by = o.split_by or ("well" if len({r.whole for r in records}) > 1 else "depth")
        refs, splits = deal(records, o.splits, o.gap, o.frames_per_sample, o.split, "well" if by == "well" else None, notes)
        inputs = tuple((log.path.name, self._digests[log.path]) for log in self._logs)
        return Plan(refs, splits, inputs, 5 * len(variables) * o.frames_per_sample, tuple(notes))

    def samples(self, refs: Sequence[SampleRef]) -> Iterator[Sample | None]:
        last: tuple[int, tuple[np.ndarray, np.ndarray]] | None = None
        for ref in refs:
            number = ref.spec["file"]
            if last is None or last[0] != number:
                last = number, self._read(number)
            yield self._sample(number, *last[1], ref.spec)

    # its parts

    @cached_property
    def _logs(self) -> list[Las]:
        return [open_las(p) for p in files_of(self.inputs, self.name, (".las",))]

    @cached_property
    def _digests(self) -> dict[Path, str]:
        return fingerprints([log.path for log in self._logs])

    @cached_property
    def _chosen(self) -> list[tuple[Chosen, ...]]:
        return [tuple(self._choose(log)) for log in self._logs]

    @cached_property
    def _reasons(self) -> dict[str, int]:
        """Why curves are left out, and how often."""
        return {}

    @cached_property
    def _variables(self) -> tuple[Variable, ...]:
        """Of any well: in the order of the table above, then the user's own; one that a well lacks is invalid there."""
        found = {c.variable.name: c.variable for own in self._chosen for c in own}
        order = [*(n for n in MNEMONICS if n in found), *(n for n in found if n not in MNEMONICS)]
        for own in self._chosen:
            for c in own:
                if c.variable != found[c.variable.name]:
                    raise UserError(
                        f"{c.variable.name} is in {c.variable.unit} and in {found[c.variable.name].unit}; state one unit in curves="
                    )
        return tuple(found[n] for n in order)

    def _choose(self, log: Las) -> Iterator[Chosen]:
        if self.options.curves is not None:
            yield from self._asked(log)
            return
        names = [c.mnemonic.upper() for c in log.curves]
        known = {m: (quantity, rank) for quantity, own in MNEMONICS.items() for rank, m in enumerate(own)}
        best: dict[str, tuple[int, int]] = {}
        for column, mnemonic in enumerate(names[1:], 1):
            if mnemonic not in known:
                self._leave_out(mnemonic, "its mnemonic is not known")
                continue
            quantity, rank = known[mnemonic]
            reason = _misfit(log.curves[column].unit, quantity)
            if reason:
                self._leave_out(mnemonic, reason)
            elif quantity not in best or rank < best[quantity][0]:
                if quantity in best:
                    self._leave_out(names[best[quantity][1]], f"{mnemonic} is taken for {quantity}")
                best[quantity] = rank, column
            else:
                self._leave_out(mnemonic, f"{names[best[quantity][1]]} is taken for {quantity}")
        for name, (_, column) in best.items():
            yield Chosen(column, _unit(log.curves[column].unit, name), Variable(name, QUANTITIES[name].unit))

    def _asked(self, log: Las) -> Iterator[Chosen]:
        names = [c.mnemonic.upper() for c in log.curves]
        for word in self.options.curves or ():
            mnemonic, _, rest = word.partition(":")
            name, _, unit = rest.partition(":")
            if mnemonic.upper() not in names[1:]:
                continue
            column = names.index(mnemonic.upper(), 1)
            own = log.curves[column].unit
            known = next((q for q, m in MNEMONICS.items() if mnemonic.upper() in m), None)
            unit = unit or _unit(own, name or known)
            where = f"{log.path.name}, curve {mnemonic}"
            if not unit:
                raise UserError(f"{where} has no unit in its header; state it with curves={mnemonic}:{name or known or 'NAME'}:UNIT")
            yield Chosen(column, unit, make_variable(mnemonic, Channel(name=name or known), unit, None, where))

    def _leave_out(self, mnemonic: str, reason: str) -> None:
        told = f"{mnemonic} is left out: {reason}"
        self._reasons[told] = self._reasons.get(told, 0) + 1

    def _tell(self, notes: list[str]) -> None:
        for told, count in self._reasons.items():
            mnemonic = told.partition(" ")[0]
            hint = f"; curves={mnemonic}:NAME:UNIT takes it" if "not known" in told or "unit" in told else ""
            notes.append(told + (f" (in {count} files)" if count > 1 else "") + hint)

    def _place(self, log: Las) -> dict[str, float]:
        found = {}
        for name, (mnemonics, limit) in _PLACE.items():
            value = next((v for m in mnemonics if (v := degrees(log.well.get(m), limit)) is not None), None)
            if value is not None:
                found[name] = value
        return found if len(found) == 2 and any(found.values()) else {}

    def _read(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Depths, and values `(N, C)` of all variables of the corpus in their units."""
        log, chosen = self._logs[number], self._chosen[number]
        depth, columns = log.read([c.column for c in chosen], self.options.whole)
        values = np.full((len(depth), len(self._variables)), np.nan)
        for i, c in enumerate(chosen):
            where = f"{log.path.name}, curve {log.curves[c.column].mnemonic}"
            values[:, self._variables.index(c.variable)] = convert(columns[:, i], c.unit, c.variable.unit, where)
        return depth, values

    def _sample(self, number: int, depth: np.ndarray, values: np.ndarray, spec: Mapping[str, Any]) -> Sample | None:
        log, part = self._logs[number], slice(spec["start"], spec["stop"])
        own = values[part].astype(np.float32)[:, :, None, None, None]
        valid = np.isfinite(own)
        if not valid.any():
            return None
        about = self.describe()
        place = self._place(log)
        units = {"latitude": "degrees_north", "longitude": "degrees_east"}
        coordinates = {n: Coordinate(("x",), np.array([v]), units[n]) for n, v in place.items()} if spec["places"] else {}
        mnemonics = {c.variable.name: log.curves[c.column].mnemonic for c in self._chosen[number]}
        known = {m.lower(): log.well[m].value for m in _ABOUT if m in log.well and log.well[m].value}
        return Sample(
            np.where(valid, own, np.float32(0)),
            valid,
            self._variables,
            Time(depth[part]),
            Origin(
                self.name,
                about.licence,
                (SourceFile(log.path.name, spec["sha256"]),),
                about.attribution,
                _name(log),
                {"well": known, "curves": mnemonics, "frames": "depth in m", **place},
            ),
            geometry="points" if coordinates else "plane",
            coordinates=coordinates,
        )


def _name(log: Las) -> str:
    """Of the well: its name and its number, or the file's name."""
    words = [log.well[m].value for m in ("WELL", "UWI", "API") if m in log.well and log.well[m].value]
    return " ".join(dict.fromkeys(words)) or log.path.stem


def _wells(logs: Sequence[Las]) -> list[str]:
    """Of each file what its well is called: files that share a number (API, UWI) or a name, whatever their spelling, are of one well."""
    keys = [sorted(_identities(log)) for log in logs]
    groups = connected(keys)
    names: dict[int, str] = {}
    for group, own in zip(groups, keys, strict=True):
        names[group] = min(names.get(group, own[0]), own[0])
    return [names[group] for group in groups]


def _identities(log: Las) -> set[str]:
    """Numbers and name of a well without case and punctuation; of an API number the ten digits that are of the well."""
    found = set()
    for mnemonic in ("API", "UWI", "WELL"):
        plain = re.sub(r"[^A-Z0-9]", "", log.well[mnemonic].value.upper()) if mnemonic in log.well else ""
        if plain in _NO_NAME or re.fullmatch(r"0*|9{3,}", plain):
            continue
        if mnemonic != "WELL" and plain.isdigit() and len(plain) in (10, 12, 14):
            plain = plain[:10]
        found.add(f"{'name' if mnemonic == 'WELL' else 'number'} {plain}")
    return found or {f"file {log.path.stem}"}


def _unit(unit: str, quantity: str | None = None) -> str:
    """As pint reads it; F is a foot, but of a temperature Fahrenheit."""
    if quantity == "borehole_temperature" and unit.upper() == "F":
        return "degF"
    return "1" if unit.upper() in API else UNITS.get(unit.upper(), unit)


def _misfit(unit: str, quantity: str) -> str:
    """Why a unit of a file is none of the quantity's; empty where it is."""
    if not unit:
        return f"it has no unit and {quantity} needs one"
    gamma = quantity == "gamma_ray_index"
    try:
        convert(np.zeros(1), _unit(unit, quantity), QUANTITIES[quantity].unit)
    except UserError:
        return f"its unit {unit} is none of {quantity}"
    return "" if (unit.upper() in API) == gamma else f"its unit {unit} is none of {quantity}"
