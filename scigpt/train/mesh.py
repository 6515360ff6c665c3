"""The mesh: the processes of a run along named dimensions.

`replicate` and `shard` split the data; along any other dimension (`tensor`, `context`) processes work on the same samples, so they
read the same batches without the data knowing of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

DATA = ("replicate", "shard")
"""Dimensions along which processes see different samples."""


@dataclass(frozen=True)
class Mesh:
    """Process `rank` in a mesh of `sizes`, name to number of processes; the last dimension varies fastest, so it stays within a node."""

    sizes: Mapping[str, int]
    rank: int

    def __post_init__(self) -> None:
        assert 0 <= self.rank < self.world

    @property
    def world(self) -> int:
        return math.prod(self.sizes.values())

    @property
    def coordinates(self) -> dict[str, int]:
        """This process's place along each dimension."""
        rest, found = self.rank, {}
        for name, size in reversed(list(self.sizes.items())):
            rest, found[name] = divmod(rest, size)
        return {name: found[name] for name in self.sizes}

    @property
    def data_world(self) -> int:
        """Number of different parts a batch is split into."""
        return math.prod(size for name, size in self.sizes.items() if name in DATA)

    @property
    def data_rank(self) -> int:
        """Which part this process reads."""
        rank, places = 0, self.coordinates
        for name, size in self.sizes.items():
            if name in DATA:
                rank = rank * size + places[name]
        return rank
