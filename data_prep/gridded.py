"""Gridded sources: NetCDF, GRIB and Zarr files on latitude and longitude become Samples on the sphere.

What the sources share is here: records are cut at holes in time, into splits by blocks of time, and into samples. A source adds names,
units and licences of its own. How a file is read is in `formats`, `fields` and `records`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import xarray as xr

from scigpt.data.sample import Origin, Sample, SourceFile, Time
from scigpt.data.variables import QUANTITIES, WATER_DEPTH, Quantity
from scigpt.data_prep import embedded
from scigpt.data_prep.blocks import MIN_FRAMES, SPLITS, pieces, shares, time_blocks
from scigpt.data_prep.fields import Field, Nowhere, make_field
from scigpt.data_prep.files import fingerprints, locate, members
from scigpt.data_prep.formats.opening import one_sentence, open_datasets
from scigpt.data_prep.records import Record, make_record, period_frames
from scigpt.data_prep.regrid import Regridder
from scigpt.data_prep.source import Plan, SampleRef, Source, Split
from scigpt.data_prep.suggest import nearest
from scigpt.errors import UserError

SAMPLE_BYTES = 32 << 20
MIN_SAMPLE_FRAMES = 4
MAX_SAMPLE_BYTES = 384 << 20
"""What so many frames and their coordinates may take where they are larger than `SAMPLE_BYTES`, so that a worker stays below 2 GiB."""


Window = tuple[int, int, int, int]
"""First row, first column, rows and columns."""


@dataclass(frozen=True)
class GriddedOptions:
    """Options of every gridded source.

    Args:
        variables: names (of the file or canonical); none means every variable that the registry knows.
        levels: of the variables that have levels only these (hPa, m); none means all.
        period: years used, `1980-2010`.
        frames_per_sample: longest sample; shortened to keep a sample below 32 MiB (but not below 4 frames).
        tile: rows and columns of a piece of the grid that becomes a sample of its own, `256` or `207x281`; none means the whole grid.
        min_valid: pieces of which a smaller share is valid are left out; those without any valid value always are.
        regrid: degrees of a coarser regular grid to average onto; none leaves values where they are.
        splits: shares for train, valid and test, in that order.
        split_by: `time` cuts blocks that are common to all places; `tile` keeps a place whole: the tiles of the product where there are
            several, else rows of pieces.
        gap: frames (or tiles, or rows of pieces) left out between the splits.
        split: put the whole input into this one split instead (`ood` marks it as out of distribution).
        ood_input: a second path, whose frames in `ood_period` become the out-of-distribution split `ood`.
    """

    variables: tuple[str, ...] | None = None
    levels: tuple[float, ...] | None = None
    period: str | None = None
    frames_per_sample: int = 64
    tile: str | None = None
    min_valid: float = 0.0
    regrid: float | None = None
    splits: tuple[float, ...] = (0.8, 0.1, 0.1)
    split_by: Literal["time", "tile"] = "time"
    gap: int = 2
    split: str | None = None
    ood_input: str | None = None
    ood_period: str | None = None


class GriddedSource(Source):
    """A source of latitude-longitude fields; see the module docstring."""

    Options: ClassVar[type] = GriddedOptions
    names: ClassVar[Mapping[str, str]] = {}
    """Names in the files that mean something else in this source than in the registry."""
    one_grid: ClassVar[bool] = True
    """Whether all records lie on one grid; those of a product cut into tiles do not."""

    options: GriddedOptions
    _kept: ExitStack | None = None
    _together: Sequence[Record] | None = None
    """Open records, within `kept_open`."""

    def __init__(self, inputs: Sequence[Path] = (), options: Any = None) -> None:
        super().__init__(inputs, options)
        if not 0 <= self.options.min_valid <= 1:
            raise UserError(f"min_valid={self.options.min_valid:g} must be a share from 0 to 1")
        if self.options.split not in (None, *SPLITS, "ood"):
            raise UserError(f"split={self.options.split} is none of train, valid, test and ood; shares of the time are splits=0.8,0.1,0.1")

    # what a source may adapt

    def open(self, path: Path) -> list[xr.Dataset]:
        """The datasets of a file or store: CF variables with units and, beside them, latitude and longitude in one or two dimensions."""
        return open_datasets(path)

    def file_unit(self, quantity: Quantity, unit: str) -> str:
        """The unit as the registry can convert it: water depth as mass per area."""
        return WATER_DEPTH.get(unit, unit) if quantity.name.startswith("precipitation") else unit

    def record_name(self, dataset: xr.Dataset) -> str:
        """Files of one name are one record; others are apart (another experiment or member)."""
        return ""

    def finished(self, record: Record) -> Record:
        """A record with what the source adds to it."""
        return record

    def origin(self, dataset: xr.Dataset, path: Path) -> Origin:
        """Licence and attribution of a file; the place is filled in later."""
        description = self.describe()
        return Origin(self.name, description.licence, (), description.attribution)

    # Source

    def plan(self) -> Plan:
        options, notes = self.options, list[str]()
        if not self.inputs:
            raise UserError(f"the source {self.name} needs a file: give --input PATH")
        with self.records(notes) as (records, ood):
            splits = {s: Split(s) for s in ("train", "valid", "test")}
            spans = [period_frames(r, options.period) for r in records]
            windows = [self._windows(record, notes) for record in [*records, *ood]]
            limits = self._limits(records, spans, windows, splits, notes)
            for index, record in enumerate(ood, len(records)):
                splits.setdefault("ood", Split("ood", "out", f"{options.ood_input} {options.ood_period or ''}".strip()))
                start, stop = period_frames(record, options.ood_period)
                only = [("ood", record.time.seconds[start], record.time.seconds[stop - 1])]
                limits |= {(index, window): only for window in windows[index]}
            for index, record in enumerate([*records, *ood]):
                self._frames(record, windows[index][0])  # what is too large is refused before the input is hashed
            digests = fingerprints([path for record in [*records, *ood] for path in record.files])
            found: dict[str, list[SampleRef]] = {}
            largest = 1
            for index, record in enumerate([*records, *ood]):
                for window in windows[index]:
                    for ref, size in self._refs(index, record, window, limits.get((index, window), []), digests):
                        found.setdefault(ref.split, []).append(ref)
                        largest = max(largest, size)
            used = [s for s in splits if s in found]
        return Plan(
            tuple(ref for s in used for ref in found[s]),
            tuple(splits[s] for s in used),
            tuple((p.name, d) for p, d in digests.items()),
            largest,
            tuple(dict.fromkeys(notes)),
        )

    @contextmanager
    def kept_open(self) -> Iterator[None]:
        with ExitStack() as self._kept:
            try:
                yield
            finally:
                self._kept = self._together = None

    @contextmanager
    def _records_to_read(self) -> Iterator[Sequence[Record]]:
        with ExitStack() as own:
            if self._together is not None:
                yield self._together
                return
            records, ood = (self._kept or own).enter_context(self.records([]))
            together = [*records, *ood]
            if self._kept is not None:
                self._together = together
            yield together

    def samples(self, refs: Sequence[SampleRef]) -> Iterator[Sample | None]:
        with self._records_to_read() as together:
            for ref in refs:
                spec, record = ref.spec, together[ref.spec["record"]]
                files = tuple(SourceFile(name, digest) for name, digest in spec["files"])
                place = record.name if spec["member"] is None else f"{record.name} member {spec['member']}".strip()
                window = None
                if spec["window"] is not None:
                    y, x, rows, columns = spec["window"]
                    place, window = f"{place} row {y} column {x}".strip(), (slice(y, y + rows), slice(x, x + columns))
                origin = replace(record.origin, files=files, place=place)
                try:
                    with one_sentence(record.files[0]):  # coordinates are read where they are asked for
                        sample = record.read(spec["start"], spec["stop"], spec["member"], origin, window)
                except Nowhere:
                    if window is None:
                        raise
                    yield None
                    continue
                shares = [sample.valid[:, c].mean() for c, v in enumerate(record.variables) if v.predicted]
                if window is None and not any(shares):
                    raise UserError(record.nothing_valid(spec["start"], spec["stop"]))
                share = sum(shares) / len(shares)
                yield None if window is not None and (share == 0 or share < self.options.min_valid) else sample

    # its parts

    def _refs(
        self, index: int, record: Record, window: Window | None, limits: Sequence[tuple[str, float, float]], digests: Mapping[Path, str]
    ) -> Iterator[tuple[SampleRef, int]]:
        """The samples of a piece of a record, and the bytes of each."""
        slug = re.sub(r"[^a-z0-9]+", "-", record.name.lower()).strip("-")[:60] or "record"
        corner = "" if window is None else f"-{window[0]:05d}-{window[1]:05d}"
        size, frame_bytes, beside = self._frames(record, window)
        for name, start, stop in self._pieces(record, limits, size):
            files = [[p.name, digests[p]] for p in record.files_of(start, stop)]
            for member in record.members:
                spec = {"record": index, "member": member, "start": start, "stop": stop, "files": files, "window": window}
                key = f"{slug}-{index:02d}-{member or 0:03d}-{start:08d}{corner}"
                yield SampleRef(key, name, spec), (stop - start) * frame_bytes + beside

    def _frames(self, record: Record, window: Window | None) -> tuple[int, int, int]:
        """Frames of a sample, bytes of a frame, and bytes of the coordinates beside them."""
        cells = math.prod(record.shape) if window is None else window[2] * window[3]
        frame_bytes, beside = 4 * len(record.variables) * cells, 16 * cells if record.curvilinear else 0
        least = min(MIN_SAMPLE_FRAMES, len(record.time), self.options.frames_per_sample)
        if (needed := least * frame_bytes + beside) > MAX_SAMPLE_BYTES:
            rows, columns = record.shape
            raise UserError(
                f"{record.files[0].name}: {least} frames of {len(record.variables)} channels on {rows} x {columns} cells take "
                f"{needed / 1e9:.2g} GB, more than a worker may; choose variables= or levels=, or cut the grid with tile=256"
            )
        return min(self.options.frames_per_sample, max(MIN_SAMPLE_FRAMES, SAMPLE_BYTES // frame_bytes)), frame_bytes, beside

    def _windows(self, record: Record, notes: list[str]) -> list[Window | None]:
        """Pieces of the grid, row by row."""
        if self.options.tile is None:
            return [None]
        where = f"tile={self.options.tile}"
        if self.options.regrid is not None:
            raise UserError(f"{where} and regrid= do not go together; a regridded map is small, leave tile= out")
        match = re.fullmatch(r"(\d+)(?:x(\d+))?", self.options.tile)
        shape = record.shape
        size = (int(match[1]), int(match[2] or match[1])) if match is not None else (0, 0)
        if not all(0 < n <= m for n, m in zip(size, shape, strict=True)):
            raise UserError(f"{where} must be rows and columns, such as 256 or 200x300, within the grid of {shape[0]} x {shape[1]} cells")
        counts = [m // n for m, n in zip(shape, size, strict=True)]
        lost = 1 - math.prod(counts) * math.prod(size) / math.prod(shape)
        if lost > 0:
            fitting = tuple(m // round(m / n) for m, n in zip(shape, size, strict=True))
            better = f"; tile={fitting[0]}x{fitting[1]} would fit better" if fitting != size else ""
            notes.append(f"{where} leaves out {lost:.1%} of the cells, at the end of rows and columns{better}")
        return [(r * size[0], c * size[1], *size) for r in range(counts[0]) for c in range(counts[1])]

    def _pieces(self, record: Record, limits: Sequence[tuple[str, float, float]], size: int) -> Iterator[tuple[str, int, int]]:
        """`(split, start, stop)` of the samples of a record."""
        for name, first, last in limits:
            for low, high in record.segments(self.hole):
                seconds = record.time.seconds[low:high]
                inside = low + np.flatnonzero((seconds >= first) & (seconds <= last))
                for start, stop in pieces(int(inside[0]), int(inside[-1]) + 1, size) if inside.size else ():
                    yield name, start, stop

    def _limits(
        self,
        records: Sequence[Record],
        spans: Sequence[tuple[int, int]],
        windows: Sequence[Sequence[Window | None]],
        splits: dict[str, Split],
        notes: list[str],
    ) -> dict[tuple[int, Window | None], list[tuple[str, float, float]]]:
        """`(split, first second, last second)` for each record and window: either the time is cut, or places are told apart."""
        seconds = np.unique(np.concatenate([r.time.seconds[a:b] for r, (a, b) in zip(records, spans, strict=True)]))
        every = [(index, window) for index in range(len(records)) for window in windows[index]]
        if (name := self.options.split) is not None:
            splits[name] = Split(name, "out" if name == "ood" else "in")
            return {key: [(name, seconds[0], seconds[-1])] for key in every}
        if self.options.gap < 0:
            raise UserError(f"gap={self.options.gap} must be a number of frames, or of places of split_by=tile, 0 or more")
        if self.options.split_by == "time":
            blocks = time_blocks(seconds.size, self.options.splits, self.options.gap)
            blocks = _apart(seconds, blocks, self.options.gap * _usual_step(records))
            if len(blocks) < sum(f > 0 for f in self.options.splits):
                notes.append(f"{seconds.size} frames are too few to be split; all go to train")
            return {key: [(name, seconds[a], seconds[b - 1]) for name, a, b in blocks] for key in every}
        places = sorted({_place(records, index, window) for index, window in every})
        found: dict[str | int, list[tuple[str, float, float]]] = {}
        for name, start, stop in shares(len(places), self.options.splits):
            kept = places[start + (self.options.gap if start else 0) : stop]
            if not kept:
                raise UserError(
                    f"split_by=tile: {len(places)} places (tiles of the product, or rows of pieces) with gap={self.options.gap} leave none "
                    f"for {name}; give more tiles, a smaller tile= or a smaller gap="
                )
            found |= {key: [(name, seconds[0], seconds[-1])] for key in kept}
        return {(i, w): found[p] for i, w in every if (p := _place(records, i, w)) in found}

    @contextmanager
    def records(self, notes: list[str]) -> Iterator[tuple[list[Record], list[Record]]]:
        """Records of the inputs and of `ood_input`, open for reading."""
        with ExitStack() as stack:
            records = self._open(self.inputs, stack, notes)
            ood = [] if self.options.ood_input is None else self._open((Path(self.options.ood_input),), stack, notes)
            records, ood = ([r.arranged(records[0].variables) for r in group] for group in (records, ood))
            for record in [*records, *ood]:
                if record.variables != records[0].variables:
                    a, b = (", ".join(v.key for v in r.variables) for r in (record, records[0]))
                    raise UserError(f"{record.files[0].name} holds {a} and {records[0].files[0].name} holds {b}; choose with variables=")
                if self.one_grid and not record.lattice.same_as(records[0].lattice):
                    raise UserError(f"{record.files[0].name} is on another grid than {records[0].files[0].name}; prepare them apart")
            yield records, ood

    def _open(self, inputs: Sequence[Path], stack: ExitStack, notes: list[str]) -> list[Record]:
        groups: dict[str, list[Field]] = {}
        origins: dict[str, Origin] = {}
        skipped: dict[str, str] = {}
        opened: list[tuple[Path, Path, xr.Dataset]] = []
        for given in inputs:
            for path in members(locate(given)):
                with one_sentence(path):
                    datasets = self.open(path)
                for dataset in datasets:
                    stack.callback(dataset.close)
                    opened.append((given, path, dataset))
        wanted = self._wanted([d for _, _, d in opened], opened[0][1])
        for given, path, dataset in opened:
            with one_sentence(path):
                name = self.record_name(dataset)
                fields = self.fields(path, dataset, skipped, wanted)
            groups.setdefault(name, []).extend(fields)
            if name not in origins:
                known = embedded.entry(given)
                origins[name] = self.origin(dataset, path) if known is None else Origin(self.name, known.licence, (), known.attribution)
        if not any(groups.values()):
            reasons = "; ".join(_grouped(skipped)[:3]) or "there is no variable on a grid"
            raise UserError(f"{opened[0][1].name} has no variable that the source {self.name} can use: {reasons}")
        notes.extend(f"left out: {reason}" for reason in _grouped(skipped))
        made = [make_record(name or fields[0].path.stem, fields, origins[name], notes) for name, fields in groups.items() if fields]
        if (degrees := self.options.regrid) is not None:
            share = self.max_out_of_bounds
            made = [replace(r, regridder=Regridder(r.lattice.whole, degrees, r.files[0].name, self.bounds, share)) for r in made]
        return [self.finished(record) for record in made]

    def quantity(self, name: str, attrs: Mapping[str, Any]) -> Quantity | None:
        for own in (name, str(attrs.get("standard_name"))):
            if own in self.names:
                return QUANTITIES[self.names[own]]
        return QUANTITIES.find(attrs.get("standard_name"), name, attrs.get("GRIB_shortName"))

    def _wanted(self, datasets: Sequence[xr.Dataset], path: Path) -> set[str] | None:
        """Names in the files of the variables asked for; None for all."""
        if self.options.variables is None:
            return None
        present = {str(n): self.quantity(str(n), v.attrs) for d in datasets for n, v in d.data_vars.items()}
        wanted: set[str] = set()
        for word in self.options.variables:
            by_quantity = {n for n, q in present.items() if q is not None and word in QUANTITIES and QUANTITIES[word] is q}
            found = {word} if word in present else by_quantity
            if not found:
                near = nearest(word, [*present, *(q.name for q in present.values() if q is not None)])
                raise UserError(f"{path.name} has no variable {word!r}; {near or 'it has ' + ', '.join(present)}")
            wanted |= found
        return wanted

    def fields(self, path: Path, dataset: xr.Dataset, skipped: dict[str, str], wanted: set[str] | None = None) -> list[Field]:
        """The usable variables of a dataset if one of them has a time; a file of static fields alone gives none."""
        fields = self.usable(path, dataset, skipped, wanted)
        if any(f.time is not None for f in fields):
            return fields
        skipped.update({f.name: "it has no time; expected a CF time coordinate such as 'hours since 1900-01-01'" for f in fields})
        return []

    def usable(self, path: Path, dataset: xr.Dataset, skipped: dict[str, str], wanted: set[str] | None) -> list[Field]:
        """The variables of a dataset that can become channels; the others go to `skipped` with the reason.

        Raises:
            UserError: a variable without a unit or with one that cannot be converted, or one asked for that cannot be used.
        """
        fields: list[Field] = []
        times: dict[int, tuple[Time, np.ndarray]] = {}
        edges = {v.attrs.get("bounds") for v in dataset.variables.values()}
        for name in map(str, dataset.data_vars):
            variable = dataset.variables[name]
            if name in edges or (wanted is not None and name not in wanted) or variable.dtype.kind not in "iuf":
                continue
            if wanted is None and variable.ndim < 2:
                continue
            quantity = self.quantity(name, variable.attrs)
            found = (
                "the registry does not know it by its standard_name or name"
                if quantity is None
                else make_field(path, dataset, name, quantity, self.file_unit, times)
            )
            if isinstance(found, Field) and self.options.levels is not None:
                found = found.at(self.options.levels) or f"its level is not among levels={','.join(f'{v:g}' for v in self.options.levels)}"
            if isinstance(found, Field):
                fields.append(found)
            elif wanted is not None and self.options.levels is None:
                raise UserError(f"{path.name}: variable {name} cannot be used: {found}")
            else:
                skipped[name] = found
        return fields


def _usual_step(records: Sequence[Record]) -> float:
    """Median seconds between the frames of one place."""
    steps = np.concatenate([np.diff(r.time.seconds) for r in records])
    return float(np.median(steps)) if steps.size else 0.0


def _apart(seconds: np.ndarray, blocks: list[tuple[str, int, int]], gap: float) -> list[tuple[str, int, int]]:
    """The blocks with so many seconds between them too: places have instants of their own, and many of them are one overpass."""
    moved = blocks[:1]
    for name, start, stop in blocks[1:]:
        after = int(np.searchsorted(seconds, seconds[moved[-1][2] - 1] + gap, "right"))
        moved.append((name, max(start, after), stop))
    return moved if all(stop - start >= MIN_FRAMES for _, start, stop in moved) else [("train", 0, seconds.size)]


def _place(records: Sequence[Record], index: int, window: Window | None) -> str | int:
    """What a split by tile keeps whole: the tile of the product, or the row of pieces where all are of one tile."""
    names = {r.name for r in records}
    return records[index].name if len(names) > 1 or window is None else window[0]


def _grouped(skipped: Mapping[str, str]) -> list[str]:
    """`z, u, v: reason`, each reason once."""
    return [f"{', '.join(n for n, why in skipped.items() if why == reason)}: {reason}" for reason in dict.fromkeys(skipped.values())]
