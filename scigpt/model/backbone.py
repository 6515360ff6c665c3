"""SciGPT: pre-norm blocks of space attention within a frame, causal time attention and a gated MLP."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from scigpt.data.batches import Batch
from scigpt.data.constant import vector
from scigpt.data.normalize import Normalized, Past, normalize
from scigpt.data.patching import Extent, token_count, token_grid
from scigpt.data.sample import Layout
from scigpt.errors import UserError
from scigpt.model.attention import Kernel, Memory, SpaceAttention, TimeAttention, choose_window, half_window, moved, opposite
from scigpt.model.conditions import Conditions, Modulation
from scigpt.model.heads import Distribution, HeadShape, build_head
from scigpt.model.initial import Initial
from scigpt.model.parametrization import learning_rate_scale, residual_share, residual_spread
from scigpt.model.positions import space_phases, time_phases
from scigpt.model.sizes import DEPTHS, forward_flops, heads_of, hidden_of, width_of
from scigpt.model.tokenizer import Tokenizer

if TYPE_CHECKING:
    from scigpt.data.corpus import Corpus

Recompute = bool | Literal["selective"]
"""What a block computes again in the backward pass: nothing, everything, or all but its products."""
PRODUCTS = frozenset(
    f"aten::{name}"
    for name in (
        "mm",
        "addmm",
        "_scaled_mm",
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_cudnn_attention",
    )
) | {"flash_attn::_flash_attn_forward"}
"""Operations that take nearly all the time of a block and make half of what it keeps: linear maps and attention."""
SUMS_OVER_WIDTH = re.compile(r"(final_)?modulate\.weight|conditions\.mix\.1\.weight|head\..*(kernel|kernel_added|weight)|.+\.lora_a")
"""Matrices outside the blocks that sum over the width."""


@dataclass
class ModelConfig:
    """Size and attention of the network; `null` takes what the size says.

    Args:
        size: nano, tiny, small, base, large, xl or 7b.
        depth, width, heads: override the size's rule.
        window_tokens: space attention is full up to this many tokens a frame, then windowed.
        reach: frames that time attention sees back.
        attention: sdpa or flash.
        huber_delta: where the loss turns from quadratic to linear, in units of the target.
        head: what is predicted: point, gaussian, quantile, ensemble, labels, coefficients, classes (see `scigpt.model.heads`), or
            `module:Class` of a head of your own.
        head_options: of that head, by name.
    """

    size: str = "nano"
    depth: int | None = None
    width: int | None = None
    heads: int | None = None
    window_tokens: int = 1024
    reach: int = 32
    attention: Kernel = "sdpa"
    huber_delta: float = 3.0
    head: str = "point"
    head_options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("depth", "width", "heads", "window_tokens", "reach", "huber_delta"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UserError(f"{name} is {value}; expected a number above 0")

    def resolved(self) -> tuple[int, int, int]:
        """Depth, width, heads.

        Raises:
            UserError: an unknown size, or a width that the heads do not divide.
        """
        if self.size not in DEPTHS:
            near = difflib.get_close_matches(self.size, DEPTHS, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UserError(f"model.size={self.size!r} is not one of {', '.join(DEPTHS)}{hint}")
        depth = self.depth or DEPTHS[self.size]
        width = self.width or width_of(depth)
        heads = self.heads or heads_of(width)
        if width % heads or (width // heads) % 8:
            raise UserError(f"model.width={width} does not split into {heads} heads of a multiple of 8 channels; change one of them")
        return depth, width, heads


@dataclass(frozen=True)
class Vocabulary:
    """The variables and coefficients a model knows: name to unit, and name to mean and spread over all corpora.

    The last `added` variables and `added_coefficients` coefficients came with the data that a pretrained model is adapted to.
    """

    units: Mapping[str, str]
    coefficients: Mapping[str, tuple[float, float]]
    added: int = 0
    added_coefficients: int = 0

    @classmethod
    def from_corpora(cls, corpora: Sequence[Corpus]) -> Vocabulary:
        """Union of what the corpora hold.

        Raises:
            UserError: one variable in two units.
        """
        units: dict[str, str] = {}
        sums: dict[str, list[float]] = {}
        for corpus in corpora:
            for v in corpus.layout.variables:
                if units.setdefault(v.name, v.unit) != v.unit:
                    raise UserError(f"corpus {corpus.name}: variable {v.name} is in {v.unit}, in another corpus it is in {units[v.name]}")
            for name, entry in corpus.stats.to_json()["coefficients"].items():
                total = sums.setdefault(name, [0.0, 0.0, 0.0])
                n, mean = entry["count"], entry["mean"]
                for i, amount in enumerate((n, n * mean, entry["m2"] + n * mean**2)):
                    total[i] += amount
        coefficients = {}
        for name, (n, first, second) in sorted(sums.items()):
            mean = first / max(n, 1)
            spread = max(second / max(n, 1) - mean**2, 0.0) ** 0.5
            coefficients[name] = (mean, spread if spread > 1e-9 * abs(mean) else abs(mean) or 1.0)
        return cls(dict(sorted(units.items())), coefficients)

    def extended(self, other: Vocabulary, where: str) -> Vocabulary:
        """With what `other` knows besides added at the end. What was known keeps its place, and coefficients their mean and spread.

        Raises:
            UserError: one variable in two units.
        """
        for name, unit in other.units.items():
            if self.units.get(name, unit) != unit:
                raise UserError(f"{where} was trained on {name} in {self.units[name]}, and the data has it in {unit}; convert the data")
        units = {n: u for n, u in sorted(other.units.items()) if n not in self.units}
        coefficients = {n: c for n, c in sorted(other.coefficients.items()) if n not in self.coefficients}
        return Vocabulary({**self.units, **units}, {**self.coefficients, **coefficients}, len(units), len(coefficients))

    def settled(self) -> Vocabulary:
        """The same in alphabetical order, with nothing added: how a model that is adapted further begins."""
        return Vocabulary(dict(sorted(self.units.items())), dict(sorted(self.coefficients.items())))

    def to_json(self) -> dict[str, Any]:
        added = [[*self.units][len(self.units) - self.added :], [*self.coefficients][len(self.coefficients) - self.added_coefficients :]]
        known = {"units": dict(self.units), "coefficients": {n: list(c) for n, c in self.coefficients.items()}}
        return known | ({"added": added} if any(added) else {})

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Vocabulary:
        """Inverse of `to_json`, whatever a file has done to the order of the keys."""
        variables, coefficients = data.get("added", ([], []))
        known = {n: (float(m), float(s)) for n, (m, s) in data["coefficients"].items()}
        units = {n: data["units"][n] for n in (*(n for n in data["units"] if n not in variables), *variables)}
        ordered = {n: known[n] for n in (*(n for n in known if n not in coefficients), *coefficients)}
        return cls(units, ordered, len(variables), len(coefficients))

    def rows(self, layout: Layout) -> tuple[int, ...]:
        """The row of each channel.

        Raises:
            UserError: a variable or unit that the model does not know.
        """
        order = {name: i for i, name in enumerate(self.units)}
        for v in layout.variables:
            if v.name not in order:
                near = difflib.get_close_matches(v.name, order, n=1)
                hint = f"; the nearest it knows is {near[0]}" if near else ""
                raise UserError(f"the model does not know the variable {v.name}{hint}; it was trained on {', '.join(order)}")
            if v.unit != self.units[v.name]:
                raise UserError(f"variable {v.name} is in {v.unit}, and the model was trained on {self.units[v.name]}; convert it")
        return tuple(order[v.name] for v in layout.variables)


@dataclass(frozen=True, slots=True)
class Prediction:
    """The model's forecast of frames `1 .. T-1` of a batch: entry t, of shape `(B, T-1, C, Z, Y, X)`, is frame t + 1."""

    distribution: Distribution
    normalized: Normalized
    batch: Batch

    @property
    def raw(self) -> Tensor:
        """In units of the target (increments, see `scigpt.data.normalize`)."""
        return self.distribution.mean

    def z(self, raw: Tensor | None = None) -> Tensor:
        """The mean, or a sample or quantile of the distribution, in normalised units of the corpus."""
        raw = (self.raw if raw is None else raw).float()
        return self.normalized.base + self.normalized.unit * raw if self.distribution.relative else raw

    def physical(self, raw: Tensor | None = None) -> Tensor:
        """In the variables' units; channels that are not predicted hold no meaning."""
        return self.batch.scales.inverse(self.z(raw))


