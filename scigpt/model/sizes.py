"""One dial, the depth, sets width, heads and learning rate; an exact count of FLOPs."""

from __future__ import annotations

import math

from scigpt.data.patching import Extent, token_grid
from scigpt.data.sample import Layout
from scigpt.model.attention import choose_window
from scigpt.model.conditions import CLOCK_FEATURES
from scigpt.model.tokenizer import MODES

DEPTHS = {"nano": 4, "tiny": 6, "small": 9, "base": 13, "large": 18, "xl": 24, "7b": 36}
"""About 1M, 6M, 29M, 123M, 470M, 1.4B and 6.9B parameters in the blocks."""
REFERENCE_WIDTH = 128


def width_of(depth: int) -> int:
    """`128 (depth / 4)^1.5` in steps of 64 (128 from 768 on): wide first, as sweeps of weather models advise."""
    width = REFERENCE_WIDTH * (depth / 4) ** 1.5
    step = 128 if width >= 700 else 64
    return max(64, step * round(width / step))


def heads_of(width: int) -> int:
    """Heads of 128 channels from width 768 on (attention kernels like them), 64 from 256 on, 32 below."""
    return width // (128 if width >= 768 else 64 if width >= 256 else 32)


def hidden_of(width: int) -> int:
    """Hidden width of the gated MLP: 8/3 of the width in steps of 64, so that it costs as much as a plain one of ratio 4."""
    return 64 * max(1, round(width * 8 / 3 / 64))


def learning_rate_scale(width: int) -> float:
    """Factor on the learning rate of matrices that sum over the width: falls as `1 / width` beyond the reference width, as in muP.

    The best rate of a small model then serves a large one. Narrower models than the reference keep its rate.
    """
    return min(1.0, REFERENCE_WIDTH / width)


def forward_flops(layout: Layout, patch: Extent, count: int, frames: int, width: int, depth: int, window_limit: int) -> int:
    """Multiplications and additions (2 a pair) of the matrix products in one forward pass of `count` windows of `frames` frames.

    Elementwise work is left out, as torch's FLOP counter does. Training costs three times as much. Causal attention is counted in full.
    """
    t = frames - 1
    grid = token_grid(layout.grid, patch)
    n, points = math.prod(grid), math.prod(patch)
    tokens = count * t * n
    window = choose_window(grid, window_limit)
    seen = n if window is None else math.prod(window) + n // math.prod(window)
    linear = 2 * 8 * width**2 + 6 * width * hidden_of(width)  # two attentions and the MLP
    blocks = depth * tokens * (linear + 4 * (seen + t) * width)
    channels, predicted = len(layout.variables), sum(v.predicted for v in layout.variables)
    patches = 2 * points * width * tokens * (2 * channels + predicted)
    kernels = 2 * points * len(MODES) * width * (2 * channels + predicted)
    conditions = 2 * count * t * width * (9 * width + CLOCK_FEATURES)
    return blocks + patches + kernels + conditions
