"""The processes of a run: which one this is, and what all of them agree on.

A job is joined when torchrun or srun started it; alone, none of this talks to anybody. What is agreed on are numbers and JSON on the host,
over gloo and the job's key-value store: no step waits for an accelerator because of it, and nothing is unpickled.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from scigpt.errors import ToldElsewhere, UserError

_joined = False
"""Whether this process has been one of several."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where this process stands: `rank` of `world` in the job, `local_rank` of `local_world` on its node."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1

    @classmethod
    def here(cls) -> Place | None:
        """As torchrun or srun says; None for a process that was started by hand."""
        e = os.environ
        if "RANK" in e and "WORLD_SIZE" in e:
            world = int(e["WORLD_SIZE"])
            return cls(int(e["RANK"]), world, int(e.get("LOCAL_RANK", "0")), int(e.get("LOCAL_WORLD_SIZE", world)))
        # an interactive allocation has the variables of a task too, but no step
        if "SLURM_PROCID" in e and "SLURM_STEP_NUM_TASKS" in e and int(e["SLURM_STEP_NUM_TASKS"]) > 1:
            on_node = re.match(r"\d+", e.get("SLURM_STEP_TASKS_PER_NODE", "1"))
            return cls(int(e["SLURM_PROCID"]), int(e["SLURM_STEP_NUM_TASKS"]), int(e["SLURM_LOCALID"]), int(on_node[0]) if on_node else 1)
        return None


class Processes:
    """This process among those of its job; use `join`."""

    def __init__(self, place: Place, store: dist.Store | None) -> None:
        self.place, self.store = place, store
        self.rank, self.world = place.rank, place.world
        self._posted: dict[str, str] = {}

    @classmethod
    @contextmanager
    def join(cls, timeout: float) -> Iterator[Processes]:
        """Join the job this process was started in, alone or with others.

        Args:
            timeout: seconds after which a collective that a process does not answer is an error.

        Raises:
            UserError: a job of several processes that does not say where its first process is.
        """
        place = Place.here() or Place()
        if place.world == 1:
            yield cls(place, None)
            return
        for name in ("MASTER_ADDR", "MASTER_PORT"):
            if name not in os.environ:
                raise UserError(
                    f"this is process {place.rank} of {place.world} and {name} is not set; export it before srun, as `scigpt submit` does"
                )
        global _joined
        _joined = True
        limit = timedelta(seconds=timeout)
        store, *_ = next(dist.rendezvous("env://", place.rank, place.world, timeout=limit))
        gpus = torch.cuda.is_available()
        if gpus:
            torch.cuda.set_device(place.local_rank % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl" if gpus else "gloo"
        dist.init_process_group(backend, store=dist.PrefixStore("group", store), rank=place.rank, world_size=place.world, timeout=limit)
        try:
            yield cls(place, dist.PrefixStore("scigpt", store))
        except BaseException as error:
            # What the user must mend is known to all, who leave together. After anything else a peer may be gone, and taking leave of it
            # would wait: that this process ends is what ends the others.
            if isinstance(error, UserError):
                dist.destroy_process_group()
            raise
        dist.destroy_process_group()

    @property
    def first(self) -> bool:
        """The process that writes what is written once."""
        return self.rank == 0

    def total(self, values: Sequence[float]) -> list[float]:
        """Sum of each number over all processes, in double precision."""
        if self.world == 1:
            return list(values)
        summed = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(summed)
        return summed.tolist()

    def shared(self, make: Callable[[], Any]) -> Any:
        """What the first process makes, as JSON data on all of them.

        Raises:
            UserError: what the first process raised; on the others as `ToldElsewhere`.
        """
        made, text = None, b""
        with self.together():
            if self.first:
                made = make()
                text = json.dumps(made).encode()
        if self.world == 1:
            return made
        size = int(self.total([len(text)])[0])
        data = torch.frombuffer(bytearray(text), dtype=torch.uint8) if self.first else torch.empty(size, dtype=torch.uint8)
        dist.broadcast(data, 0)
        return json.loads(bytes(data.tolist()))

    @contextmanager
    def together(self) -> Iterator[None]:
        """What the user must mend is told once: the first process that has such an error raises it, the others `ToldElsewhere`.

        Nothing inside may wait for another process.
        """
        error: UserError | None = None
        try:
            yield
        except UserError as raised:
            error = raised
        except OSError as raised:
            if raised.filename is None:
                raise
            error = UserError(f"{raised.filename}: {raised.strerror}")
        self.agree_on(error)

    def agree_on(self, error: UserError | None) -> None:
        """Raise on all processes if any has an error (see `together`)."""
        self.raise_first(self.total(self.trouble(error)), error)

    def trouble(self, error: UserError | None) -> list[float]:
        """One number for each process, to be summed with `total`: which of them has something to tell."""
        tells = error is not None and not isinstance(error, ToldElsewhere)
        return [float(tells and rank == self.rank) for rank in range(self.world)]

    def raise_first(self, failed: Sequence[float], error: UserError | None) -> None:
        """As `agree_on`, with the sum of `trouble`."""
        if any(failed):
            if error is not None and failed[self.rank] and not any(failed[: self.rank]):
                raise error
            raise ToldElsewhere("another process says what is wrong")

    def everywhere(self, message: str) -> UserError:
        """The error to raise where every process has come to the same verdict."""
        return UserError(message) if self.first else ToldElsewhere(message)

    def post(self, key: str, data: Any) -> None:
        """Leave JSON data for the other processes under a key of its own."""
        if self.store is None:
            self._posted[key] = json.dumps(data)
        else:
            self.store.set(key, json.dumps(data))

    def posted(self, keys: Sequence[str]) -> list[Any] | None:
        """What was left under these keys; None until all are there. Never waits."""
        if self.store is None:
            return [json.loads(self._posted[k]) for k in keys] if all(k in self._posted for k in keys) else None
        return [json.loads(self.store.get(k)) for k in keys] if self.store.check(list(keys)) else None

    def barrier(self) -> None:
        """Wait for the others."""
        self.total([0.0])


def leave(error: BaseException) -> None:
    """End this process as the interpreter would after `error`, a SystemExit or not, but without taking it down; where this process was
    never one of several, return.

    The threads of a process group live as long as anything refers to it, which after `destroy_process_group` something of FSDP still does.
    Such a thread needs the interpreter's lock to free the tensor of the collective it has just done. Where the interpreter is being taken
    down its thread is ended instead, and C++ aborts the whole process: "terminate called without an active exception", in place of the
    exit code that the launcher and SLURM act on.
    """
    if not _joined:
        return
    code: object = 1
    if isinstance(error, SystemExit):
        code = error.code if error.code is not None else 0
    else:
        sys.excepthook(type(error), error, error.__traceback__)
    if not isinstance(code, int):  # a message
        sys.stderr.write(f"{code}\n")
        code = 1
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # whoever reads it is gone, or it is closed
            stream.flush()
    os._exit(code)