def _policy(_: object, operation: torch._ops.OpOverload, *args: object, **kwargs: object) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation._schema.name in PRODUCTS else CheckpointPolicy.PREFER_RECOMPUTE


_keep_products = partial(create_selective_checkpoint_contexts, _policy)


class Block(nn.Module):
    """Space attention, time attention, gated MLP, each behind a conditioned norm and added to the stream."""

    def __init__(self, width: int, heads: int, depth: int, attention: Kernel) -> None:
        super().__init__()
        self.space_norm, self.time_norm, self.mlp_norm = Modulation(width), Modulation(width), Modulation(width)
        self.space = SpaceAttention(width, heads, depth, attention)
        self.time = TimeAttention(width, heads, depth, attention)
        hidden = hidden_of(width)
        self.gate_up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)
        self.spread = {"gate_up.weight": width**-0.5, "down.weight": residual_spread(depth, hidden)}
        self.share = residual_share(depth)
        self.recompute: Recompute = False

    def forward(
        self,
        x: Tensor,
        shared: Tensor,
        where: Tensor,
        when: Tensor,
        grid: Extent,
        window: Extent | None,
        reach: int,
        memory: Memory | None = None,
    ) -> Tensor:
        """`x` `(B, T, N, D)`; shared conditions `(B, T, 3, 2, D)`; rotary phases in space and time; `memory` of the frames before.

        With `recompute`, only the arguments are kept for the backward pass (`selective`: and what products have given) and the rest is
        computed again (activation checkpointing; within the block, where a strategy that gathers the block's parameters has them at hand).
        """
        if self.recompute and torch.is_grad_enabled():
            arguments = (x, shared, where, when, grid, window, reach)
            how: dict[str, Any] = {"context_fn": _keep_products} if self.recompute == "selective" else {}
            return checkpoint(self._forward, *arguments, use_reentrant=False, preserve_rng_state=False, **how)
        return self._forward(x, shared, where, when, grid, window, reach, memory)

    def _forward(
        self,
        x: Tensor,
        shared: Tensor,
        where: Tensor,
        when: Tensor,
        grid: Extent,
        window: Extent | None,
        reach: int,
        memory: Memory | None = None,
    ) -> Tensor:
        share = self.share
        x = torch.add(x, self.space(self.space_norm(x, shared[:, :, 0]), where, grid, window), alpha=share)
        x = torch.add(x, self.time(self.time_norm(x, shared[:, :, 1]), when, reach, memory), alpha=share)
        gate, up = self.gate_up(self.mlp_norm(x, shared[:, :, 2])).chunk(2, -1)
        return torch.add(x, self.down(F.silu(gate) * up), alpha=share)


