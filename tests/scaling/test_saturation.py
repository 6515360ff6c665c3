"""Surfaces with a planted saturated axis, and others with none: does the verdict name it? They are written here, apart from the laws."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from scigpt.scaling.analysis import analyse
from scigpt.scaling.fit import bootstrap, fit
from scigpt.scaling.runs import Runs
from scigpt.scaling.saturation import Verdict, verdict
from scigpt.scaling.select import Candidate, aicc, best, candidates

NOISE = 0.003
TOP = 1e20
SIDE = 64
"""Pixels of the maps behind the tables with patches."""

Columns = dict[str, np.ndarray]
Random = np.random.Generator


class Surface:
    """`E + A N^-alpha + B D^-beta` with a loss of 1 at the optimum of `TOP` FLOPs, E a share of it, drawn at random."""

    def __init__(self, random: Random, floor: tuple[float, float] = (0.3, 0.7)) -> None:
        self.alpha, self.beta = random.uniform(0.25, 0.6, 2)
        self.n = np.sqrt(TOP / 6 / 10 ** random.uniform(1, 2.5))
        self.d = TOP / 6 / self.n
        self.e = random.uniform(*floor)
        self.a = (1 - self.e) * self.beta / (self.alpha + self.beta) * self.n**self.alpha
        self.b = (1 - self.e) * self.alpha / (self.alpha + self.beta) * self.d**self.beta

    def loss(self, n: np.ndarray, d: np.ndarray) -> np.ndarray:
        return self.e + self.a * n**-self.alpha + self.b * d**-self.beta

    def best(self, flops: np.ndarray, k: float = 6.0) -> np.ndarray:
        ratio = self.alpha * self.a / (self.beta * self.b)
        return (ratio * (flops / k) ** self.beta) ** (1 / (self.alpha + self.beta))

    def repeated(self, columns: Columns, r_d: float, r_n: float) -> np.ndarray:
        """Muennighoff et al. 2023, equations 5 and 6."""
        n, d, u = columns["params"], columns["tokens"], np.minimum(columns["unique_tokens"], columns["tokens"])
        v = np.minimum(n, (self.alpha * self.a / (self.beta * self.b) * u**self.beta) ** (1 / self.alpha))
        return self.loss(v + v * r_n * (1 - np.exp(-(n / v - 1) / r_n)), u + u * r_d * (1 - np.exp(-(d / u - 1) / r_d)))

    def isoflop(self, budgets: int = 5, sizes: int = 7, span: float = 6.0) -> Columns:
        flops = np.geomspace(TOP / 30, TOP, budgets)
        params = (self.best(flops)[:, None] * np.geomspace(1 / span, span, sizes)).ravel()
        flops = np.repeat(flops, sizes)
        return {"params": params, "tokens": flops / 6 / params, "flops": flops}

    def grid(self, sizes: int, amounts: int, step: float = 2.0) -> Columns:
        n = self.n * 2 * step ** -np.arange(float(sizes))
        d = self.d * 2 * step ** -np.arange(float(amounts))
        params, tokens = (m.ravel() for m in np.meshgrid(n, d))
        return {"params": params, "tokens": tokens, "flops": 6 * params * tokens}


def noisy(random: Random, columns: Columns, loss: np.ndarray) -> Runs:
    return Runs.of(loss=loss * np.exp(NOISE * random.standard_normal(loss.size)), **columns)


def repeats(columns: Columns, most: float) -> Columns:
    """One set of unique data, seen up to `most` times."""
    return columns | {"unique_tokens": np.full(columns["tokens"].size, columns["tokens"].max() / most)}


def grid_of_few_unique(random: Random) -> Runs:
    s = Surface(random)
    columns = repeats(s.grid(5, 7), random.uniform(40, 80))
    return noisy(random, columns, s.repeated(columns, random.uniform(8, 16), random.uniform(4, 8)))


def grid_without_excess(random: Random) -> Runs:
    s = Surface(random)
    columns = repeats(s.grid(5, 6), 40)
    return noisy(random, columns, s.repeated(columns, random.uniform(4, 15.4), 1e6))


def twenty_runs(random: Random) -> Runs:
    s = Surface(random)
    columns = repeats(s.grid(4, 5, 3.0), 60)
    return noisy(random, columns, s.repeated(columns, 15.4, 5.3))


def isoflop_of_few_unique(random: Random) -> Runs:
    s = Surface(random)
    columns = repeats(s.isoflop(), random.uniform(45, 100))
    return noisy(random, columns, s.repeated(columns, 15.4, 5.3))


def several_unique(random: Random) -> Runs:
    s = Surface(random)
    columns = {name: np.tile(v, 3) for name, v in s.grid(3, 4, 2.5).items()}
    top = columns["tokens"].max()
    columns["unique_tokens"] = np.minimum(np.repeat([top / 60, top / 15, top], 12), columns["tokens"])
    return noisy(random, columns, s.repeated(columns, 15.4, 5.3))


def hard_ceiling(random: Random) -> Runs:
    """Not the law's form: passes beyond a few are worth nothing at all."""
    s = Surface(random)
    columns = repeats(s.grid(5, 6), 40)
    worth = np.minimum(columns["tokens"], columns["unique_tokens"] * random.uniform(3, 8))
    return noisy(random, columns, s.loss(columns["params"], worth))


