"""Clocks, peaks and counts: what the benchmarks measure with, and what they measure against."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.profiler import record_function

from scigpt.errors import UserError

if TYPE_CHECKING:
    from scigpt.data.loader import BatchLoader
    from scigpt.train.record import Read

SIDES = {"cpu": 1024, "cuda": 8192}
"""Side of the square matrices of the reference product, large enough to be the best that the device does."""
_NAMES = (("gh200", "gh200"), ("h200", "h200"), ("h100 80gb hbm3", "h100"), ("a100-sxm4-40gb", "a100-40"), ("a100-pcie-40gb", "a100-40"),
          ("a100", "a100"), ("mi300x", "mi300x"), ("mi250x", "mi250x"))  # fmt: skip
"""What a device calls itself, and its row in the table of `scigpt plan`; cards of the same name and another peak are left out."""


def device_of(name: str) -> torch.device:
    """`auto` (a GPU where there is one), `cpu` or `cuda`.

    Raises:
        UserError: another name, or a GPU that is not there.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise UserError(f"--device {name}: expected auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no GPU here; use --device cpu, or a torch built for this machine's GPU")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def name_of(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def datasheet(device: torch.device, precision: str) -> float | None:
    """Peak rate in FLOP/s that the maker states for dense matrix products; None where it is not known, as of every CPU."""
    if device.type != "cuda":
        return None
    from scigpt.launch.plan import DEVICES

    name = name_of(device).lower()
    found = next((row for part, row in _NAMES if part in name and "nvl" not in name), None)
    return None if found is None else 1e12 * (DEVICES[found].bf16 if precision == "bf16" else DEVICES[found].fp32)


class Stopwatch:
    """Marks along the work, and the seconds between them: CPU time of this process, whatever else the machine does, or events on a GPU."""

    def __init__(self, device: torch.device, cpu: Callable[[], float] = time.process_time) -> None:
        self.device, self._cpu = device, cpu
        self.name = "events on the GPU" if device.type == "cuda" else "CPU time of this process"

    def mark(self) -> Any:
        if self.device.type != "cuda":
            return self._cpu()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(self, marks: Sequence[Any]) -> list[float]:
        """Seconds from each mark to the next; waits for the device."""
        if self.device.type != "cuda":
            return [b - a for a, b in pairwise(marks)]
        torch.cuda.synchronize(self.device)
        return [a.elapsed_time(b) / 1e3 for a, b in pairwise(marks)]


def matrix_product_rate(precision: str, repeats: int = 8, device: torch.device | None = None, side: int | None = None) -> float:
    """FLOP/s of square matrix products; on a CPU, of CPU time."""
    device = device or torch.device("cpu")
    side = side or SIDES[device.type]
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))  # not zeros, on which a GPU is faster
    a @ b
    watch = Stopwatch(device)
    start = watch.mark()
    for _ in range(repeats):
        a @ b
    return repeats * 2 * side**3 / watch.between([start, watch.mark()])[0]


def peak_memory(device: torch.device) -> int:
    """Bytes: of tensors on a GPU since `torch.cuda.reset_peak_memory_stats`, of this process since it began on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def compiled() -> dict[str, float]:
    """What torch.compile has done in this process: seconds, graphs, and the places where it could not go on."""
    from torch._dynamo.utils import calculate_time_spent, counters

    breaks = sum(counters["graph_break"].values())
    return {"seconds": calculate_time_spent()["total_wall_time"], "graphs": counters["stats"]["unique_graphs"], "graph_breaks": breaks}


def of_compilation(found: dict[str, float]) -> str:
    """The same, and the graphs beyond one for each shape, for a person."""
    return (
        f"compiled in {found['seconds']:.0f} s: {found['graphs']} graph(s), {found['graph_breaks']} break(s), "
        f"{found['recompiles']} recompilation(s)"
    )


class Reading:
    """What the threads of a loader have done: groups, windows, bytes of values, and their seconds: at work, on the clock, waiting for a
    core."""

    def __init__(self, load: Callable[[int], Read]) -> None:
        self.groups = self.windows = self.bytes = 0
        self.cpu = self.wall = self.queued = 0.0
        self._load = load

    @classmethod
    def of(cls, loader: BatchLoader) -> Reading:
        """Of all that a loader reads from now on."""
        reading = cls(loader._load)
        loader._load = reading  # type: ignore[method-assign]
        return reading

    def __call__(self, g: int) -> Read:
        cpu, queued, wall = time.thread_time(), _queued(), time.perf_counter()
        with record_function("read a group"):
            group, batches = self._load(g)
        self.cpu, self.queued, self.wall = (
            total + now - then
            for total, now, then in zip(
                (self.cpu, self.queued, self.wall), (time.thread_time(), _queued(), time.perf_counter()), (cpu, queued, wall), strict=True
            )
        )
        self.groups, self.windows = self.groups + 1, self.windows + sum(map(len, batches))
        self.bytes += sum(b.values.nbytes for b in batches)
        return group, batches


def _queued() -> float:
    """Seconds that this thread has been ready to run without a core; NaN where the system does not say."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return float("nan")
