"""Float8: the matrix products of the blocks in eight bits, forward and backward, by torchao.

Every tensor has one scale, found anew in each product (dynamic tensorwise scaling), so nothing is kept from one step to the next: names,
parameters, optimizer and checkpoints are those of any run.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scigpt.errors import UserError

if TYPE_CHECKING:
    from scigpt.model.backbone import SciGPT

NARROWEST = 1536
"""Below this width the search for scales takes longer than the shorter products save."""
TILE = 16
"""What the sides of the matrices, the number of tokens among them, are multiples of."""
OLDEST = (8, 9)
"""Compute capability of the first GPUs with such products: Ada."""


def check_width(width: int) -> None:
    """Refuse a model that does not gain by float8.

    Raises:
        UserError: its width is too small, or no multiple of `TILE`.
    """
    if width < NARROWEST or width % TILE:
        raise UserError(
            f"train.float8 pays from width {NARROWEST} on, in multiples of {TILE}, and this model has width {width}; set train.float8=false"
        )


def convert(model: SciGPT, compiled: bool) -> None:
    """Give the linear layers of the blocks products in float8; their parameters stay the same objects. On a CPU the products are of float32
    numbers that were rounded to float8.

    Raises:
        UserError: see `check_width`; a GPU without float8, blocks that are not compiled on one that has it, torchao that is not installed.
    """
    check_width(model.width)
    gpu = torch.cuda.is_available()
    if gpu and torch.version.hip is None and (found := torch.cuda.get_device_capability()) < OLDEST:
        raise UserError(
            f"train.float8 needs a GPU of compute capability {_dotted(OLDEST)} or newer (Ada, Hopper), and this one has {_dotted(found)}; "
            f"set train.float8=false"
        )
    if gpu and not compiled:
        raise UserError("train.float8 without train.compile is slower than bfloat16; set train.compile=true, or train.float8=false")
    float8 = _imported()
    float8.convert_to_float8_training(model.blocks, config=float8.Float8LinearConfig(emulate=not gpu))
    layers = [module for module in model.blocks.modules() if isinstance(module, nn.Linear)]
    kind = _trained(type(layers[0]))
    for layer in layers:
        layer.__class__ = kind  # a function of each layer's own would make each block a compiled graph of its own


def _trained(kind: type[nn.Linear]) -> type[nn.Linear]:
    """The layer in float8 where its product is for a gradient, and plain otherwise: a scale is taken over all windows and frames of a pass,
    so that a forecast would depend, by its rounding, on other windows and on its own future. Plain too for numbers of tokens that GPUs have
    no product for."""

    def forward(self: nn.Linear, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and x.shape[:-1].numel() % TILE == 0:
            return kind.forward(self, x)
        return F.linear(x, self.weight, self.bias)

    return type(kind.__name__, (kind,), {"forward": forward})


def _dotted(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))


def _imported() -> Any:
    """`torchao.float8`; what torchao says of kernels that do not load stays unsaid, since none of them is needed."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        import torchao.float8
    except ImportError:
        raise UserError("train.float8 needs torchao: pip install 'scigpt[float8]', or set train.float8=false") from None
    finally:
        logging.disable(before)
    return torchao.float8