@dataclass(slots=True)
class Cache:
    """What a model keeps of the frames it has seen, so that the next one costs no more than itself: see `SciGPT.forward`.

    A step through it gives the numbers of a step that is shown all frames again. `frames` counts them; time attention still sees the last
    `reach` of them.
    """

    frames: int = 0
    past: Past | None = None
    blocks: list[Memory] = field(default_factory=list)


class SciGPT(nn.Module):
    """The multi-physics transformer.

    Args:
        config: size and attention.
        vocabulary: the variables and coefficients it knows.
        seed: of the initial weights. Under `torch.device("meta")` the parameters have no storage and wait to be filled.
    """

    def __init__(self, config: ModelConfig, vocabulary: Vocabulary, seed: int = 0) -> None:
        super().__init__()
        depth, width, heads = config.resolved()
        self.config, self.vocabulary = config, vocabulary
        self.rates: dict[str, float] = {}
        self.width, self.heads = width, heads
        added = vocabulary.added
        count = len(vocabulary.units) - added
        self.tokenizer = Tokenizer(count, width, added)
        self.known_coefficients = len(vocabulary.coefficients) - vocabulary.added_coefficients
        self.conditions = Conditions(width, self.known_coefficients, vocabulary.added_coefficients)
        self.modulate = nn.Linear(width, 6 * width)
        self.blocks = nn.ModuleList(Block(width, heads, depth, config.attention) for _ in range(depth))
        self.final_norm = Modulation(width)
        self.final_modulate = nn.Linear(width, 2 * width)
        self.head = build_head(config.head, HeadShape(width, count, added, config.huber_delta), config.head_options)
        initial = Initial(self, seed)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if not parameter.is_meta:
                    parameter.copy_(initial(name))

    def forward(self, batch: Batch, cache: Cache | None = None) -> Prediction:
        """Predict frames `1 .. T-1` of a batch of T frames, each from the frames before it (and its own forcings).

        Args:
            cache: what is left of the frames before those of the batch, empty at first. It takes in frames `0 .. T-2`, so that the next
                batch begins with frame T-1. Not for training, and not for steady problems.

        Raises:
            UserError: a variable, unit or coefficient the model does not know.
        """
        rows = self.vocabulary.rows(batch.layout)
        fields = normalize(batch, None if cache is None else cache.past)
        grid = token_grid(batch.layout.grid, batch.patch)
        window = choose_window(grid, self.config.window_tokens)
        condition, places = self.conditions(batch, *self._coefficients(batch))
        x = self.tokenizer(fields, batch.layout, rows, batch.patch) + places
        x = x + condition[:, :, None]
        shared = self.modulate(condition).unflatten(-1, (3, 2, -1))
        pairs = self.width // self.heads // 2
        where, when = space_phases(batch, pairs), time_phases(x.shape[1], pairs, x.device, 0 if cache is None else cache.frames)
        if cache is not None:
            cache.blocks = cache.blocks or [Memory() for _ in self.blocks]
            cache.frames, cache.past = cache.frames + x.shape[1], fields.past
        turn = half_window(grid, window)  # out here: windows that never move make all blocks one compiled graph
        for i, block in enumerate(self.blocks):
            if i and any(turn):
                x, where, turn = moved(x, grid, turn), moved(where, grid, turn), opposite(turn)
            x = block(x, shared, where, when, grid, window, self.config.reach, None if cache is None else cache.blocks[i])
        if any(turn) and len(self.blocks) % 2 == 0:
            x = moved(x, grid, turn)
        x = self.final_norm(x, self.final_modulate(condition).unflatten(-1, (2, -1)))
        return Prediction(self.head(x, batch, rows), fields, batch)

    def _coefficients(self, batch: Batch) -> tuple[tuple[int, ...], Tensor, Tensor]:
        """Row, mean and spread of each coefficient of the batch."""
        order = {name: i for i, name in enumerate(self.vocabulary.coefficients)}
        unknown = [n for n in batch.coefficient_names if n not in order]
        if unknown:
            raise UserError(f"the model does not know the coefficient {unknown[0]}; it was trained on {', '.join(order) or 'none'}")
        known = [self.vocabulary.coefficients[n] for n in batch.coefficient_names]
        center, spread = (vector((pair[i] for pair in known), torch.float32, batch.coefficients.device) for i in (0, 1))
        # a model without coefficients has one row all the same, before the added ones
        skipped = int(self.known_coefficients == 0)
        return tuple(order[n] + skipped for n in batch.coefficient_names), center, spread

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Parameters that are trained with their share of the learning rate: matrices that sum over the width learn at a rate that falls
        with it; `rates` holds further factors by name.

        The hidden matrices of the blocks decay; conditions and the head's kernel, which sum over the width too, do not.
        """
        groups: dict[tuple[float, bool], list[tuple[str, nn.Parameter]]] = {}
        wide, narrow = learning_rate_scale(self.width), 1.0
        for name, parameter in self.named_parameters():
            if not parameter.requires_grad:
                continue
            hidden = name.startswith("blocks.") and parameter.ndim == 2 and not name.endswith((".offset", ".lora_a", ".lora_b"))
            scale = (wide if hidden or SUMS_OVER_WIDTH.fullmatch(name) else narrow) * self.rates.get(name, 1.0)
            groups.setdefault((scale, hidden), []).append((name, parameter))
        return [
            {"names": [n for n, _ in found], "params": [p for _, p in found], "lr_scale": scale, "decay": decay}
            for (scale, decay), found in groups.items()
        ]

    def tokens(self, batch: Batch) -> int:
        """Tokens that one forward pass of the batch takes in."""
        return len(batch) * (batch.values.shape[1] - 1) * token_count(batch.layout.grid, batch.patch)

    def flops(self, batch: Batch) -> int:
        """FLOPs of matrix products in one forward pass of the batch; training takes three times as many."""
        count, frames = batch.values.shape[:2]
        parts = forward_flops(batch.layout, batch.patch, count, frames, self.width, len(self.blocks), self.config.window_tokens)
        return sum(parts.values())
