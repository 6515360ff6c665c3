"""The fetch itself: a few connections at a time, each file whole or absent, a receipt for each."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tqdm import tqdm

from scigpt.data.files import DiskFull
from scigpt.data_prep.fetch import cds, http, objects, stores
from scigpt.data_prep.fetch.errors import Absent, Refused, Stopped
from scigpt.data_prep.fetch.listing import Item, Listing
from scigpt.data_prep.fetch.network import Network
from scigpt.data_prep.fetch.part import Part, Unlike
from scigpt.data_prep.fetch.receipts import Receipts, exclusive
from scigpt.errors import UserError

Grown = Callable[[int], None]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Report:
    """What a fetch did: files that came now and that were there before, and bytes of the former on disk."""

    fetched: tuple[str, ...]
    kept: tuple[str, ...]
    bytes: int


@dataclass
class _State:
    """Shared by the threads of one fetch."""

    network: Network
    receipts: Receipts
    common: dict[str, Any]
    grown: Grown
    connections: int
    done: dict[str, int] = field(default_factory=dict)
    failed: list[UserError] = field(default_factory=list)
    absent: list[UserError] = field(default_factory=list)
    broken: list[BaseException] = field(default_factory=list)


def fetch(listing: Listing, network: Network, connections: int = 4, accepted_licence: str | None = None, bar: bool = True) -> Report:
    """Fetch what of the listing is not there. Killed at any moment, the same call goes on.

    Args:
        connections: at most so many at a time; parts of Zarr stores come one store after another, with so many reads at a time.
        accepted_licence: the licence in the words of the source's description; recorded in the receipts.

    Raises:
        UserError: what `Listing.require` refuses; a login or a disk that ends it all; or, when all else is fetched, the files that failed.
    """
    listing.require(accepted_licence)
    files = [i for i in listing.pending if i.remote.kind != "zarr"]
    zarr = [i for i in listing.pending if i.remote.kind == "zarr"]
    about = listing.about
    common = {"source": about.name, "licence": about.licence, "attribution": about.attribution, "accepted_licence": accepted_licence}
    with exclusive(listing.out) as receipts, _bar(listing, bar) as grown:
        state = _State(network, receipts, common, grown, connections)
        _work(state, files, min(connections, len(files)), _file)
        _work(state, zarr, min(1, len(zarr)), _store)
    if state.failed:
        rest = f" ({len(state.failed) - 1} more failed)" if len(state.failed) > 1 else ""
        raise UserError(f"{state.failed[0]}{rest}; {len(state.done)} of {len(listing.pending)} are fetched and kept")
    if state.absent:
        if len(state.absent) == len(listing.items):
            raise state.absent[0]
        _log.info("%d of %d requests: the service has no data", len(state.absent), len(listing.pending))
    there = tuple(i.remote.file for i in listing.items if i.there)
    came = tuple(i.remote.file for i in listing.items if i.remote.file in state.done)
    return Report(came, there, sum(state.done.values()))


def _work(state: _State, items: list[Item], threads: int, make: Callable[[_State, Item], None]) -> None:
    """Daemon threads, so that Ctrl-C need not wait for a server that is silent; what they leave can be gone on with."""
    todo: queue.SimpleQueue[Item] = queue.SimpleQueue()
    for item in items:
        todo.put(item)
    workers = [threading.Thread(target=_worker, args=(state, todo, make), daemon=True) for _ in range(threads)]
    for worker in workers:
        worker.start()
    try:
        while any(worker.is_alive() for worker in workers):
            for worker in workers:
                worker.join(0.1)
    except BaseException:
        state.network.stopping.set()
        if make is _store:
            stores.settle()
        for worker in workers:
            worker.join(2.0)
        raise
    if state.broken:
        raise state.broken[0]


def _worker(state: _State, todo: queue.SimpleQueue[Item], make: Callable[[_State, Item], None]) -> None:
    while not state.network.stopping.is_set():
        try:
            item = todo.get_nowait()
        except queue.Empty:
            return
        try:
            make(state, item)
        except Stopped:
            return
        except (Refused, DiskFull) as error:
            state.broken.append(error)
            state.network.stopping.set()
        except Absent as error:
            state.absent.append(error)
        except UserError as error:
            state.failed.append(error)
        except BaseException as error:  # told by the main thread
            state.broken.append(error)
            state.network.stopping.set()


def _file(state: _State, item: Item) -> None:
    remote, part = item.remote, Part(item.remote, item.target)
    if remote.kind == "cds":
        download = cds.download
    else:
        download = http.download if objects.scheme(remote.url) in ("http", "https") else objects.download
    for last in (False, True):
        told = download(state.network, part, state.grown)
        try:
            size, sha256 = part.check()
            break
        except Unlike:
            state.grown(-part.size)
            part.discard()
            if last:
                raise
    _note(state, item, {"bytes": size, "sha256": sha256, "checksum": remote.checksum, **told})
    part.finish()
    state.done[remote.file] = size


def _store(state: _State, item: Item) -> None:
    size = stores.copy(state.network, item.remote, item.target, state.connections, state.grown, lambda told: _note(state, item, told))
    state.done[item.remote.file] = size


def _note(state: _State, item: Item, told: dict[str, Any]) -> None:
    """The receipt comes before the name: a name without a receipt is never ours."""
    entry = {**item.known, **state.common, **told, "retrieved": datetime.now(UTC).isoformat(timespec="seconds")}
    state.receipts.add(item.remote.file, entry)


@contextmanager
def _bar(listing: Listing, show: bool) -> Iterator[Grown]:
    """Bytes on standard error, where that is a terminal."""
    known = all(i.remote.file in listing.sizes for i in listing.pending)
    total = sum(listing.sizes.values()) if known and listing.pending else None
    lock = threading.Lock()
    with tqdm(total=total, unit="B", unit_scale=True, unit_divisor=1000, disable=None if show else True, desc=listing.about.name) as bar:

        def grown(count: int) -> None:
            with lock:
                bar.update(count)

        yield grown
