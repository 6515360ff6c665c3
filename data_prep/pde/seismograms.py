"""Seismograms of small earthquakes with exactly known arrivals: far-field body waves of double couples in a homogeneous, lossy medium.

A station has noise of a size and colour of its own. An earthquake of random mechanism, distance and direction sends a pulse of Brune's
shape as P and as S, each with loss on its way and a coda of scattered waves; its moment is what the signal-to-noise ratio asks for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft, signal

from scigpt.data.sample import Origin, Sample, Time, Variable
from scigpt.data_prep.pde.noise import LONGER, coloured_noise
from scigpt.data_prep.pde.simulator import LICENCE, Simulator, SimulatorOptions, require, require_ranges
from scigpt.data_prep.source import Description

DENSITY = 2700.0
COMPONENTS = ("east", "north", "up")
P_WINDOW = 1.0
"""Seconds after the P arrival whose RMS is the signal of the signal-to-noise ratio."""
QUIETEST, LOUDEST = 3e-8, 1e-6
"""Range of the RMS of a station's noise, m/s."""
NODAL = 0.05
"""Least P wave of an earthquake, as a share of the strongest that its moment sends in any direction."""
TAPS = 512
"""Samples of the response that stands for loss."""
CODA = 0.3
"""Amplitude of the scattered waves right after a phase, as a share of its peak."""
CODA_TIME = 1.5
"""Seconds in which they fall by a factor of e."""
EDGE = 0.1
"""Share of the record before the earliest P and after the latest S."""


def moment_tensor(strike: float, dip: float, rake: float) -> np.ndarray:
    """Unit double couple `(3, 3)`, axes north, east, down; angles in radians (Aki and Richards 2002, box 4.4)."""
    ss, cs, s2s, c2s = np.sin(strike), np.cos(strike), np.sin(2 * strike), np.cos(2 * strike)
    sd, cd, s2d, c2d = np.sin(dip), np.cos(dip), np.sin(2 * dip), np.cos(2 * dip)
    sr, cr = np.sin(rake), np.cos(rake)
    xx = -(sd * cr * s2s + s2d * sr * ss**2)
    xy = sd * cr * c2s + 0.5 * s2d * sr * s2s
    xz = -(cd * cr * cs + c2d * sr * ss)
    yy = sd * cr * s2s - s2d * sr * cs**2
    yz = -(cd * cr * ss - c2d * sr * cs)
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, s2d * sr]])


