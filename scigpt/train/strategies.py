"""Strategies: how the model and the optimizer are laid out over the processes of a run.

The loop calls nothing else of torch that would differ between one process and many. Every strategy begins with the same weights, takes
the gradient of the same global mean, and hands over its state in the same form: contiguous pieces of tensors by parameter name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from scigpt.data.batches import Batch
from scigpt.errors import UserError
from scigpt.train import float8
from scigpt.train.checkpoint import MODEL, OPTIMIZER, Piece
from scigpt.train.mesh import Mesh
from scigpt.train.optim import AdamW, OptimConfig
from scigpt.train.processes import Place

if TYPE_CHECKING:
    from scigpt.model.backbone import Prediction, Recompute, SciGPT

GRAPHS = 256
"""Compiled graphs of a block: one for each shape of the data. torch's own limit is 8, after which it would silently compile no more."""
Whole = Callable[[str], Tensor]
"""A whole parameter by name."""
Name = Literal["single", "ddp", "fsdp2", "hsdp", "deepspeed"]


@dataclass(frozen=True)
class StrategyConfig:
    """How a run is spread over processes. `strategy=fsdp2` is short for `strategy.name=fsdp2`.

    Args:
        name: `single`: one process. `ddp`: every process holds the whole model. `fsdp2`: each holds a part of parameters, gradients and
            optimizer. `hsdp`: parts within a group of processes, copies across groups. `deepspeed`: ZeRO.
        processes: processes to start on this machine when no launcher (torchrun, srun) has started them; None: one for each GPU, or one.
        shard: of hsdp: processes that hold one copy of the model together; None: those of a node.
        reduce_every_pass: of fsdp2 and hsdp: exchange gradients after every forward and backward pass. By default the passes of a step are
            summed up first: less traffic, but each process holds whole gradients of the model meanwhile.
        stage: of deepspeed: 1 splits the optimizer, 2 the gradients too, 3 the parameters too.
        offload: of deepspeed: the optimizer's state in CPU memory.
        timeout: seconds that a collective waits for a process before it is an error.
    """

    name: Name = "single"
    processes: int | None = None
    shard: int | None = None
    reduce_every_pass: bool = False
    stage: int = 1
    offload: bool = False
    timeout: float = 600.0

    def __post_init__(self) -> None:
        if self.stage not in (1, 2, 3):
            raise UserError(f"stage is {self.stage}; expected ZeRO stage 1, 2 or 3")
        for name in ("processes", "shard"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} is {value}; expected 1 or more")
        if not self.timeout > 0:
            raise UserError(f"timeout is {self.timeout}; expected seconds above 0")
        if self.name == "single" and (self.processes or 1) > 1:
            raise UserError(f"name is single and processes is {self.processes}; set name to ddp, fsdp2, hsdp or deepspeed")

    def mesh(self, place: Place) -> Mesh:
        """The processes of a job along `replicate` and `shard`.

        Raises:
            UserError: several processes of `single`, or a `shard` that does not divide their number.
        """
        if self.name == "single" and place.world > 1:
            raise UserError(
                f"strategy single trains in one process and this job has {place.world}; set strategy to ddp, fsdp2, hsdp or deepspeed"
            )
        world = place.world
        shard = {"fsdp2": world, "deepspeed": world, "hsdp": min(self.shard or place.local_world, world)}.get(self.name, 1)
        if place.world % shard:
            raise UserError(f"strategy.shard={shard} does not divide the {place.world} processes of this job; choose a number that does")
        return Mesh({"replicate": place.world // shard, "shard": shard}, place.rank)


@dataclass(frozen=True, slots=True)
class LayoutConfig:
    """What is done to the model before it is laid out, the same for every strategy."""

    bf16: bool
    activation_checkpointing: Recompute
    compile: bool
    float8: bool = False


class Strategy(Protocol):
    """What the loop asks of one process of a mesh. `model` is the module with the parameters' own names; call `forward` instead of it."""

    device: torch.device
    mesh: Mesh
    model: SciGPT
    optimizer: AdamW

    def setup(self, model: SciGPT, whole: Whole, optim: OptimConfig) -> None:
        """Lay out a model without storage (on the meta device), fill it, and make the optimizer."""

    def forward(self, batch: Batch) -> Prediction:
        """The model on a batch of this process."""

    def autocast(self) -> AbstractContextManager[object]:
        """Context of a forward pass."""

    def place(self, batch: Batch) -> Batch:
        """The batch on this process's device."""

    def placed(self, batches: Sequence[Batch]) -> Iterator[Batch]:
        """Batches on this process's device. On a GPU each is copied while the one before it is worked on, so one more is held there."""

    def accumulate(self, last: bool) -> AbstractContextManager[object]:
        """Context of one forward and backward pass; gradients are summed over the processes in the last one only."""

    def backward(self, loss: Tensor) -> None:
        """Accumulate gradients. Over all processes they add up: the loss is already a share of the global mean."""

    def norm(self) -> float:
        """Norm of the global gradient, the same number on every process."""

    def update(self, largest: float, norm: float) -> None:
        """One optimizer step with the gradient clipped to the norm `largest`; `norm` is what `norm()` returned."""

    def forget(self) -> None:
        """Drop the gradients."""

    def state(self) -> Iterator[Piece]:
        """The pieces of parameters and optimizer that this process writes; together the processes write every element once."""

    def restore_optimizer(self, tensors: Mapping[str, Tensor]) -> None:
        """Inverse of `state` for the optimizer: whole `exp_avg.NAME`, `exp_avg_sq.NAME` and `step.NAME` of parameters that were updated."""


def build(config: StrategyConfig, layout: LayoutConfig, place: Place) -> Strategy:
    """The strategy of a configuration, for the process at `place`.

    Raises:
        UserError: see `StrategyConfig.mesh`; deepspeed that is not installed.
    """
    mesh = config.mesh(place)
    if config.name == "deepspeed":
        from scigpt.train.zero import DeepSpeed

        return DeepSpeed(mesh, layout, config.stage, config.offload)
    if place.world == 1:  # nothing to spread
        return Single(mesh, layout)
    return Replicated(mesh, layout) if config.name == "ddp" else Sharded(mesh, layout, config.reduce_every_pass)


def local_device() -> torch.device:
    """The GPU of this process when there is one, else the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


class Single:
    """One process on one device, and what the strategies built on torch have in common."""

    model: SciGPT
    optimizer: AdamW

    def __init__(self, mesh: Mesh, layout: LayoutConfig) -> None:
        self.mesh, self.layout, self.device = mesh, layout, local_device()
        self._copies = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None

    def setup(self, model: SciGPT, whole: Whole, optim: OptimConfig) -> None:
        self.model = model
        prepare(model, self.layout)
        self._spread(model)
        model.to_empty(device=self.device)
        self._fill(whole)
        self._parts = list(model.named_parameters())  # as they are spread; after a forward pass a module may show the gathered ones
        self.optimizer = AdamW(model.parameter_groups(), optim)
        self._wrap(model)

    def _spread(self, model: SciGPT) -> None:
        """Divide the parameters, while they have no storage."""

    def _wrap(self, model: SciGPT) -> None:
        """Whatever must see the parameters filled."""

    def _fill(self, whole: Whole) -> None:
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                values, start = local(parameter)
                values.copy_(whole(name).reshape(-1)[start : start + values.numel()])

    def forward(self, batch: Batch) -> Prediction:
        with self._uncompiled():
            return self.model(batch)

    def _uncompiled(self) -> AbstractContextManager[object]:
        """Without gradient the blocks run as they are: a second graph of each shape, and one of the last batch of a split, would take
        longer to make than validation takes."""
        needed = not self.layout.compile or torch.is_grad_enabled()
        return nullcontext() if needed else torch.compiler.set_stance("force_eager")

    def autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.layout.bf16)

    def place(self, batch: Batch) -> Batch:
        return batch if self.device.type == "cpu" else batch.to(self.device, non_blocking=True)

    def placed(self, batches: Sequence[Batch]) -> Iterator[Batch]:
        if self._copies is None:
            yield from map(self.place, batches)
            return
        work, waiting = torch.cuda.current_stream(self.device), iter(batches)

        def copied() -> Batch | None:
            batch = next(waiting, None)
            with torch.cuda.stream(self._copies):
                return None if batch is None else self.place(batch)

        arriving = copied()
        while arriving is not None:
            work.wait_stream(self._copies)
            arriving.used_by(work)
            here, arriving = arriving, copied()
            yield here

    def accumulate(self, last: bool) -> AbstractContextManager[object]:
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        # the backends divide by the number of processes
        (loss * self.mesh.world if self.mesh.world > 1 else loss).backward()

    def norm(self) -> float:
        found = nn.utils.get_total_norm([p.grad for p in self.optimizer.parameters if p.grad is not None], foreach=True)
        return float(found.full_tensor() if isinstance(found, DTensor) else found)

    def update(self, largest: float, norm: float) -> None:
        nn.utils.clip_grads_with_norm_(self.optimizer.parameters, largest, torch.full((), norm, device=self.device), foreach=True)
        self.optimizer.inner.step()

    def forget(self) -> None:
        self.optimizer.zero_grad()

    def state(self) -> Iterator[Piece]:
        if self.mesh.coordinates["replicate"] > 0:
            return
        for name, parameter in self._parts:  # frozen ones too: a checkpoint is a whole model
            values, start = local(parameter.detach())
            shape = tuple(parameter.shape)
            yield Piece(MODEL, name, shape, start, values)
            for kind, tensor in self.optimizer.inner.state.get(parameter, {}).items():
                if tensor.ndim:
                    yield Piece(OPTIMIZER, f"{kind}.{name}", shape, start, local(tensor)[0])
                elif self.mesh.rank == 0:
                    yield Piece(OPTIMIZER, f"{kind}.{name}", (), 0, tensor.reshape(-1))

    def restore_optimizer(self, tensors: Mapping[str, Tensor]) -> None:
        for name, parameter in self.optimizer.named:
            if f"step.{name}" not in tensors:
                continue
            state: dict[str, Tensor] = {"step": tensors[f"step.{name}"].to(self.device)}
            for kind in ("exp_avg", "exp_avg_sq"):
                state[kind] = torch.zeros_like(parameter)
                values, start = local(state[kind])
                values.copy_(tensors[f"{kind}.{name}"].reshape(-1)[start : start + values.numel()])
            self.optimizer.inner.state[parameter] = state


class Replicated(Single):
    """DDP: every process holds everything and takes its part of the batch."""

    def _wrap(self, model: SciGPT) -> None:
        # With `find_unused_parameters` the buckets stay as they are made. Otherwise DDP lays them out anew after the first step of each
        # launch, and with it the order of additions: a resumed run of three or more processes would differ in its last bits.
        module = cast("nn.Module", model)
        self._ddp = DistributedDataParallel(module, find_unused_parameters=True, gradient_as_bucket_view=True, init_sync=False)

    def forward(self, batch: Batch) -> Prediction:
        return self._ddp(batch) if torch.is_grad_enabled() else super().forward(batch)

    def accumulate(self, last: bool) -> AbstractContextManager[object]:
        return nullcontext() if last else self._ddp.no_sync()

    def forget(self) -> None:
        # in place: passes without exchange would otherwise lay a second copy of the gradients beside the buckets
        self.optimizer.inner.zero_grad(set_to_none=False)


class Sharded(Single):
    """FSDP2, and HSDP where the mesh has copies: a process holds a part of each parameter, and one block is gathered at a time."""

    def __init__(self, mesh: Mesh, layout: LayoutConfig, reduce_every_pass: bool = False) -> None:
        super().__init__(mesh, layout)
        self._every_pass = reduce_every_pass

    def _spread(self, model: SciGPT) -> None:
        sizes = {name: n for name, n in self.mesh.sizes.items() if name == "shard" or n > 1}
        mesh = init_device_mesh(self.device.type, tuple(sizes.values()), mesh_dim_names=tuple(sizes))
        # in bfloat16 the blocks are gathered in it, half the traffic: what autocast would round anyway; sums of gradients stay float32
        half = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False)
        policy = half if self.layout.bf16 else MixedPrecisionPolicy()
        for block in model.blocks:
            fully_shard(block, mesh=mesh, mp_policy=policy)
        fully_shard(cast("nn.Module", model), mesh=mesh)

    @contextmanager
    def accumulate(self, last: bool) -> Iterator[None]:
        model = cast("FSDPModule", self.model)
        model.set_requires_gradient_sync(last or self._every_pass)
        model.set_is_last_backward(last)
        yield


def prepare(model: SciGPT, layout: LayoutConfig) -> None:
    """Products in float8, activation checkpointing, then compilation, block by block; what shards the model comes after. All blocks share
    their graphs.

    Raises:
        UserError: see `scigpt.train.float8.convert`.
    """
    if layout.float8:
        float8.convert(model, layout.compile)
    if layout.compile:
        allow_graphs()
    for block in model.blocks:
        block.recompute = layout.activation_checkpointing  # type: ignore[assignment]
        if layout.compile:
            block.compile(dynamic=False)


def allow_graphs() -> None:
    """Raise torch's limit of compiled graphs to `GRAPHS`, for this process."""
    import torch._dynamo.config as compiler

    compiler.recompile_limit = max(compiler.recompile_limit, GRAPHS)
    compiler.accumulated_recompile_limit = max(compiler.accumulated_recompile_limit, GRAPHS)


def local(tensor: Tensor) -> tuple[Tensor, int]:
    """This process's part of a tensor, flat and without a copy, and where it begins in the flattened whole."""
    if not isinstance(tensor, DTensor):
        return tensor.detach().view(-1), 0
    mesh = tensor.device_mesh
    rank, count = mesh.get_local_rank("shard"), mesh["shard"].size()
    rows = math.ceil(tensor.shape[0] / count)  # as torch.chunk: the last parts may be short or empty
    return cast("DTensor", tensor.detach()).to_local().view(-1), min(rank * rows, tensor.shape[0]) * math.prod(tensor.shape[1:])
