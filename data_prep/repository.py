"""Repositories of subsurface data hold well logs, fibre-optic recordings and seismic surveys; one corpus is made of one of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

from scigpt.data.sample import Sample
from scigpt.data_prep.fibres import SUFFIXES, FibreOptions, Fibres
from scigpt.data_prep.files import locate, members
from scigpt.data_prep.source import Plan, SampleRef, Source, parse_options
from scigpt.data_prep.well_logs import WellLogs, WellOptions
from scigpt.errors import UserError

Form = Literal["las", "fibre", "segy"]
WORDS: dict[Form, str] = {"las": "well logs (LAS)", "fibre": "fibre-optic recordings (HDF5)", "segy": "seismic surveys (SEG-Y)"}
_SHARED = ("splits", "split", "split_by", "gap", "frames_per_sample", "quantity", "unit", "tile")
"""Options that surveys have under the same name."""
_SUFFIXES: dict[Form, tuple[str, ...]] = {"las": (".las",), "fibre": SUFFIXES, "segy": (".sgy", ".segy")}


@dataclass(frozen=True)
class RepositoryOptions(WellOptions, FibreOptions):
    """Options of a repository: those of well logs, of fibres, or of surveys, as the files ask for; those of another kind are refused.

    Args:
        form: las, fibre or segy: which files of the input are used; by default its only kind.
        segy: options of the source segy, `dims=line;tile=128`; splits, split, split_by, gap, frames_per_sample, quantity, unit and tile
            may stand outside of it too.
        frames_per_sample, gap: by default those of the kind of file (1024 depths or frames, and 64 or 256 between blocks; 512 samples and a
            fiftieth of a survey).
        split_by: `well` or `depth`; `time` or `file` of fibres.
        licence, attribution: of this dataset as its page states them, if they are not the usual ones of the source.
    """

    form: Form | None = None
    segy: str = ""
    frames_per_sample: int | None = None  # type: ignore[assignment]
    gap: int | None = None  # type: ignore[assignment]
    split_by: Literal["well", "depth", "time", "file"] | None = None  # type: ignore[assignment]
    licence: str | None = None
    attribution: str | None = None


@dataclass(frozen=True)
class _Kind:
    form: Form
    source: type[Source]
    files: list[Path] = field(default_factory=list)


class Repository(Source):
    """A repository; a subclass describes and fetches it."""

    Options: ClassVar[type] = RepositoryOptions
    options: RepositoryOptions
    max_out_of_bounds: ClassVar[float] = 0.2
    """Tools rest at one value where they are switched off, and behind the end of a fibre some of the noise is beyond all bounds."""

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return WellLogs.recognises(path) or Fibres.recognises(path)

    @property
    def redistributable(self) -> bool:
        licence = self.options.licence
        return super().redistributable if licence is None else licence.lower().startswith(("cc0", "cc-by", "cc by", "public domain"))

    def plan(self) -> Plan:
        return self._inner.plan()

    def samples(self, refs: Sequence[SampleRef]) -> Iterator[Sample | None]:
        about = self.describe()
        licence, attribution = self.options.licence or about.licence, self.options.attribution or about.attribution
        for sample in self._inner.samples(refs):
            if sample is not None:
                origin = dataclasses.replace(sample.origin, source=self.name, licence=licence, attribution=attribution)
                yield dataclasses.replace(sample, origin=origin)
            else:
                yield None

    @cached_property
    def _inner(self) -> Source:
        """The reader of the kind of file that the input holds."""
        kind, o = self._kind(), self.options
        allowed = {"las": ("well", "depth"), "fibre": ("time", "file"), "segy": ("time", "file")}[kind.form]
        if o.split_by not in (None, *allowed):
            raise UserError(f"option split_by={o.split_by} is none of {WORDS[kind.form]}; expected {' or '.join(allowed)}")
        names = {f.name for f in dataclasses.fields(kind.source.Options)}
        known = {"form", "licence", "attribution"} | ({*_SHARED, "segy"} if kind.form == "segy" else names)
        stated = {f.name: value for f in dataclasses.fields(RepositoryOptions) if (value := getattr(o, f.name)) not in (None, f.default)}
        foreign = sorted(set(stated) - known)
        if foreign:
            hint = "; give the options of segy in segy=" if kind.form == "segy" else ""
            raise UserError(f"option {foreign[0]}= is none of {WORDS[kind.form]}, which the input holds; leave it out{hint}")
        if kind.form == "segy":
            words = [w.strip() for w in o.segy.split(";") if w.strip()]
            given = {w.partition("=")[0].replace("-", "_") for w in words}
            shared = {n: str(v) if n == "tile" else v for n, v in stated.items() if n in _SHARED and n not in given}
            return kind.source(kind.files, dataclasses.replace(parse_options(kind.source.Options, words), **shared))
        return kind.source(kind.files, kind.source.Options(**{n: v for n, v in stated.items() if n in names}))

    def _kind(self) -> _Kind:
        if not self.inputs:
            raise UserError(f"the source {self.name} needs a file: give --input PATH")
        kinds = {form: _Kind(form, source) for form, source in _sources().items() if self.options.form in (None, form)}
        unknown: list[Path] = []
        for given in self.inputs:
            folder = locate(given)
            for path in members(folder) if folder.is_dir() else [folder]:
                fitting = [k for k in kinds.values() if path.is_file() and k.source.recognises(path)]
                named = [k for k in kinds.values() if path.suffix.lower() in _SUFFIXES[k.form]]
                # a damaged file is refused by the reader of its name
                if fitting or (named and not folder.is_dir()):
                    (fitting or named)[0].files.append(path)
                elif (not folder.is_dir() and not self._other(path)) or named:
                    unknown.append(path)
        if unknown:
            raise UserError(f"{unknown[0].name} is none of {', '.join(WORDS.values())}; leave it out, or it may be damaged: fetch it again")
        held = [k for k in kinds.values() if k.files]
        if len(held) == 1:
            return held[0]
        if held:
            told = " and ".join(f"{len(k.files)} of {WORDS[k.form]}" for k in held)
            raise UserError(f"the input holds {told}; a corpus is of one kind, choose with form={held[0].form}")
        asked = f" of form={self.options.form}" if self.options.form else ""
        raise UserError(f"{self.inputs[0]} holds no file{asked} that is read; expected {', '.join(WORDS.values())}")

    def _other(self, path: Path) -> bool:
        """Whether a file is of a kind that was not asked for."""
        return self.options.form is not None and any(s.recognises(path) for s in _sources().values())


def _sources() -> dict[Form, type[Source]]:
    from scigpt.data_prep.sources.segy import Segy

    return {"las": WellLogs, "fibre": Fibres, "segy": Segy}
