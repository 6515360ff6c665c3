"""ZeRO (Rajbhandari et al., arXiv:1910.02054): DeepSpeed splits optimizer (stage 1), gradients (2) and parameters (3) over the processes.

DeepSpeed partitions, gathers and updates. Where it would differ from the other strategies it is passed by: the norm, clipping and the
refusal of a step are the loop's, bfloat16 is autocast, and checkpoints are the pieces each process holds. Whatever touches the inside of
DeepSpeed is in this file; it was written for 0.19.8 and is tested with that version.
"""

from __future__ import annotations

import logging
import math
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from scigpt.data.batches import Batch
from scigpt.errors import UserError
from scigpt.model.backbone import Prediction, SciGPT
from scigpt.model.heads import outputs, with_outputs
from scigpt.model.lora import LoRALinear
from scigpt.train.checkpoint import MODEL, OPTIMIZER, Piece
from scigpt.train.mesh import Mesh
from scigpt.train.optim import AdamW, OptimConfig
from scigpt.train.strategies import LayoutConfig, Single, Whole, allow_graphs, prepare

BUCKET = (2**20, 2**26)
"""Elements in flight at a time: those of a block, within these bounds."""
PERSISTENT = 8
"""Parameters of at most this many times the width (offsets, norms, biases) stay whole in stage 3: to gather them would cost more."""
MOMENTS = ("exp_avg", "exp_avg_sq")
INITIAL_MICRO_STEP = -1
"""INITIAL_MICRO_STEP_ID of stages 1 and 2."""


@dataclass(frozen=True, slots=True)
class _Part:
    """What this process holds of a parameter: elements `start` to `start + count` of it, at `place` of flat tensor number `flat`."""

    name: str
    flat: int
    place: int
    start: int
    count: int

    def of(self, tensor: Tensor) -> Tensor:
        return tensor.narrow(0, self.place, self.count)


