"""Every head trains, owns its loss, and returns a distribution whose parts agree with each other."""

from __future__ import annotations

import math
import sys
import types
from dataclasses import replace
from typing import Any

import pytest
import torch
from scipy import stats
from toys import VOCABULARY, make_batch

from scigpt.data.batches import Batch
from scigpt.errors import UserError
from scigpt.model.backbone import ModelConfig, SciGPT
from scigpt.model.heads import (
    Categorical,
    Classes,
    Ensemble,
    EnsembleForecast,
    FieldHead,
    Gaussian,
    GaussianForecast,
    HeadShape,
    Labels,
    Point,
    QuantileForecast,
    Quantiles,
    outputs,
    with_outputs,
)
from scigpt.train.objective import group_weight, share_of_loss

SHAPE = HeadShape(32, 6, 0, 3.0)
OPTIONS: dict[str, dict[str, Any]] = {"coefficients": {"count": 2}, "classes": {"count": 3}}


def a_model(head: str, **options: object) -> SciGPT:
    return SciGPT(ModelConfig(depth=1, width=32, heads=1, head=head, head_options=OPTIONS.get(head, {}) | options), VOCABULARY)


def asked(head: str, batch: Batch) -> Batch:
    answers = {"coefficients": torch.tensor([[0.3, torch.nan], [-1.0, 2.0]]), "classes": torch.tensor([[2.0], [0.0]])}.get(head)
    return replace(batch, answers=answers)


@pytest.mark.parametrize("head", ["point", "gaussian", "quantile", "ensemble", "labels", "coefficients", "classes"])
def test_a_head_learns_one_batch(head: str) -> None:
    """The loss falls, every parameter has a gradient, and the whole is the mean over micro-batches however it is cut."""
    model = a_model(head)
    batch = asked(head, make_batch((3, 1, 8, 8), ("a", "d"), gaps=0.1))
    if head == "labels":
        batch = replace(batch, values=(batch.values > 0).float())
    whole = group_weight([batch], model.head.weight)
    halves = [batch.select(slice(i, i + 1)) for i in range(2)]
    parts = sum(float(share_of_loss(model(b), model.head, whole).loss.detach()) for b in halves)
    assert parts == pytest.approx(float(share_of_loss(model(batch), model.head, whole).loss.detach()), rel=1e-5)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    for _ in range(40):
        loss = share_of_loss(model(batch), model.head, whole).loss
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.05 * abs(losses[0])


def test_what_has_no_target_does_not_count() -> None:
    for head in ("gaussian", "quantile", "ensemble"):
        model = a_model(head)
        batch = make_batch((3, 1, 8, 8), gaps=0.3)
        other = replace(batch, values=torch.where(batch.valid, batch.values, 1e30))
        for made in (batch, other):
            model.zero_grad()
            share_of_loss(model(made), model.head, group_weight([made], model.head.weight)).loss.backward()
            found = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
            if made is batch:
                before = found
        assert torch.equal(before, found)


def test_a_pretrained_mean_stays_the_mean() -> None:
    """Gaussian and quantile heads begin with the detokenizer of a point forecast as their mean and median."""
    batch, base = make_batch((3, 1, 8, 8)), a_model("point")
    with torch.no_grad():
        base.head.detokenizer.kernel.normal_()  # type: ignore[attr-defined]
    for head in ("gaussian", "quantile"):
        model = a_model(head)
        model.load_state_dict(base.state_dict(), strict=False)
        assert torch.allclose(model(batch).raw, base(batch).raw, atol=1e-6)


