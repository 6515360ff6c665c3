"""Stations that lie near each other: in one sample because they tell of one weather, in one split because they give each other away."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from scigpt.data_prep.blocks import shares

EARTH_RADIUS = 6371.0
"""Kilometres."""


def on_sphere(places: np.ndarray) -> np.ndarray:
    """Latitude and longitude in degrees `(N, 2)` as points of the unit sphere `(N, 3)`."""
    phi, lam = np.deg2rad(places).T
    return np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], 1)


def groups_of(places: np.ndarray, size: int) -> list[list[int]]:
    """Every place in groups of exactly `size` (at most N), each of places that lie near each other: the longest side of the set is cut
    again and again. Where the count does not come out even, groups share a place or two with their neighbours.
    """
    points = on_sphere(places)
    count = -(-len(points) // size)
    found: list[np.ndarray] = []

    def cut(own: np.ndarray, parts: int) -> None:
        if parts == 1:
            found.append(own)
            return
        axis = int(np.argmax(np.ptp(points[own], axis=0)))
        ordered = own[np.argsort(points[own, axis], kind="stable")]
        left = parts // 2
        at = round(len(own) * left / parts)
        cut(ordered[:at], left)
        cut(ordered[at:], parts - left)

    cut(np.arange(len(points)), count)
    return [sorted(_filled(own, points, size)) for own in found]


def _filled(own: np.ndarray, points: np.ndarray, size: int) -> list[int]:
    """A group that is too small takes in the nearest of the others."""
    if len(own) >= size:
        return own.tolist()
    distance = np.linalg.norm(points - points[own].mean(0), axis=1)
    distance[own] = -1.0
    return np.argsort(distance, kind="stable")[:size].tolist()


def together(places: np.ndarray, kilometres: float) -> np.ndarray:
    """The cluster of each place `(N,)`: places nearer than that to any of a cluster are in it."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    chord = 2 * np.sin(min(kilometres / EARTH_RADIUS, np.pi) / 2)
    pairs = cKDTree(on_sphere(places)).query_pairs(chord, output_type="ndarray")
    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(places),) * 2)
    return connected_components(graph, directed=False)[1]


def homes(
    wholes: Sequence[str], places: np.ndarray, kilometres: float, fractions: Sequence[float], notes: list[str]
) -> dict[str, list[int]]:
    """The places of each split, drawn by the hash of their names; those of one name, or near each other, stay together."""
    cluster = together(places, kilometres)
    names = {whole: i for i, whole in enumerate(dict.fromkeys(wholes))}
    leader = list(range(len(names) + int(cluster.max()) + 1))

    def root(i: int) -> int:
        while leader[i] != i:
            leader[i] = leader[leader[i]]
            i = leader[i]
        return i

    for whole, near in zip(wholes, cluster.tolist(), strict=True):
        leader[root(len(names) + near)] = root(names[whole])
    sets: dict[int, list[int]] = {}
    for i, whole in enumerate(wholes):
        sets.setdefault(root(names[whole]), []).append(i)
    drawn = sorted(sets.values(), key=lambda own: hashlib.sha256(min(wholes[i] for i in own).encode()).digest())
    parts = shares(len(drawn), fractions)
    if any(start == stop for _, start, stop in parts):
        notes.append(f"{len(drawn)} places (stations within {kilometres:g} km are one) are too few to be split; all go to train")
        return {"train": list(range(len(wholes)))}
    return {name: sorted(i for own in drawn[start:stop] for i in own) for name, start, stop in parts}
