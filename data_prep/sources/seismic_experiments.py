"""Seismic experiments: many stations of one temporary network, recording together, with or without shots.

All stations of a window are one sample of points (stations along X, at their places), or each of them is a series of its own. Waveforms
come as miniSEED or SAC (which is what the PH5 web services and nodal recorders give), places from StationXML or SAC headers, shots from
QuakeML or a table. What a station did not record is invalid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from scigpt.data.sample import Origin, Sample, SourceFile, Time
from scigpt.data_prep.blocks import pieces, shares, time_blocks
from scigpt.data_prep.files import fingerprints, members
from scigpt.data_prep.seismic import fdsn
from scigpt.data_prep.seismic.arrays import SeismicArray, coordinates_of
from scigpt.data_prep.seismic.events import is_shot_list
from scigpt.data_prep.seismic.instruments import (
    OUTPUTS,
    covered,
    motion,
    off_grid,
    place_of,
    weights_of,
)
from scigpt.data_prep.seismic.splits import clusters, homes
from scigpt.data_prep.seismic.waveforms import EPOCH, Header, form_of
from scigpt.data_prep.seismic.windows import Grid, Processing, Reader, margin_of
from scigpt.data_prep.source import Description, Plan, Remote, SampleRef, Source, Split
from scigpt.errors import UserError

BEST = ("DP", "GP", "EH", "HH", "SH", "CH", "BH", "HN", "EN")


@dataclass(frozen=True)
class SeismicExperimentsOptions:
    """Options of seismic experiments.

    Args:
        layout: `points` is one sample of all stations, `series` one for each.
        channels: only ids (`NET.STA.LOC.CHA`) that match this pattern, `YW.*.DP?`.
        prefer: band and instrument codes, the best first: of each station the first of these that it has.
        every: all instruments of a station.
        shots: a table (CSV: id, time, latitude, longitude) or a QuakeML file; one among the inputs serves too.
        before, after: seconds around a shot.
        frames_per_sample: longest sample where there are no shots.
        rate: resample to so many samples per second; needed where stations differ.
        response, motion, sac_unit, pre_filt, water_level, pad: as for earthquakes.
        rotate: `zne` turns horizontals named 1 and 2 by their azimuths, `none` turns nothing.
        min_valid: share of a window that a series must have recorded, or that some station must have for points.
        splits: fractions of train, valid and test.
        gap: seconds between the windows of two splits; shots whose windows are closer stay together where they can.
        seed: of the draw of shots.
        split: put the whole input into this one split instead (`ood` marks it as out of distribution).
    """

    layout: Literal["points", "series"] = "points"
    channels: str | None = None
    prefer: tuple[str, ...] = BEST
    every: bool = False
    shots: str | None = None
    before: float = 2.0
    after: float = 30.0
    frames_per_sample: int = 1024
    rate: float | None = None
    response: bool = False
    motion: Literal["velocity", "displacement", "acceleration"] = "velocity"
    sac_unit: str | None = None
    pre_filt: tuple[float, ...] | None = None
    water_level: float = 60.0
    pad: float = 10.0
    rotate: Literal["zne", "none"] = "zne"
    min_valid: float = 0.5
    splits: tuple[float, ...] = (0.8, 0.1, 0.1)
    gap: float = 0.0
    seed: int = 0
    split: str | None = None

    def __post_init__(self) -> None:
        if self.before < 0 or self.after <= 0 or self.gap < 0 or self.pad < 0:
            raise UserError("before, gap and pad are seconds, 0 or more, and after is above 0")
        if self.pre_filt is not None and (len(self.pre_filt) != 4 or sorted(self.pre_filt) != list(self.pre_filt)):
            raise UserError(f"pre_filt={','.join(f'{f:g}' for f in self.pre_filt)} must be four rising frequencies in Hz")
        if self.rate is not None and not self.rate > 0:
            raise UserError(f"rate={self.rate:g} must be a number above 0")
        if not 0 <= self.min_valid <= 1:
            raise UserError(f"min_valid={self.min_valid:g} must be a share from 0 to 1")
        if self.frames_per_sample < 2:
            raise UserError(f"frames_per_sample={self.frames_per_sample} must be 2 or more")


class SeismicExperiments(Source):
    """Temporary arrays and controlled sources."""

    name = "seismic-experiments"
    Options: ClassVar[type] = SeismicExperimentsOptions
    Fetch: ClassVar[type | None] = fdsn.ExperimentFetch
    also: ClassVar[tuple[str, ...]] = ("miniseed", "earthscope")
    """Sources whose files are read here too, as what they are."""
    hole: ClassVar[float] = float("inf")
    options: SeismicExperimentsOptions

    @classmethod
    def describe(cls) -> Description:
        return Description(
            "seismic-experiments",
            "seismology: temporary arrays and shots",
            "miniSEED 2 and 3, SAC, StationXML, QuakeML, tables of shots",
            "by network (mostly CC-BY-4.0 or public domain)",
            "EarthScope Consortium, NSF SAGE facility (www.earthscope.org), and the experiment (its DOI at www.fdsn.org/networks)",
            extra="seismic",
        )

    @classmethod
    def recognises(cls, path: Path) -> bool:
        try:
            found = [p for p in members(path)[:50] if not p.is_dir()]
            forms = {form_of(p) for p in found} - {None}
            return "SAC" in forms or (bool(forms) and any(is_shot_list(p) for p in found))
        except (OSError, UserError):
            return False

    @classmethod
    def remotes(cls, options: Any, get: Callable[[str], bytes]) -> Iterator[Remote]:
        assert isinstance(options, fdsn.ExperimentFetch)
        yield from fdsn.experiment_remotes(options, get)

    def plan(self) -> Plan:
        o, array = self.options, self._array
        notes = list(array.notes)
        spans = self._shots(notes) if array.shots else self._stretches(notes)
        names = list(array.stations) if o.layout == "series" else [""]
        digests = fingerprints(array.files)
        splits = {s: Split(s, "out" if s == "ood" else "in") for s in ("train", "valid", "test", *([o.split] if o.split else []))}
        refs = []
        for split in splits:
            for key, home, first, frames, shot in spans:
                for name in names if home == split else ():
                    own = {name: array.stations[name]} if name else array.stations
                    low, high = first, first + round(frames * array.step * 1e9)
                    touched = [h for line in own.values() for h in line.touching(low, high)]
                    if covered(touched, low, high) < max(o.min_valid, 1e-9) * (high - low):
                        continue
                    slug = f"-{name.lower().replace('.', '-').replace('--', '-x-')}" if name else ""
                    used = dict.fromkeys(h.path for h in touched)
                    files = [[p.name, digests[p]] for p in used] if len(used) <= 100 else []
                    spec = {"first": first, "frames": frames, "shot": shot, "station": name, "files": files}
                    refs.append(SampleRef(f"{key}{slug}", split, spec))
        self._incomplete(spans, lambda note: None if note in notes else notes.append(note))
        for header in (h for line in array.stations.values() for h in line.headers):
            off_grid([header], Grid(array.begin, header.rate), lambda note: None if note in notes else notes.append(note))
        found = {r.split for r in refs}
        size = (
            5
            * len(array.variables)
            * max((r.spec["frames"] for r in refs), default=1)
            * (1 if o.layout == "series" else len(array.stations))
        )
        return Plan(
            tuple(refs),
            tuple(s for n, s in splits.items() if n in found),
            tuple((p.name, digests[p]) for p in array.files),
            size + (1 << 13),
            tuple(notes),
        )

    def samples(self, refs: Sequence[SampleRef]) -> Iterator[Sample | None]:
        reader = Reader()
        for ref in refs:
            yield self._sample(reader, ref.spec)

    # its parts

    @cached_property
    def _array(self) -> SeismicArray:
        return SeismicArray(self.inputs, self.options)

    def _incomplete(self, spans: Sequence[tuple[str, str, int, int, int | None]], note: Callable[[str], None]) -> None:
        """Note what is left out of windows in which a station lacks a component."""
        o, array = self.options, self._array
        for name, line in array.stations.items():
            every = frozenset(h.id[-1] for h in line.headers)
            seen = {every}
            for _, _, first, frames, _ in spans if len(every) > 1 else ():
                near = self._near(name, first, frames)
                if near and (letters := frozenset(h.id[-1] for h in near)) not in seen:
                    seen.add(letters)
                    weights_of(near, name, first, o, array.metadata, None, note)

    def _near(self, name: str, first: int, frames: int) -> list[Header]:
        """The traces that a window of a station is made from."""
        array = self._array
        margin = margin_of(self.options, array.rates[name])
        return array.stations[name].touching(first - margin, first + round(frames * array.step * 1e9) + margin)

    def _shots(self, notes: list[str]) -> list[tuple[str, str, int, int, int | None]]:
        """Key, split, first instant, frames and number of the shot, of each window."""
        o, array = self.options, self._array
        shots = sorted(enumerate(array.shots), key=lambda s: s[1].time)
        times = [s.time for _, s in shots]
        window = o.before + o.after + o.gap
        frames = max(round((o.before + o.after) / array.step), 2)
        if o.split is not None:
            home = dict.fromkeys(range(len(shots)), o.split)
        else:
            groups = clusters(times, window)
            sizes = {str(g): groups.count(g) for g in dict.fromkeys(groups)}
            if len(sizes) >= sum(f > 0 for f in o.splits):
                homed = homes(sizes, o.splits, o.seed, notes)
                home = {i: homed[str(g)] for i, g in enumerate(groups)}
            else:
                home = self._in_order(times, window, notes)
        return [(f"shot-{n:06d}", home[i], s.time - round(o.before * 1e9), frames, n) for i, (n, s) in enumerate(shots) if i in home]

    def _in_order(self, times: Sequence[int], window: float, notes: list[str]) -> dict[int, str]:
        """Splits of shots so dense that their windows overlap: in the order of time, without those that would reach into another split."""
        home: dict[int, str] = {}
        for split, start, stop in shares(len(times), self.options.splits):
            last = max((times[i] for i in home), default=None)
            for i in range(start, stop):
                if last is None or times[i] - last >= window * 1e9:
                    home[i] = split
        notes.append(
            f"the windows of the shots overlap, so splits follow each other in time; {len(times) - len(home)} shots between them left out"
        )
        return home

    def _stretches(self, notes: list[str]) -> list[tuple[str, str, int, int, int | None]]:
        """As `_shots`, of continuous records: stretches in which some station recorded, cut into splits and samples."""
        o, array = self.options, self._array
        runs: list[tuple[int, int]] = []
        longest = round(o.frames_per_sample * array.step * 1e9)
        for header in sorted((h for line in array.stations.values() for h in line.headers), key=lambda h: h.start):
            if runs and header.start - runs[-1][1] <= longest:
                runs[-1] = runs[-1][0], max(runs[-1][1], header.stop)
            else:
                runs.append((header.start, header.stop))
        lengths = [int((b - a) / 1e9 / array.step + 1e-6) for a, b in runs]
        begins = np.cumsum([0, *lengths]).tolist()
        frames_apart = round(o.gap / array.step)
        blocks = [(o.split, 0, begins[-1])] if o.split is not None else time_blocks(begins[-1], o.splits, frames_apart)
        if o.split is None and len(blocks) < sum(f > 0 for f in o.splits):
            notes.append(f"{begins[-1]} frames are too few to be split; all go to train")
        found: list[tuple[str, str, int, int, int | None]] = []
        for split, first, last in blocks:
            for (low, _), begin, length in zip(runs, begins, lengths, strict=False):
                start, stop = max(0, first - begin), min(length, last - begin)
                for a, b in pieces(start, stop, o.frames_per_sample) if stop > start else ():
                    found.append((f"{begin + a:012d}", split, low + round(a * array.step * 1e9), b - a, None))
        return found

    def _sample(self, reader: Reader, spec: Mapping[str, Any]) -> Sample | None:
        o, array = self.options, self._array
        first, frames = spec["first"], spec["frames"]
        own = {spec["station"]: array.stations[spec["station"]]} if spec["station"] else array.stations
        length = round(frames * array.step * 1e9)
        names = [v.name for v in array.variables]
        values = np.full((frames, len(names), len(own)), np.nan, np.float32)
        grids: dict[str, Grid] = {}
        inside = [h for line in own.values() for h in line.touching(first, first + length)]
        begin = min(inside, key=lambda h: (h.start, h.id)).start
        for x, name in enumerate(own):
            near = self._near(name, first, frames)
            if not near:
                continue
            grid = grids[name] = Grid(begin, array.rates[name], *Processing(rate=o.rate).ratio(array.rates[name]))
            start = int(np.ceil(grid.index(first) - 1e-6))
            weights = weights_of(near, name, first, o, array.metadata, None, lambda _: None)
            prefix, factor = motion(near[0], o)
            output = "DEF" if prefix == "acoustic_pressure" else OUTPUTS[o.motion]
            how = Processing(array.metadata if o.response else None, output, o.pre_filt, o.water_level, o.rate, o.pad)
            parts = {
                letter: reader.window([h for h in near if h.id[-1] == letter], grid, start, start + frames, how)
                for letter in sorted({c for w in weights.values() for c in w})
            }
            for variable, shares_of in weights.items():
                if variable not in names:  # of an epoch in which the component points another way
                    continue
                values[:, names.index(variable), x] = sum(w * parts[c] for c, w in shares_of.items()) * factor
        valid = np.isfinite(values)
        if not valid.any():
            return None
        some = next(iter(grids.values()))
        start = int(np.ceil(some.index(first) - 1e-6))
        places = [place_of(line.headers[0], line.headers[0].start, array.metadata) for line in own.values()]
        located = coordinates_of(places)
        shot = None if spec["shot"] is None else array.shots[spec["shot"]]
        about = self.describe()
        told: dict[str, Any] = {"network": sorted({n.split(".")[0] for n in own}), "stations": list(own), "sampling_rate": 1 / array.step}
        return Sample(
            np.where(valid, values, 0.0)[:, :, None, None, :].astype(np.float32),
            valid[:, :, None, None, :],
            array.variables,
            Time.regular((some.instant(start) - EPOCH) / 1e9, array.step, frames, "standard"),
            Origin(
                self.name,
                about.licence,
                tuple(SourceFile(n, d) for n, d in spec["files"]),
                about.attribution,
                spec["station"] or f"{', '.join(told['network'])}: {len(own)} stations",
                told | ({"shot": shot.about()} if shot else {}),
            ),
            geometry="points" if located else "plane",
            coordinates=located,
            coefficients={} if shot is None else {"shot_latitude": shot.latitude, "shot_longitude": shot.longitude},
        )