def radiation(moment: np.ndarray, ray: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Directions and relative sizes of the P and S waves that leave along the unit vector `ray`: `(ray . M ray) ray` and the part of
    `M ray` across it (Aki and Richards 2002, equation 4.29)."""
    whole = moment @ ray
    along = ray @ whole
    return along * ray, whole - along * ray


def moment_acceleration(time: np.ndarray, corner: float) -> np.ndarray:
    """Second derivative of the moment of Brune's source (1970) of unit moment, `w^2 (1 - w t) exp(-w t)` with `w = 2 pi corner`; exactly 0
    before `t = 0`. Ground velocity in the far field is proportional to it."""
    w = 2 * np.pi * corner
    t = np.maximum(time, 0.0)
    return np.where(time >= 0, w**2 * (1 - w * t) * np.exp(-w * t), 0.0)


def attenuation(t_star: float, rate: float) -> np.ndarray:
    """Impulse response `(TAPS,)` of loss: amplitude `exp(-pi f t*)`, t* the travel time over the quality factor (Aki and Richards 2002,
    section 5.5). Its phase is the least, by folding the cepstrum (Oppenheim and Schafer 2010, section 13.5): nothing before the arrival.
    """
    count = 4 * TAPS
    cepstrum = fft.irfft(-np.pi * t_star * fft.rfftfreq(count, 1 / rate))
    cepstrum[1 : count // 2] *= 2
    cepstrum[count // 2 + 1 :] = 0
    return fft.irfft(np.exp(fft.rfft(cepstrum)))[:TAPS]


def body_waves(
    time: np.ndarray,
    p_time: float,
    s_time: float,
    ray: np.ndarray,
    moment: np.ndarray,
    corner: float,
    distance: float,
    vp: float,
    vs: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Ground velocity `(n, 3)` (north, east, down) in m/s of the P and of the S wave at a free surface taken as twice the whole space
    (Aki and Richards 2002, equation 4.29), for a moment tensor in N m, before any loss."""
    factor = 2 / (4 * np.pi * DENSITY * distance)
    p, s = radiation(moment, ray)
    return (
        factor / vp**3 * moment_acceleration(time - p_time, corner)[:, None] * p,
        factor / vs**3 * moment_acceleration(time - s_time, corner)[:, None] * s,
    )


def coda(rng: np.random.Generator, time: np.ndarray, onset: float, wave: np.ndarray, corner: float, rate: float) -> np.ndarray:
    """Scattered waves `(n, 3)` that set in with a phase, swell and die away: nothing before it."""
    late = time - onset
    envelope = np.where(late > 0, np.sqrt(np.maximum(late, 0) / 0.1).clip(max=1.0) * np.exp(-np.maximum(late, 0) / CODA_TIME), 0.0)
    high = min(2 * corner, 0.4 * rate)
    filters = signal.butter(2, [0.3 * corner, high], "bandpass", fs=rate, output="sos")
    scattered = signal.sosfilt(filters, rng.standard_normal((time.size + 200, 3)), axis=0)[200:]
    scattered /= scattered.std(0)
    return CODA * np.abs(wave).max() * envelope[:, None] * scattered


@dataclass(frozen=True)
class SeismogramOptions(SimulatorOptions):
    """Options of the seismograms.

    Args:
        frames, rate: length of a record, and samples a second.
        snr_low, snr_high: range of the signal-to-noise ratio of train, valid and test: RMS of the three components of P and its coda,
            without S, over the second after the arrival, over the RMS of the noise of the whole record.
        ood_low, ood_high: that of the split outside the training distribution; must not overlap with it.
        quiet: share of records that hold noise only.
        label_width: standard deviation of the bell around an arrival in the labels, in samples.
    """

    train: int = 1024
    valid: int = 64
    test: int = 256
    ood: int = 64
    frames: int = 1024
    rate: float = 100.0
    snr_low: float = 5.0
    snr_high: float = 30.0
    ood_low: float = 1.5
    ood_high: float = 4.0
    quiet: float = 0.1
    label_width: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.frames >= 512, f"option frames={self.frames}: expected 512 or more, or P and S do not fit into the record")
        require(0 < self.rate <= 1000, f"option rate={self.rate}: expected samples a second above 0 and at most 1000")
        require(0 <= self.quiet < 1, f"option quiet={self.quiet}: expected a share of 0 or more and below 1")
        require(self.label_width > 0, f"option label_width={self.label_width}: expected samples above 0")
        require_ranges(self, "snr")


@dataclass(frozen=True, slots=True)
class Event:
    """A record and what is known of it; times in seconds after its first sample, None in a record of noise."""

    p_wave: np.ndarray
    s_wave: np.ndarray
    noise: np.ndarray
    p_time: float | None
    s_time: float | None
    snr: float


