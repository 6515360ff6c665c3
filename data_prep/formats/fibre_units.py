"""Units of fibre-optic recordings as files spell them: what is measured, lengths, and clocks."""

from __future__ import annotations

import datetime
import re
from typing import Any

import numpy as np

from scigpt.data.variables import convert
from scigpt.data_prep.formats.hdf5 import texts
from scigpt.errors import UserError

EPOCH = 946684800.0
"""2000-01-01 in seconds since 1970."""
UNITS = {
    **dict.fromkeys(("strain", "m/m"), ("strain", "1")),
    **dict.fromkeys(("microstrain", "ustrain", "ue"), ("strain", "1e-6")),
    **dict.fromkeys(("nanostrain", "nstrain", "ne"), ("strain", "1e-9")),
    **dict.fromkeys(("strain/s", "1/s", "strainrate", "m/m/s", "(m/m)/s"), ("strain_rate", "1/s")),
    **dict.fromkeys(("microstrain/s", "ustrain/s", "ue/s"), ("strain_rate", "1e-6/s")),
    **dict.fromkeys(("nanostrain/s", "nstrain/s", "nm/m/s", "(nm/m)/s"), ("strain_rate", "1e-9/s")),
    **dict.fromkeys(("f", "degf", "fahrenheit"), ("borehole_temperature", "degF")),
    **dict.fromkeys(("c", "degc", "celsius"), ("borehole_temperature", "degC")),
    **dict.fromkeys(("k", "kelvin"), ("borehole_temperature", "K")),
    **dict.fromkeys(("rad", "radian", "radians"), ("optical_phase", "radian")),
    **dict.fromkeys(("rad/s", "radian/s", "radians/s"), ("optical_phase_rate", "radian/s")),
}
"""Stated units in lower case without blanks and hyphens: quantity, and the unit as pint reads it."""


def measured(label: str) -> tuple[str, str]:
    """Quantity and unit of a stated unit; empty where it says nothing that is known."""
    plain = re.sub(r"[\s\-_*]", "", label).lower().replace("\u03bc", "u").replace("\u00b5", "u")
    return UNITS.get(re.sub(r"/(sec|second)$", "/s", plain), ("", ""))


def lengths(values: Any, unit: str, where: str) -> np.ndarray:
    """In m, float64.

    Raises:
        UserError: a unit that is none of length.
    """
    plain = unit.strip().lower()
    return convert(np.asarray(values, np.float64), "foot" if plain == "f" else plain, "m", where)


def length(attrs: Any, name: str, where: str, default: str = "m") -> float | None:
    """An attribute in m by the unit that stands beside it (`GaugeLengthUnit`); None where there is no number."""
    value = number(attrs, name)
    if value is None:
        return None
    unit = next((u for end in ("Unit", "Units", "_unit", "_units", ".uom") if (u := text(attrs, name + end))), default)
    return float(lengths([value], unit, f"{where}, {name}")[0])


def clock(numbers: np.ndarray, unit: str, where: str) -> tuple[np.ndarray, bool]:
    """Seconds since 2000-01-01 UTC, or since whatever the numbers count from, and whether they have a date.

    Args:
        unit: `ms`, `seconds since 2024-04-23T00:00:00`; seconds where it is empty. Numbers that are so large that they can only count from
            1970 do so.

    Raises:
        UserError: a unit that is none of time.
    """
    name, date = ([*re.split(r"(?i)\s+since\s+", unit.strip(), maxsplit=1), ""])[:2]
    seconds = convert(np.asarray(numbers, np.float64), name.lower() or "s", "s", f"{where}, times")
    if date:
        return seconds + (-EPOCH if re.fullmatch(r"(?i)(the )?(unix )?epoch", date) else instant(date, where)), True
    if not seconds.size or not seconds[0] > 3e8:
        return seconds, False
    exact = since_1970(numbers, where)  # of integers without losing a digit
    return (exact if not name or abs(exact[0] - (seconds[0] - EPOCH)) < 1 else seconds - EPOCH), True


def since_1970(stamps: np.ndarray, where: str) -> np.ndarray:
    """Counts since 1970 in ns, us, ms or s, told apart by their size, as seconds since 2000."""
    numbers = np.ravel(stamps)
    if not numbers.size or numbers.dtype.kind not in "iuf" or not np.isfinite(numbers.astype(np.float64)).all():
        raise UserError(f"{where}: its times are no finite numbers since 1970; the file may be damaged, fetch it again")
    size = float(np.median(np.abs(numbers.astype(np.float64))))
    scale = next((s for limit, s in ((1e17, 10**9), (1e14, 10**6), (1e11, 10**3)) if size >= limit), 1)
    if numbers.dtype.kind in "iu":  # no digit is lost
        return (numbers.astype(np.int64) - int(EPOCH) * scale) / scale
    return numbers.astype(np.float64) / scale - EPOCH


def instant(stated: str, where: str) -> float:
    """ISO text in UTC as seconds since 2000."""
    plain = re.sub(r"\s*(UTC|GMT|Z)$", "", stated.strip(), flags=re.IGNORECASE).replace("/", "-")
    try:
        found = datetime.datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", plain))
    except ValueError:
        raise UserError(f"{where}: its first instant {stated[:40]!r} cannot be read; expected ISO 8601, the file may be damaged") from None
    found = found if found.tzinfo else found.replace(tzinfo=datetime.UTC)
    return (found - datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)).total_seconds()


def text(attrs: Any, name: str) -> str:
    return texts(attrs[name])[0].strip() if name in attrs and np.size(attrs[name]) else ""


def number(attrs: Any, name: str) -> float | None:
    try:
        value = float(text(attrs, name))
    except ValueError:
        return None
    return value if np.isfinite(value) else None
