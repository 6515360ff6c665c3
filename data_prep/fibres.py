"""Fibre-optic sensing: strain, strain rate, temperature or optical phase along a fibre, cut in time and into tiles of channels.

Frames are instants, X the channels. What a file measures must be stated in it or by options: optical phase stays optical phase unless its
conversion to strain rate is asked for with all that it needs. Impossible values (beyond the end of a fibre) fall to the bounds.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from scigpt.data.sample import Coordinate, Origin, Sample, SourceFile, Time, Variable
from scigpt.data.variables import QUANTITIES, convert
from scigpt.data_prep.blocks import SPLITS, pieces
from scigpt.data_prep.datamap import Channel
from scigpt.data_prep.fibre_maps import read_map
from scigpt.data_prep.files import fingerprints, locate
from scigpt.data_prep.formats.fibre import FORGE_DEPTH, Fibre, is_fibre, open_fibre
from scigpt.data_prep.recordings import Along, Recorded, cut_together, deal, files_of, segments_of
from scigpt.data_prep.source import Description, Plan, SampleRef, Source, Split
from scigpt.data_prep.tracks import make_variable
from scigpt.errors import UserError

SUFFIXES = (".h5", ".hdf5", ".hdf", ".das")


@dataclass(frozen=True)
class FibreOptions:
    """Options of fibre-optic recordings.

    Args:
        quantity, unit: what is measured, where the file does not say: `strain`, `1e-6`.
        strain_rate: turn optical phase (its change from frame to frame) into strain rate; needs the gauge length and `wavelength`.
        gauge_length: in m, where the file does not say; `wavelength` in nm; `refractive_index` and `photoelastic` of the glass.
        depth_unit: of depths or distances whose unit the file does not state; by default feet in FORGE's layout, else m.
        channel_map: table (CSV) with the column channel and depth or distance in m, or latitude and longitude; channels that are not in it
            are invalid. Channels are the numbers that the file gives them, or counted from 0 where it gives depths or distances.
        channels: first and last channel to use, counted from 0 along the file whatever numbers it gives them, `100,900`.
        tile: channels of a sample.
        time_axis: 0 or 1, of an array whose axes the file does not tell apart.
        frames_per_sample: longest sample.
        split_by: blocks of `time` over all files, or whole files (`file`; files that overlap in time stay together).
        splits, gap: shares of train, valid and test, and frames between blocks of time.
        split: put everything into this one split instead.
    """

    quantity: str | None = None
    unit: str | None = None
    strain_rate: bool = False
    gauge_length: float | None = None
    wavelength: float | None = None
    refractive_index: float = 1.4682
    photoelastic: float = 0.78
    depth_unit: str | None = None
    channel_map: str | None = None
    channels: tuple[int, ...] | None = None
    tile: int = 128
    time_axis: int | None = None
    frames_per_sample: int = 1024
    split_by: Literal["time", "file"] = "time"
    splits: tuple[float, ...] = (0.8, 0.1, 0.1)
    gap: int = 256
    split: str | None = None


class Fibres(Source):
    """HDF5 recordings of any origin; see `formats.fibre` for the layouts."""

    name = "fibres"
    Options: ClassVar[type] = FibreOptions
    options: FibreOptions

    @classmethod
    def describe(cls) -> Description:
        return Description("fibres", "subsurface: fibre-optic sensing", "HDF5", "as the files' source states")

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return is_fibre(path)

    def plan(self) -> Plan:
        o, notes = self.options, list[str]()
        if o.tile < 1:
            raise UserError(f"tile={o.tile} must be a number of channels, 1 or more")
        if o.time_axis not in (None, 0, 1):
            raise UserError(f"time_axis={o.time_axis} must be 0 or 1, the axis of the array that is time")
        heads = []
        for number, path in enumerate(self._paths):
            with self._open(number) as fibre:
                self._variable(fibre)
                low, high = self._range(fibre)
                self._require_places(fibre, low, high)
                segments = segments_of(fibre.seconds, f"{path.name}, times", "s")
                ends = tuple((float(fibre.seconds[a]), float(fibre.seconds[b - 1])) for a, b in segments)
                along = Along(segments, ends, functools.partial(self._seconds, number))
                heads.append(_Head(number, along, low, high))
                if fibre.layout == "porotomo":
                    notes.append(f"{path.name}: its clock counts from the start of the survey; samples have no dates")
                if fibre.depth_assumed and self._map is None:
                    unit = o.depth_unit or (FORGE_DEPTH if fibre.layout == "forge" else "m")
                    notes.append(f"{path.name} states no unit of its depths; they are taken for {unit}, depth_unit= says another")
                elif o.depth_unit is not None and not fibre.depth_assumed:
                    raise UserError(f"{path.name} says where its channels are, or numbers them; leave depth_unit= out")
        heads.sort(key=lambda h: (h.along.ends[0][0], h.number))
        records = []
        for head, whole in zip(heads, _overlapping(heads), strict=True):
            number, low, high, path = head.number, head.low, head.high, self._paths[head.number]
            if (high - low) % o.tile:
                notes.append(f"{path.name}: {high - low} channels are no whole number of tiles of {o.tile}; the last is filled up, invalid")
            for begin in range(low, high, o.tile):
                spec = {"file": number, "channel": begin, "last": min(begin + o.tile, high), "sha256": self._digests[path]}
                records.append(Recorded(f"{path.stem}-{begin:06d}", f"{whole:06d}", head.along, spec))
        whole_files = "file" if o.split_by == "file" else None
        if whole_files is None and o.split is None:
            refs, splits = self._in_time(heads, records, notes)
        else:
            refs, splits = deal(records, o.splits, o.gap, o.frames_per_sample, o.split, whole_files, notes)
        inputs = tuple((p.name, self._digests[p]) for p in self._paths)
        return Plan(refs, splits, inputs, 5 * o.tile * o.frames_per_sample, tuple(dict.fromkeys(notes)))

    def samples(self, refs: Sequence[SampleRef]) -> Iterator[Sample | None]:
        start = 0
        while start < len(refs):
            number = refs[start].spec["file"]
            stop = next((i for i in range(start, len(refs)) if refs[i].spec["file"] != number), len(refs))
            with self._open(number) as fibre:
                for ref in refs[start:stop]:
                    yield self._sample(fibre, ref.spec)
            start = stop

    # its parts

    @cached_property
    def _paths(self) -> list[Path]:
        return files_of(self.inputs, self.name, SUFFIXES)

    @cached_property
    def _digests(self) -> dict[Path, str]:
        return fingerprints(self._paths)

    @contextmanager
    def _open(self, number: int) -> Iterator[Fibre]:
        with open_fibre(self._paths[number], self.options.time_axis, self.options.depth_unit) as fibre:
            yield fibre

    def _seconds(self, number: int) -> np.ndarray:
        with self._open(number) as fibre:
            return fibre.seconds

    def _in_time(
        self, heads: Sequence[_Head], records: Sequence[Recorded], notes: list[str]
    ) -> tuple[tuple[SampleRef, ...], tuple[Split, ...]]:
        """Blocks of the instants of all files, so that files which overlap in time are cut at the same instants."""
        o = self.options
        cuts, enough = cut_together([h.along for h in heads], o.splits, o.gap)
        if not enough:
            notes.append(f"{sum(h.along.last for h in heads)} frames are too few to be split; all go to train")
        blocks = {h.number: {name: (a, b) for name, a, b in own} for h, own in zip(heads, cuts, strict=True)}
        found: dict[str, list[SampleRef]] = {}
        for home in SPLITS:
            for index, record in enumerate(records):
                first, last = blocks[record.spec["file"]].get(home, (0, 0))
                for low, high in record.along.segments:
                    start, stop = max(low, first), min(high, last)
                    for a, b in pieces(start, stop, o.frames_per_sample) if stop > start else ():
                        key = f"fibre-{index:06d}-{a:09d}"
                        found.setdefault(home, []).append(SampleRef(key, home, {**record.spec, "start": int(a), "stop": int(b)}))
        return tuple(ref for s in found for ref in found[s]), tuple(Split(s) for s in found)

    def _require_places(self, fibre: Fibre, low: int, high: int) -> None:
        """Every channel that is used has a place, and a map has one of them."""
        numbers = fibre.distance[low:high]
        if self._map is not None:
            known = next(iter(self._map.values()))
            used = range(low, high) if fibre.placed else numbers.tolist()
            if not any(c in known for c in used):
                raise UserError(
                    f"{fibre.path.name}: channel_map= has none of its channels, which are {used[0]:g} to {used[-1]:g}; expected their "
                    f"{'positions, counted from 0' if fibre.placed else 'numbers in the file'}, in the column channel"
                )
        elif not np.isfinite(numbers).all():
            at = low + int(np.argmin(np.isfinite(numbers)))
            raise UserError(
                f"{fibre.path.name}: channel {at} (counted from 0) has the place {fibre.distance[at]}; the file may be damaged, leave the "
                "channel out with channels= or give the places with channel_map="
            )

    def _range(self, fibre: Fibre) -> tuple[int, int]:
        asked = self.options.channels
        if asked is None:
            return 0, len(fibre.distance)
        if len(asked) != 2 or not 0 <= asked[0] <= asked[1] < len(fibre.distance):
            words = ",".join(map(str, asked))
            raise UserError(f"option channels={words}: expected the first and last channel; {fibre.path.name} has {len(fibre.distance)}")
        return asked[0], asked[1] + 1

    def _variable(self, fibre: Fibre) -> tuple[Variable, str]:
        """What the samples hold, and the unit that the file's numbers are in."""
        o = self.options
        said = fibre.about.get("stated_unit", "")
        if o.quantity and fibre.quantity.startswith("optical_phase") and not o.quantity.startswith("optical_phase"):
            raise UserError(
                f"{fibre.path.name} holds optical phase ({fibre.unit}), which is no {o.quantity}; strain_rate=true with gauge_length= and "
                "wavelength= converts it"
            )
        quantity, unit = o.quantity or fibre.quantity, o.unit or fibre.unit
        if not quantity or not unit:
            told = f"its unit is {said!r}, which is not known" if said else "it states no unit"
            raise UserError(f"{fibre.path.name} does not say what it measures ({told}); state quantity= and unit=, such as strain and 1e-6")
        if o.strain_rate:
            self._per_phase(fibre, quantity)
            return Variable("strain_rate", QUANTITIES["strain_rate"].unit), unit
        return make_variable(quantity, Channel(name=quantity), unit, None, fibre.path.name), unit

    def _per_phase(self, fibre: Fibre, quantity: str) -> float:
        """Strain rate in 1/s for one radian of phase change between frames: strain is phase x wavelength / (4 pi n gauge photoelastic)."""
        o = self.options
        gauge = fibre.about.get("gauge_length_m") if o.gauge_length is None else o.gauge_length
        if quantity not in ("optical_phase", "optical_phase_rate"):
            raise UserError(f"{fibre.path.name} holds {quantity}; strain_rate=true converts optical phase alone")
        if gauge is None or o.wavelength is None:
            raise UserError(f"{fibre.path.name}: strain_rate=true needs gauge_length= (m) and wavelength= (nm) of the interrogator")
        told = {"gauge_length": gauge, "wavelength": o.wavelength, "refractive_index": o.refractive_index, "photoelastic": o.photoelastic}
        for name, value in told.items():
            if not (np.isfinite(value) and value > 0):
                raise UserError(f"{fibre.path.name}: strain_rate=true needs a positive {name}=, it is {value:g}")
        if quantity == "optical_phase" and len(fibre.seconds) < 2:
            raise UserError(f"{fibre.path.name} has one frame; strain_rate=true needs two to know their step")
        step = 1.0 if quantity == "optical_phase_rate" else float(np.median(np.diff(fibre.seconds)))
        return o.wavelength * 1e-9 / (4 * np.pi * o.refractive_index * gauge * o.photoelastic * step)

    def _sample(self, fibre: Fibre, spec: Mapping[str, Any]) -> Sample | None:
        o, begin, last = self.options, spec["channel"], spec["last"]
        variable, unit = self._variable(fibre)
        values = np.full((spec["stop"] - spec["start"], o.tile), np.nan)
        own = fibre.read(slice(spec["start"], spec["stop"]), slice(begin, last))
        where = fibre.path.name
        if o.strain_rate:
            quantity = o.quantity or fibre.quantity
            own = convert(own, unit, "radian" if quantity == "optical_phase" else "radian/s", where) * self._per_phase(fibre, quantity)
        else:
            own = convert(own, unit, variable.unit, where)
        values[:, : last - begin] = own
        coordinates, mapped = self._coordinates(fibre, begin, last)
        values[:, ~mapped] = np.nan
        valid = np.isfinite(values)
        low, high = self.bounds(variable)
        if not (valid & (values >= low) & (values <= high)).any():  # beyond the end of the fibre
            return None
        about = self.describe()
        told = {**fibre.about, "layout": fibre.layout, "channels": [int(begin), int(last) - 1]}
        if not fibre.placed:
            told["channel_numbers"] = [float(fibre.distance[begin]), float(fibre.distance[last - 1])]
        return Sample(
            np.where(valid, values, 0.0).astype(np.float32)[:, None, None, None, :],
            valid[:, None, None, None, :],
            (variable,),
            Time(fibre.seconds[spec["start"] : spec["stop"]], "standard" if fibre.dated else "none"),
            Origin(
                self.name,
                about.licence,
                (SourceFile(fibre.path.name, spec["sha256"]),),
                about.attribution,
                f"{fibre.about.get('well', fibre.path.stem)}, channels {begin} to {last - 1}",
                told,
            ),
            geometry="points" if "latitude" in coordinates else "plane",
            coordinates=coordinates,
        )

    def _coordinates(self, fibre: Fibre, begin: int, last: int) -> tuple[dict[str, Coordinate], np.ndarray]:
        """Of the channels of a tile, and which of them are mapped; beyond the last channel positions go on at their step."""
        mapped = np.arange(self.options.tile) < last - begin
        units = {"latitude": "degrees_north", "longitude": "degrees_east"}
        if self._map is not None:
            used = list(range(begin, last)) if fibre.placed else fibre.distance[begin:last].tolist()
            used += [np.nan] * (self.options.tile - len(used))
            found = {n: np.array([column.get(c, np.nan) for c in used]) for n, column in self._map.items()}
        else:
            found = {n: _continued(v[begin:last], self.options.tile) for n, v in (fibre.coordinates or {"x": fibre.distance}).items()}
        for values in found.values():
            known = np.isfinite(values)
            mapped &= known
            values[~known] = values[known][-1] if known.any() else 0.0
        unit = "m" if fibre.placed or fibre.coordinates or self._map is not None else "1"
        return {n: Coordinate(("x",), v, units.get(n, unit)) for n, v in found.items()}, mapped

    @cached_property
    def _map(self) -> dict[str, dict[float, float]] | None:
        return None if self.options.channel_map is None else read_map(locate(self.options.channel_map))


@dataclass(frozen=True, eq=False)
class _Head:
    """One file: its number, when its frames are, and the channels that are used of it."""

    number: int
    along: Along
    low: int
    high: int


def _overlapping(heads: Sequence[_Head]) -> list[int]:
    """Of each file, in order of time, the number of its group: files that overlap in time are of one group."""
    groups, end = list[int](), -np.inf
    for head in heads:
        first, last = head.along.ends[0][0], head.along.ends[-1][1]
        groups.append(groups[-1] if groups and first <= end else len(groups))
        end = max(end, last)
    return groups


def _continued(values: np.ndarray, size: int) -> np.ndarray:
    step = float(values[-1] - values[-2]) if len(values) > 1 else 1.0
    return np.concatenate([values, values[-1] + step * np.arange(1, size - len(values) + 1)])
