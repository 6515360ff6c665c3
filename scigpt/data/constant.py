"""Tensors that depend on layouts and shapes alone: made once, and sent to a device once, so that a step never waits for a copy."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, ParamSpec

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

P = ParamSpec("P")
_MOST = 256
"""Tensors that one function keeps; the oldest goes first."""
_placed = WeakIdKeyDictionary()
"""Copies of kept tensors by device."""


def constant(make: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Keep what a function of hashable arguments makes. Its tensors may be used in training even if inference asked for them first.

    What stands for a tensor in a trace is not kept, and a compiled block makes its own.
    """
    kept: dict[Any, Tensor] = {}

    @wraps(make)
    def made(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        if torch.compiler.is_dynamo_compiling():
            return make(*args, **kwargs)
        key = (args, *kwargs.items())
        found = kept.get(key)
        if found is None:
            with torch.inference_mode(False):
                found = make(*args, **kwargs)
            if type(found) is Tensor:
                while len(kept) >= _MOST:
                    del kept[next(iter(kept))]
                kept[key] = found
        return found

    return made


def at(tensor: Tensor, device: torch.device) -> Tensor:
    """A kept tensor on a device."""
    if tensor.device.type == device.type:
        return tensor
    copies = _placed.setdefault(tensor, {})
    if device not in copies:
        with torch.inference_mode(False):
            copies[device] = tensor.to(device)
    return copies[device]


@constant
def _vector(values: tuple[float, ...], dtype: torch.dtype) -> Tensor:
    return torch.tensor(values, dtype=dtype)


def vector(values: Iterable[float], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A few numbers, or yes and no, as a tensor."""
    return at(_vector(tuple(values), dtype), device)
