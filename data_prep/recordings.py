"""Records without a common clock (seismograms, well logs, fibres): dealt to splits whole or cut along themselves, then into samples."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scigpt.data.gaps import HOLE
from scigpt.data_prep.blocks import pieces, shares, time_blocks
from scigpt.data_prep.files import locate, members
from scigpt.data_prep.source import SampleRef, Split
from scigpt.errors import UserError


@dataclass(frozen=True)
class Recorded:
    """One record still to be cut.

    Args:
        name: begins the keys of its samples.
        whole: what a split by event, station, well or file keeps together.
        segments: ranges of frames without a hole.
        spec: JSON that says, with the range of frames, what to read.
    """

    name: str
    whole: str
    segments: tuple[tuple[int, int], ...]
    spec: Mapping[str, Any]


def deal(
    records: Sequence[Recorded],
    fractions: Sequence[float],
    gap: int,
    frames: int,
    split: str | None,
    whole: str | None,
    notes: list[str],
) -> tuple[tuple[SampleRef, ...], tuple[Split, ...]]:
    """The samples of all records, grouped by split.

    Args:
        gap: frames left out between the splits of a record that is cut.
        frames: longest sample.
        split: the one split for everything.
        whole: how to call what stays whole (`event`); None cuts every record along itself.
    """
    names = list(dict.fromkeys(r.whole for r in records))
    drawn = sorted(names, key=lambda n: hashlib.sha256(n.encode()).digest())
    parts = shares(len(drawn), fractions)
    if whole is not None and split is None and any(start == stop for _, start, stop in parts):
        notes.append(f"{len(names)} of split_by {whole} are too few to be split; every record is cut along itself instead")
        whole = None
    homes = {name: s for s, start, stop in parts for name in drawn[start:stop]}
    found: dict[str, list[SampleRef]] = {}
    short = 0
    for index, record in enumerate(records):
        slug = re.sub(r"[^a-z0-9]+", "-", record.name.lower()).strip("-")[:60] or "record"
        last = record.segments[-1][1]
        if split is not None or whole is not None:
            blocks = [(split or homes[record.whole], 0, last)]
        else:
            blocks = time_blocks(last, fractions, gap)
            short += len(blocks) < len(parts)
        for home, first, end in blocks:
            for low, high in record.segments:
                for a, b in pieces(max(low, first), min(high, end), frames) if min(high, end) > max(low, first) else ():
                    ref = SampleRef(f"{slug}-{index:04d}-{a:09d}", home, {**record.spec, "start": int(a), "stop": int(b)})
                    found.setdefault(home, []).append(ref)
    if short:
        notes.append(f"{short} of {len(records)} records are too short to be split; they go to train whole")
    order = [s for s in ("train", "valid", "test") if s in found] + [s for s in found if s not in ("train", "valid", "test")]
    return tuple(ref for s in order for ref in found[s]), tuple(Split(s, "out" if s == "ood" else "in") for s in order)


def segments_of(positions: np.ndarray, where: str, unit: str) -> tuple[tuple[int, int], ...]:
    """Ranges of the rising positions (times, depths) of one usual step; cut where there is a hole.

    Raises:
        UserError: positions that do not rise, or steps shorter than the usual one.
    """
    steps = np.diff(positions)
    if not steps.size:
        return ((0, len(positions)),)
    usual = float(np.median(steps))
    wrong = (steps <= 0) | (steps < usual / HOLE)
    if wrong.any():
        at = int(np.argmax(wrong)) + 1
        raise UserError(
            f"{where}: {positions[at]:.9g} {unit} comes after {positions[at - 1]:.9g} {unit} where the usual step is {usual:.6g} {unit}; "
            "expected rising positions at one step, the file may be damaged or must be resampled first"
        )
    cuts = [0, *(np.flatnonzero(steps > HOLE * usual) + 1).tolist(), len(positions)]
    return tuple(itertools.pairwise(cuts))


def files_of(inputs: Iterable[Path], source: str, suffixes: Sequence[str]) -> list[Path]:
    """The files given, and those of folders given that end as asked, each once.

    Raises:
        UserError: no input, nothing there, or a folder without such a file.
    """
    files: list[Path] = []
    for each in inputs:
        path = locate(each)
        fitting = [p for p in members(path) if p.name.lower().endswith(tuple(suffixes))] if path.is_dir() else [path]
        if not fitting:
            raise UserError(f"the folder {path} has no file that ends with {', '.join(suffixes)}; check the path given as --input")
        files += [locate(p) for p in fitting]
    if not files:
        raise UserError(f"the source {source} needs a file: give --input PATH")
    return list(dict.fromkeys(files))
