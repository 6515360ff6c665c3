"""Domain: what a model has to know of a kind of data to be used on it, when the corpus itself is far away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from scigpt.data.normalize import Scales
from scigpt.data.sample import Layout

if TYPE_CHECKING:
    from scigpt.data.corpus import Corpus
    from scigpt.data.mixture import CorpusConfig, DataConfig


@dataclass(frozen=True, slots=True)
class Domain:
    """A corpus as training saw it.

    Args:
        name: of the corpus.
        layout: variables with units, roles and levels; grid, geometry, boundary, steadiness.
        calendar: a CF calendar, or "none" for simulated time.
        step: time between two frames of a window, in seconds (simulated time: in its own unit); the median where it varies; None where no
            time passes.
        varying: whether it varies, as months do.
        frames: length of a window, the last predicted frame included.
        patch: preferred size of a token, in points.
        crop: `(y, x)` size of the part of the grid that the model saw at once, None for all of it.
        scales: statistics of the training split.
        coefficients: least and largest value of each.
        coordinates: axes, unit and, of a regular axis, signed spacing of each.
    """

    name: str
    layout: Layout
    calendar: str
    step: float | None
    varying: bool
    frames: int
    patch: int
    crop: tuple[int, int] | None
    scales: Scales
    coefficients: Mapping[str, tuple[float, float]]
    coordinates: Mapping[str, Mapping[str, Any]]

    @classmethod
    def of(cls, corpus: Corpus, settings: CorpusConfig, data: DataConfig) -> Domain:
        """As a mixture sees a corpus.

        Raises:
            UserError: a window that does not fit the corpus, or one without a training split.
        """
        from scigpt.data.loader import scales_of
        from scigpt.data.mixture import Window

        window = Window.of(corpus, settings, settings.frames or data.frames)
        split = settings.train if settings.train in corpus.splits else corpus.splits[0]
        steps = corpus.stats.steps
        first = corpus.read(split, 0, None if corpus.layout.steady else slice(0, 1))
        coordinates = {name: {"axes": list(c.axes), "unit": c.unit, "spacing": spacing(c.values)} for name, c in first.coordinates.items()}
        return cls(
            corpus.name,
            corpus.layout,
            corpus.manifest["calendar"],
            None if corpus.stats.step is None else corpus.stats.step * window.stride,
            bool(steps.count) and steps.high - steps.low > 1e-6 * steps.high,
            window.frames,
            settings.patch or data.patch,
            window.crop,
            scales_of(corpus, settings),
            {name: (float(c["min"]), float(c["max"])) for name, c in corpus.manifest["coefficients"].items()},
            coordinates,
        )

    def to_json(self) -> dict[str, Any]:
        whole = asdict(self)
        return {**whole, "layout": self.layout.to_json(), "scales": self.scales.to_json(), "coordinates": dict(self.coordinates)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Domain:
        """Inverse of `to_json`, after a passage through JSON too."""
        crop = data["crop"]
        return cls(
            **{
                **data,
                "layout": Layout.from_json(data["layout"]),
                "crop": None if crop is None else (int(crop[0]), int(crop[1])),
                "scales": Scales.from_json(data["scales"]),
                "coefficients": {n: (float(low), float(high)) for n, (low, high) in data["coefficients"].items()},
            }
        )


def spacing(values: np.ndarray) -> float | None:
    """Of a regular axis, signed; None of an irregular one and of anything else."""
    if values.ndim != 1 or values.size < 2:
        return None
    steps = np.diff(values)
    mean = float(steps.mean())
    return mean if mean and bool((np.abs(steps - mean) <= 1e-3 * abs(mean)).all()) else None
