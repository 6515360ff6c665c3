"""SEG-Y surveys: volumes and lines after stack, and shot records, as frames along recording time (or depth).

A sample is a window of traces: T is the recording time, Y the inlines, X the crosslines, the CDPs of a line or the receivers of a shot.
Amplitudes are those of the file, whose scale is arbitrary: a corpus of one survey is put on one scale by its own statistics. Dead traces
and bins without a trace are invalid, never zeros. `segy_geometry` says which traces lie side by side, `segy_blocks` cuts them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

import numpy as np
import yaml

from scigpt.data.sample import Coordinate, Origin, Sample, SourceFile, Time, Variable
from scigpt.data.variables import QUANTITIES, convert
from scigpt.data_prep.files import fingerprints, locate, members
from scigpt.data_prep.formats.segy import Endian, is_segy, open_segy
from scigpt.data_prep.formats.segy_samples import FORMATS
from scigpt.data_prep.recordings import unique
from scigpt.data_prep.source import Description, Plan, Remote, SampleRef, Source
from scigpt.data_prep.sources.segy_blocks import Cutting, SplitBy
from scigpt.data_prep.sources.segy_geometry import Bytes, Ground, Panel, find_panels, find_places
from scigpt.data_prep.sources.segy_survey import HEADERS, Survey, axis_of
from scigpt.errors import UserError

SOURCE_X, SOURCE_Y = 73, 77
MAX_SAMPLE_BYTES = 256 << 20
TEXT_KEPT = 300
"""Characters of the textual header that go with each sample."""
SURVEYS = Path(__file__).with_name("segy_surveys.yaml")


@dataclass(frozen=True)
class SegyOptions:
    """Options of SEG-Y surveys.

    Args:
        dims: `volume` (inlines x crosslines), `line` (traces along X), `shots` (a record for each field record), or what the headers say.
        inline_byte, crossline_byte, record_byte: where those numbers begin in a trace header (21 for CDP gathers as records).
        x_byte, y_byte, scalar_byte: of coordinates and their scalar; by default 181 and 185, else 73 and 77, else 81 and 85 (of shots
            those alone), never where inlines and crosslines are.
        trace_id: use only traces of these identification codes; by default all but auxiliary ones.
        tile: rows and columns of a sample, `64x64` or `64`; of lines and shots the columns. By default at most 64 x 64, 256 traces of a
            line, or a whole shot record.
        min_valid: windows with a smaller share of bins that hold a trace are left out.
        frames_per_sample: longest sample along T (or, with `vertical=z`, along Z).
        vertical: `time`: samples are frames; `z`: a true volume of one frame with samples along Z, for tasks of your own.
        domain: `depth`: the axis of samples is depth in m, not time in s.
        dt: interval of samples in s (or m), for headers that lack it or are wrong.
        format, endian, samples: override the sample format code, the byte order and the length of traces.
        quantity: what is stored: a name of the registry (`seismic_velocity_model`, `strain_rate`) or one of your own, with its unit=.
        unit: of what is stored; by default that of the registry.
        splits: shares for train, valid and test.
        split_by: `tile`: blocks of inlines, or of a line's traces; `shot`: whole records; `file`: whole files; `time`: blocks of samples.
            By default records where there are several, else blocks.
            Files of a volume whose inlines overlap or follow each other are cut at common inlines, records at common numbers.
        gap: inlines, traces, records or samples left out between the splits; by default a fiftieth, at least one (and no file).
        split: put the whole input into this one split instead.
        licence, attribution: of these surveys, as their owners state them.
    """

    dims: Literal["auto", "volume", "line", "shots"] = "auto"
    inline_byte: int = 189
    crossline_byte: int = 193
    record_byte: int = 9
    x_byte: int | None = None
    y_byte: int | None = None
    scalar_byte: int = 71
    trace_id: tuple[int, ...] | None = None
    tile: str | None = None
    min_valid: float = 0.0
    frames_per_sample: int = 512
    vertical: Literal["time", "z"] = "time"
    domain: Literal["time", "depth"] = "time"
    dt: float | None = None
    format: int | None = None
    endian: Endian = "auto"
    samples: int | None = None
    quantity: str = "seismic_amplitude"
    unit: str | None = None
    splits: tuple[float, ...] = (0.8, 0.1, 0.1)
    split_by: SplitBy = "auto"
    gap: int | None = None
    split: str | None = None
    licence: str | None = None
    attribution: str | None = None


@dataclass(frozen=True)
class SegyFetch:
    """What to download: there is no catalogue with an interface, so a survey of the list beside the source, or addresses.

    Args:
        survey: name in the list.
        url: addresses of files, instead.
    """

    survey: str = ""
    url: tuple[str, ...] = ()


class Segy(Source):
    """Seismic surveys in SEG-Y: SEG's open data, and a user's own."""

    name = "segy"
    Options: ClassVar[type] = SegyOptions
    Fetch: ClassVar[type | None] = SegyFetch
    options: SegyOptions

    @classmethod
    def describe(cls) -> Description:
        return Description(
            "segy",
            "seismic surveys",
            "SEG-Y",
            "by survey (state it with licence=)",
            "the owner of the survey (see wiki.seg.org/wiki/Open_data)",
            redistributable=False,
        )

    @property
    def redistributable(self) -> bool:
        """A survey whose licence is not stated is not passed on."""
        return (self.options.licence or "").lower().startswith(("cc0", "cc-by", "cc by", "public domain"))

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return path.is_file() and is_segy(path)

    @classmethod
    def remotes(cls, options: Any, get: Callable[[str], bytes]) -> Iterator[Remote]:
        assert isinstance(options, SegyFetch)
        known = surveys()
        if bool(options.url) == bool(options.survey) or (options.survey and options.survey not in known):
            wrong = f"survey={options.survey} is not in the list; " if options.survey and options.survey not in known else ""
            raise UserError(f"{wrong}fetching SEG-Y needs url=ADDRESS or survey= one of {', '.join(known)}")
        files: Sequence[Mapping[str, Any]] = known[options.survey]["files"] if options.survey else [{"url": u} for u in options.url]
        for about in files:
            name = PurePosixPath(urlsplit(about["url"]).path).name
            yield Remote(about["url"], f"{options.survey}/{name}" if options.survey else name, bytes=about.get("bytes"))

    def plan(self) -> Plan:
        o = self.options
        kind, notes = self._surveys[0].panels[0].kind, [*self._notes]
        cutting = Cutting(o.tile, o.frames_per_sample, o.vertical == "z", o.splits, o.split_by, o.gap, o.split)
        blocks, splits = cutting.blocks(self._surveys, notes)
        height, width = cutting.window(kind, blocks, notes)
        cuts = {samples: cutting.pieces(blocks, *samples) for samples in {b.samples for b in blocks}}
        longest = max(b - a for cut in cuts.values() for a, b in cut)
        if 4 * height * width * longest > MAX_SAMPLE_BYTES:
            raise UserError(
                f"{self._surveys[0].file.path.name}: samples of {height} x {width} traces and {longest} frames take more than "
                f"{MAX_SAMPLE_BYTES >> 20} MB; give a smaller tile= or frames_per_sample="
            )
        digests = fingerprints(s.file.path for s in self._surveys)
        refs: dict[str, list[SampleRef]] = {s: [] for s in splits}
        empty = 0
        for block in blocks:
            survey = self._surveys[block.survey]
            panel, path = survey.panels[block.panel], survey.file.path
            slug = re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-")[:40] or "survey"
            for r in range(block.rows[0], block.rows[1] - height + 1, height):
                for c in range(block.columns[0], block.columns[1] - width + 1, width):
                    share = (panel.index[r : r + height, c : c + width] >= 0).mean()
                    if share == 0 or share < o.min_valid:
                        empty += 1
                        continue
                    for a, b in cuts[block.samples]:
                        key = f"{slug}-{block.survey:03d}-{block.panel:06d}-{r:05d}-{c:05d}-{a:06d}"
                        spec = {
                            "survey": block.survey, "panel": block.panel, "window": [r, c, height, width], "samples": [a, b],
                            "files": [[path.name, digests[path]]],
                        }  # fmt: skip
                        refs[block.split].append(SampleRef(key, block.split, spec))
        if empty:
            notes.append(f"{empty} windows with too few traces are left out")
        return Plan(
            tuple(ref for s in splits for ref in refs[s]),
            tuple(split for name, split in splits.items() if refs[name]),
            tuple((s.file.path.name, digests[s.file.path]) for s in self._surveys),
            5 * height * width * longest,
            tuple(notes),
        )

    def samples(self, refs: Sequence[SampleRef]) -> Iterator[Sample | None]:
        for ref in refs:
            yield self._sample(ref)

    # its parts

    @cached_property
    def _notes(self) -> list[str]:
        return []

    @cached_property
    def _variable(self) -> Variable:
        o = self.options
        quantity = QUANTITIES.find(o.quantity)
        if quantity is not None:
            return Variable(quantity.name, quantity.unit)
        if o.unit is None or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", o.quantity):
            raise UserError(f"quantity={o.quantity} is not in the registry; expected a name of letters, digits and _ with its unit=")
        return Variable(o.quantity, o.unit)

    @cached_property
    def _surveys(self) -> list[Survey]:
        o = self.options
        if not self.inputs:
            raise UserError("segy has no input; give SEG-Y files as --input")
        convert(np.zeros(1), o.unit or self._variable.unit, self._variable.unit, f"unit={o.unit}")
        if (o.x_byte is None) != (o.y_byte is None):
            raise UserError("x_byte= and y_byte= go together; give both, or neither for the standard's")
        at = Bytes(o.inline_byte, o.crossline_byte, o.record_byte, o.x_byte, o.y_byte, o.scalar_byte)
        words = (*HEADERS, o.inline_byte, o.crossline_byte, o.record_byte)
        found = []
        names_of: dict[str, list[str]] = {}
        for path in unique(file for given in self.inputs for file in _files(locate(given))):
            file = open_segy(path, o.format, o.endian, o.samples)
            with file.kept(words):
                file.require_alike(o.samples is None, o.dt is None)
                panels = find_panels(file, o.dims, at, notes := list[str](), o.trace_id)
                axis = axis_of(file, o.domain == "depth", o.dt, self._notes)
            found.append((file, panels, axis, find_places(file, panels, at)))
            for note in notes:
                names_of.setdefault(note, []).append(path.name)
        for note, paths in names_of.items():
            self._notes.append(f"{paths[0]}{f' and {len(paths) - 1} more files' if len(paths) > 1 else ''}: {note}")
        kinds = {panels[0].kind: file for file, panels, _, _ in found}
        if len(kinds) > 1:
            told = " and ".join(f"{f.path.name} a {k.removesuffix('s')}" for k, f in kinds.items())
            raise UserError(f"the inputs are not alike: {told}; prepare two corpora or say dims=")
        names = [n for n in found[0][3].names if all(n in places.names for *_, places in found)]
        names = [] if {"x", "y"} & set(names) and not {"x", "y"} <= set(names) else names
        if self._variable.name == "seismic_amplitude" and len(found) > 1:
            self._notes.append(f"the amplitudes of {len(found)} files stand side by side as they are stored; their scales may differ")
        lost = sorted({n for *_, places in found for n in places.names} - set(names))
        if lost:
            self._notes.append(f"the coordinates {', '.join(lost)} are left out, because not every file has them")
        return [Survey(file, tuple(panels), Ground(file, places, names), axis) for file, panels, axis, places in found]

    def _sample(self, ref: SampleRef) -> Sample | None:
        o, variable = self.options, self._variable
        survey = self._surveys[ref.spec["survey"]]
        panel = survey.panels[ref.spec["panel"]]
        (r, c, height, width), (start, stop) = ref.spec["window"], ref.spec["samples"]
        rows, columns = slice(r, r + height), slice(c, c + width)
        index = panel.index[rows, columns]
        live = np.flatnonzero(index >= 0)
        found = survey.read(index.ravel()[live], start, stop)
        if not found.known.any():
            return None
        values = np.zeros((stop - start, height * width), np.float32)
        valid = np.zeros(values.shape, bool)
        converted = found.values if o.unit in (None, variable.unit) else convert(found.values, o.unit, variable.unit, o.quantity)
        values[:, live] = np.where(found.known, converted, 0).T
        valid[:, live] = found.known.T
        shape = (stop - start, 1, 1, height, width) if o.vertical == "time" else (1, 1, stop - start, height, width)
        coordinates = survey.ground.coordinates(panel, rows, columns)
        seconds = survey.axis.at(start, stop)
        if o.vertical == "z":
            coordinates["z"] = Coordinate(("z",), seconds, "m" if o.domain == "depth" else "s")
            seconds = np.zeros(1)
        about = self._about(survey, panel, rows, columns) | found.counted(height * width - live.size)
        return Sample(
            values.reshape(shape),
            valid.reshape(shape),
            (variable,),
            Time(seconds),
            self._origin(ref, survey, about),
            coordinates=coordinates,
        )

    def _origin(self, ref: SampleRef, survey: Survey, about: Mapping[str, Any]) -> Origin:
        description = self.describe()
        return Origin(
            self.name,
            self.options.licence or description.licence,
            tuple(SourceFile(*f) for f in ref.spec["files"]),
            self.options.attribution or description.attribution,
            survey.file.path.stem,
            about,
        )

    def _about(self, survey: Survey, panel: Panel, rows: slice, columns: slice) -> dict[str, Any]:
        """What the headers say, in short."""
        file = survey.file
        across = [int(panel.columns[columns][i]) for i in (0, -1)]
        ends: dict[str, Any] = {"columns": across}
        if panel.kind == "volume":
            ends = {"inlines": [int(panel.rows[rows][i]) for i in (0, -1)], "crosslines": across}
        elif panel.kind == "shots":
            x, y = (int(file.header(b, panel.index[0, :1])[0]) for b in (SOURCE_X, SOURCE_Y))
            ends = {"record": int(panel.rows[0]), "channels": across, "source_xy_as_stored": [x, y]}
        text = " ".join(" ".join(re.sub(r"^C ?\d\d?", "", line) for line in file.text.split("\n")).split())
        return {"dims": panel.kind, **ends, "format": FORMATS[file.format][0], "revision": file.revision[0], "text": text[:TEXT_KEPT]}


def _files(path: Path) -> list[Path]:
    """The SEG-Y files of a folder, by their names; anything else as it is."""
    if not path.is_dir():
        return [path]
    found = [p for p in members(path) if p.suffix.lower() in (".sgy", ".segy", ".seg-y")]
    if not found:
        raise UserError(f"the folder {path} holds no file whose name ends in .sgy or .segy; give SEG-Y files as --input")
    return found


def surveys() -> dict[str, dict[str, Any]]:
    """The list of open surveys: name to licence, about, files."""
    return dict(yaml.safe_load(SURVEYS.read_text(encoding="utf-8")))
