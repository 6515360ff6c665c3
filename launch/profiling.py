"""`--profile DIR` of the benchmarks: what some steps do when, and what takes up memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from scigpt.errors import UserError

TRACE, MEMORY = "trace.json", "memory.json"
TRACED = 2
"""Steps of a trace; one more is for the memory."""
_EVENTS = 100_000
"""Allocations that are remembered: some thousands a step."""


def folder_for(folder: Path) -> dict[str, str]:
    """Make the folder, before anything is measured; the files that will be in it.

    Raises:
        UserError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--profile {folder}: the folder cannot be made ({error.strerror}); name another") from None
    return {"trace": str(folder / TRACE), "memory": str(folder / MEMORY)}


@contextmanager
def trace(folder: Path, device: torch.device) -> Iterator[None]:
    """Write what happens inside, in all threads, for chrome://tracing or Perfetto."""
    from torch.profiler import ProfilerActivity, _ExperimentalConfig, profile

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=activities, experimental_config=_ExperimentalConfig(profile_all_threads=True)) as recorded:
        yield
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    recorded.export_chrome_trace(str(folder / TRACE))


@contextmanager
def memory(folder: Path, device: torch.device) -> Iterator[None]:
    """Write what holds memory, as JSON, for nothing is unpickled: on a GPU torch's snapshot, on a CPU, whose allocator keeps no history,
    bytes by operation of this thread. Apart from `trace`, which counts no bytes when it sees all threads."""
    from torch.profiler import ProfilerActivity, profile

    if device.type == "cuda":
        torch.cuda.memory._record_memory_history(stacks="python", max_entries=_EVENTS)
        try:
            yield
            found: Any = compact(torch.cuda.memory._snapshot())
        finally:
            torch.cuda.memory._record_memory_history(enabled=None)
    else:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
            yield
        found = _by_operation(recorded)
    (folder / MEMORY).write_text(json.dumps(found, default=str))


def _by_operation(recorded: Any) -> list[dict[str, Any]]:
    return [
        {"operation": e.key, "calls": e.count, "self_bytes": e.self_cpu_memory_usage, "bytes": e.cpu_memory_usage}
        for e in sorted(recorded.key_averages(), key=lambda e: -abs(e.self_cpu_memory_usage))
    ]


def compact(snapshot: dict[str, Any]) -> dict[str, Any]:
    """A snapshot with each stack written once: what was a list of `frames` is the number of a row of `stacks`. It would be hundreds of
    megabytes otherwise, as every allocation tells its own."""
    stacks: dict[tuple[str, ...], int] = {}

    def slim(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: number(v) if k == "frames" else slim(v) for k, v in value.items()}
        return [slim(v) for v in value] if isinstance(value, list | tuple) else value

    def number(frames: list[dict[str, Any]]) -> int:
        lines = tuple(f"{f['filename']}:{f['line']} {f['name']}" for f in frames)
        return stacks.setdefault(lines, len(stacks))

    return slim(snapshot) | {"stacks": list(stacks)}
