"""A part of a remote Zarr store into a store of one's own: numbers and attributes as they are stored, block by block."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import zarr
import zarr.core.sync

from scigpt.data.files import DiskFull, dump_json, replace_folder, write_bytes
from scigpt.data_prep.fetch.errors import bare, public
from scigpt.data_prep.fetch.network import Network
from scigpt.data_prep.fetch.objects import storage_options, told
from scigpt.data_prep.fetch.selection import Selection, dims_of, length, within
from scigpt.data_prep.files import sha256
from scigpt.data_prep.source import Remote
from scigpt.errors import UserError

_BLOCK = 32 << 20
Grown = Callable[[int], None]
Block = tuple[str, tuple[slice, ...]]


def size(network: Network, remote: Remote) -> int:
    """Bytes of the part before compression; only the store's metadata and axes are read."""
    return network.persist(lambda: _open(remote), remote.url).bytes()


def copy(network: Network, remote: Remote, target: Path, reads: int, grown: Grown, note: Callable[[dict[str, Any]], None]) -> int:
    """The part that `remote.select` says, into the store `target`; what was copied before a kill is kept.

    Args:
        reads: chunks that are read at a time.
        note: given the receipt before the store gets its name.

    Returns:
        Bytes on disk.
    """
    part, progress = (target.with_name(target.name + end) for end in (".part", ".part.json"))
    with zarr.config.set({"async.concurrency": reads}):
        selection = network.persist(lambda: _open(remote), remote.url)
        blocks = [(name, window) for name in selection.names for window in _windows(selection, name)]
        what = _fingerprint(remote, selection)
        done = _done(progress, what) if part.is_dir() else 0
        if not done:
            progress.unlink(missing_ok=True)
            shutil.rmtree(part, ignore_errors=True)
            part.parent.mkdir(parents=True, exist_ok=True)
            _skeleton(part, selection)
        grown(sum(_bytes(selection, b) for b in blocks[:done]))
        made = {array.basename: array for _, array in zarr.open_group(part, mode="r+", use_consolidated=False).arrays()}
        for number, block in enumerate(blocks[done:], done + 1):
            network.sleep(0)
            values = network.persist(lambda block=block: _read(remote, selection, block), remote.url)  # type: ignore[misc]
            _write(made[block[0]], block[1], values, target)
            write_bytes(progress, dump_json({"what": what, "done": number}))
            grown(values.nbytes)
    total = sum(p.stat().st_size for p in part.rglob("*") if p.is_file())
    note({"bytes": total, "sha256": sha256(part)})
    replace_folder(part, target)
    progress.unlink(missing_ok=True)
    return total


def _open(remote: Remote) -> Selection:
    where = bare(remote.url)
    with _settled(remote.url):
        try:
            group = zarr.open_group(remote.url, mode="r", storage_options=_options(remote))
            arrays = {str(name): array for name, array in group.arrays()}
        except FileNotFoundError:  # of which GroupNotFoundError is one
            raise UserError(f"{where}: there is no Zarr store; check the options of the fetch, it may have been moved") from None
        except (ValueError, TypeError, KeyError) as error:  # a type, codec or version that zarr does not know; pickled objects too
            said = " ".join(str(error).split())[:120]
            raise UserError(
                f"{where}: the metadata of this Zarr store cannot be read ({said}); it may be damaged, use another store"
            ) from None
        for name, array in arrays.items():
            if re.search("pickle", json.dumps(array.metadata.to_dict(), default=str), re.IGNORECASE):
                raise UserError(f"{where}: {name} asks for a pickle codec, which can run code and is never read; use another store")
        if not arrays:
            raise UserError(
                f"{where}: no arrays are listed at the top of this store; expected consolidated metadata or a group that can be listed"
            )
        return Selection(where, arrays, group.attrs.asdict(), remote.select)


def settle() -> None:
    """End the reads that zarr leaves under way when one of them fails; the interpreter would speak of each when it ends."""

    async def cancel() -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.wait(others, timeout=5.0) if others else None

    with suppress(Exception):
        zarr.core.sync.sync(cancel(), timeout=6.0)


