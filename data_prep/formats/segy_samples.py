"""Sample formats of SEG-Y: bytes to float32 numbers."""

from __future__ import annotations

import numpy as np

FORMATS: dict[int, tuple[str, int, str]] = {
    1: ("IBM float, 4 bytes", 4, "ibm"),
    2: ("signed integer, 4 bytes", 4, "i4"),
    3: ("signed integer, 2 bytes", 2, "i2"),
    5: ("IEEE float, 4 bytes", 4, "f4"),
    6: ("IEEE float, 8 bytes", 8, "f8"),
    7: ("signed integer, 3 bytes", 3, "i3"),
    8: ("signed integer, 1 byte", 1, "i1"),
    9: ("signed integer, 8 bytes", 8, "i8"),
    10: ("unsigned integer, 4 bytes", 4, "u4"),
    11: ("unsigned integer, 2 bytes", 2, "u2"),
    12: ("unsigned integer, 8 bytes", 8, "u8"),
    15: ("unsigned integer, 3 bytes", 3, "u3"),
    16: ("unsigned integer, 1 byte", 1, "u1"),
}
"""Code to name, bytes of a sample, and how it is decoded; code 4 (fixed point with gain) is obsolete and refused."""


def decode(raw: np.ndarray, code: int, endian: str) -> np.ndarray:
    """Bytes `(n, m * width)` as float32 `(n, m)`."""
    _, width, kind = FORMATS[code]
    if kind == "ibm":
        return ibm_float(raw.view(np.dtype(f"{endian}u4")))
    if width == 3:
        parts = raw.reshape(raw.shape[0], -1, 3).astype(np.int32)
        high, middle, low = (parts[..., i] for i in ((0, 1, 2) if endian == ">" else (2, 1, 0)))
        whole = high << 16 | middle << 8 | low
        return (whole - (whole >> 23 << 24) if kind == "i3" else whole).astype(np.float32)
    with np.errstate(over="ignore"):
        return raw.view(np.dtype(endian + kind)).astype(np.float32)


def ibm_float(words: np.ndarray) -> np.ndarray:
    """IBM System/360 single precision, as unsigned words, to float32: sign, exponent of 16 less 64, fraction of 24 bits."""
    words = words.astype(np.uint32)
    sign = np.where(words >> 31, -1.0, 1.0)
    exponent = 4 * (((words >> 24) & 0x7F).astype(np.int32) - 64) - 24
    with np.errstate(over="ignore", under="ignore"):
        return np.ldexp(sign * (words & 0xFFFFFF), exponent).astype(np.float32)
