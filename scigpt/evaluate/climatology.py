"""Climatology: the mean of each calendar month at each point, over the training split."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from scigpt.data.batches import Batch
from scigpt.data.corpus import Corpus
from scigpt.data.mixture import CorpusConfig, Item, Window
from scigpt.data.normalize import Scales
from scigpt.data.sample import Sample, Time

MONTHS = 12
LEAST_MONTHS = 24
"""Different months (of a year) that the training split must hold: two years."""
_YEAR = 360 * 86400.0
"""Seconds of the shortest calendar year."""


@dataclass(frozen=True, slots=True)
class Climatology:
    """`means` `(12, C, Z, Y, X)` float32 in the variables' units, on the whole grid."""

    means: Tensor

    @classmethod
    def of(cls, corpus: Corpus, config: CorpusConfig, scales: Scales, progress: bool = False) -> Climatology | None:
        """Stream the training split; None for simulated time, less than two years of it, or records of different places.

        Means are taken in transform space, like the training mean, which stands in where a point has no valid value. A month in which a
        point was never valid has the point's own mean.
        """
        manifest, split = corpus.manifest, config.train
        if manifest["calendar"] == "none" or corpus.layout.steady or split not in corpus.splits or not corpus.entries(split):
            return None
        entries, step = corpus.entries(split), manifest["step"]
        if step is not None and step * sum(e.frames for e in entries) < 2 * _YEAR * (1 - 1 / LEAST_MONTHS):
            return None
        shape = (MONTHS, len(corpus.layout.variables), *corpus.layout.grid)
        total, count = np.zeros(shape), np.zeros(shape, np.int32)
        seen: set[tuple[int, int]] = set()
        place: dict[str, np.ndarray] | None = None
        label = f"{corpus.name} climatology"
        for i in tqdm(range(len(entries)), desc=label, unit="record", file=sys.stderr, disable=not progress, mininterval=2.0):
            sample = corpus.read(split, i)
            here = {n: c.values for n, c in sample.coordinates.items()}
            if place is None:
                place = here
            elif here.keys() != place.keys() or any(not np.array_equal(here[n], place[n], equal_nan=True) for n in here):
                return None
            _add(sample, scales, total, count, seen)
        if len(seen) < LEAST_MONTHS:
            return None
        everything = count.sum(0)
        own = np.where(everything > 0, total.sum(0) / np.maximum(everything, 1), 0.0)
        means = torch.from_numpy(np.where(count > 0, total / np.maximum(count, 1), own))
        return cls(scales.inverse(means[:, None])[:, 0].float())

    def at(self, batch: Batch, items: Sequence[Item], window: Window) -> Tensor:
        """The mean for each frame of each window of a batch, `(B, T, C, Z, Y, X)`."""
        fields = []
        for seconds, item in zip(batch.seconds.cpu().numpy(), items, strict=True):
            _, y, x = window.slices(item)
            month = [d.month - 1 for d in Time(seconds, batch.calendar).dates()]
            fields.append(self.means[month][..., y or slice(None), x or slice(None)])
        return torch.stack(fields).to(batch.values.device)


def _add(sample: Sample, scales: Scales, total: np.ndarray, count: np.ndarray, seen: set[tuple[int, int]]) -> None:
    dates = sample.time.dates()
    seen |= {(d.year, d.month) for d in dates}
    values = torch.from_numpy(np.where(sample.valid, sample.values, 0.0))[None].double()
    z = scales.forward(values)[0].numpy()
    for t, date in enumerate(dates):
        total[date.month - 1] += np.where(sample.valid[t], z[t], 0.0)
        count[date.month - 1] += sample.valid[t]
