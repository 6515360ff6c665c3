"""Picks of made-up traces, matching against all permutations, and scores against scikit-learn."""

from __future__ import annotations

from itertools import pairwise, permutations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_fscore_support
from toys import make_batch

from scigpt.data.normalize import normalize
from scigpt.errors import UserError
from scigpt.evaluate.further import PickTally
from scigpt.evaluate.picking import Picks, match, pick, score_picks
from scigpt.model.backbone import Prediction
from scigpt.model.heads import Labels


def bumps(samples: int, *peaks: tuple[float, float]) -> np.ndarray:
    """A trace with Gaussian bumps of the given centre and height."""
    time = np.arange(samples)
    return np.max([height * np.exp(-0.5 * ((time - centre) / 3) ** 2) for centre, height in peaks], 0)


def made(*samples: int) -> Picks:
    """Picks of falling probability."""
    order = np.argsort(samples)
    return Picks(np.array(samples, np.int64)[order], (0.9 - 0.1 * np.arange(len(samples)))[order])


def test_peaks_above_the_threshold_and_apart() -> None:
    trace = bumps(200, (40, 0.9), (52, 0.6), (120, 0.4), (160, 0.2))
    (found,) = pick(trace[None], threshold=0.4)
    assert found.samples.tolist() == [40, 52, 120]
    assert found.probability.tolist() == pytest.approx([0.9, 0.6, 0.4])
    assert [p.samples.tolist() for p in pick(trace[None], threshold=0.41)] == [[40, 52]]
    assert [p.samples.tolist() for p in pick(trace[None], threshold=0.3, distance=20)] == [[40, 120]]
    assert found.strongest(2).tolist() == [40, 52]


def test_ends_flat_peaks_and_traces_without_any() -> None:
    traces = np.zeros((5, 9), np.float32)
    traces[0, 0], traces[1, 8], traces[2, 3:6], traces[4] = 1, 1, 1, np.nan
    assert [p.samples.tolist() for p in pick(traces)] == [[0], [8], [4], [], []]


def test_scores_by_hand() -> None:
    # the second trace: 110 is strongest and false, 62 meets 60; the third: nothing to find; the fourth: missed
    picks = [made(48, 101), made(110, 62), made(7), made(), made(31)]
    arrivals = [np.array([50.0, 100.0]), np.array([60.0]), np.array([]), np.array([20.0]), np.array([30.5])]
    found = score_picks(picks, arrivals, tolerance=2)
    assert (found.picks, found.arrivals, found.matches) == (6, 5, 4)
    assert found.precision == pytest.approx(4 / 6)
    assert found.recall == pytest.approx(4 / 5)
    assert found.f1 == pytest.approx(8 / 11)
    residuals = np.array([-2, 1, 2, 0.5])
    assert found.residual_mean == pytest.approx(residuals.mean())
    assert found.residual_std == pytest.approx(residuals.std())
    assert found.residual_mae == pytest.approx(np.abs(residuals).mean())
    assert found.within == pytest.approx(2 / 4)
    table = np.array([[50, 100], [60, np.nan], [np.nan, np.nan], [20, np.nan], [30.5, np.nan]])
    assert score_picks(picks, table, tolerance=2) == found


def test_a_share_of_nothing_is_nan() -> None:
    nothing = score_picks([made()], [np.array([])], tolerance=3)
    assert np.isnan([nothing.precision, nothing.recall, nothing.f1, nothing.residual_mean, nothing.residual_std, nothing.within]).all()
    missed = score_picks([made()], [np.array([4.0])], tolerance=3)
    assert np.isnan(missed.precision)
    assert (missed.recall, missed.f1, missed.within) == (0, 0, 0)


def test_equal_to_scikit_learn_where_every_event_has_a_stretch_of_its_own() -> None:
    rng = np.random.default_rng(1)
    there, said = rng.random((30, 8)) < 0.6, rng.random((30, 8)) < 0.7
    offset = rng.integers(-3, 4, (30, 8))
    centre = 20 + 40 * np.arange(8)
    traces = np.stack(
        [bumps(360, (-100, 0), *[(c + o, 0.8) for c, o in zip(centre[s], d[s], strict=True)]) for s, d in zip(said, offset, strict=True)]
    )
    found = score_picks(pick(traces, 0.5), [centre[t] for t in there], tolerance=3)
    precision, recall, f1, _ = precision_recall_fscore_support(there.ravel(), said.ravel(), average="binary")
    assert (found.precision, found.recall, found.f1) == pytest.approx((precision, recall, f1), abs=1e-12)
    residuals = offset[there & said]
    assert (found.residual_mean, found.residual_std) == pytest.approx((residuals.mean(), residuals.std()), abs=1e-12)
    assert found.residual_mae == pytest.approx(np.abs(residuals).mean(), abs=1e-12)


