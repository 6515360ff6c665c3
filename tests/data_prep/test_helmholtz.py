from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_poisson import differentiation, digest

from scigpt.data.corpus import Corpus
from scigpt.data_prep.convert import convert
from scigpt.data_prep.pde import EQUATIONS, helmholtz
from scigpt.data_prep.pde.helmholtz import Helmholtz, HelmholtzOptions, acceptance, solve
from scigpt.data_prep.pde.poisson import random_bumps
from scigpt.data_prep.source import parse_options
from scigpt.errors import UserError

SMALL = HelmholtzOptions(train=60, valid=1, test=1, ood=12, grid=32)


@pytest.mark.parametrize("rough", [False, True])
def test_residual_vanishes_under_an_independent_operator(rough: bool) -> None:
    n = 64
    _, second = differentiation(n)
    for omega in range(1, 21):
        rng = np.random.default_rng(omega)
        f = rng.standard_normal((n, n)) if rough else random_bumps(rng, n)
        u = solve(f, omega)
        applied = -(0.01 * (u @ second.T + second @ u) + omega * u)
        assert np.linalg.norm(applied - f) < 1e-10 * np.linalg.norm(f)


def test_one_fourier_mode_and_the_mean_have_their_analytic_solution() -> None:
    n, (p, q), omega = 32, (2, -3), 7
    y, x = np.meshgrid(np.arange(n) / n, np.arange(n) / n, indexing="ij")
    f = np.cos(2 * np.pi * (p * x + q * y) + 0.4)
    np.testing.assert_allclose(solve(f, omega), f / (0.04 * np.pi**2 * (p * p + q * q) - omega), atol=1e-14)
    np.testing.assert_allclose(solve(f + 5.0, omega), f / (0.04 * np.pi**2 * (p * p + q * q) - omega) - 5.0 / omega, atol=1e-13)


def test_medians_are_those_of_the_paper_family() -> None:
    """Independently measured at 128 x 128: source norm 0.00224; largest solution 0.305 and 0.270 at omega 10 to 15 and 15 to 20."""
    bumps = np.stack([random_bumps(np.random.default_rng([7, i]), 128) for i in range(240)])
    assert np.median(np.linalg.norm(bumps, axis=(1, 2))) / 128**2 == pytest.approx(0.00224, rel=0.05)
    for low, high, expected in ((10, 15, 0.305), (15, 20, 0.270)):
        omegas = np.random.default_rng(0).integers(low, high + 1, len(bumps))
        largest = [np.abs(solve(f, omega)).max() for f, omega in zip(bumps, omegas, strict=True)]
        assert np.median(largest) == pytest.approx(expected, rel=0.08)


def test_resonant_omegas_are_hardly_ever_accepted() -> None:
    shares = acceptance(range(1, 21))
    assert shares[2] < 0.01
    assert 0.35 < shares[4] < 0.5
    assert all(share > 0.98 for omega, share in shares.items() if omega not in (2, 4))
    assert all(shares[omega] == 1 for omega in range(10, 21))
    assert np.mean([shares[omega] for omega in range(1, 11)]) == pytest.approx(0.85, abs=0.02)
    # of solutions at omega 2, the typical one is more than twice too large
    sizes = [np.abs(solve(random_bumps(np.random.default_rng(i), 32), 2)).max() for i in range(200)]
    assert np.median(sizes) > 4


def test_corpus_holds_what_was_accepted_and_its_card_tells_the_shares(tmp_path: Path) -> None:
    out = convert(EQUATIONS["helmholtz"]((), SMALL), tmp_path / "waves", progress=False)
    corpus = Corpus.open(out)
    assert {n: s["distribution"] for n, s in corpus.manifest["splits"].items()} == {
        "train": "in", "valid": "in", "test": "in", "ood": "out",
    }  # fmt: skip
    omegas = {}
    for split in ("train", "ood"):
        samples = [corpus.read(split, i) for i in range(len(corpus.entries(split)))]
        omegas[split] = [s.coefficients["omega"] for s in samples]
        for sample in samples:
            assert sample.steady
            assert np.abs(sample.values[1, 1]).max() <= 2
            expected = solve(sample.values[1, 0, 0].astype(float), sample.coefficients["omega"])
            np.testing.assert_allclose(sample.values[1, 1, 0], expected, atol=1e-4)
    assert set(omegas["train"]) <= set(range(1, 11)) - {2}
    assert len(set(omegas["train"])) >= 8
    assert set(omegas["ood"]) <= set(range(15, 21))
    card = (out / "CARD.md").read_text()
    assert "omega 1 to 10, accepted draws 1: 99." in card
    assert "others 100%" in card
    assert "omega 15 to 20, accepted draws 100% of every omega" in card
    count = omegas["train"].count(3.0)
    row = next(line for line in card.splitlines() if line.startswith("| omega |"))
    assert f"3: {count / 60:.1%}" in row
    assert " 2: " not in row


def test_a_range_of_the_rarest_omega_alone_comes_to_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Helmholtz((), HelmholtzOptions(train=2, valid=0, test=0, ood=0, grid=32, omega_low=2, omega_high=2))
    plan = source.plan()
    assert [s.coefficients["omega"] for s in source.samples(plan.refs)] == [2.0, 2.0]
    monkeypatch.setattr(helmholtz, "LARGEST", 0.01)
    monkeypatch.setattr(helmholtz, "ATTEMPTS", 20)
    with pytest.raises(UserError, match="train 0: none of 20 solutions with omega 2 to 2"):
        next(source.samples(plan.refs))


def test_bytes_depend_on_the_sample_alone() -> None:
    source = Helmholtz((), SMALL)
    refs = source.plan().refs[-20:]
    together = digest(list(source.samples(refs)))
    assert len(set(together)) == len(together)
    assert digest([s for r in reversed(refs) for s in source.samples([r])]) == together[::-1]


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["omega_low=0"], "omega_low=0"),
        (["omega_low=1.5"], "not a valid int"),
        (["ood_low=10"], "share an omega"),
        (["ood_low=9"], "overlap"),
        (["grid=30"], "grid=30"),
    ],
)
def test_bad_options_are_refused(words: list[str], part: str) -> None:
    with pytest.raises(UserError, match=part):
        parse_options(Helmholtz.Options, words)
