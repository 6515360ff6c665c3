"""Memory of a training run, predicted: what each process holds of parameters, gradients and optimizer, and what a pass needs besides.

Nothing is trained. The model has no storage, and a pass runs on fake tensors (shapes and types without numbers), so a model of billions of
parameters is asked on a laptop. Two blocks are enough: each one beyond the first keeps the same.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, UntypedStorage, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from scigpt.data.batches import Batch, collate
from scigpt.data.corpus import Corpus
from scigpt.data.mixture import CorpusConfig, Window
from scigpt.data.normalize import Scales
from scigpt.data.patching import choose_patch
from scigpt.data.sample import Boundary
from scigpt.data.tasks import Task
from scigpt.model.attention import as_on_a_gpu
from scigpt.model.backbone import PRODUCTS, ModelConfig, SciGPT, Vocabulary
from scigpt.train.mesh import Mesh
from scigpt.train.objective import share_of_loss
from scigpt.train.strategies import LayoutConfig, StrategyConfig
from scigpt.train.zero import BUCKET, PERSISTENT

FLOAT = 4
"""Bytes of a number of parameters, gradients and moments, in every strategy."""


@dataclass(frozen=True, slots=True)
class Held:
    """Bytes that stay from step to step (gradients: from pass to pass) on the process that holds the most.

    Args:
        optimizer: two moments, and the strategy's own copy of the parameters where it makes one.
        buffers: parameters gathered from other processes and gradients on their way to them, at most at one time.
        host: of `optimizer`, kept in CPU memory instead; not counted there.
    """

    parameters: int
    gradients: int
    optimizer: int
    buffers: int = 0
    host: int = 0


@dataclass(frozen=True, slots=True)
class Activations:
    """Bytes of one forward and backward pass.

    Args:
        saved: tensors that the backward pass needs, when the forward pass ends; parameters not counted.
        temporary: what lives besides when most is in use: the batch, intermediate gradients, a block that is computed again.
    """

    saved: int
    temporary: int


def held(model: SciGPT, strategy: StrategyConfig, mesh: Mesh, layout: LayoutConfig, passes: int) -> Held:
    """What the strategy keeps on a process.

    Args:
        model: may be without storage; the whole of it, frozen where it will be.
        passes: forward and backward passes of a step. With several of them fsdp2 and hsdp too sum up whole gradients, and exchange them
            once (unless `reduce_every_pass`).
    """
    whole, trained = (FLOAT * sum(p.numel() for p in model.parameters() if p.requires_grad or every) for every in (True, False))
    block, moving = (FLOAT * sum(p.numel() for p in model.blocks[0].parameters() if p.requires_grad or every) for every in (True, False))
    outside = whole - block * len(model.blocks)  # tokenizer, head and conditions: gathered throughout
    several = passes > 1
    if strategy.name in ("single", "ddp"):
        return Held(whole, trained, 2 * trained)
    if strategy.name == "deepspeed":
        bucket = min(max(block, FLOAT * BUCKET[0]), FLOAT * BUCKET[1], whole)
        persistent = FLOAT * sum(p.numel() for p in model.parameters() if p.numel() <= PERSISTENT * model.width)
        kept = _zero(strategy.stage, whole, trained, mesh.world, several, bucket, persistent, outside)
        return replace(kept, optimizer=0, host=3 * math.ceil(trained / mesh.world)) if strategy.offload else kept
    # cut along the first dimension, as torch.chunk cuts
    cut = {p: FLOAT * math.ceil(p.shape[0] / mesh.sizes["shard"]) * math.prod(p.shape[1:]) for p in model.parameters()}
    own = sum(n for p, n in cut.items() if p.requires_grad)
    # two blocks are gathered, one of them also in the form it arrived in, and of one this process's part is sent in bfloat16; and the sums
    # of one are under way
    form, sent = (block // 2, block // 2 // mesh.sizes["shard"]) if layout.bf16 else (block, 0)
    buffers = outside + 3 * form + sent + moving
    return Held(sum(cut.values()), trained if several and not strategy.reduce_every_pass else own, 2 * own, buffers)


def _zero(stage: int, whole: int, trained: int, world: int, several: bool, bucket: int, persistent: int, outside: int) -> Held:
    """Stages 1 and 2 keep a copy of the trained parameters beside them, stage 3 only with the optimizer in CPU memory; see
    `scigpt.train.zero`."""
    part = math.ceil(trained / world)
    if stage == 3:
        # the update copies the gradients of a group of parameters; three buckets are gathered, one is sent, one is on its way
        buffers = outside + 5 * bucket + min(part, FLOAT * BUCKET[1] // 4)
        return Held(math.ceil(whole / world) + persistent, part, 2 * part, buffers)
    # what a pass adds to the sums of stage 2 lies beside them
    return Held(whole, trained if stage == 1 else (1 + several) * part, 3 * part, 2 * bucket)


def parts(model: nn.Module) -> dict[str, int]:
    """Number of parameters of the tokenizer, the blocks, the head, and of what makes and applies the conditions."""
    found = dict.fromkeys(("tokenizer", "blocks", "head", "conditions"), 0)
    for name, parameter in model.named_parameters():
        top = name.partition(".")[0]
        found[top if top in found else "conditions"] += parameter.numel()
    return found


def blank_batch(
    corpus: Corpus, settings: CorpusConfig, window: Window, scales: Scales, patch: int, count: int, task: Task | None = None
) -> Batch:
    """A batch of `count` windows as the loader makes them, on the meta device: shapes, no numbers. Two frames of one point are read, since
    which coordinates and coefficients there are is said by the records.

    Raises:
        UserError: data that cannot be read.
    """
    z, y, x = corpus.layout.grid
    height, width = window.crop or (y, x)
    was, opened = corpus.layout.boundary, Boundary()
    boundary = Boundary(was.z, was.y if height == y else opened.y, was.x if width == x else opened.x)
    layout = replace(corpus.layout, grid=(z, height, width), boundary=boundary)
    entry = next(i for i, e in enumerate(corpus.entries(settings.train)) if e.frames >= window.span)
    point = collate([corpus.read(settings.train, entry, slice(0, 2), slice(0, 1), slice(0, 1))], scales, corpus.name, patch)
    field = (count, window.frames, len(layout.variables), *layout.grid)
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(("values", "valid"), field)
    shapes |= dict.fromkeys(("seconds", "season", "hour"), field[:2])
    shapes |= {"step": (count, window.frames - 1)} | dict.fromkeys(("latitude", "longitude", "height"), (count, height, width))
    shapes |= {"weight": (count, 1, 1, 1, height, width)}
    tensors: dict[str, Any] = {
        name: torch.empty(shapes.get(name, (count, *tensor.shape[1:])), dtype=tensor.dtype, device="meta")
        for name, tensor in point.tensors().items()
    }
    batch = replace(point, **tensors, layout=layout, patch=choose_patch(layout.grid, patch, layout.geometry))
    if task is None:
        return batch
    one: dict[str, Any] = {n: torch.zeros(1, *t.shape[1:], dtype=t.dtype) for n, t in batch.tensors().items()}
    view = task.view(replace(batch, **one), [0])
    many: dict[str, Any] = {n: t.new_empty(count * len(t), *t.shape[1:], device="meta") for n, t in view.tensors().items()}
    return replace(view, **many)


def activations(
    config: ModelConfig,
    vocabulary: Vocabulary,
    batch: Batch,
    layout: LayoutConfig,
    gathered: bool,
    gpu: bool,
    adapt: Callable[[SciGPT], None] | None = None,
) -> Activations:
    """What one pass of a batch (with or without numbers) needs.

    Args:
        gathered: the blocks' parameters arrive in the precision of the pass (fsdp2, hsdp), so no copies in bfloat16 are kept of them.
        gpu: autocast as on a GPU, where it computes norms in float32.
        adapt: freezes parameters of a model without storage and inserts others.
    """
    depth, width, heads = config.resolved()
    config = replace(config, depth=min(depth, 2), width=width, heads=heads)
    with torch.device("meta"):
        model = SciGPT(config, vocabulary)
    if adapt is not None:
        adapt(model)
    if gathered and layout.bf16:
        model.blocks.to(torch.bfloat16)
    for block in model.blocks:
        block.recompute = layout.activation_checkpointing  # type: ignore[assignment]
    for norm in (m for m in model.modules() if gpu and isinstance(m, nn.LayerNorm)):
        norm.float().register_forward_pre_hook(lambda _, given: tuple(t.float() for t in given))
    # what a steady problem does otherwise is a choice by numbers, of a few per frame
    batch = replace(batch, layout=replace(batch.layout, steady=False))
    with FakeTensorMode(allow_non_fake_inputs=True), as_on_a_gpu() if gpu else nullcontext():
        model.to_empty(device="cpu")  # where attention is fused, too; the meta device has it only in pieces
        fake: dict[str, Any] = {name: torch.empty_like(tensor, device="cpu") for name, tensor in batch.tensors().items()}
        batch = replace(batch, **fake)
        with _Live(model.parameters(), fake.values()) as live:
            with torch.autocast("cpu", torch.bfloat16, enabled=layout.bf16), _saved(model) as saved:
                if layout.activation_checkpointing == "selective":
                    for block in model.blocks:
                        block.register_forward_pre_hook(lambda *_: live.keep(saved))
                        block.register_forward_hook(lambda *_: live.keep(None))
                marks: list[int] = []
                model.blocks[-1].register_forward_pre_hook(lambda *_: marks.append(saved.total()))
                model.blocks[-1].register_forward_hook(lambda *_: marks.append(saved.total()))
                loss = share_of_loss(model(batch), model.head, 1.0).loss
            total = saved.total()
            loss.backward()
    before, after = marks
    arriving = sum(t.untyped_storage().nbytes() for t in fake.values()) if gpu else 0  # the batch that is copied meanwhile
    return Activations(total + (depth - len(model.blocks)) * (after - before), live.peak - total + arriving)


class _Storages:
    """Storages that are still alive, by identity: views of one count once."""

    def __init__(self, tensors: Iterable[Tensor] = ()) -> None:
        self._found = WeakIdKeyDictionary()
        for tensor in tensors:
            self.add(tensor)

    def add(self, tensor: Tensor) -> UntypedStorage | None:
        """The tensor's storage, if it is new here."""
        storage = tensor.untyped_storage()
        if storage in self._found:
            return None
        self._found[storage] = True
        return storage

    def __contains__(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage() in self._found

    def total(self) -> int:
        """Bytes."""
        return sum(storage.nbytes() for storage in self._found)


@contextmanager
def _saved(model: nn.Module) -> Iterator[_Storages]:
    """What autograd saves of the operations inside, parameters aside."""
    own, found = _Storages(model.parameters()), _Storages()

    def pack(tensor: Tensor) -> Tensor:
        if tensor not in own:
            found.add(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield found


class _Live(TorchDispatchMode):
    """Counts the bytes of what operations make, as long as it lives, and of what is `given`. Gradients of parameters are dropped as soon as
    they are whole; the strategies keep them elsewhere."""

    def __init__(self, parameters: Iterable[nn.Parameter], given: Iterable[Tensor]) -> None:
        super().__init__()
        parameters = list(parameters)
        self.now = self.peak = 0
        self._kept: _Storages | None = None
        self._known = _Storages(parameters)
        for tensor in given:
            self._add(tensor)
        for parameter in parameters:
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(_drop)

    def __torch_dispatch__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._add(tensor)
                if self._kept is not None and func._schema.name in PRODUCTS:  # type: ignore[attr-defined]
                    self._kept.add(tensor)
        return made

    def keep(self, where: _Storages | None) -> None:
        """From here on what products give is kept there, as selective checkpointing does, unseen by the hooks of autograd."""
        self._kept = where

    def _add(self, tensor: Tensor) -> None:
        storage = self._known.add(tensor)
        if storage is not None:
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._free, storage.nbytes()).atexit = False

    def _free(self, count: int) -> None:
        self.now -= count


def _drop(parameter: Tensor) -> None:
    parameter.grad = None