def overfitting(random: Random) -> Runs:
    """Not the law's form: the loss rises again with many passes."""
    s = Surface(random)
    columns = repeats(s.grid(5, 6), 40)
    rise = 1 + 5e-4 * np.maximum(columns["tokens"] / columns["unique_tokens"] - 8, 0)
    return noisy(random, columns, s.repeated(columns, 6.0, 1e6) * rise)


def four_passes_isoflop(random: Random) -> Runs:
    s = Surface(random)
    columns = repeats(s.isoflop(), 4)
    return noisy(random, columns, s.repeated(columns, 15.4, 5.3))


def four_passes_grid(random: Random) -> Runs:
    s = Surface(random)
    columns = repeats(s.grid(5, 6), 4)
    return noisy(random, columns, s.repeated(columns, 15.4, 5.3))


def two_passes(random: Random) -> Runs:
    s = Surface(random)
    columns = repeats(s.grid(4, 5, 3.0), 2)
    return noisy(random, columns, s.repeated(columns, 15.4, 5.3))


def harmless_passes(random: Random) -> Runs:
    """Thirty passes, each as good as the first."""
    s = Surface(random)
    columns = repeats(s.grid(5, 6), 30)
    return noisy(random, columns, s.loss(columns["params"], columns["tokens"]))


def plain_isoflop(random: Random) -> Runs:
    s = Surface(random)
    columns = s.isoflop()
    return noisy(random, columns, s.loss(columns["params"], columns["tokens"]))


def plain_grid(random: Random) -> Runs:
    s = Surface(random)
    columns = s.grid(4, 5, 3.0)
    return noisy(random, columns, s.loss(columns["params"], columns["tokens"]))


def patched(random: Random, times: tuple[float, float], kappa: tuple[float, float], flops: bool = True) -> Runs:
    """Patches 4, 8, 16 at 3 budgets of 5 sizes, D in samples; at the finest patch of the largest budget the patch's floor is `times` what
    the terms of N and D have left there."""
    s = Surface(random, (0.2, 0.5))
    s.b *= 64.0**-s.beta  # from tokens of patch 8 to samples
    parts: list[Columns] = []
    for patch in (4.0, 8.0, 16.0):
        each = (SIDE / patch) ** 2
        for budget in np.geomspace(TOP / 20, TOP, 3):
            params = s.best(np.array(budget), 6 * each) * np.geomspace(1 / 6, 6, 5)
            samples = budget / (6 * each * params)
            parts.append({"params": params, "samples": samples, "tokens": samples * each, "patch": np.full(5, patch)})
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    if flops:
        columns["flops"] = 6 * columns["params"] * columns["tokens"]
    smooth, k = s.loss(columns["params"], columns["samples"]), random.uniform(*kappa)
    left = smooth[columns["patch"] == 4].min() - s.e
    return noisy(random, columns, smooth + random.uniform(*times) * left * (columns["patch"] / 4) ** k)


def coarse_floor(random: Random) -> Runs:
    return patched(random, (1, 3), (0.4, 1.5))


def slowly_falling_floor(random: Random) -> Runs:
    return patched(random, (2, 4), (0.25, 0.4))


def coarse_floor_without_flops(random: Random) -> Runs:
    return patched(random, (1, 3), (0.4, 1.5), flops=False)


def in_tokens(random: Random, times: tuple[float, float]) -> Runs:
    """The same sizes and tokens at each patch, and nothing said of samples."""
    s = Surface(random, (0.2, 0.5))
    columns = {name: np.tile(v, 3) for name, v in s.isoflop(3, 5).items()}
    columns["patch"] = np.repeat([4.0, 8.0, 16.0], 15)
    smooth = s.loss(columns["params"], columns["tokens"])
    floor = random.uniform(*times) * (smooth.min() - s.e) * (columns["patch"] / 4) ** random.uniform(0.5, 1.5)
    return noisy(random, columns, smooth + floor)


def coarse_floor_in_tokens(random: Random) -> Runs:
    return in_tokens(random, (1, 3))


def fine_enough(random: Random) -> Runs:
    return patched(random, (0.01, 0.2), (0.5, 1.5))


