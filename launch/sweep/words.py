"""How the numbers of an analysis are told to people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scigpt.launch.output import si


def figure(value: float | None) -> str:
    """Four significant digits."""
    return "-" if value is None else f"{value:.4g}"


def amount(value: float | None) -> str:
    """Parameters or tokens: three digits and a prefix; powers of ten beyond 1e15."""
    if value is None:
        return "-"
    return si(value).strip() if 1 <= value < 1e15 else f"{value:.3g}"


def flops(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.3g} %"


def interval(found: Mapping[str, Any] | None, form: Any = figure) -> str:
    """`1.82 (1.79 to 1.85)`."""
    if found is None or found["value"] is None:
        return "-"
    if found["low"] is None and found["high"] is None:
        return str(form(found["value"]))
    return f"{form(found['value'])} ({form(found['low'])} to {form(found['high'])})"
