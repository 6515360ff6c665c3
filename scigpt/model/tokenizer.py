"""One spatio-temporal patch tokenizer for series, maps, volumes and stations, and its mirror.

The kernel of a variable is a function on the unit patch, written in cosines (a discrete cosine transform), so it can be evaluated for any
patch size: sampling the same cosines at `p` points resamples the kernel, and on an axis of length 1 only the constant mode is left, which
is the average over that axis. In time the kernel spans two frames: the value and the backward increment. `MODES` holds all modes
of an 8 x 8 map and of a 4 x 4 x 4 volume and the first 32 of a series, so that no information of such patches is lost.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scigpt.data.constant import at, constant, vector
from scigpt.data.normalize import Normalized
from scigpt.data.patching import Extent, token_grid
from scigpt.data.sample import LEVEL_UNITS, Boundary, Layout, Level

MODES: tuple[Extent, ...] = tuple(
    sorted(
        {(0, y, x) for y in range(8) for x in range(8)}
        | {(z, y, x) for z in range(4) for y in range(4) for x in range(4)}
        | {(0, 0, x) for x in range(32)}
    )
)
GAIN = 8.0
"""Fixed factor on the tokenizer's kernel, so that its entries are of the size of a patch embedding's and learn at the same rate."""
LEVEL_FEATURES = 4 * len(LEVEL_UNITS)


@constant
def basis(patch: Extent) -> Tensor:
    """Cosines on the points of a patch, float32 `(P, M)`, orthonormal under the mean over the patch; modes it cannot carry are zero."""
    axes = []
    for p in patch:
        k = torch.arange(32, dtype=torch.float64)
        wave = torch.cos(math.pi * k * (torch.arange(p, dtype=torch.float64)[:, None] + 0.5) / p) * 2**0.5
        wave[:, 0] = 1.0
        axes.append(torch.where(k < p, wave, 0.0))
    z, y, x = (torch.tensor([m[i] for m in MODES]) for i in range(3))
    product = axes[0][:, None, None, z] * axes[1][None, :, None, y] * axes[2][None, None, :, x]
    return product.reshape(-1, len(MODES)).float()


@constant
def level_features(levels: tuple[Level | None, ...]) -> Tensor:
    """`(C, 12)`: where each channel's level lies, smooth in its logarithm; zero for a variable without a level."""
    rows = torch.zeros(len(levels), LEVEL_FEATURES)
    for row, level in zip(rows, levels, strict=True):
        if level is not None:
            place = 4 * list(LEVEL_UNITS).index(level.kind)
            height = math.asinh(level.value / 10.0)
            row[place : place + 4] = torch.tensor([1.0, height - 3.0, math.sin(2 * height), math.cos(2 * height)])
    return rows


def add_rows(module: nn.Module, name: str, count: int) -> None:
    """Give a table, one row a variable, `count` more rows, for variables that a pretrained model has never seen. They are a parameter of
    their own, `NAME_added`: another learning rate, or alone in training, in every strategy."""
    if count:
        table = getattr(module, name)
        module.register_parameter(f"{name}_added", nn.Parameter(torch.empty(count, *table.shape[1:])))
        spread: dict[str, float] = getattr(module, "spread", {})
        if name in spread:
            spread[f"{name}_added"] = spread[name]


def rows_of(module: nn.Module, name: str) -> Tensor:
    """The rows of a table, the added ones last."""
    table, added = getattr(module, name), getattr(module, f"{name}_added", None)
    return table if added is None else torch.cat([table, added])


class LevelGain(nn.Module):
    """Channels of one variable share its kernel and differ by a gain from their level: 1 without a level."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(LEVEL_FEATURES, width))
        self.spread = {"weight": 0.5}

    def forward(self, layout: Layout) -> Tensor:
        """`(C, D)`."""
        features = at(level_features(tuple(v.level for v in layout.variables)), self.weight.device)
        return 1.0 + features @ self.weight


class Tokenizer(nn.Module):
    """Normalised fields to tokens.

    Each channel adds `gain * (patch @ kernel + share * (present + (1 - share) * gaps))`, where `share` is the valid share of the patch:
    a channel that is wholly invalid adds exactly nothing, as if it were absent.
    """

    def __init__(self, variables: int, width: int, added: int = 0) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.empty(variables, 2, len(MODES), width))
        self.present = nn.Parameter(torch.empty(variables, width))
        self.gaps = nn.Parameter(torch.empty(variables, width))
        self.amplitude = nn.Parameter(torch.empty(variables, 2, width))
        self.level = LevelGain(width)
        self.spread = {"kernel": 1 / GAIN}
        for name in ("kernel", "present", "gaps", "amplitude"):
            add_rows(self, name, added)

    def forward(self, fields: Normalized, layout: Layout, index: tuple[int, ...], patch: Extent) -> Tensor:
        """`index` is each channel's row in the vocabulary. Returns `(B, T, N, D)`."""
        b, t = fields.value.shape[:2]
        stacked = torch.stack([fields.value, fields.increment], 3).flatten(0, 1)
        patches = patchify(pad(stacked, patch, layout.boundary), patch)  # (C, B T N, 2 P)
        share = patchify(pad(fields.valid.float().unsqueeze(3).flatten(0, 1), patch, None), patch).mean(-1, keepdim=True)
        inputs = torch.cat([patches, share, share * (1.0 - share)], -1)
        waves = at(basis(patch), patches.device) * (GAIN / math.prod(patch))
        rows = vector(index, torch.int64, patches.device)
        kernel, present, gaps, amplitude = (rows_of(self, name) for name in ("kernel", "present", "gaps", "amplitude"))
        kernels = torch.einsum("pm,csmd->cspd", waves, kernel[rows]).flatten(1, 2)
        kernels = torch.cat([kernels, present[rows, None], gaps[rows, None]], 1) * self.level(layout)[:, None]
        tokens = patches.new_zeros(patches.shape[1], self.kernel.shape[-1])
        for channel in range(len(index)):  # one by one: a channel of zeros then leaves the sum as it is, to the last bit
            tokens = torch.addmm(tokens, inputs[channel], kernels[channel])
        tokens = tokens.view(b, t, -1, tokens.shape[-1])
        seen = fields.valid.flatten(3).any(-1)  # (B, T, C)
        sizes = torch.stack([fields.log_amplitude, fields.log_increment], -1) * seen[..., None]
        for channel, row in enumerate(index):
            tokens = tokens + (sizes[:, :, channel] @ amplitude[row])[:, :, None]
        return tokens


