"""One dial, the depth, sets width and heads; an exact count of FLOPs."""

from __future__ import annotations

import math

from scigpt.data.patching import Extent, token_grid
from scigpt.data.sample import Layout
from scigpt.model.attention import choose_window
from scigpt.model.conditions import CLOCK_FEATURES
from scigpt.model.parametrization import REFERENCE_DEPTH, REFERENCE_WIDTH
from scigpt.model.tokenizer import MODES

DEPTHS = {"nano": 4, "tiny": 6, "small": 9, "base": 13, "large": 18, "xl": 24, "7b": 36}
"""About 1M, 6M, 29M, 123M, 470M, 1.4B and 6.9B parameters in the blocks."""


def width_of(depth: int) -> int:
    """`128 (depth / 4)^1.5` in steps of 64 (128 from 768 on): wide first, as sweeps of weather models advise."""
    width = REFERENCE_WIDTH * (depth / REFERENCE_DEPTH) ** 1.5
    step = 128 if width >= 700 else 64
    return max(64, step * round(width / step))


def heads_of(width: int) -> int:
    """Heads of 128 channels from width 768 on (attention kernels like them), 64 from 256 on, 32 below."""
    return width // (128 if width >= 768 else 64 if width >= 256 else 32)


def hidden_of(width: int) -> int:
    """Hidden width of the gated MLP: 8/3 of the width in steps of 64, so that it costs as much as a plain one of ratio 4."""
    return 64 * max(1, round(width * 8 / 3 / 64))


def forward_flops(layout: Layout, patch: Extent, count: int, frames: int, width: int, depth: int, window_limit: int) -> dict[str, int]:
    """Multiplications and additions (2 a pair) of the matrix products in one forward pass of `count` windows of `frames` frames, by part.

    `backbone` holds the linear maps of the blocks and of the conditions, `attention` the products of queries, keys and values, `embedding`
    and `head` the patches in and out. Elementwise work is left out, as torch's FLOP counter does. Training costs three times as much.
    Causal attention is counted in full.
    """
    t = frames - 1
    grid = token_grid(layout.grid, patch)
    n, points = math.prod(grid), math.prod(patch)
    tokens = count * t * n
    window = choose_window(grid, window_limit)
    seen = n if window is None else math.prod(window) + n // math.prod(window)
    linear = 2 * 8 * width**2 + 6 * width * hidden_of(width)  # two attentions and the MLP
    channels, predicted = len(layout.variables), sum(v.predicted for v in layout.variables)
    field = 2 * points * width * (tokens + len(MODES))  # one frame of one channel: its patches, and the kernel sampled at their points
    return {
        "backbone": depth * tokens * linear + 2 * count * t * width * (9 * width + CLOCK_FEATURES),
        "attention": depth * tokens * 4 * (seen + t) * width,
        "embedding": 2 * channels * field,
        "head": predicted * field,
    }