def test_two_far_pairs_are_worth_more_than_one_near_pair() -> None:
    rows, columns = match(np.array([10, 16]), np.array([16.0, 22.0]), 6)
    assert (rows.tolist(), columns.tolist()) == ([0, 1], [0, 1])
    rows, columns = match(np.array([10, 16]), np.array([16.0, 22.0]), 5)
    assert (rows.tolist(), columns.tolist()) == ([1], [0])


@given(
    picked=st.lists(st.integers(0, 20), max_size=4, unique=True),
    true=st.lists(st.integers(0, 40).map(lambda n: n / 2), max_size=4, unique=True),
    tolerance=st.sampled_from([0, 1, 2.5, 6]),
)
def test_as_many_pairs_as_can_be_and_the_nearest_among_those(picked: list[int], true: list[float], tolerance: float) -> None:
    rows, columns = match(np.array(picked), np.array(true), tolerance)
    assert len(set(rows.tolist())) == len(set(columns.tolist())) == len(rows)
    apart = [abs(picked[r] - true[c]) for r, c in zip(rows, columns, strict=True)]
    assert all(d <= tolerance for d in apart)
    few, many = sorted((picked, true), key=len)
    best = min(
        (-len(kept), sum(kept))
        for order in permutations(many, len(few))
        for kept in [[abs(a - b) for a, b in zip(few, order, strict=True) if abs(a - b) <= tolerance]]
    )
    assert (-len(rows), sum(apart)) == pytest.approx(best)


@given(st.integers(1, 4), st.integers(1, 30), st.integers(1, 5), st.integers(0, 1000))
def test_picks_are_peaks_and_a_wider_tolerance_never_lowers_a_share(traces: int, samples: int, distance: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    probability = rng.random((traces, samples))
    found = pick(probability, 0.5, distance)
    for trace, one in zip(probability, found, strict=True):
        assert (trace[one.samples] >= 0.5).all()
        assert (np.diff(one.samples) >= max(distance, 2)).all()
        assert trace.max() < 0.5 or trace.argmax() in one.samples
    arrivals = rng.uniform(0, samples, (traces, 2))
    scores = [score_picks(found, arrivals, tolerance) for tolerance in (0.5, 2, 100)]
    assert all(a.recall <= b.recall and a.within <= b.within for a, b in pairwise(scores))
    assert scores[-1].matches == sum(min(len(p.samples), 2) for p in found)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: pick(np.zeros(5)), "traces, samples"),
        (lambda: pick(np.zeros((1, 5)), threshold=0), "above 0"),
        (lambda: pick(np.zeros((1, 5)), distance=0), "1 or more"),
        (lambda: score_picks([made(1)], [], 1), "one entry of each"),
        (lambda: score_picks([made(1)], [np.array([1.0])], -1), "0 or more"),
    ],
)
def test_mistakes_are_told(wrong: object, words: str) -> None:
    with pytest.raises(UserError, match=words):
        wrong()  # type: ignore[operator]


def test_an_arrival_that_nobody_knows_makes_no_pick_wrong() -> None:
    batch = make_batch((2, 1, 1, 200), ("a",), count=2)
    batch.values[:, -1, 0, 0, 0] = torch.from_numpy(bumps(200, (60, 1.0))).float()
    batch.valid[:] = True
    batch.valid[1] = False  # a bell stands where nothing is known
    batch.values[1, -1, 0, 0, 0] = 0.0
    said = torch.logit(torch.from_numpy(bumps(200, (61, 0.9))).clamp(1e-6)).float().expand(2, 1, 1, 1, 1, 200)
    tally = PickTally()
    tally.add(batch, Prediction(Labels(said), normalize(batch), batch))
    scores = tally.numbers()["picks"]["a"]["within 2 samples"]
    assert (scores["precision"], scores["recall"], scores["bias"]) == (1.0, 1.0, 1.0)
    batch.valid[:] = True
    tally.add(batch, Prediction(Labels(said), normalize(batch), batch))
    assert tally.numbers()["picks"]["a"]["within 2 samples"]["precision"] == pytest.approx(2 / 3)
    nothing = PickTally()
    batch.valid[:] = False
    nothing.add(batch, Prediction(Labels(said), normalize(batch), batch))
    assert nothing.numbers()["picks"] == {}
