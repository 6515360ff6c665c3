"""Constant tensors that depend on shapes alone, made once."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import ParamSpec, cast

import torch
from torch import Tensor

P = ParamSpec("P")


def constant(make: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Cache a function of hashable arguments. Its tensors may be used in training even if inference asked for them first."""

    @wraps(make)
    def made(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        with torch.inference_mode(False):
            return make(*args, **kwargs)

    return cast("Callable[P, Tensor]", lru_cache(maxsize=64)(made))
