"""`scigpt bench model`: a full training step beside a matrix product and beside the bare blocks, all timed in one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scigpt.data.batches import Batch, collate
from scigpt.data.normalize import Scales
from scigpt.data.sample import Boundary, Origin, Sample, Time, Variable
from scigpt.errors import UserError
from scigpt.launch.profiling import TRACED, folder_for, memory, trace
from scigpt.launch.timing import (
    SIDES,
    Stopwatch,
    compiled,
    datasheet,
    device_of,
    matrix_product_rate,
    name_of,
    of_compilation,
    peak_memory,
)
from scigpt.model.attention import preferred_kernels
from scigpt.model.backbone import ModelConfig, Recompute, SciGPT, Vocabulary
from scigpt.model.sizes import forward_flops
from scigpt.train.objective import group_weight, share_of_loss
from scigpt.train.strategies import LayoutConfig, prepare

SIDE = SIDES["cpu"]
PARTS = ("forward", "backward", "optimizer")
Marks = list[Any]


def measure(
    config: ModelConfig,
    frames: int,
    side: int,
    patch: int,
    batch: int,
    precision: str,
    threads: int,
    rounds: int,
    *,
    device: str = "auto",
    compile: bool = False,
    recompute: Recompute = False,
    peak: float | None = None,
    product_side: int | None = None,
    profile: Path | None = None,
) -> dict[str, Any]:
    """Time the step (tokenizer, blocks, head, loss, backward, clipping, AdamW) on maps of `side` x `side` points.

    Each round times the matrix product first, then the step, then the blocks alone on the same tokens, so that other load on the machine
    falls on none of them; ratios are medians of the rounds' ratios. `peak` (FLOP/s) stands in for the maker's where that is unknown.

    Raises:
        UserError: an unknown precision or device, or a `profile` that is no folder.
    """
    if precision not in ("fp32", "bf16"):
        raise UserError(f"--precision {precision}: expected fp32 or bf16")
    place, files = device_of(device), None if profile is None else folder_for(profile)
    torch.set_num_threads(threads)
    with preferred_kernels():
        work = Work(config, synthetic_batch(batch, frames + 1, side, patch), precision, place, compile, recompute)
        found = work.measure(rounds, threads, datasheet(place, precision) if peak is None else peak, product_side)
        if profile is None:
            return found
        with trace(profile, place):
            for _ in range(TRACED):
                work.step()
        with memory(profile, place):
            work.step()
        return found | {"profile": files}


class Work:
    """A model, a batch and the two steps that are timed."""

    def __init__(self, config: ModelConfig, data: Batch, precision: str, device: torch.device, compile: bool, recompute: Recompute) -> None:
        self.precision, self.watch, self.data = precision, Stopwatch(device), data.to(device)
        self.model = SciGPT(config, Vocabulary({v.name: v.unit for v in data.layout.variables}, {})).to(device)
        self.total = group_weight([data])
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)
        self.block_optimizer = torch.optim.AdamW(self.model.blocks.parameters(), lr=1e-4, fused=True)
        self.given = self._block_inputs()
        before = compiled() if compile else {}
        prepare(self.model, LayoutConfig(precision == "bf16", recompute, compile))
        for _ in range(2):
            self.watch.between(self.step())
        self.compiled = {name: n - before[name] for name, n in compiled().items()} if compile else None
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self.watch.between(self.step())
        self.peak = peak_memory(device)  # now, while the blocks have no second optimizer

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.watch.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def _block_inputs(self) -> tuple[Any, ...]:
        """What the first block is given."""
        found: list[tuple[Any, ...]] = []
        hook = self.model.blocks[0].register_forward_pre_hook(lambda _, given: found.append(given))
        with torch.no_grad(), self._autocast():
            self.model(self.data)
        hook.remove()
        return found[0]

    def step(self) -> Marks:
        """The whole step; a mark before, after and between its parts."""
        marks = [self.watch.mark()]
        with self._autocast():
            loss = share_of_loss(self.model(self.data), self.model.head, self.total).loss
        return self._learn(marks, loss.backward, self.optimizer)

    def bare(self) -> Marks:
        """The blocks alone, from tokens to tokens, with a gradient of ones."""
        tokens, conditions, *rest = self.given
        x: Tensor = tokens.detach().requires_grad_()
        shared = conditions.detach().requires_grad_()  # as in the step, or the compiled graph would be another
        gradient = torch.ones_like(x)
        marks = [self.watch.mark()]
        with self._autocast():
            for block in self.model.blocks:
                x = block(x, shared, *rest)
        return self._learn(marks, lambda: x.backward(gradient), self.block_optimizer)

    def _learn(self, marks: Marks, backward: Callable[[], object], optimizer: torch.optim.Optimizer) -> Marks:
        marks.append(self.watch.mark())
        backward()
        marks.append(self.watch.mark())
        torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return [*marks, self.watch.mark()]

    def flops(self) -> tuple[int, int]:
        """Of a step, and of the blocks in it."""
        model, data = self.model, self.data
        count, frames = data.values.shape[:2]

        def forward(depth: int) -> dict[str, int]:
            return forward_flops(data.layout, data.patch, count, frames, model.width, depth, model.config.window_tokens)

        whole = forward(len(model.blocks))
        return 3 * sum(whole.values()), 3 * (whole["backbone"] - forward(0)["backbone"] + whole["attention"])

    def measure(self, rounds: int, threads: int, peak: float | None, product_side: int | None) -> dict[str, Any]:
        device, model = self.watch.device, self.model
        self.watch.between(self.bare())
        whole, blocks = self.flops()
        products: list[float] = []
        parts: list[list[float]] = []
        bare: list[float] = []
        host: list[float] = []
        for _ in range(rounds):
            products.append(matrix_product_rate(self.precision, device=device, side=product_side))
            began = time.perf_counter()
            marks = self.step()
            host.append(time.perf_counter() - began)
            parts.append(self.watch.between(marks))
            bare.append(sum(self.watch.between(self.bare())))
        steps = [sum(p) for p in parts]
        seconds, tokens = statistics.median(steps), model.tokens(self.data)
        rate = whole / seconds
        result = {
            "device": name_of(device),
            "clock": self.watch.name,
            "torch": torch.__version__,
            "parameters": sum(p.numel() for p in model.parameters()),
            "width": model.width,
            "depth": len(model.blocks),
            "heads": model.heads,
            "tokens": tokens,
            "tokens_per_frame": tokens // (len(self.data) * (self.data.values.shape[1] - 1)),
            "precision": self.precision,
            "threads": threads,
            "flops_per_step": whole,
            "seconds_per_step": seconds,
            "tokens_per_second": tokens / seconds,
            "flops_per_second": rate,
            "matrix_product_side": product_side or SIDES[device.type],
            "matrix_product_flops_per_second": statistics.median(products),
            "share_of_matrix_product": statistics.median(whole / s / p for s, p in zip(steps, products, strict=True)),
            "datasheet_flops_per_second": peak,
            "mfu": None if peak is None else rate / peak,
            "bare_blocks_flops_per_second": blocks / statistics.median(bare),
            "seconds_of_bare_blocks": statistics.median(bare),
            "slower_than_bare_blocks": statistics.median(s / whole * blocks / b for s, b in zip(steps, bare, strict=True)) - 1,
            "time_shares": {name: statistics.median(p[i] / sum(p) for p in parts) for i, name in enumerate(PARTS)},
            "host_seconds_per_step": statistics.median(host) if device.type == "cuda" else None,
            "peak_memory_bytes": self.peak,
            "peak_memory_of": "tensors on the GPU" if device.type == "cuda" else "this process",
            "compile": self.compiled,
        }
        if self.compiled is not None:
            self.compiled["recompiles"] = self.compiled["graphs"] - 1
        return result


def synthetic_batch(count: int, frames: int, side: int, patch: int) -> Batch:
    """Random periodic maps of two variables."""
    rng = np.random.default_rng(0)
    variables = (Variable("velocity_x", "1"), Variable("velocity_y", "1"))
    shape = (frames, len(variables), 1, side, side)
    time_axis = Time.regular(0.0, 1.0, frames)
    samples = [
        Sample(
            rng.standard_normal(shape).astype(np.float32), np.ones(shape, bool), variables, time_axis, Origin("bench", "CC0-1.0"),
            boundary=Boundary.all("periodic"),
        )
        for _ in range(count)
    ]  # fmt: skip
    scales = Scales((("identity", 1.0),) * 2, (0.0, 0.0), (1.0, 1.0), (1.0, 1.0))
    return collate(samples, scales, "bench", patch)


def describe(result: dict[str, Any]) -> str:
    """The result for a person."""
    shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in result["time_shares"].items())
    mfu = "" if result["mfu"] is None else f"; MFU {100 * result['mfu']:.1f} % of {result['datasheet_flops_per_second'] / 1e12:.0f} TFLOP/s"
    side = result["matrix_product_side"]
    lines = [
        f"{result['parameters'] / 1e6:.2f}M parameters (width {result['width']}, depth {result['depth']}, {result['heads']} heads), "
        f"{result['tokens']} tokens a step, {result['precision']}, {result['device']}, {result['threads']} thread(s)",
        f"{result['flops_per_second'] / 1e9:.1f} GFLOP/s ({result['clock']}), {result['tokens_per_second']:.0f} tokens/s; "
        f"matrix product {side} x {side}: {result['matrix_product_flops_per_second'] / 1e9:.1f} GFLOP/s",
        f"share of the matrix product: {100 * result['share_of_matrix_product']:.0f} % ({shares}){mfu}",
        f"bare blocks: {result['bare_blocks_flops_per_second'] / 1e9:.1f} GFLOP/s; at equal FLOPs the step is "
        f"{100 * result['slower_than_bare_blocks']:+.1f} % slower ({result['seconds_per_step']:.4g} s against "
        f"{result['seconds_of_bare_blocks']:.4g} s, which leave out tokenizer, conditions and head)",
        f"peak memory of {result['peak_memory_of']}: {result['peak_memory_bytes'] / 2**20:.0f} MiB",
    ]
    lines += [of_compilation(result["compile"])] if result["compile"] else []
    return "\n".join(lines + [f"{name}: {path}" for name, path in result.get("profile", {}).items()])
