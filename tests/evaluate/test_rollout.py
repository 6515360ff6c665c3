"""Rollouts: no leakage, the window that is asked for, and an exact forecast from a model that knows the rule."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from worlds import Answer, Mover, world

from scigpt.data.batches import Batch, collate
from scigpt.data.normalize import Scales
from scigpt.data.sample import Boundary, Origin, Sample, Time, Variable
from scigpt.errors import UserError
from scigpt.evaluate.rollout import hide, rollout
from scigpt.model.backbone import ModelConfig, SciGPT, Vocabulary

ROLES = {"density": "state", "inflow": "forcing", "source": "static", "vorticity": "diagnostic"}


def batch_of(seed: int = 0, frames: int = 9) -> Batch:
    """Two windows with a variable of every role and some gaps."""
    samples = []
    for i in range(2):
        generator = np.random.default_rng((seed, i))
        values = generator.normal(size=(frames, 4, 1, 4, 4)).astype(np.float32).cumsum(0) * 0.3
        valid = generator.random(values.shape) > 0.1
        variables = tuple(Variable(n, "1", r) for n, r in ROLES.items())  # type: ignore[arg-type]
        samples.append(Sample(values, valid, variables, Time.regular(0, 1, frames), Origin("t", "CC0-1.0")))
    return collate(samples, Scales((("identity", 1.0),) * 4, (0.0,) * 4, (1.0,) * 4, (0.5, 0.5, 0.0, 0.5)), patch=4)


class Nosy:
    """Predicts the mean of everything valid that it is shown, the frame to predict included; remembers the times it saw."""

    def __init__(self) -> None:
        self.seen: list[list[float]] = []

    def __call__(self, batch: Batch) -> Answer:
        self.seen.append(batch.seconds[0].tolist())
        average = torch.where(batch.valid, batch.values, 0.0).sum((1, 2, 3, 4, 5)) / batch.valid.sum((1, 2, 3, 4, 5))
        return Answer(batch.values[:, :-1] * 0.5 + average.view(-1, 1, 1, 1, 1, 1))


def small_model() -> SciGPT:
    torch.manual_seed(0)
    model = SciGPT(ModelConfig(depth=2, width=32, heads=2), Vocabulary(dict.fromkeys(sorted(ROLES), "1"), {})).eval()
    for parameter in model.parameters():  # the head starts at zero: let it say something
        torch.nn.init.normal_(parameter, std=0.05)
    return model


@pytest.mark.parametrize("make", [Nosy, small_model])
def test_what_is_hidden_has_no_influence_and_what_is_known_has(make: type) -> None:
    model, batch, context, steps = make(), batch_of(), 3, 5
    plain = rollout(model, batch, context, steps, 4)
    assert plain.shape == (2, steps, 4, 1, 4, 4)
    values, valid = batch.values.clone(), batch.valid.clone()
    values[:, context:, [0, 3]] = 1e6
    valid[:, context:, [0, 3]] = False
    values[:, context + steps :] = torch.nan
    assert torch.equal(rollout(model, replace(batch, values=values, valid=valid), context, steps, 4), plain)
    for c, frame in ((1, context), (2, context), (0, context - 1)):
        changed = batch.values.clone()
        changed[:, frame, c] += torch.where(batch.valid[:, frame, c], 1.0, 0.0)
        assert not torch.equal(rollout(model, replace(batch, values=changed), context, steps, 4)[:, :, 0], plain[:, :, 0]), (c, frame)


def test_equal_to_a_loop_written_out() -> None:
    model, batch, context, steps, window = small_model(), batch_of(1), 3, 4, 3
    hidden = hide(batch, context)
    expected = []
    with torch.no_grad():
        for target in range(context, context + steps):
            low = target - window
            forecast = model(hidden.frames(slice(low, target + 1))).physical()[:, -1]
            expected.append(forecast)
            values, valid = hidden.values.clone(), hidden.valid.clone()
            for c in (0, 3):
                ever = batch.valid[:, :context, c].any(1)
                values[:, target, c] = forecast[:, c] * ever
                valid[:, target, c] = ever
            hidden = replace(hidden, values=values, valid=valid)
    assert torch.equal(rollout(model, batch, context, steps, window), torch.stack(expected, 1))


def test_the_model_sees_the_window_and_the_frame_to_predict() -> None:
    model = Nosy()
    rollout(model, batch_of(), 2, 4, 3)
    assert model.seen == [[0, 1, 2], [0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5]]


def test_a_model_that_knows_the_rule_is_exact_to_the_last_bit() -> None:
    sample = world("volume", 3)
    batch = collate([sample], Scales((("identity", 1.0),), (0.0,), (1.0,), (1.0,)))
    assert torch.equal(rollout(Mover(), batch, 2, 10, 4), batch.values[:, 2:])


def test_land_stays_land() -> None:
    sample = world("map", 3)
    batch = collate([sample], Scales((("identity", 1.0),), (290.0,), (10.0,), (0.3,)))
    seen = []

    class Watch(Mover):
        def __call__(self, batch: Batch) -> Answer:
            seen.append(batch)
            return super().__call__(batch)

    rollout(Watch(), batch, 2, 5, 3)
    for shown in seen:
        assert torch.equal(shown.valid[:, :-1], batch.valid[:, : shown.valid.shape[1] - 1])
        assert not shown.valid[:, -1].any()


@pytest.mark.parametrize(("context", "steps", "window"), [(0, 2, 2), (2, 0, 2), (2, 2, 0), (5, 5, 2)])
def test_a_rollout_that_does_not_fit_is_refused(context: int, steps: int, window: int) -> None:
    with pytest.raises(UserError, match="does not fit a record of 9 frames"):
        rollout(Nosy(), batch_of(), context, steps, window)


def test_jitter_shows_shifted_fields_and_gives_them_back() -> None:
    """A rule that knows no place forecasts the same; what the model sees moves, along periodic axes only and by less than a patch."""
    values = np.random.default_rng(0).normal(size=(9, 1, 1, 12, 24)).astype(np.float32)
    periodic = Boundary(x=("periodic", "periodic"))
    sample = Sample(values, values < 9, (Variable("density", "1"),), Time.regular(0, 1, 9), Origin("t", "CC0-1.0"), boundary=periodic)
    batch = collate([sample], Scales((("identity", 1.0),), (0.0,), (1.0,), (1.0,)))
    seen: list[Batch] = []

    class Rule:
        def __call__(self, batch: Batch) -> Answer:
            seen.append(batch)
            return Answer(0.5 * batch.values[:, :-1])

    still, moved = rollout(Rule(), batch, 2, 6, 4), rollout(Rule(), batch, 2, 6, 4, jitter=True)
    assert torch.equal(still, moved)
    shifts = []
    for a, b in zip(seen[:6], seen[6:], strict=True):
        shifts += [s for s in range(batch.patch[2]) if torch.equal(b.values, a.values.roll(s, -1))]
    assert len(shifts) == 6
    assert len(set(shifts)) > 1
