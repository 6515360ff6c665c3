"""CPU time per FLOP of a forward and backward pass: SciGPT beside what a user would pick instead.

All see the same windows of maps of two variables. SciGPT, the plain transformers and the neural operators predict the frame after each
frame that they are shown, Aurora the frame after the last. The operators are as wide as equal FLOPs allow; the plain transformers have
SciGPT's width, depth, heads and FLOPs of the MLP. FLOPs are counted in one way for all while each runs, forward and backward: matrix
products, convolutions and attention as `torch.utils.flop_counter` does (but 8 for a complex multiply-add, and backward attention without
the scores that are computed again), and 5 N log2 N for a complex Fourier transform of N points, half for a real one. Elementwise work is
counted for none.
"""

from __future__ import annotations

import contextlib
import math
import statistics
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import typer
from compare import Device, Missing, Threads, in_turn, markdown, needed, prepare, ratio, run
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from scigpt.data.batches import Batch
from scigpt.errors import UserError
from scigpt.launch.bench_model import SIDE, synthetic_batch
from scigpt.launch.output import Json, show
from scigpt.model.backbone import ModelConfig, SciGPT, Vocabulary
from scigpt.train.objective import group_weight, share_of_loss

PRODUCT = "matrix product"
MODES = 32
"""Of the operators along each axis, half of them with a negative wavenumber; as of an FNO beside a run (`scigpt.evaluate.fno`)."""
aten = torch.ops.aten


@dataclass(frozen=True)
class Contender:
    """A model and the batch it is timed on.

    Args:
        loss: one forward pass.
        points: of a map and frame that it predicts in one pass.
        beside: the SciGPT that it is compared with.
    """

    name: str
    model: nn.Module
    loss: Callable[[], Tensor]
    points: int
    beside: str


