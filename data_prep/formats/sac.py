"""SAC files: one trace with a fixed header of 632 bytes, in which the number -12345 stands for what is not known."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from scigpt.errors import UserError

HEADER = 632
FOOTER = 22 * 8
"""Bytes that version 7 adds at the end."""
_NPTS, _NVHDR, _IFTYPE, _LEVEN, _IDEP = 316, 304, 340, 420, 344
MOTION = {6: "displacement", 7: "velocity", 8: "acceleration"}
"""What the header's idep says the samples are."""


def recognises(head: bytes) -> bool:
    return _order(head) is not None


def _order(head: bytes) -> str | None:
    """Byte order by the header's version."""
    if len(head) < HEADER:
        return None
    for order in "<>":
        version, count, kind, even = (struct.unpack_from(order + "i", head, at)[0] for at in (_NVHDR, _NPTS, _IFTYPE, _LEVEN))
        if version in (6, 7) and count > 0 and kind in (1, 2, 3, 4, 5, 51) and even in (0, 1):
            return order
    return None


def read(path: Path, headonly: bool = False) -> Any:
    """The trace, as obspy's.

    Raises:
        UserError: a spectrum or unevenly sampled values, a file of another length than its header says, or no absolute time.
    """
    from obspy import read as read_with

    with path.open("rb") as file:
        head = file.read(HEADER)
    order = _order(head)
    assert order is not None
    version, count, kind, even = (struct.unpack_from(order + "i", head, at)[0] for at in (_NVHDR, _NPTS, _IFTYPE, _LEVEN))
    if kind != 1 or even != 1:
        raise UserError(f"{path.name} is a SAC file of a spectrum or of uneven samples; expected an evenly sampled time series")
    expected = HEADER + 4 * count + (FOOTER if version == 7 else 0)
    if path.stat().st_size != expected:
        raise UserError(f"{path.name} has {path.stat().st_size} bytes and its header promises {expected}; it is truncated or damaged")
    if -12345 in struct.unpack_from(order + "6i", head, 280):
        raise UserError(f"{path.name} has no date in its header (nzyear and what follows); expected the instant of its reference time")
    return read_with(str(path), format="SAC", headonly=headonly)[0]