class Detokenizer(nn.Module):
    """Tokens to fields: the mirror of `Tokenizer`, zero at the start so that the first prediction is persistence."""

    def __init__(self, variables: int, width: int, added: int = 0) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.empty(variables, len(MODES), width))
        self.level = LevelGain(width)
        add_rows(self, "kernel", added)

    def forward(self, tokens: Tensor, layout: Layout, index: tuple[int, ...], patch: Extent) -> Tensor:
        """`(B, T, N, D)` to `(B, T, C, Z, Y, X)`; channels that are not predicted are zero."""
        b, t = tokens.shape[:2]
        waves = at(basis(patch), tokens.device)
        gains, table = self.level(layout), rows_of(self, "kernel")
        fields = []
        for channel, row in enumerate(index):
            variable = layout.variables[channel]
            if not variable.predicted:
                fields.append(tokens.new_zeros(b, t, *layout.grid))
                continue
            kernel = (waves @ table[row]) * gains[channel]  # (P, D)
            fields.append(unpatchify(tokens @ kernel.T.to(tokens.dtype), layout.grid, patch))
        return torch.stack(fields, 2)


def pad(field: Tensor, patch: Extent, boundary: Boundary | None) -> Tensor:
    """The last three axes `(Z, Y, X)` padded at their high side to whole patches: wrapped where periodic, mirrored at walls and poles,
    else the edge repeated; with no boundary (validity) zeros."""
    for axis, (name, p) in enumerate(zip("zyx", patch, strict=True)):
        dim = field.ndim - 3 + axis
        side = field.shape[dim]
        extra = -side % p
        if extra == 0:
            continue
        kind = None if boundary is None else getattr(boundary, name)[1]
        if kind is None:
            shape = list(field.shape)
            shape[dim] = extra
            more = field.new_zeros(shape)
        elif kind == "periodic":
            more = field.narrow(dim, 0, extra)
        elif kind in ("wall", "pole"):
            more = field.narrow(dim, side - extra, extra).flip(dim)
        else:
            more = field.narrow(dim, side - 1, 1).expand(*[extra if d == dim else -1 for d in range(field.ndim)])
        field = torch.cat([field, more], dim)
    return field


def patchify(field: Tensor, patch: Extent) -> Tensor:
    """`(F, C, S, Z, Y, X)` to `(C, F N, S P)`; Z, Y, X are whole patches."""
    f, c, s, *sides = field.shape
    z, y, x = (side // p for side, p in zip(sides, patch, strict=True))
    field = field.reshape(f, c, s, z, patch[0], y, patch[1], x, patch[2])
    return field.permute(1, 0, 3, 5, 7, 2, 4, 6, 8).reshape(c, f * z * y * x, s * math.prod(patch))


def unpatchify(patches: Tensor, grid: Extent, patch: Extent) -> Tensor:
    """`(B, T, N, P)` to `(B, T, Z, Y, X)`, cropped to the grid."""
    b, t = patches.shape[:2]
    z, y, x = token_grid(grid, patch)
    field = patches.reshape(b, t, z, y, x, *patch).permute(0, 1, 2, 5, 3, 6, 4, 7)
    field = field.reshape(b, t, z * patch[0], y * patch[1], x * patch[2])
    return field[:, :, : grid[0], : grid[1], : grid[2]]


def pool(features: Tensor, patch: Extent) -> Tensor:
    """Mean of point features `(B, Y, X, F)` over each patch of a frame: `(B, ny, nx, F)`; a padded patch averages what it has."""
    moved = features.permute(0, 3, 1, 2)
    return F.avg_pool2d(moved, patch[1:], ceil_mode=True, count_include_pad=False).permute(0, 2, 3, 1)