class Seismograms(Simulator):
    """Records of three components, and for each sample whether P or S arrives: a bell of height 1 around each arrival."""

    name = "seismograms"
    Options = SeismogramOptions
    options: SeismogramOptions

    @classmethod
    def describe(cls) -> Description:
        return Description(cls.name, "seismograms with known P and S arrivals, series", "simulated", LICENCE)

    def ranges(self) -> tuple[str, str]:
        o = self.options
        return f"signal-to-noise ratio {o.snr_low:g} to {o.snr_high:g}", f"signal-to-noise ratio {o.ood_low:g} to {o.ood_high:g}"

    def bytes_per_sample(self) -> int:
        return 25 * self.options.frames + (1 << 14)

    def event(self, rng: np.random.Generator, outside: bool) -> Event:
        """Draw an earthquake or a record of noise; the waves, each with its coda, and noise `(n, 3)`, east, north, up, in m/s."""
        o = self.options
        time, length = np.arange(o.frames) / o.rate, o.frames / o.rate
        exponent = rng.uniform(0.0, 1.5)
        noise = np.stack([coloured_noise(rng, LONGER * o.frames, exponent)[: o.frames] for _ in COMPONENTS], 1)
        loudness = np.exp(rng.uniform(np.log(QUIETEST), np.log(LOUDEST)))
        noise *= loudness / np.sqrt(np.mean(noise**2))
        snr = float(rng.uniform(*((o.ood_low, o.ood_high) if outside else (o.snr_low, o.snr_high))))
        if rng.random() < o.quiet:
            return Event(np.zeros_like(noise), np.zeros_like(noise), noise, None, None, 0.0)
        vp = rng.uniform(4500.0, 7000.0)
        vs = vp / rng.uniform(1.65, 1.85)
        longest = (1 - 2 * EDGE) * length / (1 / vs - 1 / vp)
        distance = rng.uniform(0.1 * longest, 0.8 * longest)
        delay = distance * (1 / vs - 1 / vp)
        p_time = rng.uniform(EDGE * length, (1 - EDGE) * length - delay)
        s_time = p_time + delay
        corner = rng.uniform(2.0, 0.15 * o.rate)
        ray, moment = _direction(rng), _mechanism(rng)
        while np.linalg.norm(radiation(moment, ray)[0]) < NODAL:
            ray, moment = _direction(rng), _mechanism(rng)
        # loss by shear alone: the quality factor of P is 9/4 that of S (Aki and Richards 2002, section 5.5)
        quality = rng.uniform(200.0, 800.0)
        losses = distance / vp / (9 / 4 * quality), distance / vs / quality
        turned = []
        lossless = body_waves(time, p_time, s_time, ray, moment, corner, distance, vp, vs)
        for onset, t_star, wave in zip((p_time, s_time), losses, lossless, strict=True):
            arrived = signal.lfilter(attenuation(t_star, o.rate), 1.0, wave, axis=0)
            arrived = arrived + coda(rng, time, onset, arrived, corner, o.rate)
            turned.append(arrived[:, [1, 0, 2]] * np.array([1.0, 1.0, -1.0]))  # to east, north, up
        first = (time >= p_time) & (time < p_time + P_WINDOW)
        factor = snr * loudness / np.sqrt(np.mean(turned[0][first] ** 2))
        return Event(factor * turned[0], factor * turned[1], noise, p_time, s_time, snr)

    def sample(self, rng: np.random.Generator, outside: bool, place: str) -> Sample:
        o, event = self.options, self.event(rng, outside)
        index = np.arange(o.frames)
        labels = [
            np.zeros(o.frames) if at is None else np.exp(-((index - at * o.rate) ** 2) / (2 * o.label_width**2))
            for at in (event.p_time, event.s_time)
        ]
        record = np.concatenate([event.p_wave + event.s_wave + event.noise, np.stack(labels, 1)], 1)
        values = record[:, :, None, None, None].astype(np.float32)
        told = "noise" if event.p_time is None else f"P at {event.p_time:.5f} s, S at {event.s_time:.5f} s, signal to noise {event.snr:.3g}"
        waves = (Variable(f"ground_velocity_{c}", "m s**-1") for c in COMPONENTS)
        return Sample(
            values=values,
            valid=np.ones(values.shape, bool),
            variables=(*waves, *(Variable(f"{phase}_arrival", "1", "diagnostic") for phase in "ps")),
            time=Time.regular(0.0, 1 / o.rate, o.frames),
            origin=Origin(self.name, LICENCE, place=f"{place}, {told}"),
        )


def _direction(rng: np.random.Generator) -> np.ndarray:
    """Unit vector of a ray that comes up from below, north, east, down."""
    azimuth, incidence = rng.uniform(0, 2 * np.pi), rng.uniform(np.radians(5), np.radians(50))
    return np.array([np.sin(incidence) * np.cos(azimuth), np.sin(incidence) * np.sin(azimuth), -np.cos(incidence)])


def _mechanism(rng: np.random.Generator) -> np.ndarray:
    """Moment tensor of a random strike, dip and rake."""
    return moment_tensor(*rng.uniform((0, 0.3, -np.pi), (2 * np.pi, np.pi / 2, np.pi)))
