"""Shards: samples in a WebDataset tar, with a sidecar index that gives random access to any window of any sample.

`docs/architecture.md` states the format. A shard is finished when its sidecar, written last, is there.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import math
import mmap
import os
import re
import tarfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np

from scigpt.data.files import atomic, dump_json, load_json, write_bytes
from scigpt.data.in_cache import SIZE, blocks, table
from scigpt.data.sample import Boundary, Coordinate, Sample, Time
from scigpt.data.statistics import Moments
from scigpt.errors import UserError

T = TypeVar("T")

SCHEMA_VERSION = 1
PACKING_ERROR = 1e-3
"""Largest error of int16 packing, as a share of the RMS increment between frames (static variables: of the deviation in space)."""

_KEY = re.compile(r"[a-z0-9_-]+")
_LARGEST = 32767
_MEMBER_LIMIT = 8**11  # ustar holds a size in eleven octal digits
_AT_A_TIME = 1 << 17
"""Numbers that are unpacked at a time: as float64 they stay in a core's cache, and yet a thread asks seldom for the interpreter's lock."""


@dataclass(frozen=True, slots=True)
class ShardRecord:
    """What the manifest says about a shard."""

    file: str
    split: str
    samples: int
    frames: int
    bytes: int
    sha256: str
    index_sha256: str


def index_path(shard: Path) -> Path:
    """The sidecar of a shard: `train-000000.tar` has `train-000000.index.json`."""
    return shard.with_suffix(".index.json")


def write_shard(path: Path, samples: Iterable[tuple[str, str, Sample]]) -> ShardRecord:
    """Write `(key, split, sample)` in this order; the shard first, its sidecar last, each under a temporary name until it is whole.

    Raises:
        UserError: no samples, a bad or repeated key, two splits, or NaN or infinity among valid values.
        DiskFull: no space left; nothing half-written stays.
    """
    index: list[dict[str, Any]] = []
    keys: set[str] = set()
    splits: set[str] = set()
    with atomic(path) as file:
        out = _Tar(file)
        for key, split, sample in samples:
            if not _KEY.fullmatch(key):
                raise UserError(f"{path}: sample key {key!r} may hold only a-z, 0-9, - and _")
            if key in keys:
                raise UserError(f"{path}: sample key {key!r} occurs twice")
            keys.add(key)
            splits.add(split)
            members = {}
            for name, array, head in _members(key, split, sample):
                parts: list[bytes | memoryview] = [head] if array is None else [head, array.reshape(-1).data.cast("B")]
                size = sum(map(len, parts))
                if size >= _MEMBER_LIMIT:
                    raise UserError(f"{path}: {name} of sample {key} has {size} bytes; expected under 8 GiB, use shorter samples")
                offset, digest = out.add(f"{key}.{name}", size, parts)
                members[name] = {"offset": offset, "size": size, "sha256": digest}
                if array is not None:
                    members[name] |= {"data_offset": offset + len(head), "dtype": array.dtype.str, "shape": list(array.shape)}
            index.append({"key": key, "frames": len(sample.time), "members": members})
        if len(splits) != 1:
            raise UserError(f"{path}: a shard holds samples of one split, not of {', '.join(sorted(splits)) or 'none'}")
        size, sha256 = out.end()
    sidecar = dump_json({"schema_version": SCHEMA_VERSION, "shard": path.name, "bytes": size, "sha256": sha256, "samples": index})
    write_bytes(index_path(path), sidecar)
    frames = sum(entry["frames"] for entry in index)
    return ShardRecord(path.name, splits.pop(), len(index), frames, size, sha256, hashlib.sha256(sidecar).hexdigest())


class _Tar:
    """A tar that is hashed while it is written and takes buffers without copying them, as `tarfile` would."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.offset, self.sha256 = file, 0, hashlib.sha256()

    def add(self, name: str, size: int, parts: Sequence[bytes | memoryview]) -> tuple[int, str]:
        """Offset and SHA-256 of the member."""
        info = tarfile.TarInfo(name)
        info.size = size
        self._write(info.tobuf(tarfile.USTAR_FORMAT))
        offset, digest = self.offset, hashlib.sha256()
        for part in parts:
            digest.update(part)
            self._write(part)
        self._write(bytes(-size % tarfile.BLOCKSIZE))
        return offset, digest.hexdigest()

    def end(self) -> tuple[int, str]:
        """Size and SHA-256 of the whole."""
        self._write(bytes(2 * tarfile.BLOCKSIZE))
        self._write(bytes(-self.offset % tarfile.RECORDSIZE))
        return self.offset, self.sha256.hexdigest()

    def _write(self, data: bytes | memoryview) -> None:
        self.sha256.update(data)
        self.file.write(data)
        self.offset += len(data)


