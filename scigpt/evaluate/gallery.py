"""All pictures of one split, as files beside the page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from scigpt.evaluate import pictures
from scigpt.evaluate.animation import animate
from scigpt.evaluate.curves import drift_figure, lead_time_figure, spectra_figure
from scigpt.evaluate.drawing import label, shown_variables
from scigpt.evaluate.head_figures import answers_figure, reliability_figure
from scigpt.evaluate.study import Study


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG or GIF file, by its name within the card's folder."""

    file: str
    caption: str


def draw(study: Study, folder: Path, stem: str) -> list[Picture]:
    """Draw everything of one split into `folder`, as `STEM-*.png` and, of fields in two or three dimensions, `STEM-animation.gif`."""
    made = []
    for figure, name, caption in _figures(study):
        file = f"{stem}-{re.sub(r'[^A-Za-z0-9]+', '-', name).strip('-')}.png"
        FigureCanvasAgg(figure).print_png(folder / file, metadata={"Software": None})
        made.append(Picture(file, caption))
    if study.rollout is not None and len(pictures.wide_axes(study.rollout.sample)) > 1:
        file = f"{stem}-animation.gif"
        made.append(Picture(file, animate(study.rollout, folder / file)))
    return made


def _figures(study: Study) -> Iterator[tuple[Figure, str, str]]:
    """Figure, name, caption."""
    numbers = study.numbers
    if study.one_step is None:
        yield answers_figure(numbers["answers"]), "answers", "what the model said against what was true"
        return
    sample = study.one_step.sample
    for c, variable in shown_variables(sample):
        for figure, what in pictures.one_step(study.one_step, c):
            yield figure, f"{variable.key}-{what}", f"{label(variable)}: {what}"
    if numbers.get("reliability"):
        yield reliability_figure(numbers["reliability"]), "reliability", "observed share at or below each quantile; the diagonal is right"
    rollout = numbers["rollout"]
    spectra = {"one step": numbers["spectra"]} | {f"leads {s}": found for s, found in (rollout or {"spectra": {}})["spectra"].items()}
    spectra = {name: found for name, found in spectra.items() if found is not None}
    if spectra:
        yield spectra_figure(spectra, sample), "spectra", "power spectra of truth, prediction and error; bands by dotted lines"
    if rollout is None or study.rollout is None:
        return
    yield lead_time_figure(rollout, sample), "lead-time", "VRMSE against lead time"
    if rollout["drift"]:
        yield drift_figure(rollout, sample), "drift", "drift of the mean and of the mean square over the rollout"
    for c, variable in shown_variables(sample):
        for figure, what in pictures.rollout(study.rollout, c):
            yield figure, f"{variable.key}-{what}", f"{label(variable)}: {what}"
