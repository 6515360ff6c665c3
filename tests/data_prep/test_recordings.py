"""Records cut at common positions: thinned positions, holes, groups of items that share a key, files that are one."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from scigpt.data_prep import recordings
from scigpt.data_prep.recordings import Along, connected, cut_together, segments_of, unique


def along(positions: np.ndarray) -> Along:
    return Along.of(positions, segments_of(positions, "x", "s"))


def test_records_are_cut_at_common_positions_whatever_their_steps_and_holes() -> None:
    rng = np.random.default_rng(0)
    places = [
        np.arange(0.0, 1000.0),
        np.arange(500.25, 1500.0),
        np.concatenate([np.arange(0.0, 300.0, 2.5), np.arange(1200.0, 1600.0, 2.5)]),
        np.arange(0.0, 1400.0) + 0.1 * rng.random(1400),
    ]
    cuts, enough = cut_together([along(p) for p in places], (0.6, 0.2, 0.2), 4)
    assert enough
    spans: dict[str, list[float]] = {}
    for p, own in zip(places, cuts, strict=True):
        for name, a, b in own:
            spans.setdefault(name, []).extend((p[a], p[b - 1]))
        for (_, _, stop), (_, start, _) in itertools.pairwise(own):
            assert start - stop >= 4 or p[start] - p[stop - 1] > 100  # a hole is gap enough
    assert max(spans["train"]) + 3.5 < min(spans["valid"])
    assert max(spans["valid"]) + 3.5 < min(spans["test"])


def test_of_very_many_positions_some_tell_where_to_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    records = [along(np.arange(0.0, 4000.0)), along(np.arange(2000.0, 6000.0))]
    whole, _ = cut_together(records, (0.8, 0.1, 0.1), 10)
    monkeypatch.setattr(recordings, "_MOST", 500)
    thin, enough = cut_together(records, (0.8, 0.1, 0.1), 10)
    assert enough
    assert [[n for n, _, _ in own] for own in thin] == [[n for n, _, _ in own] for own in whole]
    for a, b in zip(thin, whole, strict=True):
        np.testing.assert_allclose([x[1:] for x in a], [x[1:] for x in b], atol=40)


def test_too_few_positions_all_go_to_train() -> None:
    cuts, enough = cut_together([along(np.arange(5.0)), along(np.arange(6.0))], (0.8, 0.1, 0.1), 0)
    assert not enough
    assert cuts == [[("train", 0, 5)], [("train", 0, 6)]]


def test_items_that_share_a_key_are_of_one_group() -> None:
    assert connected([{"a"}, {"b"}, {"b", "c"}, {"d"}, {"c", "a"}, set()]) == [0, 0, 0, 3, 0, 5]


def test_a_file_is_one_however_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        Path(name).write_text(name)
    Path("link").symlink_to("a")
    assert unique([Path("b"), Path("./a"), tmp_path / "a", Path("link")]) == [tmp_path / "b", tmp_path / "a"]
