"""The scripts of `benchmarks/`: figures that can be checked by hand, and one small run of each."""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from scigpt.errors import UserError
from scigpt.model.backbone import ModelConfig

Script = Callable[[str], ModuleType]
SCRIPTS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    """A script as a module."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module


def test_products_attention_and_transforms_are_counted(script: Script) -> None:
    models = script("models")
    a, c = torch.randn(3, 5), torch.randn(2, 3, 5, dtype=torch.complex64)
    q, k = torch.randn(2, 4, 6, 8, requires_grad=True), torch.randn(2, 4, 7, 8, requires_grad=True)
    attention = 2 * 2 * 4 * 6 * 7 * (8 + 8)
    assert models.flops_of(lambda: a @ a.T) == 2 * 3 * 5 * 3
    assert models.flops_of(lambda: c @ c.mT) == 8 * 2 * 3 * 5 * 3
    assert models.flops_of(lambda: torch.fft.fft(torch.randn(3, 16, dtype=torch.complex64))) == 5 * 3 * 16 * 4
    assert models.flops_of(lambda: torch.fft.irfft(torch.fft.rfft(torch.randn(3, 16)))) == 5 * 3 * 16 * 4
    assert models.flops_of(lambda: torch.nn.functional.scaled_dot_product_attention(q, k, k)) == attention
    assert models.flops_of(lambda: torch.nn.functional.scaled_dot_product_attention(q, k, k).sum().backward()) == 3 * attention


def test_every_model_has_a_row_and_what_is_missing_says_so(script: Script) -> None:
    models = script("models")
    config = ModelConfig(depth=1, width=64)
    found = models.measure({"SciGPT": config}, 2, 32, 8, 1, "fp32", 1, 1, "cpu")
    rows = {row["model"]: row for row in found["rows"]}
    data = models.synthetic_batch(1, 3, 32, 8)
    model = models.SciGPT(config, models.Vocabulary({v.name: v.unit for v in data.layout.variables}, {}))
    assert models.flops_of(lambda: model(data)) == pytest.approx(model.flops(data), rel=0.05)
    assert 2 * model.flops(data) < rows["SciGPT"]["flops"] <= 3 * model.flops(data)  # no gradient of the input
    for name in ("FNO", "TFNO", "UNO"):
        row = rows[f"neuraloperator {name}"]
        assert row["flops"] > 0
        assert row["time_per_flop"] > 0
    absent = rows["microsoft-aurora small"]
    assert "flops" in absent or "pip install microsoft-aurora" in absent["missing"]
    assert len(models.describe(found).splitlines()) == 2 + len(rows)


def test_both_loaders_read_a_file_of_the_well(script: Script, tmp_path: Path) -> None:
    loaders = script("loaders")
    file = loaders.written(tmp_path / "waves.hdf5", trajectories=2, frames=9, side=16)
    found = loaders.measure([file], 4, 2, 2, 1, 1, "cpu")["loaders"]
    assert found["scigpt"]["mb_per_window"] == pytest.approx(4 * 3 * 16 * 16 * 4 / 1e6)
    theirs = found["the_well"]
    if "missing" in theirs:
        assert "pip install --no-deps the_well" in theirs["missing"]
    else:
        assert theirs["mb_per_window"] == found["scigpt"]["mb_per_window"]


def test_the_seconds_to_a_score_lie_between_the_points_of_a_curve(script: Script) -> None:
    quality = script("quality")
    curve = [{"seconds": s, "vrmse": v} for s, v in ((10, 0.4), (40, 0.1))]
    assert quality.reached(curve, 0.2) == pytest.approx(20)
    assert quality.reached(curve, 0.1) == 40
    assert quality.reached(curve, 0.5) == 10
    assert math.isinf(quality.reached(curve, 0.05))
    slower = [{"seconds": s, "vrmse": v} for s, v in ((10, 0.8), (40, 0.2))]
    assert quality.equal(curve, slower) == pytest.approx({"vrmse": 0.2, "ours": 20, "theirs": 40})


def test_a_small_race_gives_a_score_for_every_model(script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scigpt.data.corpus import Corpus
    from scigpt.data.mixture import Mixture
    from scigpt.data_prep.convert import convert
    from scigpt.data_prep.pde import EQUATIONS
    from scigpt.evaluate.fno import Shape
    from scigpt.train.account import account

    quality = script("quality")
    monkeypatch.setattr(quality, "PILOT", 1)
    source = EQUATIONS["navier-stokes"]
    options = source.Options(train=4, valid=1, test=1, ood=0, grid=32, frames=8)
    path = convert(source((), options), tmp_path / "flow", progress=False)
    tries, quick = quality.Tries([3e-3], [1]), quality.Quick(modes=4, width=4)
    found = quality.measure([path], [0.01], ModelConfig(depth=1, width=64), tries, quality.Tries([1e-3, 1e-2], [1]), quick, 1, 1, "cpu")
    family = found["families"]["flow"]
    assert set(family["curves"]) == {quality.OURS, quality.EQUAL, quality.SMALL, str(quick)}
    assert all(0 < point["vrmse"] < math.inf for curve in family["curves"].values() for point in curve)
    (point,) = family["curves"][str(quick)]
    assert {t["rate"] for t in point["tries"]} == {1e-3, 1e-2}
    assert point["vrmse"] == min(t["vrmse"] for t in point["tries"])
    assert family["parameters"][str(quick)] < family["parameters"][quality.SMALL] < 1_000_000
    setting = quality.Setting(Corpus.open(path), ModelConfig(depth=1, width=64), 1, "cpu")
    whole, parts = setting.flops, account(Mixture([setting.corpus], setting.data(1), 0), setting.model, 1, None, [None]).flops
    assert 3 * whole * setting.shown == parts["total"]
    shapes = [Shape.of(setting.corpus.layout, setting.coefficients, setting.operators(None)[quality.EQUAL].width + w) for w in (0, 4)]
    assert shapes[0].forward_flops() <= whole < shapes[1].forward_flops()
    assert len(quality.describe(json.loads(json.dumps(found))).splitlines()) == 2 + 4 + len(family["baselines"])


def test_lists_of_numbers_are_read_or_refused(script: Script) -> None:
    quality = script("quality")
    assert quality.numbers("--rates", "1e-3,2") == [1e-3, 2.0]
    assert quality.whole("--windows", "1,4") == [1, 4]
    for text in ("", "1,x", "0", "-1", "inf", "nan"):
        with pytest.raises(UserError, match=r"--rates .*expected numbers above 0"):
            quality.numbers("--rates", text)
    with pytest.raises(UserError, match="whole numbers"):
        quality.whole("--windows", "1.5")
