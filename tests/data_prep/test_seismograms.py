"""Seismograms against ray theory: arrivals, polarisation, radiation pattern, signal-to-noise ratio, labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import cumulative_trapezoid

from scigpt.data.sample import Sample
from scigpt.data_prep.pde.seismograms import (
    P_WINDOW,
    SeismogramOptions,
    Seismograms,
    attenuation,
    body_waves,
    moment_acceleration,
    moment_tensor,
    radiation,
)
from scigpt.errors import UserError

ANGLES = st.tuples(st.floats(0, 6.28), st.floats(0.1, 1.5), st.floats(-3.1, 3.1))


def event(seed: int, **options: float):  # type: ignore[no-untyped-def]
    return Seismograms((), SeismogramOptions(quiet=0.0, **options)).event(np.random.default_rng(seed), False)  # type: ignore[arg-type]


def sample(seed: int, **options: float) -> Sample:
    return Seismograms((), SeismogramOptions(**options)).sample(np.random.default_rng(seed), False, "test")  # type: ignore[arg-type]


@given(angles=ANGLES)
def test_a_double_couple_has_no_volume_and_no_clvd(angles: tuple[float, float, float]) -> None:
    moment = moment_tensor(*angles)
    assert np.linalg.eigvalsh(moment) == pytest.approx([-1, 0, 1], abs=1e-9)


@given(angles=ANGLES, take_off=st.floats(0.05, 3.0), azimuth=st.floats(0, 6.28))
def test_radiation_is_the_closed_form_of_aki_and_richards(angles: tuple[float, float, float], take_off: float, azimuth: float) -> None:
    """Equations 4.89 to 4.91: the patterns of P, SV and SH in strike, dip, rake, take-off angle and azimuth."""
    strike, dip, rake = angles
    ray = np.array([np.sin(take_off) * np.cos(azimuth), np.sin(take_off) * np.sin(azimuth), np.cos(take_off)])
    p, s = radiation(moment_tensor(*angles), ray)
    phi = azimuth - strike
    i = take_off
    expected = (
        np.cos(rake) * np.sin(dip) * np.sin(i) ** 2 * np.sin(2 * phi)
        - np.cos(rake) * np.cos(dip) * np.sin(2 * i) * np.cos(phi)
        + np.sin(rake) * np.sin(2 * dip) * (np.cos(i) ** 2 - np.sin(i) ** 2 * np.sin(phi) ** 2)
        + np.sin(rake) * np.cos(2 * dip) * np.sin(2 * i) * np.sin(phi)
    )
    assert p @ ray == pytest.approx(expected, abs=1e-9)
    assert s @ ray == pytest.approx(0, abs=1e-9)
    across = np.array([-np.sin(azimuth), np.cos(azimuth), 0.0])
    horizontal = (
        np.cos(rake) * np.cos(dip) * np.cos(i) * np.sin(phi)
        + np.cos(rake) * np.sin(dip) * np.sin(i) * np.cos(2 * phi)
        + np.sin(rake) * np.cos(2 * dip) * np.cos(i) * np.cos(phi)
        - 0.5 * np.sin(rake) * np.sin(2 * dip) * np.sin(i) * np.sin(2 * phi)
    )
    assert s @ across == pytest.approx(horizontal, abs=1e-9)


def test_the_source_is_brunes() -> None:
    """It is nothing before its onset, its integral is `w^2 t exp(-w t)`, and its double integral the moment, 1 in the end."""
    w, time = 2 * np.pi * 3.0, np.arange(40_000) * 1e-4
    acceleration = moment_acceleration(time, 3.0)
    rate = cumulative_trapezoid(acceleration, time, initial=0)
    assert rate == pytest.approx(w**2 * time * np.exp(-w * time), abs=1e-4)
    assert np.trapezoid(rate, time) == pytest.approx(1.0, rel=1e-4)
    assert (moment_acceleration(time - 0.5, 3.0)[time < 0.5] == 0).all()
    assert moment_acceleration(np.zeros(1), 3.0)[0] == pytest.approx(w**2)


@pytest.mark.parametrize("t_star", [0.005, 0.02, 0.06])
def test_loss_is_exponential_in_frequency_and_minimum_phase(t_star: float) -> None:
    """Of all causal responses of an amplitude, that of minimum phase has no zero outside the unit circle: its phase turns back to 0."""
    response = attenuation(t_star, 100.0)
    frequency, spectrum = np.fft.rfftfreq(4096, 0.01), np.fft.rfft(response, 4096)
    assert np.abs(spectrum) == pytest.approx(np.exp(-np.pi * frequency * t_star), abs=0.004)
    assert np.unwrap(np.angle(spectrum))[-1] == pytest.approx(0, abs=0.01)
    assert attenuation(1e-9, 100.0)[:2] == pytest.approx([1.0, 0.0], abs=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_nothing_moves_before_p_and_p_moves_along_the_ray(seed: int) -> None:
    found = event(seed)
    assert found.p_time is not None
    assert found.s_time is not None
    time = np.arange(1024) / 100
    assert (found.p_wave[time < found.p_time] == 0).all()
    assert (found.s_wave[time < found.s_time] == 0).all()
    first = found.p_wave[(time >= found.p_time) & (time < found.p_time + 0.03)]
    assert np.abs(first).max() > 0
    assert 1.0 < found.p_time < found.s_time < 9.25


def test_p_is_polarised_along_and_s_across_the_ray_and_s_is_later_by_the_distance() -> None:
    ray, time = np.array([0.6, 0.0, -0.8]), np.arange(2000) / 100
    vp, vs, distance = 6000.0, 3400.0, 20_000.0
    p, s = body_waves(time, distance / vp, distance / vs, ray, 1e13 * moment_tensor(0.3, 1.0, 0.5), 4.0, distance, vp, vs)
    moving = np.abs(p).max(1) > 0
    assert np.abs(np.cross(p[moving], ray)).max() < 1e-9 * np.abs(p).max()
    assert np.abs(s @ ray).max() < 1e-9 * np.abs(s).max()
    onset = [time[np.argmax(np.abs(w).max(1) > 0)] for w in (p, s)]
    assert onset[1] - onset[0] == pytest.approx(distance * (1 / vs - 1 / vp), abs=0.011)
    assert 1e-9 < np.abs(p).max() < 1e-2


@pytest.mark.parametrize("snr", [3.0, 10.0])
def test_the_signal_to_noise_ratio_is_as_defined(snr: float) -> None:
    for seed in range(5):
        found = event(seed, snr_low=snr, snr_high=snr, ood=0)
        time = np.arange(1024) / 100
        assert found.p_time is not None
        first = (time >= found.p_time) & (time < found.p_time + P_WINDOW)
        ratio = np.sqrt(np.mean(found.p_wave[first] ** 2)) / np.sqrt(np.mean(found.noise**2))
        assert ratio == pytest.approx(snr, rel=1e-6)


def test_labels_peak_at_the_arrivals() -> None:
    for seed in range(20):
        made = sample(seed, quiet=0.5)
        labels = made.values[:, 3:, 0, 0, 0]
        assert [v.role for v in made.variables] == ["state"] * 3 + ["diagnostic"] * 2
        if "noise" in made.origin.place.split(",")[1]:
            assert (labels == 0).all()
            continue
        words = made.origin.place.split(", ")
        times = [float(w.split()[2]) for w in words if w[:4] in ("P at", "S at")]
        assert np.abs(labels.argmax(0) - np.array(times) * 100).max() <= 0.5 + 1e-3
        assert labels.max(0) == pytest.approx(1, abs=0.02)


def test_a_classical_picker_finds_p() -> None:
    """The recursive STA/LTA trigger of obspy, an independent program."""
    trigger = pytest.importorskip("obspy.signal.trigger", reason="obspy is not installed")
    met = 0
    for seed in range(30):
        found = event(seed, snr_low=20.0, snr_high=20.0, ood=0)
        trace = np.sqrt(((found.p_wave + found.s_wave + found.noise) ** 2).sum(1))
        ratio = trigger.recursive_sta_lta(trace, 5, 100)  # no P comes before sample 102
        assert found.p_time is not None
        on = np.flatnonzero(ratio > 4)
        met += bool(on.size) and abs(on[0] - found.p_time * 100) < 10
    assert met >= 27


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"frames": 100}, "expected 512 or more"),
        ({"quiet": 1.0}, "expected a share of 0 or more and below 1"),
        ({"ood_low": 6.0, "ood_high": 8.0}, "overlap with the training range"),
        ({"label_width": 0.0}, "expected samples above 0"),
    ],
)
def test_mistakes_are_told(options: dict[str, float], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        SeismogramOptions(**options)  # type: ignore[arg-type]


def test_bytes_depend_on_the_sample_alone() -> None:
    def made(**sizes: int) -> dict[str, bytes]:
        source = Seismograms((), SeismogramOptions(ood=1, **sizes))  # type: ignore[arg-type]
        refs = list(reversed(source.plan().refs))
        return {r.key: s.values.tobytes() + s.origin.place.encode() for r, s in zip(refs, source.samples(refs), strict=True)}

    few, many = made(train=2, valid=1, test=1), made(train=4, valid=1, test=2)
    assert len(few) == 5
    assert set(few.values()) < set(many.values())
    source = Seismograms((), SeismogramOptions(train=2, valid=1, test=1, ood=1))
    for ref in source.plan().refs:
        (alone,) = source.samples([ref])
        assert alone.values.tobytes() + alone.origin.place.encode() == few[ref.key]


def test_a_tenth_of_the_records_is_noise_and_all_have_plausible_sizes() -> None:
    drawn = [Seismograms((), SeismogramOptions()).event(np.random.default_rng(seed), False) for seed in range(400)]
    quiet = [found for found in drawn if found.p_time is None]
    assert 20 <= len(quiet) <= 60
    assert all((found.p_wave == 0).all() and (found.s_wave == 0).all() for found in quiet)
    noise = np.array([np.sqrt(np.mean(found.noise**2)) for found in drawn])
    assert 3e-8 * 0.999 <= noise.min() < 1e-7 < 5e-7 < noise.max() <= 1e-6 * 1.001
    peaks = np.array([np.abs(found.p_wave + found.s_wave).max() for found in drawn if found.p_time is not None])
    assert 1e-7 < peaks.min() < peaks.max() < 1e-2
