"""Gridded sources: NetCDF, GRIB and Zarr files on latitude and longitude become Samples on the sphere.

What the sources share is here: records are cut at holes in time, into splits by blocks of time, and into samples. A source adds names,
units and licences of its own. How a file is read is in `opening`, `fields` and `records`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from scigpt.data.sample import Origin, Sample, SourceFile, Time
from scigpt.data.variables import QUANTITIES, WATER_DEPTH, Quantity
from scigpt.data_prep import embedded
from scigpt.data_prep.blocks import pieces, time_blocks
from scigpt.data_prep.fields import Field, make_field
from scigpt.data_prep.files import locate, sha256
from scigpt.data_prep.opening import open_datasets
from scigpt.data_prep.records import Record, make_record, period_frames
from scigpt.data_prep.source import Plan, SampleRef, Source, Split
from scigpt.data_prep.suggest import nearest
from scigpt.errors import UserError

MAX_SAMPLE_BYTES = 32 << 20


@dataclass(frozen=True)
class GriddedOptions:
    """Options of every gridded source.

    Args:
        variables: names (of the file or canonical); none means every variable that the registry knows.
        period: years used, `1980-2010`.
        frames_per_sample: longest sample; shortened to keep a sample below 32 MiB (but not below 4 frames).
        splits: shares of the time for train, valid and test, in that order.
        gap: frames left out between them.
        split: put the whole input into this one split instead (`ood` marks it as out of distribution).
        ood_input: a second path, whose frames in `ood_period` become the out-of-distribution split `ood`.
    """

    variables: tuple[str, ...] | None = None
    period: str | None = None
    frames_per_sample: int = 64
    splits: tuple[float, ...] = (0.8, 0.1, 0.1)
    gap: int = 2
    split: str | None = None
    ood_input: str | None = None
    ood_period: str | None = None


class GriddedSource(Source):
    """A source of latitude-longitude fields; see the module docstring."""

    Options: ClassVar[type] = GriddedOptions
    names: ClassVar[Mapping[str, str]] = {}
    """Names in the files that mean something else in this source than in the registry."""

    options: GriddedOptions

    # what a source may adapt

    def file_unit(self, quantity: Quantity, unit: str) -> str:
        """The unit as the registry can convert it: water depth as mass per area."""
        return WATER_DEPTH.get(unit, unit) if quantity.name.startswith("precipitation") else unit

    def record_name(self, dataset: xr.Dataset) -> str:
        """Files of one name are one record; others are apart (another experiment or member)."""
        return ""

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
            blocks = self._blocks(records, spans, splits, notes)
            found: dict[str, list[SampleRef]] = {}
            largest = 1
            digests = {path: sha256(path) for record in [*records, *ood] for path in record.files}
            for index, record in enumerate([*records, *ood]):
                in_ood = index >= len(records)
                if in_ood:
                    splits.setdefault("ood", Split("ood", "out", f"{options.ood_input} {options.ood_period or ''}".strip()))
                    start, stop = period_frames(record, options.ood_period)
                    limits = [("ood", record.time.seconds[start], record.time.seconds[stop - 1])]
                else:
                    limits = blocks
                files = [[p.name, digests[p]] for p in record.files]
                slug = re.sub(r"[^a-z0-9]+", "-", record.name.lower()).strip("-")[:60]
                size = min(options.frames_per_sample, max(4, MAX_SAMPLE_BYTES // record.frame_bytes))
                for name, first, last in limits:
                    for low, high in record.segments():
                        seconds = record.time.seconds[low:high]
                        inside = low + np.flatnonzero((seconds >= first) & (seconds <= last))
                        for start, stop in pieces(int(inside[0]), int(inside[-1]) + 1, size) if inside.size else ():
                            for member in record.members:
                                spec = {"record": index, "member": member, "start": start, "stop": stop, "files": files}
                                key = f"{slug or 'record'}-{index:02d}-{member or 0:03d}-{start:08d}"
                                largest = max(largest, (stop - start) * record.frame_bytes)
                                found.setdefault(name, []).append(SampleRef(key, name, spec))
            used = [s for s in splits if s in found]
        return Plan(
            tuple(ref for s in used for ref in found[s]),
            tuple(splits[s] for s in used),
            tuple((p.name, d) for p, d in digests.items()),
            largest,
            tuple(notes),
        )

    def samples(self, refs: Sequence[SampleRef]) -> Iterator[Sample]:
        with self.records([]) as (records, ood):
            together = [*records, *ood]
            for ref in refs:
                spec, record = ref.spec, together[ref.spec["record"]]
                files = tuple(SourceFile(name, digest) for name, digest in spec["files"])
                place = record.name if spec["member"] is None else f"{record.name} member {spec['member']}".strip()
                yield record.read(spec["start"], spec["stop"], spec["member"], replace(record.origin, files=files, place=place))

    # its parts

    def _blocks(
        self, records: Sequence[Record], spans: Sequence[tuple[int, int]], splits: dict[str, Split], notes: list[str]
    ) -> list[tuple[str, float, float]]:
        """`(split, first second, last second)`: blocks of time common to all records and members, so that none leaks."""
        seconds = np.unique(np.concatenate([r.time.seconds[a:b] for r, (a, b) in zip(records, spans, strict=True)]))
        if (name := self.options.split) is not None:
            splits[name] = Split(name, "out" if name == "ood" else "in")
            return [(name, seconds[0], seconds[-1])]
        blocks = time_blocks(seconds.size, self.options.splits, self.options.gap)
        if len(blocks) < sum(f > 0 for f in self.options.splits):
            notes.append(f"{seconds.size} frames are too few to be split; all go to train")
        return [(name, seconds[a], seconds[b - 1]) for name, a, b in blocks]

    @contextmanager
    def records(self, notes: list[str]) -> Iterator[tuple[list[Record], list[Record]]]:
        """Records of the inputs and of `ood_input`, open for reading."""
        with ExitStack() as stack:
            records = self._open(self.inputs, stack, notes)
            ood = [] if self.options.ood_input is None else self._open((Path(self.options.ood_input),), stack, notes)
            for record in [*records, *ood]:
                if record.variables != records[0].variables:
                    a, b = (", ".join(v.key for v in r.variables) for r in (record, records[0]))
                    raise UserError(f"{record.files[0].name} holds {a} and {records[0].files[0].name} holds {b}; choose with variables=")
                if not record.grid.same_as(records[0].grid):
                    raise UserError(f"{record.files[0].name} is on another grid than {records[0].files[0].name}; prepare them apart")
            yield records, ood

    def _open(self, inputs: Sequence[Path], stack: ExitStack, notes: list[str]) -> list[Record]:
        groups: dict[str, list[Field]] = {}
        origins: dict[str, Origin] = {}
        skipped: dict[str, str] = {}
        opened: list[tuple[Path, Path, xr.Dataset]] = []
        for given in inputs:
            path = locate(given)
            for dataset in open_datasets(path):
                stack.callback(dataset.close)
                opened.append((given, path, dataset))
        wanted = self._wanted([d for _, _, d in opened], opened[0][1])
        for given, path, dataset in opened:
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
        return [make_record(name or fields[0].path.stem, fields, origins[name], notes) for name, fields in groups.items() if fields]

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
            if isinstance(found, Field):
                fields.append(found)
            elif wanted is not None:
                raise UserError(f"{path.name}: variable {name} cannot be used: {found}")
            else:
                skipped[name] = found
        if any(f.time is not None for f in fields):
            return fields
        skipped.update({f.name: "it has no time; expected a CF time coordinate such as 'hours since 1900-01-01'" for f in fields})
        return []


def _grouped(skipped: Mapping[str, str]) -> list[str]:
    """`z, u, v: reason`, each reason once."""
    return [f"{', '.join(n for n, why in skipped.items() if why == reason)}: {reason}" for reason in dict.fromkeys(skipped.values())]
