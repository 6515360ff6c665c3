from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from toy import ORIGIN, smooth_sample

from scigpt.data.files import dump_json
from scigpt.data.sample import Sample, Time, Variable
from scigpt.data.statistics import DRAWN, QUANTILES, Moments, Statistics
from scigpt.data.variables import transform


def test_merged_statistics_equal_those_of_all_values_at_once() -> None:
    samples = [smooth_sample(i, frames=5 + i, gaps=0.2) for i in range(4)]
    parts = []
    for pair in (samples[:1], samples[1:]):
        part = Statistics()
        for sample in pair:
            part.update(sample)
        parts.append(Statistics.from_json(part.to_json()))
    merged = Statistics()
    for part in parts:
        merged.merge(part)
    channel = merged.channels["concentration"]
    values = np.concatenate([s.values[s.valid] for s in samples]).astype(np.float64)
    assert channel.values.count == values.size
    assert channel.values.mean == pytest.approx(values.mean(), rel=1e-12)
    assert channel.values.std == pytest.approx(values.std(), rel=1e-12)
    assert (channel.values.low, channel.values.high) == (values.min(), values.max())
    steps = [np.diff(s.values.astype(np.float64), axis=0)[s.valid[1:] & s.valid[:-1]] for s in samples]
    assert channel.increments.count == sum(map(len, steps))
    assert channel.increments.rms == pytest.approx(np.sqrt(np.mean(np.concatenate(steps) ** 2)), rel=1e-12)
    assert merged.valid_share("concentration") == values.size / sum(s.values.size for s in samples)
    assert merged.step == 0.1
    assert merged.coefficients["viscosity"].count == 4
    assert (merged.coefficients["viscosity"].low, merged.coefficients["viscosity"].high) == (0.1, 0.4)


def test_json_keeps_every_bit() -> None:
    stats = Statistics()
    for i in range(3):
        stats.update(smooth_sample(i, names=("density", "concentration")))
    again = Statistics.from_json(stats.to_json())
    assert dump_json(again.to_json()) == dump_json(stats.to_json())
    assert list(again.channels) == ["density", "concentration"]
    for part in (stats, again):
        part.update(smooth_sample(7, names=("density", "concentration")))
    assert dump_json(again.to_json()) == dump_json(stats.to_json())


def test_quantiles_are_exact_for_short_streams_and_unbiased_for_parts_of_unequal_length() -> None:
    generator = np.random.default_rng(0)
    short = generator.normal(size=DRAWN // 2).astype(np.float32)
    moments = Moments.of(short)
    assert [moments.quantile(q) for q in QUANTILES] == pytest.approx(np.quantile(short.astype(np.float64), QUANTILES))
    parts = [generator.normal(i, 1.0, size=n) for i, n in enumerate((100, 200_000, 5000, 90_000))]
    merged = Moments()
    for part in parts:
        merged.merge(Moments.of(part))
    assert merged.drawn.size == DRAWN
    everything = np.concatenate(parts)
    for q in QUANTILES:  # the share of values below the estimate, within four standard errors
        assert np.mean(everything < merged.quantile(q)) == pytest.approx(q, abs=4 * np.sqrt(q * (1 - q) / DRAWN) + 2 / DRAWN)


def test_values_and_increments_are_taken_in_transform_space() -> None:
    values = np.array([0.0, 1e-5, 3e-5], np.float32).reshape(3, 1, 1, 1, 1)
    sample = Sample(values, np.ones(values.shape, bool), (Variable("precipitation_flux", "kg m**-2 s**-1"),), Time.regular(0, 1, 3), ORIGIN)
    stats = Statistics()
    stats.update(sample)
    channel = stats.channels["precipitation_flux"]
    assert channel.values.high == pytest.approx(np.log(4))
    assert channel.increments.mean == pytest.approx(np.log(4) / 2)
    np.testing.assert_allclose(transform(np.array([1e-6, -2e-6]), "ground_velocity_up"), np.arcsinh([1, -2]))
    np.testing.assert_array_equal(transform(np.array([5.0]), "no such variable"), [5.0])


def test_static_and_invalid_variables_have_no_increments() -> None:
    sample = smooth_sample(names=("concentration", "source"))
    variables = (sample.variables[0], Variable("source", "1", "static"))
    valid = sample.valid.copy()
    valid[:, 0] = False
    stats = Statistics()
    stats.update(replace(sample, variables=variables, valid=valid))
    assert stats.channels["source"].increments.count == 0
    assert stats.channels["concentration"].values.count == 0
    data = stats.to_json()
    assert (data["variables"]["concentration"]["count"], data["variables"]["concentration"]["min"]) == (0, None)
    assert stats.to_json()["steady_ratio"] is None


def test_the_steady_ratio_is_that_of_one_problem_at_a_time() -> None:
    generator = np.random.default_rng(1)
    stats = Statistics()
    ratios = []
    for _ in range(50):
        source = generator.normal(size=(1, 8, 8)) * generator.lognormal()
        solution = source * generator.uniform(2, 6)
        values = np.stack([np.stack([source, np.zeros_like(source)]), np.stack([source, solution])]).astype(np.float32)
        valid = np.ones(values.shape, bool)
        valid[0, 1] = False
        ratios.append(np.mean(values[1, 1] ** 2, dtype=np.float64) / np.mean(values[1, 0] ** 2, dtype=np.float64))
        variables = (Variable("source", "1", "forcing"), Variable("solution", "1"))
        stats.update(Sample(values, valid, variables, Time.regular(0, 1, 2), ORIGIN, steady=True))
    sigma = {key: channel.values.std for key, channel in stats.channels.items()}
    expected = np.sqrt(np.mean(ratios)) * sigma["source"] / sigma["solution"]
    assert stats.steady_ratio == pytest.approx(expected, rel=0.1)  # up to the means, which are near zero here
    assert stats.step is None
    assert Statistics.from_json(stats.to_json()).steady_ratio == stats.steady_ratio


@pytest.mark.parametrize("shape", [(5, 7), (3, 1, 150, 400), (90000, 1), (2, 40000)])
def test_gaps_are_passed_over_and_nothing_else_changes(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    values, valid = rng.normal(5, 2, shape).astype(np.float32), rng.random(shape) < 0.6
    dirty = np.where(valid, values, np.float32(np.nan))
    found, plain = Moments.of(dirty, valid), Moments.of(values[valid])
    assert (found.count, found.low, found.high) == (plain.count, plain.low, plain.high)
    np.testing.assert_allclose([found.mean, found.m2], [plain.mean, plain.m2], rtol=1e-12)
    np.testing.assert_array_equal(found.drawn, plain.drawn)
    np.testing.assert_array_equal(found.priority, plain.priority)
    both = valid[1:] & valid[:-1]
    steps, truth = Moments.of_increments(dirty, valid), np.diff(values.astype(np.float64), axis=0)[both]
    assert steps.count == truth.size
    np.testing.assert_allclose([steps.mean, steps.std], [truth.mean(), truth.std()], rtol=1e-9, atol=1e-12)
    assert np.isin(steps.drawn, truth.astype(np.float32)).all()
