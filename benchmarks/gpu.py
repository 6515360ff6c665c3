"""What one H200 or H100 does with SciGPT, in under eight minutes: MFU, compilation, attention kernels, loader, memory, waits.

Every part is a process of its own with a time limit, and what it found is on the disk before the next one starts: neither a crash of the
device nor a part that hangs costs the others. `--tiny` runs everything on a CPU in seconds, at sizes that say nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from scigpt.launch import bench_model, bench_train
from scigpt.launch.timing import Stopwatch, name_of
from scigpt.model.attention import attention, preferred_kernels
from scigpt.model.backbone import ModelConfig

LENGTHS = (64, 192, 704, 832)
"""Where cuDNN's backward pass has given NaN under a mask (pytorch#196678), and others."""
KERNELS = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
MINUTES = 8.0


@dataclass(frozen=True, slots=True)
class Size:
    """A model, the windows of a step, and the MFU asked for: the least and the hoped for."""

    depth: int
    width: int
    batch: int
    least: float
    hoped: float


SIZES = {"85M": Size(9, 768, 8, 0.38, 0.45), "300M": Size(18, 1024, 8, 0.42, 0.50), "1B": Size(27, 1536, 4, 0.48, 0.55)}
TINY = Size(1, 64, 1, 0.0, 0.0)


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def mfu(name: str, tiny: bool, compile: bool) -> dict[str, Any]:
    """A step of four frames of 1024 tokens, in bfloat16; with half the windows as often as memory asks for it."""
    size = TINY if tiny else SIZES[name]
    batch, rounds, side = size.batch, 2 if tiny else 10, 32 if tiny else 256
    while True:
        try:
            found = bench_model.measure(
                ModelConfig(depth=size.depth, width=size.width), 4, side, 8, batch, "bf16", 1, rounds, compile=compile and not tiny,
                product_side=256 if tiny else None,
            )  # fmt: skip
            break
        except torch.cuda.OutOfMemoryError:
            if batch == 1:
                raise
            batch //= 2
        torch.cuda.empty_cache()
    reached = found["mfu"] or 0.0
    return found | {"batch": batch, "least_mfu": size.least, "hoped_mfu": size.hoped, "enough": reached >= size.least if compile else None}


def kernels(tiny: bool) -> dict[str, Any]:
    """Seconds of a forward and backward pass by kernel, in space and in time, and whether all gradients are finite."""
    heads, width = (2, 64) if tiny else (8, 128)
    shapes = {"space 1024": (16, 1024, False), "space 4096": (4, 4096, False)} | {f"time {t}": (4096, t, True) for t in (4, 8, 16)}
    if tiny:
        shapes = {"space 64": (1, 64, False), "time 4": (4, 4, True)}
    seconds = {
        what: {name: tried(partial(timed, name, count, heads, length, width, causal)) for name in KERNELS}
        for what, (count, length, causal) in shapes.items()
    }
    finite = {
        str(length): {kind: tried(partial(gradients_are_finite, heads, length, width, kind)) for kind in ("no mask", "causal", "mask")}
        for length in LENGTHS
    }
    good = all(answer is True for answers in finite.values() for answer in answers.values())
    return {"heads": heads, "head_width": width, "seconds": seconds, "finite_gradients": finite, "enough": good}


def tried(work: Callable[[], Any]) -> Any:
    """What it gives, or why not: not every kernel takes every shape."""
    try:
        return work()
    except RuntimeError as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"


def heads_of(count: int, heads: int, length: int, width: int, spread: float = 1.0) -> tuple[torch.Tensor, ...]:
    shape = (count, heads, length, width)
    dtype = torch.bfloat16
    return tuple((s * torch.randn(shape, device=device())).to(dtype).requires_grad_() for s in (spread, spread, 1.0))


def timed(kernel: str, count: int, heads: int, length: int, width: int, causal: bool, repeats: int = 10) -> float:
    q, k, v = heads_of(count, heads, length, width)
    gradient, watch = torch.randn_like(v), Stopwatch(device())
    with sdpa_kernel(KERNELS[kernel]):
        F.scaled_dot_product_attention(q, k, v, is_causal=causal).backward(gradient)
        begun = watch.mark()
        for _ in range(repeats):
            F.scaled_dot_product_attention(q, k, v, is_causal=causal).backward(gradient)
        return watch.between([begun, watch.mark()])[0] / repeats


def gradients_are_finite(heads: int, length: int, width: int, kind: str) -> bool:
    """As SciGPT calls it in training, with logits far below 0 in some rows."""
    q, k, v = heads_of(4, heads, length, width)
    with torch.no_grad():
        k[:] = k.abs()
        q[:, :, ::7] = -40.0
    places = torch.arange(length, device=q.device)
    back = places[:, None] - places[None, :]
    mask = (back >= 0) & (back < 32) if kind == "mask" else None
    with preferred_kernels():
        attention(q, k, v, mask, causal=kind == "causal").float().square().sum().backward()
    return all(bool(t.grad is not None and t.grad.isfinite().all()) for t in (q, k, v))