def draws(distribution: Any, count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.stack([distribution.sample(generator) for _ in range(count)])


def test_gaussian_agrees_with_scipy() -> None:
    mean, log_scale = torch.randn(2, 3), torch.randn(2, 3) * 0.3
    distribution = Gaussian(mean, log_scale)
    for level in (0.1, 0.5, 0.95):
        expected = stats.norm.ppf(level, mean.numpy(), log_scale.exp().numpy())
        assert distribution.quantile(level).numpy() == pytest.approx(expected, abs=1e-5)
    head, target = GaussianForecast(SHAPE), torch.randn(2, 3) * 0.5
    inside = (target - mean).abs() < 3 * log_scale.exp()
    expected = -stats.norm.logpdf(target.numpy(), mean.numpy(), log_scale.exp().numpy()) - 0.5 * math.log(2 * math.pi)
    assert head.error(distribution, target)[inside].numpy() == pytest.approx(expected[inside.numpy()], abs=1e-5)
    sample = draws(distribution, 4000)
    assert sample.mean(0).numpy() == pytest.approx(mean.numpy(), abs=0.1)


def test_quantiles_do_not_cross_and_their_loss_finds_the_quantile() -> None:
    model = a_model("quantile")
    with torch.no_grad():
        for p in model.head.parameters():  # type: ignore[attr-defined]
            p.normal_()
    values = model(make_batch((3, 1, 8, 8))).distribution.values  # type: ignore[attr-defined]
    assert (values.diff(dim=0)[:, :, :, :2] >= 0).all()
    # the pinball loss of one level is least at the sample's quantile of that level
    head, data = QuantileForecast(SHAPE, (0.25, 0.5)), torch.randn(4001)
    grid = torch.linspace(-2, 2, 401)
    losses = [float(head.error(Quantiles(torch.stack([g.expand(4001), torch.zeros(4001)]), (0.25, 0.5)), data).mean()) for g in grid]
    assert float(grid[int(torch.tensor(losses).argmin())]) == pytest.approx(float(data.quantile(0.25)), abs=0.02)
    distribution = Quantiles(torch.tensor([[0.0], [1.0], [4.0]]), (0.1, 0.5, 0.9))
    assert [float(distribution.quantile(q)) for q in (0.1, 0.3, 0.5, 0.7, 0.99)] == pytest.approx([0, 0.5, 1, 2.5, 4])
    assert float((draws(distribution, 4000) <= 1).float().mean()) == pytest.approx(0.5, abs=0.03)


def test_fair_crps_of_an_ensemble_is_unbiased() -> None:
    """Its mean over ensembles of a standard normal is the CRPS of the normal itself, whatever the number of members (closed form at 0:
    2 phi(0) - 1 / sqrt(pi))."""
    expected = 2 * stats.norm.pdf(0) - 1 / math.sqrt(math.pi)
    for count in (2, 5):
        members = torch.randn(count, 200_000, generator=torch.Generator().manual_seed(1))
        found = EnsembleForecast(SHAPE, count).error(Ensemble(members), torch.zeros(200_000)).mean()
        assert float(found) == pytest.approx(expected, abs=5e-3)


def test_members_differ_from_the_start() -> None:
    members = a_model("ensemble")(make_batch((3, 1, 8, 8))).distribution.members  # type: ignore[attr-defined]
    assert (members.std(0)[:, :, :2] > 0).all()


def test_labels_and_classes_are_probabilities() -> None:
    labels = Labels(torch.randn(2, 2, 1, 1, 1, 5))
    assert draws(labels, 3000).mean(0).numpy() == pytest.approx(labels.mean.numpy(), abs=0.05)
    classes = Categorical(torch.randn(2, 1, 3, 1, 1, 1))
    assert classes.mean.sum(2).flatten().tolist() == pytest.approx([1, 1])
    assert draws(classes, 3000).mean(0).numpy() == pytest.approx(classes.mean.numpy(), abs=0.05)
    target = torch.tensor([2.0, 1.0]).view(2, 1, 1, 1, 1, 1)
    found = Classes(SHAPE, 3).error(classes, target).flatten()
    assert found.tolist() == pytest.approx((-classes.mean.log()).flatten(1)[[0, 1], [2, 1]].tolist(), rel=1e-5)


def test_the_outputs_of_a_distribution_can_be_exchanged() -> None:
    for distribution in (Point(torch.ones(2)), Gaussian(torch.ones(2), torch.zeros(2)), Quantiles(torch.ones(3, 2), (0.1, 0.5, 0.9))):
        other = with_outputs(distribution, [2 * t for t in outputs(distribution)])
        assert type(other) is type(distribution)
        assert float(other.mean[0]) == 2.0


def test_a_head_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("my_heads")

    class Absolute(FieldHead):
        def __init__(self, shape: HeadShape, factor: float = 1.0) -> None:
            super().__init__(shape)
            self.factor = factor

        def forward(self, tokens: torch.Tensor, batch: Batch, rows: tuple[int, ...]) -> Point:
            return Point(self.field(self.detokenizer, tokens, batch, rows))

        def error(self, distribution: Point, target: torch.Tensor) -> torch.Tensor:
            return self.factor * (distribution.mean - target).abs()

    module.Absolute = Absolute  # type: ignore[attr-defined]
    module.Lacking = lambda shape: torch.nn.Linear(2, 2)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_heads", module)
    batch = make_batch((3, 1, 8, 8))
    one, two = (a_model("my_heads:Absolute", factor=f) for f in (1.0, 2.0))
    losses = [float(share_of_loss(m(batch), m.head, group_weight([batch], m.head.weight)).loss.detach()) for m in (one, two)]
    assert losses[1] == pytest.approx(2 * losses[0])
    with pytest.raises(UserError, match="lacks target, error"):
        a_model("my_heads:Lacking")


@pytest.mark.parametrize(
    ("head", "options", "sentence"),
    [
        ("gausian", {}, "did you mean gaussian"),
        ("nowhere:Head", {}, "cannot be imported"),
        ("quantile", {"levels": [0.1, 0.9]}, "0.5 among them"),
        ("quantile", {"level": [0.5]}, "do not fit the head quantile"),
        ("ensemble", {"members": 1}, "expected 2 or more"),
    ],
)
def test_mistakes_are_told(head: str, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        a_model(head, **options)


def test_a_window_head_without_a_question_says_so() -> None:
    model = a_model("coefficients")
    with pytest.raises(UserError, match=r"set task\.name to coefficients or classes"):
        model.head.weight(make_batch((3, 1, 8, 8)))
