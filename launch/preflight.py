"""Pre-flight check, one process on each node before a job trains: `python -m scigpt.launch.preflight FOLDER --devices N`.

Each node looks at its devices and at the folder of the run; together they compare their clocks and try a collective. The first node says in
one sentence each which node has what. Exit codes: 0 all is well; 1 a node is bad, so another turn may be better; 2 each of several
nodes has the same fault, so it is not a node but what was asked for.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

SKEW = 2.0
"""Largest difference of two clocks, in seconds."""


def device_fault(wanted: int) -> str | None:
    """Why this node cannot give `wanted` devices, None when it can."""
    there = torch.cuda.device_count()
    if there < wanted:
        return f"has {there} of the {wanted} GPUs asked for"
    for i in range(wanted):
        try:
            total = float(torch.ones(256, 256, device=f"cuda:{i}").sum())
        except RuntimeError as error:
            return f"cannot compute on GPU {i} ({str(error).splitlines()[0]})"
        if total != 256 * 256:
            return f"computes a sum of {total} instead of 65536 on GPU {i}"
    return None


def write_fault(file: Path, token: str) -> str | None:
    """Leave a file for the other nodes; why that is impossible, or None."""
    try:
        file.write_text(token)
    except OSError as error:
        return f"cannot write in {file.parent} ({error.strerror})"
    return None


def read_fault(files: Sequence[Path], token: str, patience: float) -> str | None:
    """What is wrong where files of other nodes are not seen within `patience` seconds (a shared file system may be late)."""
    limit = time.monotonic() + patience
    while missing := sum(not _holds(file, token) for file in files):
        if time.monotonic() > limit:
            return f"does not see in {files[0].parent} what {missing} of {len(files)} nodes wrote, so the folder is not shared"
        time.sleep(0.1)
    return None


def _holds(file: Path, token: str) -> bool:
    try:
        return file.read_text() == token
    except OSError:
        return False


def clock_fault(sent: float, there: float, received: float) -> str | None:
    """What is wrong with a clock that showed `there` at some moment between `sent` and `received` of the first node's clock."""
    away, uncertain = there - (sent + received) / 2, (received - sent) / 2
    return f"has a clock that is {away:+.1f} s off the first node's" if abs(away) > SKEW + uncertain else None


def collective_fault(store: dist.Store, rank: int, world: int, patience: float) -> str | None:
    """What goes wrong when all nodes add up a megabyte, by the same libraries as training does; None when nothing does."""
    gpu = torch.cuda.is_available()
    device = torch.device("cuda:0" if gpu else "cpu")
    try:
        dist.init_process_group("nccl" if gpu else "gloo", store=store, rank=rank, world_size=world, timeout=timedelta(seconds=patience))
        data = torch.full((1 << 18,), float(rank + 1), device=device)
        dist.all_reduce(data)
        wrong = bool((data != world * (world + 1) / 2).any())
        dist.destroy_process_group()
    except RuntimeError as error:
        return f"fails in a collective with the other nodes ({str(error).splitlines()[0][:200]})"
    return "gets a wrong sum from a collective with the other nodes" if wrong else None


def verdict(faults: Sequence[str | None]) -> int:
    """The exit code for what the nodes found out each for itself."""
    if not any(faults):
        return 0
    return 2 if len(faults) > 1 and len(set(faults)) == 1 else 1


