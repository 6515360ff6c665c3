"""The promises of the any-grid model: shapes, gaps, causality, shift equivariance, counts."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from toys import ROLES, UNITS, VOCABULARY, make_batch, make_model

from scigpt.data.batches import Batch
from scigpt.data.sample import Boundary, Level
from scigpt.errors import UserError
from scigpt.model.attention import attention, choose_window
from scigpt.model.backbone import ModelConfig, SciGPT

MODEL = make_model()
PERIODIC = Boundary.all("periodic")


@st.composite
def shapes(draw: st.DrawFn) -> tuple[int, int, int, int]:
    """T, Z, Y, X from 1 to 200 (two frames at least: one has nothing to predict) with a product up to 1e6."""
    left, sides = 1_000_000, []
    for _ in range(4):
        side = draw(st.one_of(st.just(1), st.integers(1, max(1, min(200, left)))))
        sides.append(side)
        left //= side
    z, y, x, t = draw(st.permutations(sides))
    return max(t, 2), z, y, x


def cheap(shape: tuple[int, ...]) -> bool:
    return math.prod(shape) <= 1_000_000


@given(
    shape=shapes(),
    names=st.lists(st.sampled_from(sorted(UNITS)), min_size=1, max_size=3, unique=True),
    gaps=st.sampled_from([0.0, 0.3, 1.0]),
    kind=st.sampled_from(["periodic", "wall", "open", "given"]),
)
@settings(max_examples=40)
def test_any_shape_any_variables_any_gaps(shape: tuple[int, int, int, int], names: list[str], gaps: float, kind: str) -> None:
    """Output shape equals input shape, and what stands at invalid points has no influence, to the last bit."""
    if not cheap(shape):
        shape = (2, *shape[1:])
    batch = make_batch(shape, names, boundary=Boundary.all(kind), count=1, gaps=gaps)  # type: ignore[arg-type]
    poisoned = replace(batch, values=torch.where(batch.valid, batch.values, float("nan")))
    other = replace(batch, values=torch.where(batch.valid, batch.values, 1e30))
    with torch.no_grad():
        result, first, second = (MODEL(b).physical() for b in (batch, poisoned, other))
    assert result.shape == (1, shape[0] - 1, len(names), *shape[1:])
    assert torch.isfinite(result).all()
    assert torch.equal(result, first)
    assert torch.equal(result, second)


@pytest.mark.parametrize("geometry", ["points", "sphere"])
def test_points_and_spheres(geometry: str) -> None:
    shape = (5, 1, 1, 37) if geometry == "points" else (5, 1, 19, 36)
    batch = make_batch(shape, ("a", "f", "s", "d"), geometry, gaps=0.2)  # type: ignore[arg-type]
    assert MODEL(batch).physical().shape == (2, 4, 4, *shape[1:])


def test_the_order_of_stations_does_not_matter() -> None:
    batch = make_batch((4, 1, 1, 23), ("a", "s"), "points", gaps=0.2)
    order = torch.randperm(23)
    assert batch.latitude is not None
    assert batch.longitude is not None
    other = replace(
        batch,
        values=batch.values[..., order],
        valid=batch.valid[..., order],
        latitude=batch.latitude[..., order],
        longitude=batch.longitude[..., order],
    )
    with torch.no_grad():
        expected, found = MODEL(batch).raw[..., order], MODEL(other).raw
    assert (found - expected).abs().max() < 2e-5 * expected.abs().max()


def test_an_invalid_variable_is_an_absent_one() -> None:
    """Bitwise: a channel that is present but wholly invalid changes nothing."""
    full = make_batch((5, 1, 20, 24), ("a", "b", "f"))
    hidden = replace(full, valid=full.valid & torch.tensor([True, False, True]).view(1, 1, 3, 1, 1, 1))
    alone = _channels(hidden, [0, 2])
    with torch.no_grad():
        assert torch.equal(MODEL(hidden).physical()[:, :, [0, 2]], MODEL(alone).physical())


def _channels(batch: Batch, keep: list[int]) -> Batch:
    layout = replace(batch.layout, variables=tuple(batch.layout.variables[i] for i in keep))
    s = batch.scales
    scales = replace(s, **{n: tuple(getattr(s, n)[i] for i in keep) for n in ("transform", "center", "scale", "increment")})
    return replace(batch, values=batch.values[:, :, keep], valid=batch.valid[:, :, keep], layout=layout, scales=scales)


@given(
    frame=st.integers(1, 7),
    shape=st.sampled_from([(8, 1, 1, 1), (8, 1, 1, 33), (8, 1, 16, 24), (8, 6, 5, 9)]),
    gaps=st.sampled_from([0.0, 0.4]),
    window=st.sampled_from([4, 1024]),
    reach=st.sampled_from([3, 32]),
)
@settings(max_examples=40)
def test_causal_to_the_last_bit(frame: int, shape: tuple[int, ...], gaps: float, window: int, reach: int) -> None:
    """Changing frame t changes no prediction made from frames before t, through normalisation and all."""
    model = make_model(window_tokens=window, reach=reach)
    names = ("a", "air_temperature", "s", "d")
    batch = make_batch(shape, names, gaps=gaps)
    values, valid = batch.values.clone(), batch.valid.clone()
    values[:, frame:] = 100.0 * values[:, frame:] - 7.0
    valid[:, frame:] ^= True
    with torch.no_grad():
        before, after = model(batch).physical(), model(replace(batch, values=values, valid=valid)).physical()
    assert torch.equal(before[:, :frame], after[:, :frame])
    if frame < 7 and gaps == 0.0:
        assert not torch.equal(before[:, frame], after[:, frame])


def test_a_forcing_is_known_one_frame_ahead_and_no_more() -> None:
    batch = make_batch((6, 1, 8, 8), ("a", "f"))
    values = batch.values.clone()
    values[:, 4, 1] += 1.0
    with torch.no_grad():
        before, after = MODEL(batch).physical()[:, :, 0], MODEL(replace(batch, values=values)).physical()[:, :, 0]
    assert torch.equal(before[:, :3], after[:, :3])  # predictions of frames 1..3
    assert not torch.equal(before[:, 3], after[:, 3])  # frame 4, whose forcing changed


@pytest.mark.parametrize(("shape", "axis"), [((4, 1, 1, 64), 5), ((4, 1, 32, 48), 4), ((4, 1, 32, 48), 5), ((3, 16, 16, 16), 3)])
def test_shift_by_a_patch(shape: tuple[int, ...], axis: int) -> None:
    """On a periodic axis of whole patches, shifting the input by a patch shifts the output."""
    batch = make_batch(shape, ("a", "b", "s"), boundary=PERIODIC)
    step = batch.patch[axis - 3]

    def shift(t: torch.Tensor) -> torch.Tensor:
        return torch.roll(t, step, axis)

    with torch.no_grad():
        expected = shift(MODEL(batch).raw)
        found = MODEL(replace(batch, values=shift(batch.values), valid=shift(batch.valid))).raw
    assert (found - expected).abs().max() < 2e-5 * expected.abs().max()


@pytest.mark.parametrize("shape", [(4, 1, 64, 64), (8, 1, 1, 256), (16, 1, 1, 1), (3, 16, 16, 16), (2, 1, 96, 160)])
@pytest.mark.parametrize("window", [24, 1024])
def test_flops_agree_with_torch(shape: tuple[int, ...], window: int) -> None:
    model = make_model(width=128, depth=4, window_tokens=window)
    batch = make_batch(shape, ("a", "b", "s"))
    # the fused kernel of a CPU is not counted, so the plain one is asked for
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        model(batch)
    assert model.flops(batch) == pytest.approx(counter.get_total_flops(), rel=0.01)


SIZES = [("nano", 1.05), ("tiny", 6.3), ("small", 28.9), ("base", 123), ("large", 472), ("xl", 1415), ("7b", 6880)]


@pytest.mark.parametrize(("size", "millions"), SIZES)
def test_sizes(size: str, millions: float) -> None:
    with torch.device("meta"):
        model = SciGPT(ModelConfig(size=size), VOCABULARY)
    blocks = sum(p.numel() for p in model.blocks.parameters())
    assert blocks / 1e6 == pytest.approx(millions, rel=0.03)


def test_every_parameter_has_a_gradient_whatever_the_batch() -> None:
    """A rank never holds an unused parameter: a series, a map, a volume and stations train the same ones."""
    for batch in (
        make_batch((4, 1, 1, 1), ("a",)),
        make_batch((4, 1, 1, 20), ("b",), "points"),
        make_batch((4, 1, 16, 16), ("a",), level=Level("pressure", 500.0)),
        make_batch((2, 4, 8, 8), ("a", "f"), steady=True),
    ):
        model = make_model()
        model(batch).raw.square().sum().backward()
        assert [n for n, p in model.named_parameters() if p.grad is None] == []


def test_levels_tell_channels_apart() -> None:
    low, high = (make_batch((3, 1, 8, 8), ("air_temperature",), level=Level("pressure", p)) for p in (850.0, 500.0))
    with torch.no_grad():
        assert not torch.allclose(MODEL(low).raw, MODEL(high).raw, rtol=1e-3)


def test_coefficients_can_be_hidden() -> None:
    batch = make_batch((3, 1, 8, 8))
    hidden = replace(batch, known=torch.zeros_like(batch.known))
    other = replace(hidden, coefficients=hidden.coefficients + 5)
    with torch.no_grad():
        assert not torch.equal(MODEL(batch).raw, MODEL(hidden).raw)
        assert torch.equal(MODEL(hidden).raw, MODEL(other).raw)


def test_another_patch_size_gives_nearly_the_same_tokens_of_a_smooth_field() -> None:
    """The kernel is a function on the unit patch: a field smooth on the patch has the same tokens at twice the resolution."""
    from scigpt.model.tokenizer import basis

    x = (torch.arange(8) + 0.5) / 8
    fine = (torch.arange(16) + 0.5) / 16
    coarse_modes = torch.cos(1.3 * x) @ basis((1, 1, 8)) / 8
    fine_modes = torch.cos(1.3 * fine) @ basis((1, 1, 16)) / 16
    assert torch.allclose(coarse_modes, fine_modes, atol=3e-3)


def test_cosines_of_whole_patches_lose_nothing() -> None:
    from scigpt.model.tokenizer import basis

    for patch in ((1, 8, 8), (4, 4, 4), (1, 1, 32), (1, 4, 4)):
        b = basis(patch)  # type: ignore[arg-type]
        assert torch.allclose(b @ b.T / b.shape[0], torch.eye(b.shape[0]), atol=1e-5)


def test_windows_tile_any_grid() -> None:
    for grid in ((1, 103, 180), (1, 101, 103), (16, 16, 16), (1, 1, 4002), (1, 90, 180), (1, 181, 359)):
        window = choose_window(grid, 1024)  # type: ignore[arg-type]
        assert window is not None
        assert math.prod(window) <= 1024
        assert all(g % w == 0 for g, w in zip(grid, window, strict=True))


@pytest.mark.parametrize("grid", [(1, 1, 4001), (1, 1, 3093), (7, 1, 1031)])
def test_a_grid_that_no_window_divides_is_attended_in_full(grid: tuple[int, int, int]) -> None:
    """4001 windows of one token would each hold a copy of 4001 summaries: 16 GB a frame at width 128."""
    assert choose_window(grid, 1024) is None


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"size": "nanno"}, "did you mean nano"),
        ({"width": 100, "heads": 3}, "model.width"),
        ({"attention": "flash"}, "flash-attn"),
        ({"depth": 0}, "depth is 0; expected a number above 0"),
        ({"window_tokens": 0}, "window_tokens is 0"),
        ({"huber_delta": math.nan}, "huber_delta is nan"),
    ],
)
def test_mistakes_in_the_config(config: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        SciGPT(ModelConfig(**config), VOCABULARY)(make_batch((3, 1, 8, 8)))  # type: ignore[arg-type]


def test_flash_in_float32_is_refused() -> None:
    q = torch.zeros(1, 1, 4, 8)
    with pytest.raises(UserError, match=r"has no float32; set train\.precision=bf16"):
        attention(q, q, q, kernel="flash")


def test_unknown_variables_and_units_are_refused() -> None:
    batch = make_batch((3, 1, 8, 8), ("a",))
    for change, words in (({"name": "aa"}, "nearest it knows is a"), ({"unit": "K"}, "is in K")):
        layout = replace(batch.layout, variables=(replace(batch.layout.variables[0], **change),))  # type: ignore[arg-type]
        with pytest.raises(UserError, match=words):
            MODEL(replace(batch, layout=layout))


def test_roles_are_covered() -> None:
    assert set(ROLES.values()) == {"forcing", "static", "diagnostic"}


def test_one_learning_rate_serves_every_width() -> None:
    """The output after one step from the same start is of the same size at 128 and at 512 channels."""
    spread = []
    for width in (128, 512):
        torch.manual_seed(0)
        model = SciGPT(ModelConfig(depth=2, width=width), VOCABULARY)
        groups = [{"params": g["params"], "lr": 1e-2 * g["lr_scale"]} for g in model.parameter_groups()]
        batch = make_batch((3, 1, 16, 16))
        prediction = model(batch)
        (prediction.raw - prediction.normalized.target).square().mean().backward()
        torch.optim.Adam(groups).step()
        with torch.no_grad():
            spread.append(model(batch).raw.std().item())
    assert 0.5 < spread[0] / spread[1] < 2.0


def test_inference_first_does_not_spoil_training() -> None:
    batch = make_batch((3, 1, 24, 40), ("a", "s"), level=Level("height", 2.0))
    with torch.inference_mode():
        MODEL(batch)
    make_model()(batch).raw.sum().backward()
