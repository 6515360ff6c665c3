"""One process of a job that takes two steps of a toy and says, as JSON, what it holds and what `scigpt.train.memory` predicts."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

sys.path.insert(0, str(Path(__file__).parent.parent))

from toys import VOCABULARY, make_batch

from scigpt.model.backbone import ModelConfig, SciGPT
from scigpt.model.initial import Initial
from scigpt.train.memory import activations, held
from scigpt.train.objective import group_weight, share_of_loss
from scigpt.train.optim import OptimConfig
from scigpt.train.processes import Processes
from scigpt.train.strategies import LayoutConfig, StrategyConfig, build


def size(tensors: list[Any]) -> int:
    """Bytes of distinct storages, the part of this process of those that are spread."""
    return sum({s.data_ptr(): s.nbytes() for s in (_local(t).untyped_storage() for t in tensors)}.values())


def _local(tensor: Any) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def main(name: str, stage: int, passes: int, precision: str, recompute: bool) -> None:
    torch.set_num_threads(1)
    config, layout = StrategyConfig(name=name, stage=stage), LayoutConfig(precision == "bf16", recompute, False)  # type: ignore[arg-type]
    model_config, batch = ModelConfig(depth=6, width=256), make_batch((5, 1, 24, 24))
    with Processes.join(120.0) as processes:
        strategy = build(config, layout, processes.place)
        with torch.device("meta"):
            model = SciGPT(model_config, VOCABULARY)
        kept = held(model, config, strategy.mesh, layout, passes)
        one = activations(model_config, VOCABULARY, batch, layout, name == "fsdp2", gpu=False)
        with Most() as most:
            strategy.setup(model, Initial(model, 0), OptimConfig())
            gradients = 0
            for _ in range(2):
                for i in range(passes):
                    with strategy.accumulate(i + 1 == passes):
                        with strategy.autocast():
                            loss = share_of_loss(strategy.forward(batch), strategy.model.head, passes * group_weight([batch])).loss
                        strategy.backward(loss)
                norm = strategy.norm()
                gradients = size([p.grad for p in strategy.model.parameters() if p.grad is not None])
                strategy.update(1.0, norm)
                strategy.forget()
        # of ZeRO 3 the part of a parameter that stays
        parameters = [getattr(p, "ds_tensor", p) for p in strategy.model.parameters()]
        state = strategy.optimizer.inner.state
        own = {id(p) for p in parameters}
        flats = [p for p in state if id(p) not in own and name == "deepspeed" and stage < 3]
        moments = [t for entry in state.values() for t in entry.values() if isinstance(t, Tensor) and t.ndim]
        found = {"parameters": size(parameters), "gradients": gradients, "optimizer": size(flats + moments), "peak": most.bytes}
        predicted = {"parameters": kept.parameters, "gradients": kept.gradients, "optimizer": kept.optimizer}
        predicted["peak"] = sum(predicted.values()) + kept.buffers + one.saved + one.temporary
        if processes.first:
            sys.stdout.write(json.dumps({"found": found, "predicted": predicted}))


class Most(TorchDispatchMode):
    """The most bytes that tensors have at one time. Every storage is asked after every operation: some are emptied and not dropped, and
    some are dropped by threads of the backend, which torch's profiler does not see."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0
        self._seen = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and tensor.device.type == "cpu":
                self._seen[_local(tensor).untyped_storage()] = True
        self.bytes = max(self.bytes, sum(s.nbytes() for s in self._seen))
        return made


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5] == "recompute")
