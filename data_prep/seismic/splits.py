"""How earthquakes and shots fall into splits: what is near in time, or shown by windows that overlap, stays together."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from scigpt.data_prep.blocks import SPLITS, shares


def clusters(times: Sequence[int], gap: float) -> list[int]:
    """For each instant (ns) the number of its cluster in time order; two that are less than `gap` seconds apart belong together."""
    order = np.argsort(np.asarray(times, np.int64), kind="stable")
    sorted_times = np.asarray(times, np.int64)[order]
    numbers = np.concatenate([[0], np.cumsum(np.diff(sorted_times) >= gap * 1e9)]) if len(times) else np.zeros(0, np.int64)
    found = np.empty(len(times), np.int64)
    found[order] = numbers
    return [int(n) for n in found]


def homes(sizes: Mapping[str, int], fractions: Sequence[float], seed: int | None, notes: list[str]) -> dict[str, str]:
    """The split of each group of samples: groups are never divided, and every wanted split gets one if there are enough.

    Args:
        sizes: samples of each group; in the order of time.
        seed: draws the groups; None keeps their order (train first, test last).
    """
    shares(1, fractions)
    wanted = [(name, f) for name, f in zip(SPLITS, fractions, strict=True) if f > 0]
    names, total = list(sizes), sum(sizes.values())
    if len(names) < len(wanted):
        notes.append(f"{len(names)} groups of events are too few for {len(wanted)} splits; all go to train")
        return dict.fromkeys(names, "train")
    if seed is not None:  # a sequence of aftershocks larger than what is to be held out comes first, where train is
        limit = 1.5 * total * min(f for _, f in wanted)
        names.sort(key=lambda n: (sizes[n] <= limit, hashlib.sha256(f"{seed}\0{n}".encode()).digest()))
    found: dict[str, str] = {}
    for position in range(len(wanted) - 1, 0, -1):
        split, fraction = wanted[position]
        tail = np.cumsum([sizes[n] for n in reversed(names)])[: len(names) - position]
        taken = int(np.argmin(np.abs(tail - fraction * total))) + 1
        found |= dict.fromkeys(names[-taken:], split)
        del names[-taken:]
    return found | dict.fromkeys(names, wanted[0][0])


def joined(groups: Sequence[int], spans: Sequence[tuple[str, int, int]], ordered: bool = False) -> list[int]:
    """Groups of windows, made one where windows of two overlap or touch at a station, because both show the same waves.

    Args:
        groups: the number of each window's group.
        spans: station, first instant and end of each window.
        ordered: the numbers follow time and shall go on to do so: what lies between two that are joined joins them.

    Returns:
        For each window the least number among its groups.
    """
    leader = {g: g for g in groups}

    def root(g: int) -> int:
        while leader[g] != g:
            leader[g] = g = leader[leader[g]]
        return g

    def join(a: int, b: int) -> None:
        a, b = root(a), root(b)
        leader[max(a, b)] = min(a, b)

    last: tuple[str, int, int] | None = None  # station, how far its windows reach, one of their groups
    for i in sorted(range(len(spans)), key=lambda i: spans[i]):
        station, first, end = spans[i]
        if last is not None and last[0] == station and first <= last[1]:
            join(groups[i], last[2])
            end = max(end, last[1])
        last = station, end, groups[i]
    if ordered:
        ends: dict[int, int] = {}
        for g in leader:
            ends[root(g)] = max(ends.get(root(g), g), g)
        reached = None
        for g in sorted(ends):
            if reached is not None and g < reached[1]:
                join(g, reached[0])
                reached = root(g), max(ends[g], reached[1])
            else:
                reached = g, ends[g]
    return [root(g) for g in groups]
