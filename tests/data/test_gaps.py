"""What is missing: counted in parts, merged, and told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from toy import ORIGIN, smooth_sample

from scigpt.data.gaps import Gaps
from scigpt.data.sample import Sample, Time

DAY = 86400.0


def sample(start: float, frames: int = 4, place: str = "", step: float = DAY) -> Sample:
    made = smooth_sample(0, frames, (1, 3, 3), ("a", "b"))
    return replace(made, time=Time.regular(start * DAY, step, frames, "standard"), origin=replace(ORIGIN, place=place))


def counted(*samples: Sample) -> Gaps:
    gaps = Gaps()
    for each in samples:
        gaps.take(each)
    return gaps


def test_values_and_frames_that_are_missing() -> None:
    one = sample(0)
    one.valid[1, 0] = False
    one.valid[2, 0, 0, 0, 0] = False
    summary = counted(one, sample(4)).summary("standard", DAY)
    assert summary["invalid"] == {"a": 10 / 72, "b": 0.0}
    assert (summary["missing_frames"], summary["empty_frames"]) == ({"a": 1}, 0)
    assert (summary["first"], summary["last"], summary["holes"]) == ("2000-01-01T00:00:00", "2000-01-08T00:00:00", 0)


def test_holes_are_those_of_each_place() -> None:
    samples = [sample(0, place="x"), sample(4, place="x"), sample(20, place="x"), sample(10, place="y"), sample(15, place="y")]
    summary = counted(*samples).summary("standard", DAY)
    assert summary["holes"] == 2
    assert summary["longest_holes"] == [
        {
            "place": "x",
            "after": "2000-01-08T00:00:00",
            "before": "2000-01-21T00:00:00",
            "seconds": [7 * DAY, 20 * DAY],
        },
        {
            "place": "y",
            "after": "2000-01-14T00:00:00",
            "before": "2000-01-16T00:00:00",
            "seconds": [13 * DAY, 15 * DAY],
        },
    ]


def test_single_frames_are_held_against_their_usual_distance() -> None:
    images = [sample(16.0 * i, 1) for i in (0, 1, 2, 5, 6, 7)]
    assert counted(*images).holes(None) == [("", 32 * DAY, 80 * DAY)]


def test_samples_that_overlap_have_no_hole_between_them() -> None:
    assert counted(sample(0, 10), sample(2, 2), sample(10)).holes(DAY) == []


def test_simulated_time_has_no_holes() -> None:
    simulated = [replace(smooth_sample(i), time=Time.regular(5.0 * i, 0.1, 6)) for i in range(3)]
    summary = counted(*simulated).summary("none", 0.1)
    assert (summary["holes"], summary["first"]) == (0, "t=0")


@pytest.mark.parametrize("cut", [1, 3])
def test_parts_merge_to_the_whole(cut: int) -> None:
    samples = [sample(float(s), place=str(i % 2)) for i, s in enumerate(np.random.default_rng(0).permutation(50)[:6])]
    whole, part = counted(*samples), Gaps.from_json(counted(*samples[:cut]).to_json())
    part.merge(counted(*samples[cut:]))
    assert part.summary("standard", DAY) == whole.summary("standard", DAY)
