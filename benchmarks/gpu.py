"""What one H200 or H100 does with SciGPT, in under eight minutes: MFU, compilation, attention kernels, loader, memory, waits.

Every part is a process of its own with a time limit, and what it found is on the disk before the next one starts: neither a crash of the
device nor a part that hangs costs the others. `--tiny` runs everything on a CPU in seconds, at sizes that say nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, Any

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from scigpt.launch import bench_model
from scigpt.launch.timing import Stopwatch, name_of
from scigpt.model.attention import attention, preferred_kernels
from scigpt.model.backbone import ModelConfig

LENGTHS = (4, 7, 64, 192, 704, 832)
"""Where cuDNN's backward pass has given NaN under a mask (pytorch#196678), and others; the first two are frames."""
KERNELS = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
MINUTES = 8.0
FILLED = 0.95
"""Share of the device's memory that a step may be predicted to need."""


@dataclass(frozen=True, slots=True)
class Size:
    """A model, the windows of a step, and the MFU asked for: the least and the hoped for.

    Args:
        held: GiB of parameters, gradients and moments, those of the bare blocks' own optimizer too.
        window: GiB that a window needs besides, uncompiled, as `scigpt.train.memory` predicts; compiled it is less.
    """

    depth: int
    width: int
    batch: int
    least: float
    hoped: float
    held: float
    window: float

    def fitting(self) -> int:
        """The windows of a step on this device."""
        if not torch.cuda.is_available():
            return self.batch
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        return max(1, min(self.batch, int((FILLED * memory - self.held) / self.window)))


SIZES = {
    "85M": Size(9, 768, 8, 0.38, 0.45, 2.0, 2.6),
    "300M": Size(18, 1024, 8, 0.42, 0.50, 7.0, 6.9),
    "1B": Size(27, 1536, 4, 0.48, 0.55, 23.3, 16.0),
}
TINY = Size(1, 64, 1, 0.0, 0.0, 0.0, 0.1)


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def mfu(name: str, tiny: bool, compile: bool) -> dict[str, Any]:
    """A step of four frames of 1024 tokens, in bfloat16; with as many windows as fit, and half of them as often as that was wrong."""
    size = TINY if tiny else SIZES[name]
    batch, rounds, side = size.fitting(), 2 if tiny else 20, 32 if tiny else 256
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
    chosen = {what: tried(partial(choice, heads, length, width, causal)) for what, (_, length, causal) in shapes.items()}
    finite = {
        str(length): {kind: tried(partial(gradients_are_finite, heads, length, width, kind)) for kind in ("no mask", "causal", "mask")}
        for length in LENGTHS
    }
    good = all(answer is True for answers in finite.values() for answer in answers.values())
    return {"heads": heads, "head_width": width, "seconds": seconds, "chosen": chosen, "finite_gradients": finite, "enough": good}


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


def choice(heads: int, length: int, width: int, causal: bool) -> str:
    """The kernel that training takes."""
    with preferred_kernels():
        return str(SDPBackend(torch._fused_sdp_choice(*heads_of(1, heads, length, width), is_causal=causal)).name)


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
    """Whether the host waits for the device anywhere in a forward and backward pass and an update; and how often in a step of the real
    loop, where it reads norm and loss for the guard."""
    data = bench_model.synthetic_batch(1, 3, 32, 8)
    found = {}
    with preferred_kernels():
        for compile in (False,) if tiny else (False, True):
            work = bench_model.Work(ModelConfig(depth=2, width=64 if tiny else 768), data, "bf16", device(), compile, False)
            waiting("error")
            try:
                work.step()
                found["compiled" if compile else "eager"] = "none"
            except RuntimeError as error:
                found["compiled" if compile else "eager"] = str(error).splitlines()[0]
            finally:
                waiting("default")
    loop = waits_of_the_loop()
    return {"waits": found, "loop": loop, "enough": set(found.values()) == {"none"} and all(len(step) <= 2 for step in loop[1:])}