class Nodes:
    """This node among the others; they talk through a key-value store that the first one keeps."""

    def __init__(self, store: dist.Store, rank: int, world: int, patience: float) -> None:
        self.store, self.rank, self.world, self.patience = store, rank, world, patience

    def gather(self, what: str, value: str | None) -> list[str | None]:
        """On the first node what each has to say under `what`, on the others nothing; a node that stays away "does not answer"."""
        self.store.set(f"{what}/{self.rank}", json.dumps(value))
        if self.rank:
            return []
        limit, found = time.monotonic() + self.patience, []
        for i in range(self.world):
            answer = self._read(f"{what}/{i}", max(0.01, limit - time.monotonic()))
            found.append("does not answer" if answer is None else json.loads(answer))
        return found

    def told(self, what: str, value: str = "") -> str:
        """What the first node says; the others wait for it.

        Raises:
            TimeoutError: the first node is gone.
        """
        if not self.rank:
            self.store.set(what, value)
            return value
        answer = self._read(what, 3 * self.patience)
        if answer is None:
            raise TimeoutError
        return answer

    def clocks(self) -> list[str | None]:
        """On the first node what is wrong with the clock of each."""
        if self.rank:
            self._read(f"ping/{self.rank}", 3 * self.patience)
            self.store.set(f"pong/{self.rank}", repr(time.time()))
            return []
        found: list[str | None] = [None]
        for i in range(1, self.world):
            sent = time.time()
            self.store.set(f"ping/{i}", "")
            answer = self._read(f"pong/{i}", self.patience)
            found.append("does not answer" if answer is None else clock_fault(sent, float(answer), time.time()))
        return found

    def _read(self, key: str, patience: float) -> str | None:
        try:
            self.store.wait([key], timedelta(seconds=patience))
            return str(self.store.get(key), "utf-8")
        except RuntimeError:
            return None


def check(nodes: Nodes, folder: Path, devices: int, token: str) -> tuple[int, list[str | None]]:
    """The exit code, and on the first node the fault of each."""
    files = [folder / f"preflight-{i}" for i in range(nodes.world)]
    try:
        mine = device_fault(devices) or write_fault(files[nodes.rank], token)
        faults = nodes.gather("own", mine)
        # a file that was never written is not looked for: one bad node would make all others look bad
        if not nodes.told("look", "" if any(faults) else "yes"):
            return int(nodes.told("code", str(verdict(faults)))), faults
        mine = read_fault(files, token, min(20.0, nodes.patience))
        faults = nodes.gather("seen", mine)
        clocks = nodes.clocks()
        faults = [fault or clock for fault, clock in zip(faults, clocks, strict=True)]
        if not nodes.told("collect", "" if any(faults) else "yes"):
            return int(nodes.told("code", str(int(any(faults))))), faults
        mine = collective_fault(dist.PrefixStore("group", nodes.store), nodes.rank, nodes.world, nodes.patience)
        faults = nodes.gather("collected", mine)
        return int(nodes.told("code", str(int(any(faults))))), faults
    finally:
        files[nodes.rank].unlink(missing_ok=True)
        nodes.patience = min(5.0, nodes.patience)
        nodes.gather("bye", None)  # the store ends with the first node


def names(world: int) -> list[str]:
    """Names of the nodes of this job, in the order of their processes."""
    answer = subprocess.run(["scontrol", "show", "hostnames"], capture_output=True, text=True)
    found = answer.stdout.split()
    return found if len(found) == world else [str(i) for i in range(world)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the check as one process of a job; returns the exit code."""
    parser = argparse.ArgumentParser(description="Check the nodes of a job before it trains.")
    parser.add_argument("folder", type=Path, help="a folder that every node must share")
    parser.add_argument("--devices", type=int, default=0, help="GPUs that each node must have")
    parser.add_argument("--patience", type=float, default=120.0, help="seconds that the first node waits for another")
    options = parser.parse_args(arguments)
    e = os.environ
    rank, world, token = int(e.get("SLURM_PROCID", "0")), int(e.get("SLURM_NTASKS", "1")), e.get("SLURM_JOB_ID", "0")
    name = e.get("SLURMD_NODENAME", socket.gethostname())
    address, port = e.get("MASTER_ADDR", "127.0.0.1"), int(e.get("MASTER_PORT", "29500")) + 1
    wait = timedelta(seconds=options.patience)
    try:
        nodes = Nodes(dist.TCPStore(address, port, world, rank == 0, timeout=wait, wait_for_workers=False), rank, world, options.patience)
        code, faults = check(nodes, options.folder, options.devices, token)
    except (RuntimeError, TimeoutError):
        sys.stderr.write(f"scigpt: node {name} cannot reach the first node at {address}:{port}; that one is gone, or the network is bad\n")
        return 1
    for node, fault in zip(names(world) if any(faults) else [], faults, strict=False):
        if fault:
            sys.stderr.write(f"scigpt: node {node} {fault}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
