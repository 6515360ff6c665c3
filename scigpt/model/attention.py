"""One attention function; space attention within a frame (full or windowed) and causal attention in time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from scigpt.data.constant import constant
from scigpt.data.patching import Extent
from scigpt.errors import UserError
from scigpt.model.parametrization import residual_spread

Kernel = Literal["sdpa", "flash"]
KERNELS: tuple[Kernel, ...] = get_args(Kernel)
HOPPER = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""From the fastest on: there cuDNN is 1.5 times as fast as torch's FlashAttention 2 at 128 channels a head."""
MASKED = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""With a mask, cuDNN's backward pass has given NaN at lengths of 64 mod 128 where all scores of a row are far below 0 (pytorch#196678), and
FlashAttention takes none."""

SHORT = {torch.float32: 16, torch.bfloat16: 256}
"""Most tokens that attend to each other by plain products on a CPU, where torch's fused kernel has tiles for longer sequences."""

_SHATTERED = 64
"""Windows smaller than this part of the limit are not used."""


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False, kernel: Kernel = "sdpa") -> Tensor:
    """Softmax attention over `(B, H, N, d)`; `mask` (bool, True = may look) only where something is masked.

    Raises:
        UserError: the flash kernel asked for and not installed, or for float32.
    """
    if kernel == "flash" and mask is None:
        if v.dtype == torch.float32:
            raise UserError("model.attention=flash has no float32; set train.precision=bf16, or model.attention=sdpa")
        # autocast on a GPU leaves normed queries and keys in float32
        q, k, v = (t.to(v.dtype).transpose(1, 2) for t in (q, k, v))
        return flash_attention()(q, k, v, causal=causal).transpose(1, 2)
    if mask is not None and q.is_cuda:
        with sdpa_kernel(MASKED):
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    short = q.device.type == "cpu" and q.shape[2] == k.shape[2] <= SHORT.get(v.dtype, 0)
    if short and mask is None and not torch.compiler.is_compiling():
        return _products(q, k, v, causal)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal and mask is None)


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """Context of a prediction, on a CPU, of what a GPU will do: without what a CPU alone does."""
    kept = dict(SHORT)
    SHORT.clear()
    try:
        yield
    finally:
        SHORT.update(kept)


def _products(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    heads, count, scale = q.shape[:2], q.shape[2], q.shape[3] ** -0.5
    q, k, v = (t.flatten(0, 1) for t in (q, k, v))
    later = _later(count, q.dtype) if causal else q.new_zeros(1)
    scores = torch.baddbmm(later, q, k.transpose(1, 2), beta=float(causal), alpha=scale)
    return torch.bmm(scores.softmax(-1), v).unflatten(0, heads)


def preferred_kernels() -> AbstractContextManager[object]:
    """Context of training: on a Hopper GPU, torch's kernels in the order of `HOPPER`; elsewhere torch's own choice.

    It is around the loop and not in `attention`: within a compiled graph it would keep the graph out of the compiler's cache on disk
    (pytorch#194007), and the backward pass of a checkpointed block must choose as the forward pass did.
    """
    hopper = torch.cuda.is_available() and torch.version.hip is None and torch.cuda.get_device_capability()[0] == 9
    return sdpa_kernel(HOPPER, set_priority=True) if hopper else nullcontext()


def flash_attention() -> Callable[..., Tensor]:
    """The function of flash-attn, or a sentence that says how to get it."""
    try:
        from flash_attn import flash_attn_func  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        raise UserError("model.attention=flash needs flash-attn: pip install 'scigpt[flash]', or set model.attention=sdpa") from None
    return flash_attn_func


def rotate(x: Tensor, phases: Tensor) -> Tensor:
    """Rotary positions: pairs of the last axis turned by `phases` (cosine and sine on a last axis of 2), broadcast over the axes before."""
    if torch.compiler.is_compiling():  # neither inductor nor ONNX writes code for complex numbers; uncompiled they take half the time
        real, imaginary = x.float().unflatten(-1, (-1, 2)).unbind(-1)
        cosine, sine = phases.unbind(-1)
        return torch.stack([real * cosine - imaginary * sine, real * sine + imaginary * cosine], -1).flatten(-2).to(x.dtype)
    pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * torch.view_as_complex(phases)).flatten(-2).to(x.dtype)