def _members(key: str, split: str, sample: Sample) -> Iterable[tuple[str, np.ndarray | None, bytes]]:
    """Name, array (None for JSON) and, of the array its header, else the payload, of each file of a sample."""
    whole = bool(sample.valid.all())
    zero = whole or not sample.values[~sample.valid].any()  # as readers leave what is invalid
    values = sample.values if zero else np.where(sample.valid, sample.values, np.float32(0))
    ranges = [_range(values[:, c], None if whole else sample.valid[:, c]) for c in range(values.shape[1])]
    if any(not low > high and not np.isfinite([low, high]).all() for low, high in ranges):
        bad = ~np.isfinite(values)
        t, c, *place = (int(i) for i in np.argwhere(bad)[0])
        files = ", ".join(f.name for f in sample.origin.files[:2])
        count = int(bad[:, c].sum())
        raise UserError(
            f"sample {key}{f' ({files})' if files else ''}: variable {sample.variables[c].key} has {count} valid values that "
            f"are NaN or infinite, the first in frame {t} at (z, y, x) = {tuple(place)}; mark them invalid or mend the input"
        )
    stored, packing = _pack(values, sample, whole, ranges)
    meta = {**sample.meta(), "key": key, "split": split, "packing": packing}
    for coordinate in meta["coordinates"].values():
        if isinstance(coordinate["values"], list):  # an unknown station height is null, because NaN is not JSON
            coordinate["values"] = [None if math.isnan(v) else v for v in coordinate["values"]]
    for name, array in {"values": stored, "valid": _squeeze(sample.valid), **sample.coordinate_arrays()}.items():
        array, head = np.ascontiguousarray(array), io.BytesIO()
        np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(array))
        yield f"{name}.npy", array, head.getvalue()
    yield "meta.json", None, dump_json(meta)


def _pack(
    values: np.ndarray, sample: Sample, whole: bool, ranges: Sequence[tuple[float, float]]
) -> tuple[np.ndarray, dict[str, list[float]] | None]:
    """int16 with scale and offset per variable where no variable suffers, else the float32 values.

    A quiet stretch of a seismogram would lose a third of its amplitude in int16, so the error is held against what a model must
    predict: the increment between frames.

    Args:
        whole: whether every value is valid.
        ranges: of each variable, as `_range` gives it.
    """
    stored = np.zeros(values.shape, np.int16)
    scales, offsets = [], []
    for c, variable in enumerate(sample.variables):
        field, valid = values[:, c], None if whole else sample.valid[:, c]
        low, high = ranges[c]
        if low > high:
            scales.append(1.0)
            offsets.append(0.0)
            continue
        scale, offset = (high - low) / (2 * _LARGEST) or 1.0, (low + high) / 2
        packed = stored[:, c]
        _put(packed, field, valid, scale, offset)
        yardstick = Moments.of(field, valid).std if variable.role == "static" else _rms_increment(field, valid)
        if low < high and (scale / 2 + 2.0**-23 * max(abs(low), abs(high))) * (1 + 1e-6) >= PACKING_ERROR * yardstick:
            # the bound may be missed: what is the error itself?
            error = _error(packed, field, valid, scale, offset)
            if error > 0 and not error < PACKING_ERROR * yardstick:
                return values, None
        scales.append(scale)
        offsets.append(offset)
    return stored, {"scale": scales, "offset": offsets}


