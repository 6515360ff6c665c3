"""ARM Best Estimate and other datastreams of fixed ARM sites, used to validate, never to train.

A facility (`sgp.C1`) is a station; cloud fraction and soundings are channels of it at levels of the file. Every sample goes to the split
`test` (or another that is not `train`), so a corpus of it has no training statistics.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import netCDF4
import numpy as np

from scigpt.data.sample import Variable
from scigpt.data_prep.fetch.armlive import ArmLive
from scigpt.data_prep.files import kind, locate, members
from scigpt.data_prep.formats.netcdf3 import require_whole
from scigpt.data_prep.formats.opening import one_sentence
from scigpt.data_prep.source import Description, Plan, Remote
from scigpt.data_prep.sources.arm_layouts import Channel, Columns, attribute, columns_of, place_of, stream_of, told_of
from scigpt.data_prep.sources.arm_quality import Quality, values_of
from scigpt.data_prep.sources.arm_times import Stamp, Times, begins_of, times_of, usual_step
from scigpt.data_prep.station_records import Clock, Readings, Station
from scigpt.data_prep.stations import StationOptions, StationSource
from scigpt.errors import UserError

HEIGHTS = (150.0, 500.0, 1000.0, 1500.0, 2000.0, 3000.0, 4000.0, 5000.0, 6000.0, 7000.0, 8000.0, 9000.0, 10000.0, 12000.0, 14000.0)
PRESSURES = (1000.0, 925.0, 850.0, 700.0, 600.0, 500.0, 400.0, 300.0, 250.0, 200.0, 150.0, 100.0)


@dataclass(frozen=True)
class ArmOptions(StationOptions):
    """As every source of stations, and:

    Args:
        quality: the least that is kept: `good`, `indeterminate` also values with an unclear test, `any` even bad ones.
        stamp: which part of an interval the times are (`begin`, `middle`, `end`), or `instant`, where the files do not say; by default
            what they say (bounds, their comment), the middle for best estimates and the beginning for 30ecor.
        heights: metres above ground; of profiles the level next to each, under the height asked for; `heights=` takes all at their own.
        pressures: hPa, likewise.
        split: the one split all samples go to, any but `train`.
    """

    quality: Quality = "good"
    stamp: Stamp | None = None
    heights: tuple[float, ...] = HEIGHTS
    pressures: tuple[float, ...] = PRESSURES
    split: str | None = "test"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("heights", "pressures"):
            for value in getattr(self, name):
                if not (np.isfinite(value) and value >= 0):
                    raise UserError(f"{name}={value:g} is no level; expected numbers from 0 on, in {'m' if name == 'heights' else 'hPa'}")


@dataclass(frozen=True)
class ArmFetch:
    """What to fetch from ARM Live; the account comes from ARM_USER and ARM_TOKEN of the environment.

    Args:
        datastreams: such as `sgparmbeatmC1.c1`.
        start, end: first and last day, `2018-01-01`.
    """

    datastreams: tuple[str, ...] = ("sgparmbeatmC1.c1", "sgparmbecldradC1.c1")
    start: str = "2018-01-01"
    end: str = "2018-12-31"


@dataclass(frozen=True, eq=False)
class _File:
    """What a file says, its values apart."""

    stream: re.Match[str]
    place: tuple[float, float, float | None]
    times: Times
    columns: Columns
    told: dict[str, Any]
    doi: str


class Arm(StationSource):
    """Ground stations of the Atmospheric Radiation Measurement user facility."""

    name = "arm"
    Options: ClassVar[type] = ArmOptions
    Fetch: ClassVar[type | None] = ArmFetch
    options: ArmOptions

    def __init__(self, inputs: Sequence[Path] = (), options: Any = None) -> None:
        super().__init__(inputs, options)
        if self.options.split in (None, "train"):
            raise UserError("the source arm is for validation only and nothing of it is trained on; give split=test, valid or ood")
        self._levels: dict[str, dict[str, list[float]]] = {}

    @classmethod
    def describe(cls) -> Description:
        return Description(
            "arm",
            "atmosphere: clouds, radiation, soundings and fluxes at ARM sites",
            "NetCDF (ARM datastreams, classic and 4)",
            "ARM data policy (attribution by DOI)",
            "Atmospheric Radiation Measurement (ARM) user facility; ARM Best Estimate: Xie et al. 2010, doi:10.1175/2009BAMS2891.1",
            use="validate",
            redistributable=False,
        )

    @classmethod
    def recognises(cls, path: Path) -> bool:
        try:
            if not path.is_file() or kind(path) not in ("netcdf3", "netcdf4"):
                return False
            with _opened(path) as file:
                return "time" in file.dimensions and {"base_time", "lat", "lon"} <= set(file.variables) and bool(stream_of(file, path))
        except (UserError, OSError):
            return False

    @classmethod
    def remotes(cls, options: ArmFetch, get: Callable[[str], bytes]) -> Iterator[Remote]:
        for name in ("start", "end"):
            if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", getattr(options, name)):
                raise UserError(f"{name}={getattr(options, name)} must be a day such as 2018-01-01")
        account = ArmLive()
        server = account.server
        for stream in options.datastreams:
            if not re.fullmatch(r"[a-z]{3}[a-z0-9]+[A-Z]\d+\.[a-c]\d", stream):
                raise UserError(f"datastreams={stream} is not of the form sgparmbeatmC1.c1 (site, product, facility, level)")
            body = get(account.signed(f"{server}/query?ds={stream}&start={options.start}&end={options.end}&wt=json"))
            try:
                answer = json.loads(body)
                files = [str(f) for f in answer["files"]]
            except (ValueError, KeyError, TypeError):
                raise UserError(f"{server} did not answer with a list of files for {stream}; check ARM_USER and ARM_TOKEN") from None
            if not files:
                raise UserError(
                    f"ARM Live has no file of {stream} from {options.start} to {options.end}; check the datastream and the days"
                )
            for file in sorted(files):
                if not re.fullmatch(rf"{re.escape(stream)}\.[\w.-]+", file):
                    raise UserError(f"ARM Live lists {file[:80]!r} for {stream}; expected names that begin with it")
                yield Remote(f"{server}/saveData?file={file}", f"{stream}/{file}", login="arm")

    # stations

    @property
    def clock(self) -> Clock:
        clocks = {path: (step, interval) for path, (_, step, interval) in self._clocks.items()}
        steps = {s for s, _ in clocks.values() if s is not None}
        kinds = {interval for _, interval in clocks.values()}
        if len(steps) > 1 or len(kinds) > 1:
            paths = list(clocks)
            other = next(p for p in paths if clocks[p] != clocks[paths[0]])
            told = [f"{p.name} every {clocks[p][0]} s{'' if clocks[p][1] else ' (instants)'}" for p in (paths[0], other)]
            raise UserError(f"the input has values of two clocks: {told[0]}, {told[1]}; prepare them apart")
        return Clock(steps.pop() if steps else 1, kinds.pop() if kinds else True)

    def open(self, path: Path) -> list[Station]:
        file = self._files[path]
        begins, _, _ = self._clocks[path]
        id_ = f"{file.stream['site']}.{file.stream['facility']}"
        variables = tuple(Variable(c.quantity, c.unit, "state", c.level) for c in file.columns.channels)
        levels = self._levels.setdefault(id_, {})  # one for all files of the station: the first of them tells for all
        for variable, channel in zip(variables, file.columns.channels, strict=True):
            if channel.own is not None and channel.level is not None and channel.own != channel.level.value:
                levels[variable.key] = sorted({*levels.get(variable.key, ()), channel.own})
        latitude, longitude, height = file.place
        return [
            Station(
                id_,
                latitude,
                longitude,
                variables,
                begins[0],
                begins[-1],
                partial(_readings, path, file.columns.channels, begins, self.options.quality),
                height,
                whole=file.stream["site"],
                about={**file.told, "levels": levels} if any(c.level for c in file.columns.channels) else file.told,
                attribution=f"{file.stream[0]}, doi:{file.doi}" if file.doi else "",
            )
        ]

    def plan(self) -> Plan:
        plan, unknown, notes = super().plan(), dict[str, dict[str, None]](), dict[str, None]()
        for file in self._files.values():
            product = file.stream["product"]
            notes.update({f"{product}: {note}": None for note in file.columns.notes})
            unknown.setdefault(product, {}).update(dict.fromkeys(file.columns.unknown))
        told = [
            f"{product}: columns left out, because nothing of the registry is known for them: {', '.join(list(names)[:60])}"
            f"{f' and {len(names) - 60} more' if len(names) > 60 else ''}"
            for product, names in unknown.items()
            if names
        ]
        if any(self._levels.values()):
            told.append("profiles: the file has levels next to those asked for; which, says `levels` in the origin of a sample")
        return replace(plan, notes=tuple(dict.fromkeys((*plan.notes, *list(notes)[:20], *told))))

    # its parts

    @cached_property
    def _files(self) -> dict[Path, _File]:
        found: dict[Path, _File] = {}
        axes: dict[str, tuple[str, list[float]]] = {}
        for path in dict.fromkeys(p for given in self.inputs for p in members(locate(given))):
            found[path] = file = self._parsed(path)
            profiles: dict[str, list[float]] = {}
            for c in file.columns.channels:
                if c.level is not None and not (self.options.heights if c.level.kind == "height" else self.options.pressures):
                    profiles.setdefault(f"{c.level.kind}s= takes all levels of {c.quantity}", []).append(c.level.value)
            for what, levels in profiles.items():
                name, first = axes.setdefault(what, (path.name, levels))
                if first != levels:
                    raise UserError(
                        f"{what}: {path.name} has {len(levels)} from {levels[0]:g} to {levels[-1]:g} and {name} has {len(first)} from "
                        f"{first[0]:g} to {first[-1]:g}; name the levels, or prepare them apart"
                    )
        return found

    @cached_property
    def _clocks(self) -> dict[Path, tuple[np.ndarray, int | None, bool]]:
        """Beginnings, step and whether they are intervals; a file of a few values has the step of its datastream."""
        streams: dict[str, list[Times]] = {}
        for file in self._files.values():
            streams.setdefault(file.stream[0], []).append(file.times)
        usual = {name: usual_step(times) for name, times in streams.items()}
        return {p: begins_of(f.times, p, f.stream[0], usual[f.stream[0]]) for p, f in self._files.items()}

    def _parsed(self, path: Path) -> _File:
        if kind(path) not in ("netcdf3", "netcdf4"):
            raise UserError(f"{path.name} is no NetCDF file by its first bytes; expected the files of an ARM datastream")
        o = self.options
        with _opened(path) as file:
            stream = stream_of(file, path)
            place = place_of(file, path)
            times = times_of(file, path, o.stamp)
            columns = columns_of(file, o.heights, o.pressures)
            told = told_of(file, stream.groupdict())
            doi = str(attribute(file, "doi", "")).strip()
        if not columns.channels:
            why = (
                f": {columns.notes[0][:200]}" if columns.notes else f"; it is of the product {stream['product']}, see the docs for what is"
            )
            raise UserError(f"{path.name} has no variable that is read{why}")
        return _File(stream, place, times, columns, told, doi)


@contextmanager
def _opened(path: Path) -> Iterator[netCDF4.Dataset]:
    """A whole file, values as they are stored."""
    if kind(path) == "netcdf3":
        require_whole(path)
    with one_sentence(path), netCDF4.Dataset(path) as file:
        file.set_auto_maskandscale(False)
        yield file


def _readings(path: Path, channels: Sequence[Channel], begins: np.ndarray, quality: Quality) -> Readings:
    with _opened(path) as file:
        cache: dict[str, np.ndarray] = {}
        return Readings(begins, np.stack([values_of(file, c, quality, cache) for c in channels], 1))
