"""What pretraining is worth: known curves give known effective data, crossings and gaps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from scigpt.errors import UserError
from scigpt.scaling.transfer import Table, transfer

EXAMPLES = np.array([50, 100, 200, 400, 800, 1600, 3200])


def write(path: Path, scratch: np.ndarray, tuned: dict[float, np.ndarray], noise: float = 0.0, seed: int = 0) -> Path:
    """A CSV; `tuned` by amount of pretraining data."""
    random = np.random.default_rng(seed)
    rows = ["kind,examples,loss,pretraining"]
    rows += [f"scratch,{f},{loss * np.exp(noise * random.normal()):.12g},1" for f, loss in zip(EXAMPLES, scratch, strict=True)]
    for p, curve in tuned.items():
        rows += [f"finetuned,{f},{v * np.exp(noise * random.normal()):.12g},{p:g}" for f, v in zip(EXAMPLES, curve, strict=True)]
    path.write_text("\n".join(rows) + "\n")
    return path


def test_effective_data_and_crossing_of_known_curves(tmp_path: Path) -> None:
    # scratch 0.1 + 4 f^-0.5, fine-tuned 0.13 + 1 f^-0.5: equal where 3 f^-0.5 = 0.03, at f = 10,000
    file = write(tmp_path / "t.csv", 0.1 + 4 * EXAMPLES**-0.5, {1e6: 0.13 + EXAMPLES**-0.5})
    found = transfer(Table.read(file), resamples=50)
    for at in found.effective:
        expected = (4 / (0.03 + at.examples**-0.5)) ** 2
        assert at.data.value == pytest.approx(expected, rel=1e-3)
        assert at.multiplier.value == pytest.approx(expected / at.examples, rel=1e-3)
        assert at.extrapolated == (expected > 3200)
    assert found.crossing.value == pytest.approx(1e4, rel=0.02)
    assert found.gap is None
    assert "does not help" in found.sentence


def test_a_loss_below_the_floor_of_scratch_has_no_equal(tmp_path: Path) -> None:
    file = write(tmp_path / "t.csv", 0.3 + 4 * EXAMPLES**-0.5, {1e6: 0.05 + EXAMPLES**-0.5})
    found = transfer(Table.read(file), resamples=50)
    assert np.isinf(found.effective[-1].data.value)
    assert np.isinf(found.crossing.value)
    data = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert data["effective"][-1]["data"]["value"] is None
    assert "no number of examples from scratch" in found.sentence


def test_pretraining_that_never_helps_crosses_at_once(tmp_path: Path) -> None:
    file = write(tmp_path / "t.csv", 0.1 + 2 * EXAMPLES**-0.5, {1e6: 0.1 + 3 * EXAMPLES**-0.5})
    assert transfer(Table.read(file), resamples=50).crossing.value == pytest.approx(EXAMPLES[0])


def test_the_gap_is_what_no_pretraining_closes(tmp_path: Path) -> None:
    def curve(p: float) -> np.ndarray:
        return (900.0 * p**-0.5 + 0.8) * EXAMPLES**-0.4 + 0.05

    tuned = {p: curve(p) for p in (1e4, 1e5, 1e6, 1e7)}
    exact = transfer(Table.read(write(tmp_path / "exact.csv", 0.05 + 6 * EXAMPLES**-0.4, tuned)), resamples=50)
    assert exact.gap is not None
    assert exact.gap.value == pytest.approx(0.8, rel=1e-3)
    assert exact.finetuned.points == len(EXAMPLES)  # the curve is that of the largest amount of pretraining
    noisy = transfer(Table.read(write(tmp_path / "noisy.csv", 0.05 + 6 * EXAMPLES**-0.4, tuned, noise=0.003)), resamples=200)
    assert noisy.gap is not None
    assert noisy.gap.low < 0.8 < noisy.gap.high
    assert noisy.gap.high - noisy.gap.low < 0.4


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("kind,example,loss\nscratch,1,1\n", "rename 'example'"),
        ("kind,examples,loss\nzero-shot,1,1\n", "expected scratch or finetuned"),
        ("kind,examples,loss\nscratch,10,-1\n", "expected a positive number"),
        ("kind,examples,loss\nscratch,10,1\nfinetuned,10,1\n", "1 usable run"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "t.csv"
    file.write_text(text)
    with pytest.raises(UserError) as error:
        transfer(Table.read(file), resamples=10)
    assert says in str(error.value)
    assert "\n" not in str(error.value)