def _range(field: np.ndarray, valid: np.ndarray | None) -> tuple[float, float]:
    """The least and the largest value of those that are valid, NaN where one is; infinity and its opposite where none is valid."""
    if valid is None:
        return float(field.min()), float(field.max())
    source, known, low, high = table(field), table(valid), np.inf, -np.inf
    for part in blocks(*source.shape):
        inside = source[part][known[part]]
        if inside.size:
            low, high = float(np.minimum(low, inside.min())), float(np.maximum(high, inside.max()))
    return low, high


def _put(packed: np.ndarray, field: np.ndarray, valid: np.ndarray | None, scale: float, offset: float) -> None:
    """`(field - offset) / scale` to the nearest whole number, computed in float64; 0 where nothing is valid."""
    source, target, known, buffer = table(field), table(packed), None if valid is None else table(valid), np.empty(SIZE)
    for part in blocks(*source.shape):
        block = source[part]
        numbers = buffer[: block.size].reshape(block.shape)
        np.copyto(numbers, block)
        numbers -= offset
        if known is not None:
            numbers[~known[part]] = 0.0
        numbers /= scale
        np.rint(numbers, out=numbers)
        np.copyto(target[part], numbers, casting="unsafe")


def _error(packed: np.ndarray, field: np.ndarray, valid: np.ndarray | None, scale: float, offset: float) -> float:
    """The largest one, over what is valid."""
    stored, truth, known, worst = table(packed), table(field), None if valid is None else table(valid), 0.0
    for part in blocks(*truth.shape):
        block = truth[part]
        rounded = np.empty(block.shape, np.float32)
        _unpack(stored[part], scale, offset, rounded)
        error = np.abs(rounded.astype(np.float64) - block)
        worst = max(worst, float(np.max(error if known is None else error[known[part]], initial=0.0)))
    return worst


def _rms_increment(field: np.ndarray, valid: np.ndarray | None) -> float:
    """Over the increments from frame to frame, where both values are valid; 0 where there are none."""
    rows, known = table(field), None if valid is None else table(valid)
    total, count, buffer = 0.0, 0, np.empty(SIZE)
    for y, x in blocks(len(rows) - 1, rows.shape[1]):
        after = slice(y.start + 1, y.stop + 1)
        block = rows[after, x]
        step = buffer[: block.size].reshape(block.shape)
        np.subtract(block, rows[y, x], out=step, dtype=np.float64)
        if known is not None:
            step = step[known[after, x] & known[y, x]]
        total += float(np.square(step, out=step).sum())
        count += step.size
    return math.sqrt(total / count) if count else 0.0


def _unpack(stored: np.ndarray, scale: Any, offset: Any, out: np.ndarray) -> None:
    """`stored * scale + offset`, computed in float64, as float32. `scale` and `offset` are numbers or spread over the array's last axes.

    A piece of the array goes through all of it before the next, so that memory is read once and written once.
    """
    if stored.size <= _AT_A_TIME:
        _unpack_piece(stored, scale, offset, out)
        return
    scale, offset = (np.broadcast_to(np.asarray(n, np.float64), stored.shape) for n in (scale, offset))
    for piece in _pieces(stored.shape):
        _unpack_piece(stored[piece], scale[piece], offset[piece], out[piece])


def _unpack_piece(stored: np.ndarray, scale: Any, offset: Any, out: np.ndarray) -> None:
    wide = _scratch.buffer[: stored.size].reshape(stored.shape)
    np.copyto(wide, stored)
    wide *= scale
    wide += offset
    np.copyto(out, wide, casting="same_kind")


class _Scratch(threading.local):
    """A thread's own room for the numbers of a piece: asking the system for it anew would take longer than filling it."""

    def __init__(self) -> None:
        self.buffer = np.empty(_AT_A_TIME)


_scratch = _Scratch()


