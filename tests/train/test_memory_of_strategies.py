"""What a process really holds: split over two processes, a model of 138M parameters takes at most 0.65 of what each needs for all of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from spawned import spawn

LARGEST = 0.65
KINDS = {
    "ddp": {"name": "ddp"},
    "fsdp2": {"name": "fsdp2"},
    **{f"ZeRO-{stage}": {"name": "deepspeed", "stage": stage} for stage in (1, 2, 3)},
}


@pytest.mark.drill
def test_memory_of_strategies(corpora: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Above what the process had before its part of the model. glibc gives the memory of a large tensor back when the tensor dies, as long
    as it is told what is large; otherwise it learns to keep it, and the measurement shows what was needed at some time."""
    held, most = {}, {}
    for kind, strategy in KINDS.items():
        told = spawn(
            "memory_worker.py", [str(corpora[0]), json.dumps(strategy)], tmp_path, environment={"MALLOC_MMAP_THRESHOLD_": str(2**17)}
        )
        found = [json.loads(text.splitlines()[-1]) for text in told]
        held[kind], most[kind] = (max(f[key] for f in found) for key in ("held", "most"))
    lines = [f"{found[0]['parameters'] / 1e6:.0f}M parameters, two processes; MB of the larger after two steps, and at most"]
    for kind in KINDS:
        shares = f"{held[kind] / held['ddp']:.2f} and {most[kind] / most['ddp']:.2f} of ddp"
        lines.append(f"{kind:8}{held[kind] / 1e6:8.0f}{most[kind] / 1e6:8.0f}   {shares}")
    with capsys.disabled():
        sys.stdout.write("\n" + "\n".join(lines) + "\n")
    assert held["ddp"] >= 4 * 4 * found[0]["parameters"], "parameters, gradients, two moments"
    assert held["fsdp2"] <= LARGEST * held["ddp"]
    assert held["ZeRO-3"] <= LARGEST * held["ddp"]