class DeepSpeed(Single):
    """ZeRO of a stage over all processes.

    Args:
        offload: keep the optimizer's state in CPU memory and update there.

    Raises:
        UserError: DeepSpeed is not installed.
    """

    def __init__(self, mesh: Mesh, layout: LayoutConfig, stage: int, offload: bool) -> None:
        super().__init__(mesh, layout)
        self.stage, self.offload = stage, offload
        self._deepspeed = _imported(self.device)
        self._pending = False

    def setup(self, model: SciGPT, whole: Whole, optim: OptimConfig) -> None:
        self.model = model
        prepare(model, replace(self.layout, compile=self.layout.compile and self.stage < 3))
        # it takes LOCAL_RANK for the number of the device, also later, and srun does not set it
        os.environ["LOCAL_RANK"] = str(self.device.index or 0)
        if not dist.is_initialized():  # one process alone: DeepSpeed needs a group all the same
            backend = "nccl" if self.device.type == "cuda" else "gloo"
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
        self._shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
        groups = model.parameter_groups()  # they go by shapes, which partitioned parameters do not show; frozen ones are in none
        config = self._config(model)
        self._deepspeed.init_distributed(verbose=False)
        if self.stage == 3:
            self._partition(model, whole, config)
        else:
            model.to_empty(device=self.device)
            self._fill(whole)
        parameters = dict(model.named_parameters())
        groups = [{**group, "params": [parameters[name] for name in group["names"]]} for group in groups]
        self.optimizer = AdamW(groups, optim)
        self._root = _Root(model)
        self._engine, *_ = self._deepspeed.initialize(model=self._root, optimizer=self.optimizer.inner, config=config)
        self._zero: Any = self._engine.optimizer
        self._locate()

    def _config(self, model: SciGPT) -> dict[str, Any]:
        block, total = (sum(p.numel() for p in part.parameters()) for part in (model.blocks[0], model))
        bucket = min(max(block, BUCKET[0]), BUCKET[1], total)
        gpu = self.device.type == "cuda"
        zero: dict[str, Any] = {
            "stage": self.stage,
            "contiguous_gradients": True,
            "overlap_comm": gpu,
            "reduce_bucket_size": bucket,
            "allgather_bucket_size": bucket + bucket % 2,
            "sub_group_size": BUCKET[1] // 4,  # the update of stage 3 copies the gradients of one such group
            "stage3_prefetch_bucket_size": bucket,
            "stage3_max_live_parameters": 3 * block,
            "stage3_max_reuse_distance": block,
            "stage3_param_persistence_threshold": PERSISTENT * model.width,
            "memory_efficient_linear": False,  # it would replace a function of torch for the whole process; see _Linear
        }
        if self.offload:
            zero["offload_optimizer"] = {"device": "cpu", "pin_memory": gpu}
        return {
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": 1,  # the loop says which pass is the last
            "zero_optimization": zero,
            "zero_force_ds_cpu_optimizer": False,
        }

    def _partition(self, model: SciGPT, whole: Whole, config: dict[str, Any]) -> None:
        """Fill and split parameter by parameter: no process ever holds two of them whole."""
        init = self._deepspeed.zero.Init(module=nn.Module(), config_dict_or_path=config, dtype=torch.float32)
        for place, module in model.named_modules():
            for name, bare in list(module.named_parameters(recurse=False)):
                values = whole(f"{place}.{name}" if place else name).to(self.device)
                parameter = nn.Parameter(values, bare.requires_grad)
                setattr(module, name, parameter)
                init._convert_to_zero_parameters([parameter])
            if isinstance(module, LoRALinear):
                module.product = _product
            elif isinstance(module, nn.Linear):
                module.__class__ = _Linear  # a function of each layer's own would make each block a compiled graph of its own
        model.blocks[0].register_forward_pre_hook(_with_gradient)
        if self.layout.compile:
            allow_graphs()
        for block in model.blocks:  # gathered as one; what a block computes again is then at hand, too
            self._deepspeed.utils.set_z3_leaf_module(block, True)
            if self.layout.compile:  # the block as it is, and not the hooks that gather it
                block.forward = torch.compile(block.forward, dynamic=False)

    def _locate(self) -> None:
        """Find what this process holds: flat tensors, each of which the optimizer updates as one parameter, and what lies in them."""
        zero, names = self._zero, {id(p): name for name, p in self.optimizer.named}
        self._pieces: list[_Part] = []
        self._padding: list[tuple[int, int, int]] = []
        self._frozen = [(name, p) for name, p in self.model.named_parameters() if not p.requires_grad]  # DeepSpeed updates none of them
        flats, groups = (
            (zero.fp32_partitioned_groups_flat, zero.fp16_groups)
            if self.stage == 3
            else (zero.single_partition_of_fp32_groups, zero.bit16_groups)
        )
        self._flats: list[Tensor] = flats
        self._names = [[names[id(p)] for p in group] for group in groups]
        for i, group in enumerate(groups):
            for name, p in zip(self._names[i], group, strict=True):
                if self.stage == 3:
                    _, place, size = zero.grad_position[zero.get_param_id(p)]
                    start, count = self._own(size, p.ds_numel)
                    self._pieces.append(_Part(name, i, place, start, count))
                    self._padding.append((i, place + count, size - count))
                elif (found := p._hp_mapping) is not None:
                    here, there = found.hp_fragment_address, found.lp_fragment_address
                    self._pieces.append(_Part(name, i, here.start, there.start, there.numel))
        if self.stage == 3 and not self.offload:
            # its copy of the parameters in float32 is meant to be the parameters themselves where they are float32 already, and is not:
            # it compares a device with a device's name
            for flat, own in zip(flats, zero.fp16_partitioned_groups_flat, strict=True):
                flat.data = own

    def _own(self, size: int, total: int) -> tuple[int, int]:
        """Start and length of the part of this process, of `total` elements in parts of `size`."""
        start = min(size * self.mesh.rank, total)
        return start, min(size, total - start)

    def forward(self, batch: Batch) -> Prediction:
        if not torch.is_grad_enabled():
            with self._uncompiled():
                return self._root(batch)[-1]
        *tensors, prediction = self._engine(batch)
        return replace(prediction, distribution=with_outputs(prediction.distribution, tensors))

    @contextmanager
    def accumulate(self, last: bool) -> Iterator[None]:
        self._engine.set_gradient_accumulation_boundary(last)
        yield

    def backward(self, loss: Tensor) -> None:
        self._pending = True
        self._engine.backward(loss * self.mesh.world)  # it divides by the number of processes

    def _gradients(self) -> list[Tensor]:
        """This process's share of the global gradient, after the last pass; what pads it is zero."""
        zero = self._zero
        if self.offload:
            if self.device.type == "cuda":
                torch.cuda.synchronize()  # they are still being copied
            found = [cast("Tensor", flat.grad) for flat in self._flats]
        elif self.stage == 3:
            found = list(zero.grad_partitions_flat_buffer.split([flat.numel() for flat in self._flats]))
        else:
            found = [g for group in zero.averaged_gradients.values() for g in group]
        for flat, place, size in self._padding:  # arrives as it was found in memory
            found[flat].narrow(0, place, size).zero_()
        return found

    def norm(self) -> float:
        here = nn.utils.get_total_norm(self._gradients(), foreach=True)
        squares = here.to(self.device, torch.float64).square()
        dist.all_reduce(squares)
        return float(squares.sqrt())

    def update(self, largest: float, norm: float) -> None:
        zero, gradients = self._zero, self._gradients()
        scale = torch.clamp(largest / (torch.tensor(norm, device=gradients[0].device) + 1e-6), max=1.0)
        torch._foreach_mul_(gradients, scale)
        if self.offload:  # what it would judge the step by once more
            zero.reset_cpu_buffers()
        self._engine.step()
        assert not zero.overflow, "DeepSpeed has skipped a step that the guard has passed"
        self._pending = False

    def forget(self) -> None:
        """As DeepSpeed does where it skips a step by itself."""
        zero = self._zero
        if not self._pending:
            return
        if self.stage == 3:
            zero._pre_step()
            zero._partition_all_parameters()
            zero.averaged_gradients = {}
        else:
            zero.micro_step_id = INITIAL_MICRO_STEP
            zero.averaged_gradients = dict.fromkeys(zero.averaged_gradients)
            zero.all_grad_tensors = dict.fromkeys(zero.all_grad_tensors)
        zero.zero_grad()
        if self.offload:
            zero.reset_cpu_buffers()
        self._pending = False

    def state(self) -> Iterator[Piece]:
        state = self.optimizer.inner.state
        for part in self._pieces:
            shape, flat = self._shapes[part.name], self._flats[part.flat]
            yield Piece(MODEL, part.name, shape, part.start, part.of(flat.detach()))
            if flat in state:
                for kind in MOMENTS:
                    yield Piece(OPTIMIZER, f"{kind}.{part.name}", shape, part.start, part.of(state[flat][kind]))
        for name, p in self._frozen:  # in stage 3 its part lies apart from those that are updated, else every process has all of it
            values = cast("Any", p).ds_tensor if self.stage == 3 else p.detach().view(-1)
            total = math.prod(self._shapes[name])
            start, count = self._own(math.ceil(total / self.mesh.world), total)
            yield Piece(MODEL, name, self._shapes[name], start, values.narrow(0, 0 if self.stage == 3 else start, count))
        if self.mesh.rank == 0:
            for flat, names in zip(self._flats, self._names, strict=True):
                if flat in state:
                    for name in names:
                        yield Piece(OPTIMIZER, f"step.{name}", (), 0, state[flat]["step"].reshape(-1))

    def restore_optimizer(self, tensors: Mapping[str, Tensor]) -> None:
        state = self.optimizer.inner.state
        for flat, names in zip(self._flats, self._names, strict=True):
            # the parameters of a flat tensor are updated together
            steps = [float(tensors[f"step.{name}"]) for name in names if f"step.{name}" in tensors]
            if steps:
                made: dict[str, Tensor] = {kind: torch.zeros_like(flat, requires_grad=False) for kind in MOMENTS}
                state[flat] = {"step": torch.tensor(max(steps), device=flat.device), **made}
        for part in self._pieces:
            for kind in MOMENTS:
                if (name := f"{kind}.{part.name}") in tensors:
                    part.of(state[self._flats[part.flat]][kind]).copy_(tensors[name].reshape(-1)[part.start : part.start + part.count])