def fine_enough_without_flops(random: Random) -> Runs:
    return patched(random, (0.01, 0.2), (0.5, 1.5), flops=False)


def fine_enough_in_tokens(random: Random) -> Runs:
    return in_tokens(random, (0.01, 0.2))


def no_effect_of_patch(random: Random) -> Runs:
    return patched(random, (0, 0), (1, 1))


PLANTED: dict[str, list[Callable[[Random], Runs]]] = {
    "repetition": [
        grid_of_few_unique,
        grid_without_excess,
        isoflop_of_few_unique,
        several_unique,
        hard_ceiling,
        overfitting,
    ],
    "patch": [coarse_floor, slowly_falling_floor, coarse_floor_without_flops, coarse_floor_in_tokens],
}
THIN = {twenty_runs: "repetition"}
"""20 runs do not always tell the seven parameters apart: 8 of 10 is what they allow."""
CONTROLS = [
    four_passes_isoflop,
    four_passes_grid,
    two_passes,
    harmless_passes,
    plain_isoflop,
    plain_grid,
    fine_enough,
    fine_enough_without_flops,
    fine_enough_in_tokens,
    no_effect_of_patch,
]


def judge(runs: Runs, resamples: int = 100) -> Verdict:
    """What `analyse` does for its verdict, without the rest."""
    fits = [fit(law, runs) for law in candidates(runs)]
    tried = [Candidate(f.law, f, aicc(f), (), "") for f in fits]
    chosen = best(tried)
    assert chosen is not None
    assert chosen.fit is not None
    plain = None if chosen.law.name == "chinchilla" else min(t.aicc for t in tried if t.law.name in ("tied", "chinchilla") and t.aicc)
    data = "samples" if "samples" in chosen.law.columns else "tokens"
    return verdict(bootstrap(chosen.fit, resamples), 1.0, data, chosen.fit.sigma, plain, chosen.aicc)


def verdicts(plant: Callable[[Random], Runs], cases: int) -> Counter[str | None]:
    return Counter(judge(plant(np.random.default_rng([i, 7]))).saturated for i in range(cases))


@pytest.mark.parametrize(("axis", "plants"), [*PLANTED.items(), (None, CONTROLS)], ids=["repetition", "patch", "controls"])
def test_verdict_names_what_was_planted(axis: str | None, plants: list[Callable[[Random], Runs]]) -> None:
    found = {plant.__name__: verdicts(plant, 1) for plant in plants}
    right, all_ = sum(f[axis] for f in found.values()), sum(f.total() for f in found.values())
    assert right >= 0.9 * all_, found


@pytest.mark.drill
def test_verdicts_of_each_surface_alone() -> None:
    """9 of 10 of each kind by itself, 20 tables each."""
    wanted = [(plant, axis) for axis, plants in PLANTED.items() for plant in plants] + [(plant, None) for plant in CONTROLS]
    found = {plant: (axis, verdicts(plant, 20)) for plant, axis in [*wanted, *THIN.items()]}
    for plant, (axis, counts) in found.items():
        print(f"{plant.__name__:28s} planted {axis or 'none':11s} named {counts[axis]} of 20  {dict(counts)}")  # noqa: T201
    assert all(counts[axis] >= (16 if plant in THIN else 18) for plant, (axis, counts) in found.items()), found


def test_analysis_tells_the_verdict() -> None:
    report = analyse(coarse_floor(np.random.default_rng(3)), resamples=100).to_json()
    saturation = report["saturation"]
    assert report["form"] == "patch"
    assert report["data"] == "samples"
    assert saturation["saturated"] == "patch"
    assert saturation["axes"]["patch"]["withheld"]["low"] > 0
    assert "4 times as much" in saturation["sentence"]


def test_floor_alone_is_predictability() -> None:
    """Neither N nor D moves a loss that is all floor."""
    random = np.random.default_rng(0)
    s = Surface(random)
    columns = s.isoflop()
    steep = 1 + sum((columns[name] / columns[name].min()) ** -2.5 for name in ("params", "tokens"))
    assert judge(noisy(random, columns, steep)).saturated == "predictability"


def test_small_model_on_plenty_of_data() -> None:
    """Fresh data gains nothing more and a larger model does: the data is saturated, the model is next."""
    random = np.random.default_rng(1)
    n, d = (m.ravel() for m in np.meshgrid(1e6 * 2.0 ** np.arange(5), 1e9 * 4.0 ** np.arange(6)))
    columns = {"params": n, "tokens": d}
    found = judge(noisy(random, columns, 1 + 50 * n**-0.3 + (d / 1e9) ** -1.2))
    assert found.saturated == "data"
    assert "the model" in found.scale_next