@contextmanager
def _settled(url: str) -> Iterator[None]:
    try:
        with told(url):
            yield
    except BaseException:
        settle()
        raise


def _options(remote: Remote) -> dict[str, Any]:
    if remote.login == "earthdata":
        raise UserError(f"{bare(remote.url)}: Zarr stores behind the Earthdata login are not fetched; use the source's files")
    return storage_options(remote.url, remote.login)


def _windows(selection: Selection, name: str) -> Iterator[tuple[slice, ...]]:
    """Blocks of an array: whole chunks of the store, grown from the last axis on while they stay below 32 MiB."""
    array, shape = selection.arrays[name], selection.shape(name)
    block = [min(c, n) for c, n in zip(array.chunks, shape, strict=True)]
    for axis in reversed(range(len(shape))):
        rest = math.prod(block) // block[axis] * array.dtype.itemsize
        block[axis] = min(max(_BLOCK // rest // block[axis], 1) * block[axis], shape[axis])
    steps = [range(0, n, b) for n, b in zip(shape, block, strict=True)]
    for corner in itertools.product(*steps):
        yield tuple(slice(c, min(c + b, n)) for c, b, n in zip(corner, block, shape, strict=True))


def _bytes(selection: Selection, block: Block) -> int:
    return math.prod(w.stop - w.start for w in block[1]) * selection.arrays[block[0]].dtype.itemsize


def _read(remote: Remote, selection: Selection, block: Block) -> np.ndarray:
    name, window = block
    if name in selection.replaced:
        return selection.replaced[name][window]
    array = selection.arrays[name]
    positions = tuple(within(p, w.start, w.stop) for p, w in zip(selection.of(name), window, strict=True))
    with _settled(remote.url):
        values = np.asarray(array[positions] if all(isinstance(p, slice) for p in positions) else array.oindex[positions])
    assert values.shape == tuple(length(p) for p in positions)
    return values


def _skeleton(part: Path, selection: Selection) -> None:
    """The empty store, in the format of the remote one: a fill value means different things in Zarr 2 and 3."""
    form = next(iter(selection.arrays.values())).metadata.zarr_format
    group = zarr.open_group(part, mode="w", zarr_format=form, attributes=dict(selection.attrs))
    for name in selection.names:
        array, shape = selection.arrays[name], selection.shape(name)
        first = next(_windows(selection, name))
        group.create_array(
            name,
            shape=shape,
            dtype=array.dtype,
            chunks=tuple(w.stop - w.start for w in first) if shape else "auto",
            fill_value=array.fill_value,
            attributes=array.attrs.asdict() | ({"_ARRAY_DIMENSIONS": list(dims_of(array))} if form == 2 else {}),
            dimension_names=dims_of(array) if form == 3 else None,
            config={"write_empty_chunks": True},
        )


def _write(array: zarr.Array, window: tuple[slice, ...], values: np.ndarray, target: Path) -> None:
    try:
        array[window] = values
    except OSError as error:
        raise DiskFull(f"{target}: {os.strerror(error.errno or 0)} while writing; make room and run the same command again") from None


def _fingerprint(remote: Remote, selection: Selection) -> str:
    """Of all that decides what the blocks hold; a store that grew or was made again gives another."""
    what: dict[str, Any] = {"url": public(remote.url), "select": dict(remote.select)}
    for name in selection.names:
        array = selection.arrays[name]
        positions = [[p.start, p.stop] if isinstance(p, slice) else p.tolist() for p in selection.of(name)]
        what[f"array {name}"] = [str(array.dtype), array.chunks, positions, json.dumps(array.attrs.asdict(), sort_keys=True)]
    return hashlib.sha256(dump_json(what)).hexdigest()


def _done(progress: Path, what: str) -> int:
    """How many blocks are there of this very part."""
    try:
        stored = json.loads(progress.read_bytes())
    except (OSError, ValueError):
        return 0
    return int(stored["done"]) if isinstance(stored, dict) and stored.get("what") == what else 0
