"""Seismograms in miniSEED (or full SEED): the components of one instrument become the channels of one record.

East, north and up come from the orientation letters E, N, Z; horizontals named 1 and 2 are turned to north and east only when a
StationXML gives their azimuths. A gap becomes invalid frames on the regular grid of the record, never zeros; filters and response
removal work on each contiguous stretch alone, over its whole length, so that a sample does not depend on where records are cut.
Traces that start between two samples of the grid are moved to the nearest one (noted above 1 % of the interval). Overlapping traces
must agree sample for sample. Without an input the source takes two days of 1 Hz seismograms that ship inside `obspy`.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from scigpt.data.sample import Origin, Sample, SourceFile, Variable
from scigpt.data.variables import QUANTITIES
from scigpt.data_prep import embedded
from scigpt.data_prep.blocks import pieces, time_blocks
from scigpt.data_prep.files import locate, sha256
from scigpt.data_prep.formats.opening import one_sentence
from scigpt.data_prep.seismic import orientation
from scigpt.data_prep.seismic.orientation import DIRECTIONS
from scigpt.data_prep.seismic.stationxml import Metadata
from scigpt.data_prep.seismic.stretches import Instrument, Reading, Stretch
from scigpt.data_prep.seismic.waveforms import form_of, obspy, read_traces
from scigpt.data_prep.source import Description, Plan, SampleRef, Source, Split
from scigpt.errors import UserError

EMBEDDED_DEFAULT = ("embedded:CH.BALST.LH.mseed", "embedded:IU.ANMO.LH.seed")


@dataclass(frozen=True)
class MiniseedOptions:
    """Options of miniSEED.

    Args:
        channels: only ids (`NET.STA.LOC.CHA`) that match this pattern, `IU.*.LH?`.
        stationxml: path of a StationXML file: azimuths, coordinates, response.
        response: remove the instrument's response: ground velocity in m s**-1 instead of counts.
        pre_filt: four corner frequencies in Hz of the taper before the response is removed.
        water_level: in dB, for the division by the response.
        decimate: keep every n-th sample after obspy's anti-alias filter.
        frames_per_sample: longest sample; a gap longer than this begins a new record.
        splits, gap, split: as for gridded sources; the blocks are cut for each instrument alone.
    """

    channels: str | None = None
    stationxml: str | None = None
    response: bool = False
    pre_filt: tuple[float, ...] | None = None
    water_level: float = 60.0
    decimate: int = 1
    frames_per_sample: int = 4096
    splits: tuple[float, ...] = (0.8, 0.1, 0.1)
    gap: int = 256
    split: str | None = None


class Miniseed(Source):
    """EarthScope, ORFEUS or a user's own miniSEED files."""

    name = "miniseed"
    Options: ClassVar[type] = MiniseedOptions
    options: MiniseedOptions

    def __init__(self, inputs: Sequence[Path] = (), options: Any = None) -> None:
        super().__init__(inputs or tuple(Path(p) for p in EMBEDDED_DEFAULT), options)
        o = self.options
        if o.response and o.stationxml is None:
            raise UserError("response=true needs the instrument's response: give stationxml=PATH")
        if o.pre_filt is not None and (len(o.pre_filt) != 4 or sorted(o.pre_filt) != list(o.pre_filt)):
            raise UserError(f"pre_filt={','.join(f'{f:g}' for f in o.pre_filt)} must be four rising frequencies in Hz")
        if not 1 <= o.decimate <= 16:
            raise UserError(f"decimate={o.decimate} must be a whole number from 1 to 16")

    @classmethod
    def describe(cls) -> Description:
        return Description(
            "miniseed",
            "seismology: ground motion",
            "miniSEED, SEED, StationXML",
            "by network (mostly CC-BY-4.0 or public domain)",
            "EarthScope Consortium and the network operators (see www.fdsn.org/networks)",
            extra="seismic",
        )

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return form_of(path) in ("miniSEED", "miniSEED 3")

    def plan(self) -> Plan:
        o, notes = self.options, list[str]()
        instruments = self._instruments(notes)
        variables = self._variables(instruments)
        splits = {s: Split(s) for s in ("train", "valid", "test")}
        found: dict[str, list[SampleRef]] = {}
        for index, instrument in enumerate(instruments):
            lengths = [b - a for a, b in instrument.runs]
            begins = np.cumsum([0, *lengths])
            if o.split is not None:
                splits[o.split] = Split(o.split, "out" if o.split == "ood" else "in")
                blocks = [(o.split, 0, int(begins[-1]))]
            else:
                blocks = time_blocks(int(begins[-1]), o.splits, o.gap)
                if len(blocks) < sum(f > 0 for f in o.splits):
                    notes.append(f"{instrument.name}: {begins[-1]} frames are too few to be split; all go to train")
            for split, first, last in blocks:
                for (low, high), begin in zip(instrument.runs, begins[:-1], strict=True):
                    start, stop = max(low, low + first - begin), min(high, low + last - begin)
                    for a, b in pieces(start, stop, o.frames_per_sample) if stop > start else ():
                        touched = [s for s in instrument.stretches if s.start < b and s.stop > a]
                        if touched:
                            files = [[f.name, f.sha256] for f in instrument.origin.files if any(f.name == s.path.name for s in touched)]
                            spec = {"instrument": index, "start": int(a), "stop": int(b), "files": files}
                            slug = "-".join(p or "x" for p in instrument.name.lower().split("."))
                            found.setdefault(split, []).append(SampleRef(f"{slug}-{index:03d}-{a:010d}", split, spec))
        used = [s for s in splits if s in found]
        inputs = dict.fromkeys((f.name, f.sha256) for i in instruments for f in i.origin.files)
        if o.stationxml is not None:
            about = locate(o.stationxml)
            inputs[about.name, sha256(about)] = None
        return Plan(
            tuple(ref for s in used for ref in found[s]),
            tuple(splits[s] for s in used),
            tuple(inputs),
            5 * len(variables) * o.frames_per_sample,
            tuple(notes),
        )

    def samples(self, refs: Sequence[SampleRef]) -> Iterator[Sample]:
        instruments = self._instruments([])
        variables = self._variables(instruments)
        ready = Reading(self, variables)
        for ref in refs:
            yield ready.sample(instruments[ref.spec["instrument"]], ref)

    # its parts

    @cached_property
    def inventory(self) -> Any:
        if self.options.stationxml is None:
            return None
        path = locate(self.options.stationxml)
        with one_sentence(path, "read as StationXML"):
            return obspy().read_inventory(str(path))

    def _instruments(self, notes: list[str]) -> list[Instrument]:
        """From the headers alone: instruments in the order of their names, their grids, stretches and runs."""
        headers: dict[str, list[tuple[Path, int, Any]]] = {}
        origins: dict[Path, Origin] = {}
        seen: list[str] = []
        for given in self.inputs:
            path = locate(given)
            known, description = embedded.entry(given), self.describe()
            origins[path] = Origin(
                self.name,
                known.licence if known else description.licence,
                (SourceFile(path.name, self._digest(path)),),
                known.attribution if known else description.attribution,
            )
            for number, trace in enumerate(read_traces(path, headonly=True)):
                seen.append(trace.id)
                if trace.stats.sampling_rate <= 0 or trace.stats.npts == 0:
                    notes.append(f"{trace.id} in {path.name} is left out: it has no regular samples (a log)")
                elif self.options.channels is None or fnmatch.fnmatchcase(trace.id, self.options.channels):
                    headers.setdefault(trace.id[:-1], []).append((path, number, trace))
        if not headers:
            channels = ", ".join(sorted(set(seen))) or "none"
            raise UserError(f"{self.inputs[0].name} has no seismogram that matches channels=; it has {channels}")
        rates = {name: members[0][2].stats.sampling_rate for name, members in sorted(headers.items())}
        (reference, rate), *others = rates.items()
        for name, other in others:
            if abs(other / rate - 1) > 1e-4:
                raise UserError(
                    f"{reference}? has {rate:g} samples per second and {name}? has {other:g}; expected one rate in a corpus, "
                    f"choose with channels=, for example channels={reference}?"
                )
        return [self._instrument(name, headers[name], origins, notes) for name in rates]

    def _instrument(self, name: str, members: list[tuple[Path, int, Any]], origins: Mapping[Path, Origin], notes: list[str]) -> Instrument:
        factor, rate = self.options.decimate, members[0][2].stats.sampling_rate
        begin = min(t.stats.starttime.ns for _, _, t in members)
        stretches = []
        for path, number, trace in sorted(members, key=lambda m: (m[2].stats.starttime.ns, m[2].id, str(m[0]), m[1])):
            if abs(trace.stats.sampling_rate / rate - 1) > 1e-4:
                other = f"{trace.id} in {path.name} has {trace.stats.sampling_rate:g} samples per second"
                raise UserError(f"{other}, others of {name}? {rate:g}; choose with channels=")
            exact = (trace.stats.starttime.ns - begin) * rate / 1e9
            index = round(exact)
            if abs(exact - index) > 0.01:
                moved = f"{trace.id} from {trace.stats.starttime} is moved by {index - exact:+.2f} sample intervals"
                notes.append(f"{moved} to the grid of its record")
            skip = -index % factor
            count = -(-(trace.stats.npts - skip) // factor)
            if count > 0:
                times = trace.stats.starttime.ns, trace.stats.endtime.ns
                stretches.append(Stretch(path, number, trace.id, *times, (index + skip) // factor, skip, count))
        runs: list[tuple[int, int]] = []
        for stretch in sorted(stretches, key=lambda s: s.start):
            if runs and stretch.start - runs[-1][1] <= self.options.frames_per_sample:
                runs[-1] = runs[-1][0], max(runs[-1][1], stretch.stop)
            else:
                runs.append((stretch.start, stretch.stop))
        used = [origins[p] for p in dict.fromkeys(s.path for s in stretches)]
        origin = Origin(
            self.name,
            "; ".join(dict.fromkeys(o.licence for o in used)),
            tuple(f for o in used for f in o.files),
            "; ".join(dict.fromkeys(o.attribution for o in used)),
            name,
        )
        return Instrument(name, begin, factor / rate, tuple(stretches), tuple(runs), origin)

    def _digest(self, path: Path) -> str:
        if path not in self._digests:
            self._digests[path] = sha256(path)
        return self._digests[path]

    @cached_property
    def _digests(self) -> dict[Path, str]:
        return {}

    def _variables(self, instruments: Sequence[Instrument]) -> tuple[Variable, ...]:
        """Directions that any instrument records, in the order east, north, up; one that another lacks is invalid there."""
        present = {d for i in instruments for d in self.weights(i)}
        prefix = "ground_velocity" if self.options.response else "seismic_counts"
        quantities = [QUANTITIES[f"{prefix}_{d}"] for d in DIRECTIONS if d in present]
        return tuple(Variable(q.name, q.unit) for q in quantities)

    def weights(self, instrument: Instrument) -> orientation.Weights:
        """How each direction is put together from the components: `{"north": {"N": 1.0}}`.

        Raises:
            UserError: a component whose direction is not known.
        """
        first = {c: next(s for s in instrument.stretches if s.id[-1] == c) for c in instrument.letters}
        metadata, found = Metadata(*([] if self.inventory is None else [self.inventory])), {}
        for stretch in first.values():
            at = instrument.begin + round(stretch.start * instrument.step * 1e9)
            found[stretch.id] = metadata.orientation(stretch.id, at)
        where = next((s.path.name for c, s in first.items() if c not in orientation.LETTERS), instrument.stretches[0].path.name)
        return orientation.weights({c: s.id for c, s in first.items()}, found.get, where, instrument.name)
