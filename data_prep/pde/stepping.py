"""Steps in time of the explicit solvers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

Rate = Callable[[np.ndarray], np.ndarray]


def intervals_between(times: Sequence[float] | np.ndarray) -> np.ndarray:
    """The time from 0 to the first of the times and from each to the next; a ValueError where they do not increase from 0 or later."""
    intervals = np.diff(times, prepend=0.0)
    if (intervals[1:] <= 0).any() or (intervals[:1] < 0).any():
        raise ValueError("times must increase from 0 or later")
    return intervals


def runge_kutta(rate: Rate, state: np.ndarray, times: Sequence[float] | np.ndarray, longest: float) -> np.ndarray:
    """The solution of `state_t = rate(state)` at each of the times `(len(times), *state.shape)` by the classical fourth-order scheme.

    Args:
        state: at time 0.
        times: increasing, the first 0 or later.
        longest: each interval between times is cut into equal steps no longer than this.
    """
    frames = np.empty((len(times), *state.shape))
    for i, interval in enumerate(intervals_between(times)):
        steps = max(1, math.ceil(interval / longest))
        dt = interval / steps
        for _ in range(steps if interval else 0):
            r1 = rate(state)
            r2 = rate(state + dt / 2 * r1)
            r3 = rate(state + dt / 2 * r2)
            r4 = rate(state + dt * r3)
            r2 += r3
            r2 *= 2
            r2 += r1
            r2 += r4
            state = state + dt / 6 * r2
        frames[i] = state
    assert np.isfinite(frames).all(), "the time step was unstable"
    return frames
