"""Where shards are written: in this process, in a pool of processes here, or by the workers of a Dask cluster."""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from tqdm import tqdm

from scigpt.data.files import DiskFull
from scigpt.data_prep.shard_task import ShardTask
from scigpt.data_prep.source import Plan, Source
from scigpt.errors import UserError


class Unfinished(UserError):
    """Work that ended before its time, through no fault of the input; what is finished stays for the next call."""


_ONE_AT_A_TIME = threading.Lock()
_OPEN: dict[str, Source] = {}
"""Of a worker process, by recipe."""
_STACK = contextlib.ExitStack()


def run_tasks(tasks: Sequence[ShardTask], plan: Plan, workers: int = 1, progress: bool = True, cluster: str | None = None) -> None:
    """Write the shards that are not there yet.

    Args:
        plan: says how large a sample is, to see before the first one whether the disk has room.
        workers: processes here; ignored with a cluster.
        progress: whether to draw a progress bar on standard error.
        cluster: address of a Dask scheduler (`tcp://host:8786`) or path of its scheduler file. Its workers must see the same folders.

    Raises:
        DiskFull: too little room.
        Unfinished: a worker that dies, or a cluster that cannot be reached.
        UserError: what a task refuses.
    """
    todo = [task for task in tasks if task.result() is None]
    if not todo:
        return
    folder, total, missing = todo[0].file.parent, sum(len(task.refs) for task in tasks), sum(len(task.refs) for task in todo)
    needed, free = missing * plan.bytes_per_sample, shutil.disk_usage(folder).free
    if needed > free:
        raise DiskFull(
            f"{folder}: about {needed / 1e9:.3g} GB are needed and {free / 1e9:.3g} GB are free; make room or choose another --out"
        )
    with tqdm(total=total, initial=total - missing, unit="sample", disable=not progress, desc=todo[0].source.name) as bar:
        if cluster is not None:
            _on_cluster(todo, cluster, bar.update)
        elif workers <= 1:
            source = todo[0].source(todo[0].inputs, todo[0].options)
            with source.kept_open():
                for task in todo:
                    task.run(bar.update, source)
        else:
            _in_processes(todo, workers, bar.update)


def _in_processes(todo: Sequence[ShardTask], workers: int, update: Callable[[int], object]) -> None:
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(min(workers, len(todo)), context, _worker) as pool:
        futures = {pool.submit(_in_worker, task): task for task in todo}
        try:
            for future in concurrent.futures.as_completed(futures):
                future.result()
                update(len(futures[future].refs))
        except BrokenProcessPool:
            raise Unfinished(
                f"a worker process died while it made {todo[0].source.name} samples (out of memory?); run the same command again with "
                f"fewer --workers, it keeps what is finished"
            ) from None
        except KeyboardInterrupt:
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _in_worker(task: ShardTask) -> None:
    """Tasks of one recipe share a source, whose inputs stay open until the worker ends."""
    if task.fingerprint not in _OPEN:
        source = task.source(task.inputs, task.options)
        _STACK.enter_context(source.kept_open())
        _OPEN[task.fingerprint] = source
    task.run(source=_OPEN[task.fingerprint])


def _worker() -> None:
    """A worker leaves Ctrl-C to its parent and does not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _on_cluster(todo: Sequence[ShardTask], cluster: str, update: Callable[[int], object]) -> None:
    try:
        import distributed
    except ImportError:
        raise Unfinished("--dask needs distributed, which is not installed; run: pip install 'scigpt[dask]'") from None
    where = {"address": cluster} if "://" in cluster else {"scheduler_file": _scheduler_file(cluster)}
    try:
        client = distributed.Client(**where, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        detail = " ".join(str(error).split())[:160] or type(error).__name__
        raise Unfinished(f"no Dask scheduler answers at {cluster} ({detail}); start one, or leave --dask out") from None
    with client:
        futures = {client.submit(_alone, task, key=f"scigpt-{task.fingerprint[:12]}-{task.file.stem}", pure=False): task for task in todo}
        try:
            for future in distributed.as_completed(list(futures), loop=client.loop):
                task = futures[future]
                problem = future.exception()
                if isinstance(problem, UserError):
                    raise problem
                if problem is not None:
                    detail = " ".join(str(problem).split())[:160]
                    raise Unfinished(
                        f"a worker of the Dask cluster failed at {task.file.name} ({type(problem).__name__}: {detail}); run the same "
                        f"command again, it keeps what is finished"
                    )
                if task.result() is None:
                    raise Unfinished(f"{task.file.parent}: a Dask worker wrote its shard elsewhere; choose an --out that all workers see")
                update(len(task.refs))
        finally:
            client.cancel(list(futures), force=True)


def _scheduler_file(cluster: str) -> str:
    """The path once the file is there: a scheduler that was started just before writes it in a moment."""
    for _ in range(30):
        if Path(cluster).is_file():
            return cluster
        if ":" in cluster:
            break
        time.sleep(1.0)
    raise Unfinished(f"--dask {cluster} is no scheduler file that is there; write tcp://HOST:PORT, or the path of a scheduler's file")


def _alone(task: ShardTask) -> Any:
    """A worker with several threads does one task at a time: the NetCDF library is not made for threads, nor is the memory."""
    with _ONE_AT_A_TIME:
        task.run()
