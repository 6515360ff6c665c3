"""`scigpt bench model`: a full training step beside a matrix product timed in the same run."""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
import torch

from scigpt.data.batches import Batch, collate
from scigpt.data.normalize import Scales
from scigpt.data.sample import Boundary, Origin, Sample, Time, Variable
from scigpt.model.backbone import ModelConfig, SciGPT, Vocabulary
from scigpt.train.objective import group_weight, share_of_loss

SIDE = 1024
"""Side of the square matrices of the reference product."""


def measure(
    config: ModelConfig, frames: int, side: int, patch: int, batch: int, precision: str, threads: int, rounds: int
) -> dict[str, Any]:
    """Time the step (tokenizer, blocks, head, loss, backward, clipping, AdamW) on maps of `side` x `side` points.

    Each round times the matrix product first and the step right after it, both in CPU time of this process, so that other load on the
    machine falls on neither; the share is the median of the rounds' ratios.
    """
    torch.set_num_threads(threads)
    data = synthetic_batch(batch, frames + 1, side, patch)
    model = SciGPT(config, Vocabulary({v.name: v.unit for v in data.layout.variables}, {}))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    flops = 3 * model.flops(data)
    total = group_weight([data])

    def step() -> dict[str, float]:
        times = [time.process_time()]
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = share_of_loss(model(data), model.head, total).loss
        times.append(time.process_time())
        loss.backward()
        times.append(time.process_time())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.process_time())
        return dict(zip(("forward", "backward", "optimizer"), np.diff(times).tolist(), strict=True))

    step()
    parts: list[dict[str, float]] = []
    products: list[float] = []
    for _ in range(rounds):
        products.append(matrix_product_rate(precision))
        parts.append(step())
    rates = [flops / sum(p.values()) for p in parts]
    seconds = statistics.median(sum(p.values()) for p in parts)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "width": model.width,
        "depth": len(model.blocks),
        "tokens": model.tokens(data),
        "precision": precision,
        "threads": threads,
        "flops_per_step": flops,
        "cpu_seconds_per_step": seconds,
        "tokens_per_cpu_second": model.tokens(data) / seconds,
        "flops_per_cpu_second": statistics.median(rates),
        "matrix_product_flops_per_cpu_second": statistics.median(products),
        "share_of_matrix_product": statistics.median(r / p for r, p in zip(rates, products, strict=True)),
        "time_shares": {k: statistics.median(p[k] / sum(p.values()) for p in parts) for k in parts[0]},
    }


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


def matrix_product_rate(precision: str, repeats: int = 8) -> float:
    """FLOPs per CPU second of square matrix products."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = torch.randn(SIDE, SIDE).to(dtype), torch.randn(SIDE, SIDE).to(dtype)
    a @ b
    start = time.process_time()
    for _ in range(repeats):
        a @ b
    return repeats * 2 * SIDE**3 / (time.process_time() - start)


def describe(result: dict[str, Any]) -> str:
    """The result for a person."""
    shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in result["time_shares"].items())
    return (
        f"{result['parameters'] / 1e6:.2f}M parameters (width {result['width']}, depth {result['depth']}), "
        f"{result['tokens']} tokens a step, {result['precision']}, {result['threads']} thread(s)\n"
        f"{result['flops_per_cpu_second'] / 1e9:.1f} GFLOP/s of CPU time, {result['tokens_per_cpu_second']:.0f} tokens/s; "
        f"matrix product {SIDE} x {SIDE}: {result['matrix_product_flops_per_cpu_second'] / 1e9:.1f} GFLOP/s\n"
        f"share of the matrix product: {100 * result['share_of_matrix_product']:.0f} % ({shares})"
    )
