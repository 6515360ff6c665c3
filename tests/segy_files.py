"""SEG-Y files for tests, written field by field as the standard numbers the bytes; nothing of the reader is used."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

TWO_BYTES = {29, 31, 33, 35, 69, 71, 89, 109, 115, 117, 215}
KINDS = {2: "i4", 3: "i2", 5: "f4", 6: "f8", 8: "i1", 9: "i8", 10: "u4", 11: "u2", 12: "u8", 16: "u1"}


def ibm_bytes(values: np.ndarray, order: str) -> bytes:
    """Base 16, by long division of each number: slow and plain."""
    words = []
    for value in values.ravel().tolist():
        size, exponent = abs(value), 64
        while size >= 1:
            size, exponent = size / 16, exponent + 1
        while 0 < size < 1 / 16:
            size, exponent = size * 16, exponent - 1
        words.append((value < 0) << 31 | (exponent << 24 if size else 0) | int(size * 2**24))
    return np.array(words, np.uint32).astype(f"{order}u4").tobytes()


def encoded(values: np.ndarray, code: int, endian: str) -> bytes:
    order = ">" if endian == "big" else "<"
    if code == 1:
        return ibm_bytes(values, order)
    if code in (7, 15):
        return b"".join(int(v).to_bytes(3, endian, signed=code == 7) for v in values.ravel())  # type: ignore[arg-type]
    return values.astype(order + KINDS[code]).tobytes()


def write_segy(
    path: Path,
    traces: np.ndarray,
    headers: Mapping[int, Any] | None = None,
    code: int = 5,
    endian: str = "big",
    interval: int = 4000,
    samples: int | None = None,
    binary: Mapping[int, tuple[int, int]] | None = None,
    text: bytes = b"",
    extended: tuple[bytes, ...] = (),
    revision: tuple[int, int] = (1, 0),
    more_trace_headers: int = 0,
    before: bytes = b"",
    after: bytes = b"",
) -> Path:
    """Traces `(n, samples)`; trace header words by byte, one number or one for each trace; binary header words `byte: (number, width)`."""
    head = bytearray(400)

    def put(byte: int, number: int, width: int) -> None:
        head[byte - 3201 : byte - 3201 + width] = int(number).to_bytes(width, endian, signed=number < 0)  # type: ignore[arg-type]

    put(3217, interval, 2)
    put(3221, min(traces.shape[1] if samples is None else samples, 65535), 2)
    put(3225, code, 2)
    head[300:302] = bytes(revision)
    put(3505, len(extended), 2)
    for byte, (number, width) in (binary or {}).items():
        put(byte, number, width)
    body = [text.ljust(3200, " ".encode("cp037"))[:3200], bytes(head), *(e.ljust(3200)[:3200] for e in extended), before]
    words = {115: min(traces.shape[1], 65535), 117: interval, **(headers or {})}
    for number, trace in enumerate(traces):
        header = bytearray(240)
        for byte, value in words.items():
            width = 2 if byte in TWO_BYTES else 4
            one = int(value if np.ndim(value) == 0 else value[number])
            header[byte - 1 : byte - 1 + width] = one.to_bytes(width, endian, signed=one < 0)  # type: ignore[arg-type]
        body += [bytes(header), b"\0" * 240 * more_trace_headers, encoded(trace, code, endian)]
    path.write_bytes(b"".join(body) + after)
    return path


def line(count: int = 6, samples: int = 20, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 100, (count, samples)).astype(np.float32)
