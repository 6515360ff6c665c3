from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy.signal import welch
from test_poisson import digest

from scigpt.data.sample import Sample
from scigpt.data_prep.pde import EQUATIONS
from scigpt.data_prep.pde.noise import Noise, NoiseOptions, coloured_noise
from scigpt.data_prep.source import parse_options
from scigpt.errors import UserError

SMALL = NoiseOptions(train=3, valid=1, test=1, ood=2, frames=64)


def spectral_exponent(series: np.ndarray) -> float:
    """By Welch's method and a straight line through the averages of 20 bins of equal width in log f, `(..., n)`.

    The line leaves out the lowest frequencies of a segment, which its window and its missing mean distort, and the highest, where the
    spectrum repeats. A bin weighs as much as the frequencies in it.
    """
    segment = min(4096, series.shape[-1] // 4)
    frequency, power = welch(series, nperseg=segment)
    power = power.reshape(-1, frequency.size).mean(axis=0)
    edges = np.geomspace(8 / segment, 0.4, 21)
    bins = [(frequency >= a) & (frequency < b) for a, b in itertools.pairwise(edges)]
    points = [(np.log(frequency[b]).mean(), np.log(power[b].mean()), np.sqrt(b.sum())) for b in bins if b.any()]
    x, y, weight = np.transpose(points)
    return float(-np.polyfit(x, y, 1, w=weight)[0])


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 1.5, 2.0, 3.0])
def test_exponent_is_recovered(exponent: float) -> None:
    series = np.stack([coloured_noise(np.random.default_rng(i), 65536, exponent) for i in range(4)])
    assert spectral_exponent(series) == pytest.approx(exponent, abs=0.05)
    cut = series[:, 10_000:30_000]  # a part of a series, whose ends do not meet, has it too
    assert spectral_exponent(cut) == pytest.approx(exponent, abs=0.05)


def test_exponent_of_samples_is_that_of_their_origin() -> None:
    source = Noise((), replace(SMALL, frames=65536, train=5, valid=0, test=0, ood=3, told=True))
    refs = source.plan().refs
    for ref, sample in zip(refs, source.samples(refs), strict=True):
        beta = sample.coefficients["spectral_exponent"]
        assert (2 <= beta <= 3) if ref.split == "ood" else (0.5 <= beta <= 2)
        assert f"beta={beta:.4g}" in sample.origin.place
        assert spectral_exponent(sample.values[:, 0, 0, 0, 0].astype(float)) == pytest.approx(beta, abs=0.05)


def test_expected_periodogram_and_variance_are_exact() -> None:
    n, exponent, count = 64, 1.0, 20_000
    rng = np.random.default_rng(0)
    series = np.stack([coloured_noise(rng, n, exponent) for _ in range(count)])
    assert np.abs(series.mean(axis=1)).max() < 1e-13
    assert series.var() == pytest.approx(1, abs=0.01)
    power = (np.abs(np.fft.rfft(series)[:, 1:]) ** 2).mean(axis=0) * np.arange(1, n // 2 + 1)
    np.testing.assert_allclose(power / power.mean(), 1, atol=5 * np.sqrt(2 / count))
    kurtosis = (series**4).mean() / series.var() ** 2
    assert kurtosis == pytest.approx(3, abs=0.05)  # Gaussian


def test_ends_of_a_sample_do_not_meet() -> None:
    """A series that is a circle tells its future: its last value is near its first."""
    source = Noise((), replace(SMALL, train=200, beta_low=2.0, beta_high=2.0, ood=0, valid=0, test=0))
    series = np.stack([s.values.ravel() for s in source.samples(source.plan().refs)])
    ends, neighbours = (np.sqrt(np.mean(d**2)) for d in (series[:, -1] - series[:, 0], np.diff(series)))
    assert ends > 5 * neighbours


def test_samples_say_what_they_are() -> None:
    source = EQUATIONS["noise"]((), SMALL)
    plan = source.plan()
    assert [(s.distribution, s.description) for s in plan.splits] == [("in", "beta 0.5 to 2")] * 3 + [("out", "beta 2 to 3")]
    samples: list[Sample] = list(source.samples(plan.refs))
    for sample in samples:
        assert sample.values.shape == (64, 1, 1, 1, 1)
        assert sample.valid.all()
        assert not sample.coefficients
        np.testing.assert_array_equal(sample.time.seconds, np.arange(64))
        assert plan.bytes_per_sample > sample.values.nbytes
    together = digest(samples)
    assert len(set(together)) == len(together)
    assert digest([s for r in reversed(plan.refs) for s in source.samples([r])]) == together[::-1]


@pytest.mark.parametrize(("words", "part"), [(["frames=1"], "frames=1"), (["beta_low=-1"], "beta_low=-1"), (["ood_low=1"], "overlap")])
def test_bad_options_are_refused(words: list[str], part: str) -> None:
    with pytest.raises(UserError, match=part):
        parse_options(Noise.Options, words)
