"""Blocks cover an array once, in order, and are never larger than what stays in the cache."""

from __future__ import annotations

import numpy as np
import pytest

from scigpt.data.in_cache import SIZE, blocks, table


@pytest.mark.parametrize("shape", [(0, 5), (1, 1), (7, 3), (3, SIZE), (2, 3 * SIZE + 1), (SIZE + 5, 1), (4, SIZE - 1)])
def test_blocks_cover_everything_once(shape: tuple[int, int]) -> None:
    seen = np.zeros(shape, np.int8)
    for y, x in blocks(*shape):
        assert 0 < (y.stop - y.start) * (x.stop - x.start) <= SIZE
        seen[y, x] += 1
    assert (seen == 1).all()


def test_a_channel_of_a_sample_is_seen_without_a_copy() -> None:
    values = np.zeros((4, 3, 1, 5, 6), np.float32)
    channel = table(values[:, 1])
    channel[2, 7] = 1
    assert values[2, 1, 0, 1, 1] == 1
    assert channel.shape == (4, 30)
