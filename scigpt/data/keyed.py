"""Keyed randomness: every random choice is a function of (seed, position, purpose), so there is no state to save.

`permute` and `uniform` are integer arithmetic of this file alone: the order of the data does not depend on the version of a library.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

Part = int | str

_HALF_ROUNDS = 12


def key(*parts: Part) -> int:
    """64 bits that name a random choice: `key(seed, "crop", corpus, position)`. Other parts, or another order of them, give other bits."""
    text = json.dumps(parts, ensure_ascii=True, separators=(",", ":"))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def generator(*parts: Part) -> np.random.Generator:
    """A NumPy generator that belongs to `parts` alone."""
    return np.random.Generator(np.random.Philox(key=key(*parts)))


def torch_generator(*parts: Part, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator that belongs to `parts` alone."""
    import torch  # seconds, which those that need no tensors are spared

    return torch.Generator(device).manual_seed(key(*parts) >> 1)


def permute(i: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Where the permutation of `range(n)` named by `seed` sends each of `i`, computed at these points alone.

    A Feistel network on pairs `(left, right)` of `range(rows) x range(columns)`, the smallest near-square that holds n; the few values that
    land beyond n walk on along their cycle until they are back (Black and Rogaway 2002, "Ciphers with arbitrary finite domains").
    """
    rows = math.isqrt(max(n - 1, 0)) + 1
    columns = -(-n // rows)
    out = np.array(i, dtype=np.uint64, ndmin=1)
    assert (out < n).all(), f"{i} is outside range({n})"
    beyond = np.ones(out.shape, bool)
    while beyond.any():
        out[beyond] = _feistel(out[beyond], np.uint64(rows), np.uint64(columns), seed)
        beyond = out >= n
    return out.astype(np.int64)


def uniform(i: np.ndarray, n: np.ndarray | int, seed: int) -> np.ndarray:
    """For each of `i` a number of `range(n)` that belongs to `(seed, i)` alone."""
    return (_mix(np.array(i, np.uint64, ndmin=1), seed) % np.asarray(n, np.uint64)).astype(np.int64)


def _feistel(values: np.ndarray, rows: np.uint64, columns: np.uint64, seed: int) -> np.ndarray:
    left, right = values // columns, values % columns
    for round_ in range(0, _HALF_ROUNDS, 2):
        left = (left + _mix(right, seed + round_)) % rows
        right = (right + _mix(left, seed + round_ + 1)) % columns
    return left * columns + right


def _mix(values: np.ndarray, seed: int) -> np.ndarray:
    """Hash of 64 bits to 32 (so that a sum does not overflow): SplitMix64 (Steele, Lea and Flood 2014)."""
    z = values + np.uint64(seed * 0x9E3779B97F4A7C15 % 2**64)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z >> np.uint64(32)