def _pieces(shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Cuts of an array into pieces of at most `_AT_A_TIME` numbers."""
    inside = math.prod(shape[1:])
    if inside > _AT_A_TIME:
        yield from ((slice(k, k + 1), *rest) for k in range(shape[0]) for rest in _pieces(shape[1:]))
    else:
        each = _AT_A_TIME // max(1, inside)
        yield from ((slice(k, k + each),) for k in range(0, shape[0], each))


def _squeeze(valid: np.ndarray) -> np.ndarray:
    """Cut axes along which the array is constant to length 1."""
    if valid.all():
        return np.ones((1,) * valid.ndim, np.bool_)
    for axis in range(valid.ndim):
        first = valid.take([0], axis)
        if (valid == first).all():
            valid = first
    return np.ascontiguousarray(valid)


class ShardReader:
    """Random access to the samples of one shard; reads through a memory map only the bytes asked for.

    Args:
        path: the tar.

    Raises:
        UserError: a sidecar that is missing, unreadable or of another schema.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        sidecar = index_path(self.path)
        index = load_json(sidecar, "the index of a shard")
        try:
            version = index["schema_version"]
            self.bytes: int = index["bytes"]
            self.keys: tuple[str, ...] = tuple(s["key"] for s in index["samples"])
            self.frames: tuple[int, ...] = tuple(s["frames"] for s in index["samples"])
            self._members: list[Mapping[str, Any]] = [s["members"] for s in index["samples"]]
        except (KeyError, TypeError):
            raise UserError(f"{sidecar}: not the index of a shard; make the corpus again") from None
        if version != SCHEMA_VERSION:
            raise UserError(f"{sidecar}: schema version {version}, expected {SCHEMA_VERSION}; make the corpus again with this version")
        self._map: mmap.mmap | None = None
        self._described = functools.lru_cache(maxsize=32)(self._describe)  # the windows of a long sample parse its meta once

    def __reduce__(self) -> tuple[Any, ...]:
        return ShardReader, (self.path,)

    def __len__(self) -> int:
        return len(self.keys)

    def read(
        self,
        i: int,
        frames: slice | None = None,
        y: slice | None = None,
        x: slice | None = None,
        out: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> Sample:
        """Sample `i`, or a window of it. Coordinates are cut with the fields; a side that was cut off becomes an open boundary.

        Args:
            frames: frames to read; a step picks every n-th.
            y, x: cells to read, without a step.
            out: the arrays (float32 and bool) that become the sample's values and valid, as places in a batch; new ones by default.

        Returns:
            A sample whose fields are its own; invalid values are 0.

        Raises:
            UserError: a window that is empty, leaves the sample or does not fit `out`, or a shard that is missing, truncated or damaged.
        """
        where = f"{self.path}: sample {self.keys[i]}"
        whole, scale, offset = self._described(i)
        t_count, _, _, y_count, x_count = whole.values.shape
        t = _window(frames, t_count, f"{where}: frames")
        ys, xs = _window(y, y_count, f"{where}: y"), _window(x, x_count, f"{where}: x")
        if (ys.step, xs.step) != (1, 1):
            raise UserError(f"{where}: a window in y and x takes every cell; expected slices without a step")
        if whole.steady and len(range(t.start, t.stop, t.step)) != t_count:
            raise UserError(f"{where}: is a steady problem, whose {t_count} frames belong together; read all of them")
        cut = (t, slice(None), slice(None), ys, xs)
        data = self._bytes()
        stored, shares = self._array(i, "values.npy", data)[cut], self._array(i, "valid.npy", data)
        known = shares[tuple(slice(None) if n == 1 else s for n, s in zip(shares.shape, cut, strict=True))]
        values, valid = out or (np.empty(stored.shape, np.float32), np.empty(stored.shape, np.bool_))
        if values.shape != stored.shape:
            raise UserError(f"{where}: a window has the shape {stored.shape}, expected {values.shape} as in the rest of the corpus")
        if scale is None or offset is None:
            np.copyto(values, stored)
        else:
            _unpack(stored, scale, offset, values)
        np.copyto(valid, known)
        if not known.all():  # as whole numbers: several times as fast as by a mask, and 0 times anything is 0
            np.multiply(values.view(np.int32), known, out=values.view(np.int32))
        uncut = (ys.start, ys.stop, xs.start, xs.stop) == (0, y_count, 0, x_count)
        return part_of(
            whole,
            values=values,
            valid=valid,
            time=_cut_time(whole.time, t),
            coordinates=whole.coordinates if uncut else {n: _cut_coordinate(c, {"y": ys, "x": xs}) for n, c in whole.coordinates.items()},
            boundary=whole.boundary if uncut else _cut_boundary(whole.boundary, {"y": (ys, y_count), "x": (xs, x_count)}),
        )

    def _describe(self, i: int) -> tuple[Sample, np.ndarray | None, np.ndarray | None]:
        """Sample `i` with all but its fields (they are zeros that take no memory), its scale and its offset."""
        member = self._members[i]["meta.json"]
        try:
            data = self._bytes()
            payload = data[member["offset"] : member["offset"] + member["size"]]
            if hashlib.sha256(payload).hexdigest() != member["sha256"]:
                raise ValueError("it does not match its sha256")  # one wrong digit in a scale would spoil every value unseen
            meta = json.loads(payload)
            shape = tuple(self._members[i]["values.npy"]["shape"])
            arrays = {n: self._array(i, f"{n}.npy", data) for n, c in meta["coordinates"].items() if c["values"] is None}
            empty = np.broadcast_to(np.float32(0), shape), np.broadcast_to(np.False_, shape)
            sample = Sample.from_parts(meta, *empty, arrays)
            if meta["packing"] is None:
                return sample, None, None
            scale, offset = (np.asarray(meta["packing"][k], np.float64)[:, None, None, None] for k in ("scale", "offset"))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{self.path}: {self.keys[i]}.meta.json is damaged ({error}); `scigpt data verify` lists the damage") from None
        return sample, scale, offset

    def _array(self, i: int, member: str, data: mmap.mmap) -> np.ndarray:
        about = self._members[i][member]
        return np.ndarray(about["shape"], np.dtype(about["dtype"]), data, about["data_offset"])

    def _bytes(self) -> mmap.mmap:
        """The memory map, after a look at the size: reading past the end of a truncated file would kill the process (SIGBUS)."""
        try:
            size = os.stat(self.path).st_size
            if size != self.bytes:
                raise UserError(
                    f"{self.path}: has {size} bytes, its index says {self.bytes}; it was cut off or replaced, make the corpus again"
                )
            if self._map is None:
                with open(self.path, "rb") as file:
                    self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise UserError(f"{self.path}: cannot read the shard: {error.strerror}") from None
        return self._map


def _window(window: slice | None, count: int, where: str) -> slice:
    """The slice with start, stop and step filled in."""
    start, stop, step = (window or slice(None)).indices(count)
    asked = window.stop if window is not None and window.stop is not None else 0
    if step < 1 or stop <= start or asked > count:
        raise UserError(f"{where} has {count} entries, so the window {window} is empty or leaves it; choose one inside 0:{count}")
    return slice(start, stop, step)


def part_of(whole: T, **changes: Any) -> T:
    """`dataclasses.replace` without the checks: a part of what has passed them would pass them too."""
    part = object.__new__(type(whole))
    for name in type(whole).__slots__:  # type: ignore[attr-defined]
        object.__setattr__(part, name, changes[name] if name in changes else getattr(whole, name))
    return part


def _cut_time(time: Time, frames: slice) -> Time:
    bounds = None if time.bounds is None else np.ascontiguousarray(time.bounds[frames])
    return part_of(time, seconds=np.ascontiguousarray(time.seconds[frames]), bounds=bounds)


def _cut_coordinate(coordinate: Coordinate, windows: Mapping[str, slice]) -> Coordinate:
    return part_of(coordinate, values=np.ascontiguousarray(coordinate.values[tuple(windows.get(a, slice(None)) for a in coordinate.axes)]))


def _cut_boundary(boundary: Boundary, windows: Mapping[str, tuple[slice, int]]) -> Boundary:
    cut: dict[str, Any] = {}
    for axis, (window, count) in windows.items():
        low, high = getattr(boundary, axis)
        if window.start > 0 or window.stop < count:
            periodic = boundary.periodic(axis)
            low = "open" if window.start > 0 or periodic else low
            high = "open" if window.stop < count or periodic else high
            cut[axis] = (low, high)
    return replace(boundary, **cut)
