"""`scigpt bench model`: a full training step beside a matrix product and beside the bare blocks, all timed in one run."""

from __future__ import annotations

import json
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
from scigpt.launch.timing import (
    SIDES,
    Stopwatch,
    compiled_graphs,
    datasheet,
    device_of,
    matrix_product_rate,
    name_of,
    peak_memory,
)
from scigpt.model.attention import preferred_kernels
from scigpt.model.backbone import ModelConfig, SciGPT, Vocabulary
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
    recompute: bool = False,
    peak: float | None = None,
    product_side: int | None = None,
    profile: Path | None = None,
) -> dict[str, Any]:
    """Time the step (tokenizer, blocks, head, loss, backward, clipping, AdamW) on maps of `side` x `side` points.

    Each round times the matrix product first, then the step, then the blocks alone on the same tokens, so that other load on the machine
    falls on none of them; ratios are medians of the rounds' ratios. `peak` (FLOP/s) stands in for the maker's where that is unknown.

    Raises:
        UserError: an unknown precision or device.
    """
    if precision not in ("fp32", "bf16"):
        raise UserError(f"--precision {precision}: expected fp32 or bf16")
    place = device_of(device)
    torch.set_num_threads(threads)
    with preferred_kernels():
        work = Work(config, synthetic_batch(batch, frames + 1, side, patch), precision, place, compile, recompute)
        return work.measure(rounds, threads, datasheet(place, precision) if peak is None else peak, product_side, profile)


class Work:
    """A model, a batch and the two steps that are timed."""

    def __init__(self, config: ModelConfig, data: Batch, precision: str, device: torch.device, compile: bool, recompute: bool) -> None:
        self.precision, self.watch, self.data = precision, Stopwatch(device), data.to(device)
        self.model = SciGPT(config, Vocabulary({v.name: v.unit for v in data.layout.variables}, {})).to(device)
        self.total = group_weight([data])
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)
        self.block_optimizer = torch.optim.AdamW(self.model.blocks.parameters(), lr=1e-4, fused=True)
        self.given = self._block_inputs()
        before, began = (compiled_graphs() if compile else {}), time.perf_counter()
        prepare(self.model, LayoutConfig(precision == "bf16", recompute, compile))
        for _ in range(2):  # the first one compiles, the second one is timed to be taken from it
            first = time.perf_counter() - began
            self.watch.between(self.step())
        self.compiled: dict[str, Any] | None = None
        if compile:
            seconds = 2 * first - (time.perf_counter() - began)
            self.compiled = {"seconds": seconds, **{k: n - before[k] for k, n in compiled_graphs().items()}}

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

    def measure(self, rounds: int, threads: int, peak: float | None, product_side: int | None, profile: Path | None) -> dict[str, Any]:
        device, model = self.watch.device, self.model
        self.watch.between(self.bare())
        whole, blocks = self.flops()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
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
            "slower_than_bare_blocks": statistics.median(s / whole * blocks / b for s, b in zip(steps, bare, strict=True)) - 1,
            "time_shares": {name: statistics.median(p[i] / sum(p) for p in parts) for i, name in enumerate(PARTS)},
            "host_seconds_per_step": statistics.median(host) if device.type == "cuda" else None,
            "peak_memory_bytes": peak_memory(device),
            "peak_memory_of": "tensors on the GPU" if device.type == "cuda" else "this process",
            "compile": self.compiled,
        }
        if self.compiled is not None:
            self.compiled["recompiles"] = self.compiled["graphs"] - 1
        return result if profile is None else result | {"profile": self.profile(profile)}

    def profile(self, folder: Path) -> dict[str, str]:
        """Write what two steps do when, for chrome://tracing or Perfetto, and what takes up memory; as JSON, for nothing is unpickled."""
        from torch.profiler import ProfilerActivity
        from torch.profiler import profile as record

        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--profile {folder}: the folder cannot be made ({error.strerror}); name another") from None
        cuda = self.watch.device.type == "cuda"
        if cuda:
            torch.cuda.memory._record_memory_history(max_entries=100_000)
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
        with record(activities=activities, profile_memory=True) as recorded:
            for _ in range(2):
                self.watch.between(self.step())
        recorded.export_chrome_trace(str(folder / "trace.json"))
        if cuda:
            memory: Any = torch.cuda.memory._snapshot()
            torch.cuda.memory._record_memory_history(enabled=None)
        else:  # a CPU's allocator keeps no history: bytes by operation
            memory = [
                {"operation": e.key, "calls": e.count, "self_bytes": e.self_cpu_memory_usage, "bytes": e.cpu_memory_usage}
                for e in sorted(recorded.key_averages(), key=lambda e: -abs(e.self_cpu_memory_usage))
            ]
        (folder / "memory.json").write_text(json.dumps(memory, default=str))
        return {"trace": str(folder / "trace.json"), "memory": str(folder / "memory.json")}


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
        f"{100 * result['slower_than_bare_blocks']:+.1f} % slower",
        f"peak memory of {result['peak_memory_of']}: {result['peak_memory_bytes'] / 2**20:.0f} MiB",
    ]
    if compiled := result["compile"]:
        lines.append(
            f"compiled in {compiled['seconds']:.0f} s: {compiled['graphs']} graph(s), {compiled['graph_breaks']} break(s), "
            f"{compiled['recompiles']} recompilation(s)"
        )
    return "\n".join(lines + [f"{name}: {path}" for name, path in result.get("profile", {}).items()])