def waits(tiny: bool) -> dict[str, Any]:
    """Whether the host waits for the device anywhere in a step (norm and loss are read once, for the guard, after it)."""
    data = bench_model.synthetic_batch(1, 3, 32, 8)
    found = {}
    with preferred_kernels():
        for compile in (False,) if tiny else (False, True):
            work = bench_model.Work(ModelConfig(depth=2, width=64 if tiny else 768), data, "bf16", device(), compile, False)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
                torch.cuda.set_sync_debug_mode("error")
            try:
                work.step()
                found["compiled" if compile else "eager"] = "none"
            except RuntimeError as error:
                found["compiled" if compile else "eager"] = str(error).splitlines()[0]
            finally:
                if torch.cuda.is_available():
                    torch.cuda.set_sync_debug_mode("default")
    return {"waits": found, "enough": set(found.values()) == {"none"}}


def loop(name: str, tiny: bool) -> dict[str, Any]:
    """The real training loop on shards: over a bare loop, over synthetic batches, and how much faster batches come than steps take."""
    size = TINY if tiny else SIZES[name]
    with tempfile.TemporaryDirectory(prefix="scigpt-gpu-") as folder:
        options = bench_train.MapsOptions(
            train=2 if tiny else 16, valid=0, test=0, ood=0, frames=8 if tiny else 32, grid=32 if tiny else 256
        )
        config = bench_train.default(Path(folder), options)
        data = replace(config.data, frames=5, tokens=16 if tiny else 4096 * size.batch)
        train = replace(config.train, groups=1, precision="bf16", compile=not tiny)
        model, report = ModelConfig(depth=size.depth, width=size.width), replace(config.report, mlflow=not tiny)
        config = replace(config, data=data, train=train, model=model, report=report)
        found = bench_train.measure(config, bench_train.Amount(1, 1) if tiny else bench_train.Amount(10, 3))
    return found | {"enough": found["over_bare_loop"] <= 0.03 and found["real_over_synthetic"] <= 0.05}


PARTS: dict[str, tuple[float, Callable[[bool], dict[str, Any]]]] = {
    "waits": (60, waits),
    "mfu 85M": (90, partial(mfu, "85M", compile=True)),
    "mfu 300M": (100, partial(mfu, "300M", compile=True)),
    "mfu 1B": (120, partial(mfu, "1B", compile=True)),
    "attention": (60, kernels),
    "loop 300M": (120, partial(loop, "300M")),
    "eager 85M": (40, partial(mfu, "85M", compile=False)),
    "eager 300M": (40, partial(mfu, "300M", compile=False)),
}
"""Most seconds and work of each part, the most wanted first."""


def apart(name: str, limit: float) -> dict[str, Any]:
    """A part in a process of its own."""
    command = [sys.executable, __file__, "--part", name]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {limit:.0f} s"}
    try:
        return dict(json.loads(ended.stdout))
    except ValueError:
        return {"error": f"exit code {ended.returncode}: " + " ".join(ended.stderr.split())[-400:]}


def here(name: str, tiny: bool) -> dict[str, Any]:
    """A part in this process."""
    try:
        return PARTS[name][1](tiny)
    except Exception as error:  # one failure must not lose the rest
        return {"error": f"{type(error).__name__}: {error}"}


def gains(parts: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Compiled over eager, by size."""
    pairs = {name: (parts.get(f"mfu {name}", {}), parts.get(f"eager {name}", {})) for name in SIZES}
    return {
        n: a["flops_per_second"] / b["flops_per_second"]
        for n, (a, b) in pairs.items()
        if "flops_per_second" in a and "flops_per_second" in b
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", ".")) / "gpu.json", help="file; by default $OUT/gpu.json")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="parts that would begin later are left out")
    parser.add_argument("--part", choices=PARTS, help="this one alone, its JSON on standard output")
    parser.add_argument("--tiny", action="store_true", help="a rehearsal: sizes that say nothing, all in this process")
    options = parser.parse_args(arguments)
    if options.part:
        sys.stdout.write(json.dumps(here(options.part, options.tiny)) + "\n")
        return
    began = time.monotonic()
    parts: dict[str, dict[str, Any]] = {}
    for name, (limit, _) in PARTS.items():
        left = 60 * options.minutes - (time.monotonic() - began)
        if left <= 5:
            parts[name] = {"error": "no time was left"}
            continue
        at = time.monotonic()
        parts[name] = here(name, True) if options.tiny else apart(name, min(limit, left))
        parts[name]["part_seconds"] = time.monotonic() - at
        found = {"device": name_of(device()), "torch": torch.__version__, "parts": parts, "compiled_over_eager": gains(parts)}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(found, indent=1))
        sys.stderr.write(f"{name}: {parts[name].get('error') or told(parts[name])}\n")


def told(part: dict[str, Any]) -> str:
    """A part in a few words."""
    words = [f"{part['part_seconds']:.0f} s"]
    if part.get("mfu") is not None:
        words += [f"MFU {100 * part['mfu']:.1f} %", f"{part['peak_memory_bytes'] / 2**30:.1f} GiB"]
    if "loader_headroom" in part:
        words += [f"headroom {part['loader_headroom']:.0f}", f"over bare {100 * part['over_bare_loop']:+.1f} %"]
    if "waits" in part:
        words.append(str(part["waits"]))
    return ", ".join([*words, {True: "enough", False: "NOT ENOUGH"}.get(part.get("enough"), "")]).rstrip(", ")  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
