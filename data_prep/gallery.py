"""A corpus as one page: where it is from, what it holds and lacks, a histogram and a picture of each variable."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from scigpt.data.card import facts, tables
from scigpt.data.corpus import Corpus
from scigpt.data.files import write_bytes
from scigpt.data.sample import Sample
from scigpt.data.statistics import Moments
from scigpt.data_prep.portraits import histogram, portrait, timeline

LEVELS = 4
"""Pictures of a variable that has levels."""
TRIED = 8
"""Samples of which the one to be drawn is chosen."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG in base64."""

    data: str
    caption: str

    @classmethod
    def of(cls, figure: Figure, caption: str) -> Picture:
        buffer = io.BytesIO()
        FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
        return cls(base64.b64encode(buffer.getvalue()).decode(), caption)


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page: a table, pictures, or both."""

    title: str
    text: str = ""
    header: tuple[str, ...] = ()
    rows: tuple[tuple[Any, ...], ...] = ()
    pictures: tuple[Picture, ...] = ()


def page(corpus: Corpus, out: Path) -> Path:
    """Write one HTML file that needs nothing else.

    Args:
        corpus: an open corpus; one sample of it is drawn.
        out: the file; one that is there is replaced.

    Returns:
        `out`.

    Raises:
        UserError: a sample that cannot be read.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("scigpt.data_prep", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("gallery.html").render(manifest=corpus.manifest, facts=_facts(corpus), sections=list(_sections(corpus)))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(out, text.encode())
    return out


def _facts(corpus: Corpus) -> list[tuple[str, str]]:
    return [*facts(corpus.manifest), ("fingerprint", corpus.fingerprint)]


def _sections(corpus: Corpus) -> Iterator[Section]:
    drawn = {"Variables": _variables, "Time": _timeline}
    for table in tables(corpus.manifest, corpus.stats):
        pictures = drawn[table.title](corpus) if table.title in drawn else ()
        rows = tuple(tuple(str(cell).strip("`") for cell in row) for row in table.rows)
        yield Section(table.title, table.text, table.header, rows, tuple(pictures))


def _variables(corpus: Corpus) -> Iterator[Picture]:
    """Of each variable a histogram and a picture, of one with levels those of some, from the lowest number to the highest."""
    split = next(iter(corpus.splits))
    sample = _fullest(corpus, split)
    groups: dict[str, list[int]] = {}
    for c, variable in enumerate(corpus.layout.variables):
        groups.setdefault(variable.name, []).append(c)
    for channels in groups.values():
        chosen = sorted({channels[round(i)] for i in np.linspace(0, len(channels) - 1, LEVELS)})
        for c in chosen:
            variable = corpus.layout.variables[c]
            if (values := corpus.stats.channels[variable.key].values if variable.key in corpus.stats.channels else Moments()).count:
                yield Picture.of(histogram(values, variable), f"{variable.key}: values of the training split")
            if sample.valid[:, c].any():
                figure, caption = portrait(sample, c)
                yield Picture.of(figure, f"{caption}; split {split}")


def _fullest(corpus: Corpus, split: str) -> Sample:
    """Of some samples spread over the split the one with the largest share of valid values."""
    count = len(corpus.entries(split))
    some = sorted({round(i) for i in np.linspace(0, count - 1, TRIED)})
    return max((corpus.read(split, i) for i in some), key=lambda s: float(s.valid.mean()))


def _timeline(corpus: Corpus) -> Iterator[Picture]:
    splits = {n: corpus.manifest["splits"][n] for n in corpus.splits if "seconds" in corpus.manifest["splits"][n]}
    instants = {s for about in splits.values() for s in about["seconds"]}
    if corpus.manifest["calendar"] != "none" and len(instants) > 1:
        yield Picture.of(timeline(splits), "what each split covers; the longest holes are left white")
