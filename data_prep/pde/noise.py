"""Coloured noise: Gaussian series whose power spectrum falls as 1 / f^beta."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft

from scigpt.data.sample import Origin, Sample, Time, Variable
from scigpt.data_prep.pde.simulator import LICENCE, Simulator, SimulatorOptions, require, require_ranges
from scigpt.data_prep.source import Description

LONGER = 4
"""A series is cut from one this much longer, because the spectral method closes its series into a circle."""


def coloured_noise(rng: np.random.Generator, count: int, exponent: float) -> np.ndarray:
    """A Gaussian series `(count,)`, count even, of mean 0 whose expected periodogram is exactly proportional to 1 / f^exponent.

    Timmer and Koenig (1995), "On generating power law noise": independent Gaussian real and imaginary parts at each frequency. The
    expected variance, not that of the series itself, is 1.
    """
    amplitude = np.zeros(count // 2 + 1)
    amplitude[1:] = np.arange(1, count // 2 + 1) ** (-exponent / 2)
    modes = amplitude * (rng.standard_normal(amplitude.size) + 1j * rng.standard_normal(amplitude.size))
    modes[-1] = np.sqrt(2) * modes[-1].real  # the mode of the highest frequency is real
    variance = (4 * (amplitude[:-1] ** 2).sum() + 2 * amplitude[-1] ** 2) / count**2
    return fft.irfft(modes, count) / np.sqrt(variance)


@dataclass(frozen=True)
class NoiseOptions(SimulatorOptions):
    """Options of the noise corpus.

    Args:
        frames: length of a series.
        beta_low, beta_high: range of the exponent of train, valid and test (0 is white noise, 1 pink, 2 a random walk).
        ood_low, ood_high: that of the split outside the training distribution; must not overlap with it.
        told: whether the exponent is a coefficient, which the model is given; else only the origin of a sample tells it.
    """

    frames: int = 1024
    beta_low: float = 0.5
    beta_high: float = 2.0
    ood_low: float = 2.0
    ood_high: float = 3.0
    told: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.frames >= 2, f"option frames={self.frames}: expected 2 or more")
        require_ranges(self, "beta")


class Noise(Simulator):
    """Series of one point, each with its own exponent."""

    name = "noise"
    Options = NoiseOptions
    options: NoiseOptions

    @classmethod
    def describe(cls) -> Description:
        return Description(cls.name, "coloured noise 1/f^beta, series", "simulated", LICENCE)

    def ranges(self) -> tuple[str, str]:
        o = self.options
        return f"beta {o.beta_low:g} to {o.beta_high:g}", f"beta {o.ood_low:g} to {o.ood_high:g}"

    def bytes_per_sample(self) -> int:
        return 5 * self.options.frames + (1 << 14)

    def sample(self, rng: np.random.Generator, outside: bool, place: str) -> Sample:
        o = self.options
        beta = float(rng.uniform(*((o.ood_low, o.ood_high) if outside else (o.beta_low, o.beta_high))))
        series = coloured_noise(rng, LONGER * o.frames, beta)[: o.frames]
        values = series.reshape(-1, 1, 1, 1, 1).astype(np.float32)
        return Sample(
            values=values,
            valid=np.ones(values.shape, bool),
            variables=(Variable("signal", "1"),),
            time=Time.regular(0.0, 1.0, o.frames),
            origin=Origin(self.name, LICENCE, place=f"{place}, beta={beta:.4g}"),
            coefficients={"spectral_exponent": beta} if o.told else {},
        )