def waiting(mode: str) -> None:
    """What torch does where the host has to wait: `default` nothing, `warn` or `error`."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode(mode)


def waits_of_the_loop() -> list[list[str]]:
    """Where the host waits in each of a few steps of training on shards; the first makes what is made once."""
    from scigpt.launch import bench_train
    from scigpt.launch.made_up import MapsOptions
    from scigpt.train.engine import Trainer, train
    from scigpt.train.record import Step

    seen: list[list[str]] = []

    class Watched(Trainer):
        def _update(self, *args: Any) -> Step:
            batches = [batch for _, group in args[0] for batch in group]
            for batch, placed in zip(batches, self.strategy.placed(batches), strict=True):
                assert torch.equal(batch.values, placed.values.cpu()), "a batch that was copied meanwhile is not whole"
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                waiting("warn")
                try:
                    return super()._update(*args)
                finally:
                    waiting("default")
                    where = [f"{Path(w.filename).name}:{w.lineno}" for w in caught if "called a synchronizing" in str(w.message)]
                    seen.append(where)

    with tempfile.TemporaryDirectory(prefix="scigpt-gpu-") as folder:
        config = bench_train.default(Path(folder), MapsOptions(train=2, valid=0, test=0, ood=0, frames=16, grid=32))
        corpora = [replace(c, valid=[]) for c in config.data.corpora]
        settings = replace(config.train, steps=4, groups=3, precision="bf16")
        quiet = replace(config.report, mlflow=False)
        train(replace(config, data=replace(config.data, corpora=corpora, tokens=16), train=settings, report=quiet), Watched)
    return seen


def loop(name: str, tiny: bool) -> dict[str, Any]:
    """The real training loop on shards: over a bare loop, over synthetic batches, and how much faster batches come than steps take."""
    from scigpt.launch import bench_train
    from scigpt.launch.made_up import MapsOptions

    size = TINY if tiny else SIZES[name]
    with tempfile.TemporaryDirectory(prefix="scigpt-gpu-") as folder:
        options = MapsOptions(train=2 if tiny else 16, valid=0, test=0, ood=0, frames=8 if tiny else 32, grid=32 if tiny else 256)
        config = bench_train.default(Path(folder), options)
        data = replace(config.data, frames=5, tokens=16 if tiny else 4096 * size.fitting())
        train = replace(config.train, groups=1, precision="bf16", compile=not tiny)
        model, report = ModelConfig(depth=size.depth, width=size.width), replace(config.report, mlflow=not tiny)
        config = replace(config, data=data, train=train, model=model, report=report)
        found = bench_train.measure(config, bench_train.Amount(1, 1) if tiny else bench_train.Amount(10, 3))
    assert found is not None  # a job of one process
    return found | {"enough": found["over_bare_loop"] <= 0.03 and found["real_over_synthetic"] <= 0.05}


PARTS: dict[str, tuple[float, Callable[[bool], dict[str, Any]]]] = {
    "waits": (90, waits),
    "mfu 85M": (90, partial(mfu, "85M", compile=True)),
    "mfu 300M": (100, partial(mfu, "300M", compile=True)),
    "mfu 1B": (120, partial(mfu, "1B", compile=True)),
    "attention": (60, kernels),
    "loop 300M": (150, partial(loop, "300M")),
    "eager 85M": (40, partial(mfu, "85M", compile=False)),
    "eager 300M": (40, partial(mfu, "300M", compile=False)),
}
"""Most seconds and work of each part, the most wanted first."""


def apart(name: str, limit: float) -> dict[str, Any]:
    """A part in a process of its own. It writes to files: what it has started (the compiler's workers) may hold on to a pipe."""
    command = [sys.executable, __file__, "--part", name]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        part = subprocess.Popen(command, stdout=out, stderr=err, start_new_session=True)
        try:
            code = part.wait(limit)
        except subprocess.TimeoutExpired:
            return {"error": f"not done after {limit:.0f} s"} | tail(err)
        finally:
            if part.poll() is None:
                os.killpg(part.pid, signal.SIGKILL)
                part.wait()
        out.seek(0)
        try:
            return dict(json.loads(out.read().splitlines()[-1]))  # libraries may have printed before
        except (ValueError, IndexError):
            return {"error": f"exit code {code}"} | tail(err)


def tail(err: IO[str]) -> dict[str, str]:
    """The end of what a part has said."""
    err.seek(0)
    return {"said": " ".join(err.read().split())[-1000:]}


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
