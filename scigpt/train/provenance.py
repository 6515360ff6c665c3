"""Provenance: what made a run (code, data, machine, command), one entry for each launch, in `provenance.json`."""

from __future__ import annotations

import functools
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import scigpt
from scigpt.data.corpus import Corpus
from scigpt.data.files import dump_json, load_json, write_bytes

FILE = "provenance.json"
PACKAGES = ("scigpt", "torch", "numpy", "safetensors", "omegaconf", "mlflow")


def record(run: Path, corpora: Sequence[Corpus], resumed: int | None, processes: int = 1) -> dict[str, Any]:
    """Add this launch to the run's provenance, with the machine of this process.

    Args:
        resumed: the step it goes on from, None for the first.
        processes: how many train together.
    """
    file = run / FILE
    launches = load_json(file, "the provenance of a run")["launches"] if file.exists() else []
    launch = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "folder": os.getcwd(),
        "resumed_from_step": resumed,
        "processes": processes,
        "versions": {"python": platform.python_version(), **{p: version(p) for p in PACKAGES}},
        "commit": commit(),
        "hardware": hardware(),
    }
    about = {
        "corpora": {
            c.name: {
                "path": str(c.path.resolve()),
                "fingerprint": c.fingerprint,
                "licences": c.manifest["licences"],
                "attributions": c.manifest["attributions"],
                "redistributable": c.manifest["redistributable"],
            }
            for c in corpora
        },
        "licences": sorted({x for c in corpora for x in c.manifest["licences"]}),
        "attributions": sorted({x for c in corpora for x in c.manifest["attributions"]}),
        "redistributable": all(c.manifest["redistributable"] for c in corpora),
        "launches": [*launches, launch],
    }
    write_bytes(file, dump_json(about, indent=1))
    return about


def hardware() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "machine": platform.machine(),
        "system": platform.platform(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


@functools.cache
def commit() -> str | None:
    """Commit of the source tree the package is imported from (`-dirty` with local changes), None for an installed package."""
    folder = Path(scigpt.__file__).resolve().parent
    try:
        command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None if answer.returncode == 0 else None
