"""The nearest of the names that would have been right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, names: Iterable[str]) -> str:
    """`did you mean NAME?`, or nothing when no name is near."""
    near = difflib.get_close_matches(word, [str(n) for n in names], n=1)
    return f"did you mean {near[0]}?" if near else ""