class Projections(nn.Module):
    """Fused query, key, value with query-key norm, and the output projection."""

    def __init__(self, width: int, heads: int, depth: int, kernel: Kernel) -> None:
        super().__init__()
        if kernel == "flash":
            flash_attention()  # whether it is there is told now, not in the first step
        self.heads, self.kernel = heads, kernel
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.query_norm = nn.LayerNorm(width // heads, bias=False)
        self.key_norm = nn.LayerNorm(width // heads, bias=False)
        self.spread = {"qkv.weight": width**-0.5, "out.weight": residual_spread(depth, width)}

    def split(self, x: Tensor, phases: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`(..., N, D)` to rotated q, k and v `(..., N, H, d)`; phases `(..., N, 1, d/2, 2)`."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(-3)
        return rotate(self.query_norm(q), phases), rotate(self.key_norm(k), phases), v


class SpaceAttention(Projections):
    """Attention among the tokens of one frame: all of them, or those of a window and one summary of every window.

    Windows tile the token grid exactly (`choose_window`). The summaries are the mean keys and values of each window: no parameters, and
    no region is out of sight.
    """

    def forward(self, x: Tensor, phases: Tensor, grid: Extent, window: Extent | None) -> Tensor:
        """`x` `(B, T, N, D)`, phases `(1 or B, 1, N, 1, d/2, 2)`; `window` in tokens, None for full attention."""
        b, t, n, d = x.shape
        q, k, v = (y.transpose(2, 3) for y in self.split(x, phases))  # (B, T, H, N, d)
        if window is None:
            y = attention(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), kernel=self.kernel)
            y = y.unflatten(0, (b, t)).transpose(2, 3)
        else:
            y = self._windowed(q, k, v, grid, window)
        return self.out(y.reshape(b, t, n, d))

    def _windowed(self, q: Tensor, k: Tensor, v: Tensor, grid: Extent, window: Extent) -> Tensor:
        b, t, h, n, d = q.shape

        def cut(y: Tensor) -> Tensor:  # (B T, windows, H, tokens of a window, d)
            y = y.reshape(b * t, h, grid[0] // window[0], window[0], grid[1] // window[1], window[1], grid[2] // window[2], window[2], d)
            return y.permute(0, 2, 4, 6, 1, 3, 5, 7, 8).reshape(b * t, -1, h, math.prod(window), d)

        q, k, v = cut(q), cut(k), cut(v)
        count = q.shape[1]

        def with_summaries(y: Tensor) -> Tensor:
            summary = y.mean(3).transpose(1, 2)  # (B T, H, windows, d)
            return torch.cat([y, summary[:, None].expand(-1, count, -1, -1, -1)], dim=3)

        y = attention(q.flatten(0, 1), with_summaries(k).flatten(0, 1), with_summaries(v).flatten(0, 1), kernel=self.kernel)
        y = y.reshape(b * t, *(g // w for g, w in zip(grid, window, strict=True)), h, *window, d)
        y = y.permute(0, 4, 1, 5, 2, 6, 3, 7, 8)
        return y.reshape(b, t, h, n, d).transpose(2, 3)


def half_window(grid: Extent, window: Extent | None) -> Extent:
    """What the tokens move by before every second block, so that what is near in one block is at the border of a window in the next."""
    z, y, x = (0 if window is None or window[axis] == grid[axis] else window[axis] // 2 for axis in range(3))
    return -z, -y, -x


def opposite(turn: Extent) -> Extent:
    z, y, x = turn
    return -z, -y, -x


def moved(tokens: Tensor, grid: Extent, by: Extent) -> Tensor:
    """Tokens `(B, T, N, ...)` rolled around along the axes of their grid."""
    return tokens.unflatten(2, grid).roll(by, (2, 3, 4)).flatten(2, 4)


class TimeAttention(Projections):
    """Causal attention of each token over its own past, at most `reach` frames back."""

    def forward(self, x: Tensor, phases: Tensor, reach: int, memory: Memory | None = None) -> Tensor:
        """`x` `(B, T, N, D)`, phases `(1 or B, T, 1, 1, d/2, 2)`; `memory` holds the frames before and takes in these."""
        b, t, n, d = x.shape
        q, k, v = (y.permute(0, 2, 3, 1, 4).flatten(0, 1) for y in self.split(x, phases))  # (B N, H, T, d)
        if memory is not None:
            k, v = memory.extended(k, v, reach)
        seen = k.shape[2]
        if memory is None and seen <= reach:
            y = attention(q, k, v, causal=True, kernel=self.kernel)
        else:  # a single frame sees all that is kept
            y = attention(q, k, v, mask=None if t == 1 else _band(t, seen, reach, x.device), kernel=self.kernel)
        y = y.unflatten(0, (b, n)).permute(0, 3, 1, 2, 4)
        return self.out(y.reshape(b, t, n, d))


class Memory:
    """Keys and values of the frames that a block's time attention has seen: those that the next frame may look at.

    They lie in one buffer with room behind them, so that a step writes its own and copies no others.
    """

    def __init__(self) -> None:
        self._buffer: Tensor | None = None  # (2, B N, H, room, d)
        self._first, self._end = 0, 0

    def __len__(self) -> int:
        return self._end - self._first

    def extended(self, k: Tensor, v: Tensor, reach: int) -> tuple[Tensor, Tensor]:
        """`(B N, H, T, d)`: what is kept and, behind it, what is new."""
        count = k.shape[2]
        self._first = max(self._first, self._end - reach + 1)
        if self._buffer is None or self._end + count > self._buffer.shape[3]:
            size = len(self) + count
            buffer = k.new_empty(2, *k.shape[:2], max(16, 2 * size), k.shape[3])
            if self._buffer is not None:
                buffer[:, :, :, : len(self)] = self._buffer[:, :, :, self._first : self._end]
            self._buffer, self._first, self._end = buffer, 0, len(self)
        new = slice(self._end, self._end + count)
        self._buffer[0, :, :, new], self._buffer[1, :, :, new] = k, v
        self._end += count
        seen = self._buffer[:, :, :, self._first : self._end]
        return seen[0], seen[1]


@constant
def _later(count: int, dtype: torch.dtype) -> Tensor:
    """Added to scores: minus infinity where a frame would look at a later one."""
    return torch.full((count, count), -math.inf, dtype=dtype).triu(1)


@constant
def _band(frames: int, seen: int, reach: int, device: torch.device) -> Tensor:
    """True where frame i, of the last `frames` of those that are seen, may look at frame j: `i - reach < j <= i`."""
    i = torch.arange(seen - frames, seen, device=device)
    back = i[:, None] - torch.arange(seen, device=device)[None, :]
    return (back >= 0) & (back < reach)


@lru_cache(maxsize=256)
def choose_window(grid: Extent, limit: int) -> Extent | None:
    """The window, in tokens, that divides the grid exactly, holds at most `limit` tokens, as many as possible, as cubic as possible.

    None where the whole grid fits, and where nothing near the limit divides it (stations whose number is a prime): every window holds a
    copy of all summaries, and tiny windows need more memory than full attention. A map of prime sides gives strips.
    """
    if math.prod(grid) <= limit:
        return None
    divisors = [[w for w in range(1, side + 1) if side % w == 0] for side in grid]
    best: tuple[float, Extent] | None = None
    for z in divisors[0]:
        for y in divisors[1]:
            for x in divisors[2]:
                size = z * y * x
                # a window of half the limit that is square beats a full strip
                spread = max(z / grid[0], y / grid[1], x / grid[2]) if size == 1 else max(z, y, x) / size ** (1 / sum(g > 1 for g in grid))
                score = size / limit / spread**0.5
                if size <= limit and (best is None or score > best[0]):
                    best = (score, (z, y, x))
    assert best is not None
    return best[1] if _SHATTERED * math.prod(best[1]) >= limit else None
