"""A program for `test_processes.py`: a command that leaves with a code while a thread of the process group frees the tensor of a
collective, which it does not finish before the interpreter goes. Something refers to the group for good, as it does after FSDP."""

from __future__ import annotations

import sys
import threading
import time
import weakref

import torch
import torch.distributed as dist
import typer

from scigpt.errors import UserError
from scigpt.launch import cli
from scigpt.train.processes import Processes

kept = []


@cli.app.command()
def leave(code: int) -> None:
    with Processes.join(60.0) as processes:
        kept.append(dist.group.WORLD)
        tensor = torch.zeros(1)
        if processes.first:
            freed = threading.Event()

            def free(reference: object) -> None:
                freed.set()
                while True:
                    time.sleep(0.001)

            kept.append(weakref.ref(tensor, free))
            work = dist.all_reduce(tensor, async_op=True)
            del tensor, work  # from here on only the thread holds it, which waits for the other process
            processes.post("let go", True)
            assert freed.wait(30)
        else:
            while processes.posted(["let go"]) is None:
                time.sleep(0.01)
            dist.all_reduce(tensor)
    if code == 1:
        raise RuntimeError("of the program")
    if code == 2:
        raise UserError("of the user")
    raise typer.Exit(code)


if __name__ == "__main__":
    cli.main(["leave", sys.argv[1]])
