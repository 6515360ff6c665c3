"""What a run costs and reads, counted without training: parameters, data and FLOPs after any number of groups.

The order of the data is known beforehand, so the plan of a sweep and the result of a run come from the same few lines.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from scigpt.data.mixture import Mixture
from scigpt.data.patching import choose_patch, token_count
from scigpt.data.tasks import Task
from scigpt.model.backbone import ModelConfig, SciGPT, Vocabulary
from scigpt.model.sizes import forward_flops
from scigpt.train.memory import parts


@dataclass(frozen=True, slots=True)
class Data:
    """What was read of a corpus, or of all.

    Args:
        samples: windows, repeated ones too.
        tokens: patches of the frames that the model was given (one fewer than the window has).
        values: grid values in these frames, all variables counted, gaps too.
        unique_samples: different windows. An epoch tiles the records; the windows of the next one are shifted, and count as repeats.
        epochs: passes over the training split.
    """

    samples: int
    tokens: int
    values: int
    unique_samples: int
    epochs: float


@dataclass(frozen=True, slots=True)
class Account:
    """A run after some groups.

    Args:
        data: of all corpora.
        corpora: by corpus.
        flops: of training, three times the forward pass, by part (`scigpt.model.sizes.forward_flops`) and in `total`. What activation
            checkpointing computes again is not counted.
    """

    data: Data
    corpora: dict[str, Data]
    flops: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        data = asdict(self.data) | {"corpora": {name: asdict(d) for name, d in self.corpora.items()}}
        return {"data": data, "flops": self.flops}


def parameters(model: ModelConfig, vocabulary: Vocabulary) -> dict[str, int]:
    """Number of trainable parameters: `backbone` (blocks and conditions), `embedding` (tokenizer), `head` and their `total`. No storage is
    taken."""
    with torch.device("meta"):
        found = parts(SciGPT(model, vocabulary))
    by_part = {"backbone": found["blocks"] + found["conditions"], "embedding": found["tokenizer"], "head": found["head"]}
    return by_part | {"total": sum(by_part.values())}


def account(
    mixture: Mixture, model: ModelConfig, groups: int, micro_batch: int | None = None, tasks: Sequence[Task | None] | None = None
) -> Account:
    """Count `groups` groups of a mixture, read by one process in passes of at most `micro_batch` windows, which `tasks` (of each corpus, or
    None: forecasts) may show to the model in another shape.

    A pass costs a little whatever its number of windows: with several processes a step has more passes, and a few per mille more FLOPs
    than are counted here.
    """
    depth, width, _ = model.resolved()
    flops: Counter[str] = Counter()
    corpora: dict[str, Data] = {}
    tasks = tasks or (None,) * len(mixture.corpora)
    every = zip(
        mixture.corpora, mixture.windows, mixture.patches, mixture.sizes, mixture.epoch_windows, mixture.seen(groups), tasks, strict=True
    )
    for corpus, window, preferred, size, epoch, seen, task in every:
        z, y, x = corpus.layout.grid
        layout = replace(corpus.layout, grid=(z, *(window.crop or (y, x))))
        layout, many, length = (layout, 1, window.frames) if task is None else task.shape(layout, 1, window.frames)
        patch, frames = choose_patch(layout.grid, preferred, layout.geometry), many * (length - 1)
        tokens, points = frames * token_count(layout.grid, patch), frames * math.prod(layout.grid)
        values = points * len(layout.variables)
        corpora[corpus.name] = Data(seen, seen * tokens, seen * values, min(seen, epoch), seen / epoch)
        cuts = math.ceil(size / (micro_batch or size))
        for i in range(cuts):
            count = size * (i + 1) // cuts - size * i // cuts
            one = forward_flops(layout, patch, many * count, length, width, depth, model.window_tokens)
            flops.update({part: 3 * n * (seen // size) for part, n in one.items()})
    every_one = corpora.values()
    samples, unique = sum(d.samples for d in every_one), sum(d.unique_samples for d in every_one)
    whole = Data(samples, sum(d.tokens for d in every_one), sum(d.values for d in every_one), unique, samples / sum(mixture.epoch_windows))
    found = dict(flops)
    return Account(whole, corpora, {"total": sum(found.values()), **found})