class _Root(nn.Module):
    """What DeepSpeed is given in place of the model. Its hooks know tensors only, so the modules that return objects get none; they hold
    no parameters themselves."""

    def __init__(self, model: SciGPT) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> tuple[Any, ...]:
        """The tensors of the forecast, then all of it."""
        prediction = self.model(batch)
        return *outputs(prediction.distribution), prediction

    def children(self) -> Iterator[nn.Module]:
        for child in self.model.children():
            if child is self.model.head:
                yield from child.children()
            else:
                yield child


class _Linear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return _product(x, self.weight, self.bias)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear` whose backward pass keeps the parameter, not its gathered values: these are free when the layer is done."""
    from deepspeed.runtime.zero.linear import zero3_linear_wrap

    return zero3_linear_wrap(x, weight, bias)


def _with_gradient(block: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """What goes into a block asks for a gradient, even where nothing before it is trained: torch calls the hook that ends the backward pass
    of a block when the gradient of its input is there. Without one it is called first, and DeepSpeed takes the parameters away too soon."""
    x, *others = arguments
    return (x if x.requires_grad or not torch.is_grad_enabled() else x.detach().requires_grad_(), *others)


def _imported(device: torch.device) -> Any:
    """DeepSpeed, for this device and silent but for warnings."""
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    try:
        import deepspeed
    except ImportError:
        raise UserError("strategy.name=deepspeed needs DeepSpeed: pip install 'scigpt[deepspeed]', or set strategy=fsdp2") from None
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)  # 0.19.8 calls what torch 2.13 renames
    # none of the operations that it would compile when it is first used is needed; even to ask which it could takes long
    deepspeed.ops.__compatible_ops__ = {}
    return deepspeed
