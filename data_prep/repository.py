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
_SUFFIXES: dict[Form, tuple[str, ...]] = {"las": (".las",), "fibre": SUFFIXES, "segy": (".sgy", ".segy")}


@dataclass(frozen=True)
class RepositoryOptions(WellOptions, FibreOptions):
    """Options of a repository: those of well logs, of fibres, or (in `segy`) of surveys, as the files ask for.

    Args:
        form: las, fibre or segy: which files of the input are used; by default its only kind.
        segy: options of the source segy, `dims=line;tile=128`.
        frames_per_sample, gap: by default those of the kind of file (1024 depths or frames, and 64 or 256 between blocks).
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
    """Tools rest at one value where they are switched off, and a fibre goes on as noise behind its end."""

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
        kind = self._kind()
        if kind.form == "segy":
            return kind.source(
                kind.files, parse_options(kind.source.Options, [w.strip() for w in self.options.segy.split(";") if w.strip()])
            )
        wanted = {f.name: getattr(self.options, f.name) for f in dataclasses.fields(kind.source.Options)}
        by = wanted["split_by"]
        allowed = ("well", "depth") if kind.form == "las" else ("time", "file")
        if by not in (None, *allowed):
            raise UserError(f"option split_by={by} is none of {WORDS[kind.form]}; expected {' or '.join(allowed)}")
        return kind.source(kind.files, kind.source.Options(**{n: v for n, v in wanted.items() if v is not None}))

    def _kind(self) -> _Kind:
        if not self.inputs:
            raise UserError(f"the source {self.name} needs a file: give --input PATH")
        kinds = {form: _Kind(form, source) for form, source in _sources().items()}
        unknown: list[Path] = []
        for given in self.inputs:
            folder = locate(given)
            for path in members(folder) if folder.is_dir() else [folder]:
                fitting = [k for k in kinds.values() if path.is_file() and k.source.recognises(path)]
                named = [k for k in kinds.values() if path.suffix.lower() in _SUFFIXES[k.form]]
                # a damaged file is refused by the reader of its name
                if fitting or (named and not folder.is_dir()):
                    (fitting or named)[0].files.append(path)
                elif not folder.is_dir() or named:
                    unknown.append(path)
        if unknown:
            raise UserError(f"{unknown[0].name} is none of {', '.join(WORDS.values())}; leave it out, or it may be damaged: fetch it again")
        held = [k for k in kinds.values() if k.files and self.options.form in (None, k.form)]
        if len(held) == 1:
            return held[0]
        if held:
            told = " and ".join(f"{len(k.files)} of {WORDS[k.form]}" for k in held)
            raise UserError(f"the input holds {told}; a corpus is of one kind, choose with form={held[0].form}")
        asked = f" of form={self.options.form}" if self.options.form else ""
        raise UserError(f"{self.inputs[0]} holds no file{asked} that is read; expected {', '.join(WORDS.values())}")


def _sources() -> dict[Form, type[Source]]:
    from scigpt.data_prep.sources.segy import Segy

    return {"las": WellLogs, "fibre": Fibres, "segy": Segy}
