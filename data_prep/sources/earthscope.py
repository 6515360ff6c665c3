"""Earthquakes recorded by seismometers: windows around the first arrivals, with what is known of event and station, and arrivals as labels.

The inputs are a folder as `scigpt data fetch earthscope` leaves it (QuakeML, StationXML, miniSEED), such files from anywhere, or a dataset
in the format of SeisBench. A sample is one station's record of one event, at the rate it was recorded with. Gaps are invalid frames, an
arrival that nobody picked is unknown (invalid), never absent (zero), and aftershocks stay in one split with their main shock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from scigpt.data.sample import Origin, Sample, SourceFile, Time, Variable
from scigpt.data.variables import convert
from scigpt.data_prep.files import fingerprints, locate, members
from scigpt.data_prep.seismic import fdsn, seisbench
from scigpt.data_prep.seismic.earthquakes import Recordings, Window
from scigpt.data_prep.seismic.events import is_quakeml
from scigpt.data_prep.seismic.instruments import UNITS, order_of, prefix_of
from scigpt.data_prep.seismic.orientation import coordinates
from scigpt.data_prep.seismic.seisbench_windows import about_of, datasets_of, labels_of, windows_of_datasets
from scigpt.data_prep.seismic.splits import clusters, homes, joined
from scigpt.data_prep.seismic.stationxml import read_metadata
from scigpt.data_prep.seismic.waveforms import EPOCH, Header
from scigpt.data_prep.seismic.windows import Grid, Processing, Reader
from scigpt.data_prep.source import Description, Plan, Remote, SampleRef, Source, Split
from scigpt.errors import UserError

BEST = ("HH", "BH", "EH", "SH", "CH", "DP", "HN", "EN", "BN", "MH", "LH", "BD", "HD", "ED", "LD")
_GLANCE = 50
"""Files of a folder that `recognises` looks at."""


@dataclass(frozen=True)
class EarthScopeOptions:
    """Options of earthquakes.

    Args:
        channels: only ids (`NET.STA.LOC.CHA`) that match this pattern, `IU.*.BH?`.
        prefer: band and instrument codes, the best first: of each station the first of these that it has becomes a sample.
        every: all instruments of a station become samples.
        before, after: seconds of the window before and after its anchor.
        anchor: `p` is the pick of P, and where there is none its time by the model iasp91; `origin` is the time of the earthquake.
        rate: resample to so many samples per second; none keeps each instrument's own.
        response: remove the instrument's response (by the StationXML): ground motion, or pressure, instead of counts.
        motion: what is made of seismometers then.
        sac_unit: unit of the samples of SAC files that are not counts: `nm/s`, `m/s`, `m/s**2`.
        pre_filt: four corner frequencies in Hz of the taper before the response is removed.
        water_level: in dB, for the division by the response.
        pad: seconds around the window that are read too where there is something to filter.
        rotate: `zne` turns horizontals named 1 and 2 by their azimuths, `zrt` turns all to radial and transverse, `none` turns nothing.
        labels: `picks` adds the variables p_arrival and s_arrival; none leaves them out.
        label_width: standard deviation of the bell around an arrival, in samples.
        noise: share of the records to which a window of noise before the P wave is added, unless a wave of any event comes in it.
        quiet: seconds between the end of such a window and P.
        min_valid: share of a window that must have been recorded.
        split_by: what a split keeps whole: the event, the station, or stretches of time; `given` is the split that a dataset states.
        splits: fractions of train, valid and test.
        gap: seconds; events closer in time than this, such as aftershocks, stay in one split, as do those whose windows overlap.
        seed: of the draw of events or stations.
        split: put the whole input into this one split instead (`ood` marks it as out of distribution).
    """

    channels: str | None = None
    prefer: tuple[str, ...] = BEST
    every: bool = False
    before: float = 30.0
    after: float = 90.0
    anchor: Literal["p", "origin"] = "p"
    rate: float | None = None
    response: bool = False
    motion: Literal["velocity", "displacement", "acceleration"] = "velocity"
    sac_unit: str | None = None
    pre_filt: tuple[float, ...] | None = None
    water_level: float = 60.0
    pad: float = 60.0
    rotate: Literal["zne", "zrt", "none"] = "zne"
    labels: Literal["picks", "none"] = "picks"
    label_width: float = 3.0
    noise: float = 0.0
    quiet: float = 5.0
    min_valid: float = 0.5
    split_by: Literal["event", "station", "time", "given"] = "event"
    splits: tuple[float, ...] = (0.8, 0.1, 0.1)
    gap: float = 3600.0
    seed: int = 0
    split: str | None = None

    def __post_init__(self) -> None:
        if self.before < 0 or self.after <= 0:
            raise UserError(
                f"before={self.before:g} and after={self.after:g} are seconds around the arrival; expected 0 or more and above 0"
            )
        if self.pre_filt is not None and (len(self.pre_filt) != 4 or sorted(self.pre_filt) != list(self.pre_filt)):
            raise UserError(f"pre_filt={','.join(f'{f:g}' for f in self.pre_filt)} must be four rising frequencies in Hz")
        for name, value in (("label_width", self.label_width), ("rate", 1.0 if self.rate is None else self.rate)):
            if not value > 0:
                raise UserError(f"{name}={value:g} must be a number above 0")
        for name, value in (("noise", self.noise), ("min_valid", self.min_valid)):
            if not 0 <= value <= 1:
                raise UserError(f"{name}={value:g} must be a share from 0 to 1")
        if self.pad < 0 or self.quiet < 0 or self.gap < 0:
            raise UserError("pad, quiet and gap are seconds, 0 or more")


class EarthScope(Source):
    """Earthquakes of FDSN data centres and of SeisBench datasets."""

    name = "earthscope"
    Options: ClassVar[type] = EarthScopeOptions
    Fetch: ClassVar[type | None] = fdsn.EarthScopeFetch
    also: ClassVar[tuple[str, ...]] = ("miniseed", "seismic-experiments")
    """Sources whose files are read here too, as what they are."""
    hole: ClassVar[float] = float("inf")
    options: EarthScopeOptions

    def __init__(self, inputs: Sequence[Path] = (), options: Any = None) -> None:
        super().__init__(inputs, options)
        self._reader = Reader()
        self._datasets: dict[tuple[Path, Path], seisbench.Dataset] = {}

    @classmethod
    def describe(cls) -> Description:
        return Description(
            "earthscope",
            "seismology: earthquakes",
            "miniSEED 2 and 3, SAC, QuakeML, StationXML, SeisBench",
            "by network (mostly CC-BY-4.0 or public domain)",
            "EarthScope Consortium, NSF SAGE facility (www.earthscope.org), and the network operators (see www.fdsn.org/networks)",
            extra="seismic",
        )

    @classmethod
    def recognises(cls, path: Path) -> bool:
        try:
            if path.is_dir():
                found = [p for p in members(path)[:_GLANCE] if not p.is_dir()]
                return any(cls.recognises(p) for p in found)
            with path.open("rb") as file:
                head = file.read(1024)
            return is_quakeml(head) or seisbench.is_table(path) or seisbench.is_arrays(path)
        except (OSError, UserError):
            return False

    @classmethod
    def remotes(cls, options: Any, get: Callable[[str], bytes]) -> Iterator[Remote]:
        assert isinstance(options, fdsn.EarthScopeFetch)
        yield from fdsn.remotes(options, get)

    def plan(self) -> Plan:
        o, notes = self.options, list[str]()
        if not self.inputs:
            raise UserError("earthscope reads QuakeML, StationXML and miniSEED, or a SeisBench dataset; give their folder as --input")
        files = self.files()
        digests = fingerprints(files)
        datasets = datasets_of(files)
        if datasets:
            windows = [w for d in datasets for w in windows_of_datasets(d, o)]
        else:
            windows = Recordings(files, o, notes).windows()
        if not windows:
            raise UserError(
                f"{self.inputs[0].name}: no window of an event holds enough data; {'; '.join(notes[:2]) or 'check before= and after='}"
            )
        windows, located = _located(windows, notes)
        picked = {p for w in windows for p in w.picked}
        labelled = [p for p in "ps" if p in picked and o.labels == "picks"]
        if o.labels == "picks" and not labelled:
            notes.append("no event has a pick, so there are no labels")
        measured = {name for w in windows for name in w.measured}
        names = sorted(measured, key=order_of)
        windows.sort(key=lambda w: (w.time, w.key))
        homes_of, splits = self._splits(windows, notes)
        shared: dict[tuple[int, ...], Any] = {}
        refs: list[SampleRef] = []
        for window, home in zip(windows, homes_of, strict=True):
            if window.files not in shared:
                used = [[files[f].name, digests[files[f]]] for f in window.files]
                shared[window.files] = {"variables": names, "phases": labelled, "located": located, "files": used}
            spec = {"first": window.first, "step": window.step, "frames": window.frames, **window.spec, "corpus": shared[window.files]}
            refs.append(SampleRef(window.key, home, spec))
        order = {s.name: i for i, s in enumerate(splits)}
        refs.sort(key=lambda r: order[r.split])
        return Plan(
            tuple(refs),
            splits,
            tuple((p.name, digests[p]) for p in files),
            max(5 * (len(names) + len(labelled)) * w.frames for w in windows) + (1 << 13),
            tuple(notes),
        )

    def files(self) -> list[Path]:
        """All that is in the inputs, without what is still coming, in an order that does not depend on theirs."""
        found = {p for given in self.inputs for p in members(locate(given))}
        return sorted(p for p in found if not p.name.endswith((".part", ".part.json")))

    def samples(self, refs: Sequence[SampleRef]) -> Iterator[Sample | None]:
        files = self.files()
        for ref in refs:
            yield self._sample(files, ref.spec)

    # its parts

    def _splits(self, windows: Sequence[Window], notes: list[str]) -> tuple[list[str], tuple[Split, ...]]:
        """The split of each of the windows, which are in the order of their events."""
        o = self.options
        if o.split is not None:
            return [o.split] * len(windows), (Split(o.split, "out" if o.split == "ood" else "in"),)
        if o.split_by == "given":
            if any(w.given is None for w in windows):
                raise UserError("split_by=given needs a dataset with a column split (train, dev, test) in every row; choose split_by=event")
            found = [str(w.given) for w in windows]
        else:
            groups = [w.station for w in windows] if o.split_by == "station" else self._groups(windows)
            homed = homes(Counter(groups), o.splits, None if o.split_by == "time" else o.seed, notes)
            found = [homed[g] for g in groups]
        return found, tuple(Split(s) for s in ("train", "valid", "test") if s in set(found))

    def _groups(self, windows: Sequence[Window]) -> list[str]:
        """Events that are near in time, or of which a station shows both in windows that overlap, under the name of the first of them."""
        events = {w.event: w.time for w in windows}
        number = dict(zip(events, clusters(list(events.values()), self.options.gap), strict=True))
        numbers = joined([number[w.event] for w in windows], [w.span for w in windows], self.options.split_by == "time")
        first: dict[int, str] = {}
        return [first.setdefault(n, w.event) for n, w in zip(numbers, windows, strict=True)]

    def _sample(self, files: Sequence[Path], spec: Any) -> Sample | None:
        corpus, frames = spec["corpus"], spec["frames"]
        variables = [Variable(n, UNITS[prefix_of(n)]) for n in corpus["variables"]]
        values = np.full((frames, len(variables)), np.nan)
        if "row" in spec:
            dataset = self._dataset(files, spec)
            trace = dataset.trace(spec["row"])
            data, terms = self._traced(dataset, trace), seisbench.TERMS
            name, place, known, labels = trace.station, trace.place, about_of(trace), labels_of(trace)
        else:
            about = self.describe()
            data, terms = self._recorded(files, spec), (about.licence, about.attribution)
            name, place, known, labels = spec["name"], spec["place"], spec["about"], spec["labels"]
        for variable, measured in data.items():
            values[:, corpus["variables"].index(variable)] = measured
        if not np.isfinite(values).any():
            return None
        for phase in corpus["phases"]:
            values = np.column_stack([values, bell(labels[phase], frames, self.options.label_width)])
            variables.append(Variable(f"{phase}_arrival", "1", "diagnostic"))
        valid = np.isfinite(values)[:, :, None, None, None]
        origin = Origin(self.name, terms[0], tuple(SourceFile(n, d) for n, d in corpus["files"]), terms[1], name, known)
        located = corpus["located"]
        return Sample(
            np.where(valid, values[:, :, None, None, None], 0.0).astype(np.float32),
            valid,
            tuple(variables),
            Time.regular((spec["first"] - EPOCH) / 1e9, spec["step"], frames, "standard"),
            origin,
            "points" if located else "plane",
            coordinates=coordinates(place) if located and place is not None else {},
        )

    def _recorded(self, files: Sequence[Path], spec: Any) -> dict[str, np.ndarray]:
        """Each variable of a window, in its unit."""
        o, grid = self.options, Grid(*spec["grid"])
        metadata = read_metadata([files[i] for i in spec["inventories"]]) if o.response else None
        how = Processing(metadata, spec["output"], o.pre_filt, o.water_level, o.rate, o.pad)
        parts: dict[str, np.ndarray] = {}
        for letter in sorted({c for w in spec["weights"].values() for c in w}):
            own = [Header(files[f], i, start, rate, count) for f, i, start, rate, count in spec["traces"] if i[-1] == letter]
            parts[letter] = self._reader.window(own, grid, spec["start"], spec["start"] + spec["frames"], how)
        return {n: np.asarray(sum(weight * parts[c] for c, weight in w.items())) * spec["factor"] for n, w in spec["weights"].items()}

    def _dataset(self, files: Sequence[Path], spec: Any) -> seisbench.Dataset:
        pair = files[spec["table"]], files[spec["arrays"]]
        if pair not in self._datasets:
            self._datasets[pair] = seisbench.Dataset(*pair)
        return self._datasets[pair]

    def _traced(self, dataset: seisbench.Dataset, trace: seisbench.Trace) -> dict[str, np.ndarray]:
        """As `_recorded`, of a row of a dataset."""
        raw = dataset.read(trace)
        found = {n: raw[c] for n, c in dataset.directions(trace.order).items() if c in raw}
        return {n: convert(data, dataset.unit, UNITS[dataset.prefix], dataset.arrays.name) for n, data in found.items()}


def bell(at: Sequence[float] | None, frames: int, width: float) -> np.ndarray:
    """A label `(frames,)`: 1 at each arrival; zeros where it is known that there is none, NaN where nobody looked (None)."""
    if at is None:
        return np.full(frames, np.nan)
    bells = [np.exp(-((np.arange(frames) - one) ** 2) / (2 * width**2)) for one in at]
    return np.max([np.zeros(frames), *bells], axis=0)


def _located(windows: list[Window], notes: list[str]) -> tuple[list[Window], bool]:
    """Windows of stations whose place is known, where any is: all samples of a corpus have the same coordinates."""
    known = [w for w in windows if w.located]
    if known and len(known) < len(windows):
        left = sorted({w.name for w in windows if not w.located})
        notes.append(f"{', '.join(left[:5])}{' and others' if len(left) > 5 else ''} left out: no StationXML says where they are")
    return known or windows, bool(known)
