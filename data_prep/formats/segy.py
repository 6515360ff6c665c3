"""SEG-Y files of revisions 0, 1 and 2: headers, and samples read by window of traces and of samples.

NumPy reads all of it, and only the part that is asked for: the formats of revision 2 in both byte orders, header words at
any byte, windows of long traces. segyio (LGPL) reads whole traces, must be told the byte order and takes integers of three bytes for IBM
floats; obspy reads six formats and whole files. They are the independent readers of the tests; reading SEG-Y needs neither of them.

Byte numbers are those of the standard: they begin with 1, from 3201 in the binary header and from 1 in a trace header.
(SEG Technical Standards Committee: SEG-Y revision 1, 2002; revision 2.0, 2017.)
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from scigpt.data_prep.formats.opening import one_sentence
from scigpt.data_prep.formats.segy_samples import FORMATS, decode
from scigpt.errors import UserError

TEXT, BINARY, TRACE = 3200, 400, 240
"""Bytes of the textual header, the binary header and a trace header."""
_SHORT = {29, 31, 33, 35, 69, 71, *range(89, 181, 2), 201, 203, 209, 211, 213, 215, 217, 223, 229, 231}
"""Where trace header words of two bytes begin; others have four."""
_UNSIGNED = {115, 117}
"""Sample count and interval: more than 32767 of them are common, whatever the standard says of their sign."""
COUNT, INTERVAL = 115, 117
"""Where a trace header has its number of samples and their interval, microseconds."""
_AT_ONCE = 32 << 20
"""Bytes of the file that are mapped, or read, at once."""
_ORDER_MARK = 0x01020304
_MOST_TEXTS = 4096
_PLAIN = frozenset(" abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
Endian = Literal["auto", "big", "little"]


@dataclass(frozen=True)
class SegyFile:
    """A SEG-Y file that is as long as its headers say.

    Args:
        text: textual header and extended textual headers, 80 characters a line.
        endian: `>` or `<`, as NumPy writes it.
        format: code of the samples, a key of `segy_samples.FORMATS`.
        revision: major and minor number.
        samples: of each trace.
        interval: seconds (of a survey in depth: metres divided by a thousand); None where no header has it.
        traces: their number.
        start: byte at which the first trace begins, counted from 0.
        header_bytes: of a trace: 240, more with the additional trace headers of revision 2.
        feet: whether lengths are in feet (measurement system 2).
    """

    path: Path
    text: str
    endian: str
    format: int
    revision: tuple[int, int]
    samples: int
    interval: float | None
    traces: int
    start: int
    header_bytes: int
    feet: bool
    _kept: dict[int, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    @property
    def width(self) -> int:
        """Bytes of a sample."""
        return FORMATS[self.format][1]

    @property
    def trace_bytes(self) -> int:
        return self.header_bytes + self.samples * self.width

    def header(self, byte: int, traces: slice | np.ndarray = slice(None), kind: str | None = None) -> np.ndarray:
        """One word of the trace headers, `(n,)`, in its own type (`int32`, `int16`, ...) and the byte order of this machine.

        Args:
            byte: where it begins, 1 to 240.
            traces: which ones, all by default.
            kind: `i4`, `i2`, `u2`, `f4`...; by default a signed integer as long as the standard says of this byte.
        """
        if kind is None and byte in self._kept:
            return self._kept[byte][traces]
        dtype = np.dtype(self.endian + (kind or ("u2" if byte in _UNSIGNED else "i2" if byte in _SHORT else "i4")))
        if not 1 <= byte <= TRACE + 1 - dtype.itemsize:
            raise UserError(f"byte {byte} is not in a trace header; expected 1 to {TRACE + 1 - dtype.itemsize}")
        own = dtype.newbyteorder("=")
        parts = [np.empty(0, own)]
        with one_sentence(self.path):
            parts += [raw.view(dtype)[:, 0].astype(own) for raw in self._bytes(traces, byte - 1, dtype.itemsize)]
        return np.concatenate(parts)

    @contextmanager
    def kept(self, words: Sequence[int]) -> Iterator[None]:
        """In here `header` finds these words of all traces in memory, read in one pass over the file."""
        found = {byte: np.empty(self.traces, self.header(byte, slice(0, 0)).dtype) for byte in dict.fromkeys(words)}
        done = 0
        with one_sentence(self.path):
            for heads in self._bytes(slice(None), 0, TRACE):
                for byte, word in found.items():
                    raw = np.ascontiguousarray(heads[:, byte - 1 : byte - 1 + word.itemsize])
                    word[done : done + len(heads)] = raw.view(self.endian + word.dtype.str[1:])[:, 0]
                done += len(heads)
        self._kept.update(found)
        try:
            yield
        finally:
            self._kept.clear()

    def read(self, traces: slice | np.ndarray | int, samples: slice = slice(None)) -> np.ndarray:
        """Samples of some traces, float32 `(n, m)`, as stored; NaN and infinity stay what they are.

        Integers of more than 24 bits and doubles lose digits; what float32 cannot hold becomes infinite.
        """
        first, last, step = samples.indices(self.samples)
        assert step == 1
        chosen = slice(traces, traces + 1) if isinstance(traces, int) else traces
        count = len(range(*chosen.indices(self.traces))) if isinstance(chosen, slice) else chosen.size
        values = np.empty((count, max(0, last - first)), np.float32)
        begin = self.header_bytes + first * self.width
        done = 0
        with one_sentence(self.path):
            for raw in self._bytes(chosen, begin, values.shape[1] * self.width):
                values[done : done + raw.shape[0]] = decode(raw, self.format, self.endian)
                done += raw.shape[0]
        return values

    def require_alike(self, counts: bool = True, interval: bool = True) -> None:
        """Every trace must say the same number of samples and the same interval, where these matter; 0 says nothing.

        Raises:
            UserError: traces that differ.
        """
        lengths = np.unique(self.header(COUNT))
        if counts and (lengths := lengths[lengths > 0]).size > 1:
            raise UserError(
                f"{self.path.name} has traces of unequal length (from {lengths[0]} to {lengths[-1]} samples by their headers); expected "
                "one length, cut or pad them alike with a seismic package (samples= overrides the headers)"
            )
        steps = np.unique(self.header(INTERVAL)) / 1e6
        steps = steps[steps > 0]
        if not interval or self.interval is None or (self.revision[0] > 1 and not 1e-6 <= self.interval < 0.0655):
            return
        if (other := steps[np.abs(steps - self.interval) > 0.5e-6]).size:
            raise UserError(
                f"{self.path.name} has the sample interval {self.interval:g} s by its first header and {other[0]:g} s by a trace header; "
                "expected one, say which with dt= in seconds"
            )

    def _bytes(self, traces: slice | np.ndarray, first: int, width: int) -> Iterator[np.ndarray]:
        """So many bytes of each trace, uint8 `(k, width)`, some traces at a time.

        A range is mapped part by part; scattered traces are read one by one, because a mapping of them can keep the whole file in memory.
        """
        if isinstance(traces, slice) and traces.step in (None, 1):
            low, high, _ = traces.indices(self.traces)
            each = max(1, _AT_ONCE // self.trace_bytes)
            for i in range(low, high, each):
                shape = min(each, high - i), self.trace_bytes
                part = np.memmap(self.path, np.uint8, "r", self.start + i * self.trace_bytes, shape)
                yield np.array(part[:, first : first + width])
            return
        numbers = np.arange(*traces.indices(self.traces)) if isinstance(traces, slice) else traces
        assert numbers.size == 0 or (numbers.min() >= 0 and numbers.max() < self.traces)
        with self.path.open("rb") as file:
            for some in np.array_split(numbers, -(-numbers.size * width // _AT_ONCE) or 1):
                raw = np.empty((some.size, width), np.uint8)
                for row, number in zip(raw, some.tolist(), strict=True):
                    if os.preadv(file.fileno(), [row.data], self.start + number * self.trace_bytes + first) < width:
                        raise UserError(f"{self.path.name} ends within trace {number + 1}; it was truncated while it was read")
                yield raw


def open_segy(path: Path, format: int | None = None, endian: Endian = "auto", samples: int | None = None) -> SegyFile:
    """Read the headers of a file and check its length against them.

    Args:
        format: code of the samples, for a file whose binary header is wrong.
        endian: byte order; by default the order mark of revision 2 or the format code tells it.
        samples: of each trace, for a file whose headers are wrong.

    Raises:
        UserError: no SEG-Y, an unknown sample format, or a file that is not as long as its headers say.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(TEXT + BINARY)
    _require_segy(path, head, size)
    order = _order(path, head, endian)
    binary = _Binary(head[TEXT:], order)
    code = binary.integer(3225, 2) if format is None else format
    if code not in FORMATS:
        raise UserError(f"{path.name} has samples of format {code}; expected one of {', '.join(map(str, FORMATS))}, say which with format=")
    major, minor = binary.revision()
    text, start = _texts(path, head, binary.integer(3505, 2) if major else 0)
    header_bytes, trailer, promised, extended = TRACE, 0, 0, 0
    if major > 1:
        header_bytes += TRACE * max(0, binary.integer(3507, 4))
        extended, promised, trailer = max(0, binary.integer(3269, 4)), binary.integer(3513, 8), TEXT * binary.integer(3529, 4)
        start = binary.integer(3521, 8) or start
        if start < 0:
            raise UserError(f"{path.name} says that its first trace begins at byte {start}; it is damaged, fetch it again")
    with path.open("rb") as file:
        file.seek(min(start, size))
        first = file.read(TRACE)
    if len(first) < TRACE:
        raise UserError(f"{path.name} ends before its first trace ({size} bytes); it may be truncated, fetch it again")
    own = _Binary(first, order, 1)
    stated = dict.fromkeys((extended or binary.integer(3221, 2, signed=False), own.integer(COUNT, 2, signed=False)))
    counts = [samples] if samples is not None else [n for n in stated if n > 0]
    if not counts:
        raise UserError(f"{path.name} has no number of samples in its headers; say it with samples=")
    # a file cut out of one with longer traces often keeps the old number in one of its headers: its length tells which is right
    for count in counts:
        length = header_bytes + count * FORMATS[code][1]
        room = promised * length if trailer < 0 else size - start - trailer
        if room >= length and room % length == 0 and room <= size - start and promised in (0, room // length):
            interval, feet = _interval(binary, own, major), binary.integer(3255, 2) == 2
            return SegyFile(path, text, order, code, (major, minor), count, interval, room // length, start, header_bytes, feet)
    count = counts[0]
    length, room = header_bytes + count * FORMATS[code][1], size - start - max(0, trailer)
    if promised and room % length == 0:
        raise UserError(f"{path.name} has {room // length} traces and its header promises {promised}; it is truncated, fetch it again")
    about = f"{count} samples ({FORMATS[code][0]}: {length} bytes a trace)"
    raise UserError(
        f"{path.name} has {room} bytes of traces, which is no whole number of traces of {about}; it is truncated or has traces of unequal "
        "length, or its headers are wrong (format= and samples= override them)"
    )


def is_segy(path: Path) -> bool:
    """Whether headers and length fit each other and the textual header is text; never raises."""
    try:
        found = open_segy(path)
    except (OSError, UserError):
        return False
    return sum(c in _PLAIN or c in "\n.,:;/()-_=+*#" for c in found.text) > 0.8 * len(found.text) or not found.text


class _Binary:
    """A binary header; bytes are numbered as in the standard."""

    def __init__(self, data: bytes, order: str, first: int = 3201) -> None:
        self.data, self.order, self.first = data, order, first

    def integer(self, byte: int, width: int, signed: bool = True) -> int:
        return int.from_bytes(self._at(byte, width), "big" if self.order == ">" else "little", signed=signed)

    def double(self, byte: int) -> float:
        return float(np.frombuffer(self._at(byte, 8), f"{self.order}f8")[0])

    def revision(self) -> tuple[int, int]:
        """Two bytes, major and minor; in little-endian files of revision 1 they may be swapped as one word."""
        major, minor = self._at(3501, 2)
        return (minor, 0) if major == 0 and minor in (1, 2) and self.order == "<" else (major, minor)

    def _at(self, byte: int, width: int) -> bytes:
        return self.data[byte - self.first : byte - self.first + width]


def _require_segy(path: Path, head: bytes, size: int) -> None:
    if head[:2] == b"\x1f\x8b" or head[:4] == b"PK\x03\x04":
        raise UserError(f"{path.name} is compressed; unpack it first (gunzip, tar or unzip) and give the SEG-Y file in it")
    if size < TEXT + BINARY + TRACE:
        raise UserError(
            f"{path.name} has {size} bytes, too few for the headers of SEG-Y ({TEXT + BINARY + TRACE}); it may be truncated, fetch it again"
        )


def _order(path: Path, head: bytes, endian: Endian) -> str:
    """The byte order: of the order mark, else that in which the format code is one."""
    if endian != "auto":
        return ">" if endian == "big" else "<"
    for byte, width, wanted in ((3297, 4, range(_ORDER_MARK, _ORDER_MARK + 1)), (3225, 2, range(1, 17))):
        for order in "><":
            if _Binary(head[TEXT:], order).integer(byte, width) in wanted:
                return order
    code = _Binary(head[TEXT:], ">").integer(3225, 2)
    raise UserError(
        f"{path.name} is no SEG-Y: byte 3225 has the sample format {code}, expected 1 to 16 (format= with endian= overrides a wrong header)"
    )


def _texts(path: Path, head: bytes, blocks: int) -> tuple[str, int]:
    """All textual headers, and where they end; -1 blocks: until a stanza says that it is the last."""
    texts, start = [_lines(head[:TEXT])], TEXT + BINARY
    with path.open("rb") as file:
        file.seek(start)
        while blocks != 0:
            block = file.read(TEXT)
            if len(block) < TEXT or len(texts) > _MOST_TEXTS:
                raise UserError(f"{path.name} has no end of its extended textual headers; it may be truncated, fetch it again")
            texts.append(_lines(block))
            start += TEXT
            blocks -= 1
            if blocks < 0 and "((SEG:ENDTEXT))" in "".join(texts[-1].upper().split()):
                break
    return "\n".join(t for t in texts if t), start


def _lines(block: bytes) -> str:
    """Text in EBCDIC or ASCII, whichever gives more letters and spaces, as lines of 80 characters without trailing space."""
    text = max((block.decode(code) for code in ("cp037", "latin-1")), key=lambda t: sum(c in _PLAIN for c in t))
    text = "".join(c if c.isprintable() else " " for c in text)
    return "\n".join(text[i : i + 80].rstrip() for i in range(0, len(text), 80)).strip("\n")


def _interval(binary: _Binary, own: _Binary, major: int) -> float | None:
    """Seconds: of the binary header (the extended one of revision 2 first), else of the first trace."""
    stated = float(binary.integer(3217, 2, signed=False))
    if major > 1 and np.isfinite(extended := binary.double(3273)) and extended > 0:
        stated = extended
    return (stated or own.integer(INTERVAL, 2, signed=False)) / 1e6 or None