class PlainTransformer(nn.Module):
    """`torch.nn.TransformerEncoder` between a patch embedding and its mirror; attention within each frame, or over the whole window."""

    def __init__(self, channels: int, patch: int, tokens: int, width: int, depth: int, heads: int, frames: int) -> None:
        super().__init__()
        self.patch, self.frames = patch, frames
        self.embed = nn.Linear(channels * patch**2, width)
        self.place = nn.Parameter(0.02 * torch.randn(frames * tokens, width))
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, depth, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, channels * patch**2)

    def forward(self, maps: Tensor) -> Tensor:
        """`(F, C, Y, X)` to the same shape; `frames` maps that follow each other are one sequence."""
        p, (f, c, y, x) = self.patch, maps.shape
        cut = maps.reshape(f, c, y // p, p, x // p, p).permute(0, 2, 4, 1, 3, 5).reshape(f // self.frames, -1, c * p * p)
        out = self.head(self.encoder(self.embed(cut) + self.place))
        return out.reshape(f, y // p, x // p, c, p, p).permute(0, 3, 1, 4, 2, 5).reshape(f, c, y, x)


def measure(
    configs: dict[str, ModelConfig], frames: int, side: int, patch: int, batch: int, precision: str, rounds: int, threads: int, device: str
) -> dict[str, Any]:
    """Time every contender in every round.

    Args:
        configs: SciGPTs by name; each has plain transformers beside it, and the first the scientific models.
        frames: shown in a window.
        batch: windows. Aurora gets the number whose FLOPs are nearest to those of the first SciGPT.
    """
    place = prepare(device, threads)
    if precision not in ("fp32", "bf16"):
        raise UserError(f"--precision {precision}: expected fp32 or bf16")
    data = synthetic_batch(batch, frames + 1, side, patch).to(place)
    rows: list[dict[str, Any]] = []
    chosen: list[Contender] = []

    def step(contender: Contender) -> None:
        with torch.autocast(place.type, torch.bfloat16, enabled=precision == "bf16"):
            loss = contender.loss()
        loss.backward()
        contender.model.zero_grad()

    def enter(build: Callable[[], Contender], name: str) -> int:
        """Its FLOPs, counted in the pass that warms it up; a row that says why where it cannot take part."""
        try:
            contender = build()
            counted = flops_of(lambda: step(contender))
        except (Missing, RuntimeError) as error:
            rows.append({"model": name, "missing": str(error).splitlines()[0]})
            return 0
        chosen.append(contender)
        size = sum(p.numel() * (1 + p.is_complex()) for p in contender.model.parameters())
        rows.append({"model": name, "beside": contender.beside, "parameters": size, "flops": counted, "points": contender.points})
        return counted

    first, *_ = configs
    goals = {name: enter(partial(_scigpt, name, config, data, place), name) for name, config in configs.items()}
    for name, config in configs.items():
        for joint in (1, frames):
            label = f"TransformerEncoder of {name}'s size, attention over {'a frame' if joint == 1 else 'the window'}"
            enter(partial(_plain, label, name, config, data, patch, joint, place), label)
    for kind in ("FNO", "TFNO", "UNO"):
        enter(partial(_operator, kind, first, data, goals[first], place), f"neuraloperator {kind}")
    enter(partial(_aurora, first, data, goals[first], place), "microsoft-aurora small")

    a, b = (torch.randn(SIDE, SIDE, device=place, dtype=torch.bfloat16 if precision == "bf16" else torch.float32) for _ in range(2))
    repeats = 16 if place.type == "cpu" else 256
    work: dict[str, Callable[[], object]] = {PRODUCT: lambda: [a @ b for _ in range(repeats)]}
    work[PRODUCT]()
    times = in_turn(work | {c.name: partial(step, c) for c in chosen}, rounds, place)
    per_flop = {PRODUCT: [t / (repeats * 2 * SIDE**3) for t in times[PRODUCT]]}
    for row in rows:
        if "missing" not in row:
            per_flop[row["model"]] = [t / row["flops"] for t in times[row["model"]]]
    for row in rows:
        if "missing" not in row:
            middle = statistics.median(times[row["model"]])
            row["seconds"] = middle
            row["flops_per_second"] = row["flops"] / middle
            row["seconds_per_point"] = middle / row["points"]
            row["share_of_matrix_product"] = ratio(per_flop[PRODUCT], per_flop[row["model"]])
            row["time_per_flop"] = ratio(per_flop[row["model"]], per_flop[row["beside"]])
    about = {"device": device, "precision": precision, "threads": threads, "rounds": rounds}
    return about | {"windows": batch, "frames": frames, "side": side, "rows": rows}


def flops_of(work: Callable[[], object]) -> int:
    """FLOPs of what is called, see the top of this file."""
    counter = FlopCounterMode(display=False, custom_mapping=_FORMULAS)
    with counter:
        work()
    return counter.get_total_flops()


def _raw(formula: Callable[..., float]) -> Callable[..., int]:
    """As `FlopCounterMode` wants it: with the tensors themselves."""

    def counted(*args: Any, out_val: Any = None, **kwargs: Any) -> int:
        return round(formula(args, out_val))

    counted._get_raw = True  # type: ignore[attr-defined]
    return counted


def _product(args: Any, out: Tensor) -> float:
    return out.numel() * args[0].shape[-1] * (8 if out.is_complex() else 2)


def _attention(query: Tensor, key: Tensor, value: Tensor) -> int:
    return 2 * query.shape[:-1].numel() * key.shape[-2] * (query.shape[-1] + value.shape[-1])


def _transform(real: float, field: Tensor, axes: Any) -> float:
    return real * 5 * field.numel() * math.log2(max(2, math.prod(field.shape[a] for a in axes)))


_FORWARD = ("flash_attention_for_cpu", "flash_attention", "efficient_attention", "cudnn_attention")
_FORMULAS: dict[Any, Any] = {
    aten.mm: _raw(_product),
    aten.bmm: _raw(_product),
    aten._fft_r2c: _raw(lambda args, out: _transform(0.5, args[0], args[1])),
    aten._fft_c2r: _raw(lambda args, out: _transform(0.5, out, args[1])),
    aten._fft_c2c: _raw(lambda args, out: _transform(1.0, args[0], args[1])),
    **{getattr(aten, f"_scaled_dot_product_{n}"): _raw(lambda args, out: _attention(*args[:3])) for n in _FORWARD},
    **{getattr(aten, f"_scaled_dot_product_{n}_backward"): _raw(lambda args, out: 2 * _attention(*args[1:4])) for n in _FORWARD},
}


def _scigpt(name: str, config: ModelConfig, data: Batch, place: torch.device) -> Contender:
    model = SciGPT(config, Vocabulary({v.name: v.unit for v in data.layout.variables}, {})).to(place)
    total = group_weight([data])
    return Contender(name, model, lambda: share_of_loss(model(data), model.head, total).loss, _points(data), name)


def _points(data: Batch) -> int:
    return len(data) * (data.values.shape[1] - 1) * math.prod(data.layout.grid)


def _maps(data: Batch) -> tuple[Tensor, Tensor]:
    """Every frame but the last, and the frame after each, `(B (T-1), C, Y, X)`."""
    values = data.values[:, :, :, 0]
    return values[:, :-1].flatten(0, 1), values[:, 1:].flatten(0, 1)


def _plain(name: str, beside: str, config: ModelConfig, data: Batch, patch: int, frames: int, place: torch.device) -> Contender:
    depth, width, heads = config.resolved()
    shown, asked = _maps(data)
    tokens = math.prod(data.layout.grid) // patch**2
    model = PlainTransformer(shown.shape[1], patch, tokens, width, depth, heads, frames).to(place)
    return Contender(name, model, lambda: F.mse_loss(model(shown), asked), _points(data), beside)


def _operator(kind: str, beside: str, data: Batch, goal: int, place: torch.device) -> Contender:
    library = needed("neuralop.models", "pip install 'scigpt[fno]'")
    shown, asked = _maps(data)
    modes = min(MODES, *shown.shape[-2:])

    def build(width: int) -> nn.Module:
        if kind != "UNO":
            return getattr(library, kind)(n_modes=(modes, modes), in_channels=2, out_channels=2, hidden_channels=width, n_layers=4)
        # the shape of the library's example
        half = [[modes // 2] * 2] * 3
        with contextlib.redirect_stdout(sys.stderr):  # it prints
            return library.UNO(
                in_channels=2, out_channels=2, hidden_channels=width, n_layers=5,
                uno_out_channels=[width // 2, width, width, width, width // 2], uno_n_modes=[[modes] * 2, *half, [modes] * 2],
                uno_scalings=[[1.0, 1.0], [0.5, 0.5], [1, 1], [2, 2], [1, 1]], channel_mlp_skip="linear",
            )  # fmt: skip

    def cost(width: int) -> float:
        model, frame = build(width), shown[:1].cpu()
        return len(shown) * flops_of(lambda: model(frame).sum().backward()) / width

    # the FLOPs are linear and quadratic in the width
    narrow, wide = cost(16), cost(32)
    slope, base = (wide - narrow) / 16, 2 * narrow - wide
    width = (math.sqrt(base**2 + 4 * slope * goal) - base) / (2 * slope)
    model = build(8 * max(1, round(width / 8))).to(place)
    return Contender(f"neuraloperator {kind}", model, lambda: F.mse_loss(model(shown), asked), _points(data), beside)


def _aurora(beside: str, data: Batch, goal: int, place: torch.device) -> Contender:
    """Its small model on the sphere: one variable at the surface, one on a level, and the constant field without which it does not run."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        aurora = needed("aurora", "pip install microsoft-aurora, with a torchvision made for this torch")
    frames = data.values.shape[1] - 1
    maps = data.values[:, :, :, 0]
    y, x = maps.shape[-2:]
    model = aurora.AuroraSmallPretrained(surf_vars=("10u",), static_vars=("z",), atmos_vars=("u",), max_history_size=frames).to(place)

    def batch(count: int) -> Any:
        latitude, longitude = (torch.linspace(*ends, n + 1, device=place)[:-1] for ends, n in (((90, -90), y), ((0, 360), x)))
        about = aurora.Metadata(latitude, longitude, (datetime(2020, 1, 1),) * count, (500,))
        shown = maps[:count, :frames]
        return aurora.Batch({"10u": shown[:, :, 0]}, {"z": torch.zeros(y, x, device=place)}, {"u": shown[:, :, 1, None]}, about)

    def loss(count: int) -> Tensor:
        out, asked = model(batch(count)), maps[:count, frames]
        return F.mse_loss(out.surf_vars["10u"][:, 0], asked[:, 0]) + F.mse_loss(out.atmos_vars["u"][:, 0, 0], asked[:, 1])

    one = flops_of(lambda: loss(1).backward())
    count = min(len(data), max(1, round(goal / one)))
    return Contender("microsoft-aurora small", model, lambda: loss(count), count * y * x, beside)


def describe(result: dict[str, Any]) -> str:
    """One table; a row for each model."""
    unit = "CPU s" if result["device"] == "cpu" else "s"
    rows = []
    for row in result["rows"]:
        if "missing" in row:
            rows.append((row["model"], row["missing"], *[""] * 6))
            continue
        rows.append(
            (
                row["model"],
                f"{row['parameters'] / 1e6:.1f}M",
                f"{row['flops'] / 1e9:.1f}",
                f"{row['seconds']:.2f}",
                f"{row['flops_per_second'] / 1e9:.1f}",
                f"{100 * row['share_of_matrix_product']:.0f} %",
                f"{row['seconds_per_point'] * 1e6:.1f}",
                f"{row['time_per_flop']:.2f}",
            )
        )
    header = ("model", "parameters", "GFLOP a pass", f"{unit} a pass", f"GFLOP per {unit}", f"of a {SIDE} x {SIDE} product")
    return markdown((*header, "µs a point predicted", "time per FLOP, SciGPT = 1"), rows)


def main(
    width: Annotated[int, typer.Option("--width", min=8, help="Of the larger SciGPT; nano is always there too.")] = 512,
    depth: Annotated[int, typer.Option("--depth", min=1)] = 4,
    frames: Annotated[int, typer.Option("--frames", min=1, help="Shown in a window.")] = 4,
    side: Annotated[int, typer.Option("--side", min=16, help="Points along each side of the maps.")] = 128,
    patch: Annotated[int, typer.Option("--patch", min=1)] = 8,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Windows.")] = 4,
    precision: Annotated[str, typer.Option("--precision", help="fp32 or bf16.")] = "fp32",
    rounds: Annotated[int, typer.Option("--rounds", min=1)] = 5,
    threads: Threads = 1,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Forward and backward time per FLOP: SciGPT beside other models. Example: python benchmarks/models.py --rounds 5"""
    configs = {f"SciGPT {width} x {depth}": ModelConfig(width=width, depth=depth), "SciGPT nano": ModelConfig()}
    show(measure(configs, frames, side, patch, batch, precision, rounds, threads, device), json, describe)


if __name__ == "__main__":
    run(main)
