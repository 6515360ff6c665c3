"""One process of a job that takes two steps with a model of about 100M parameters and says how much memory it holds."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from scigpt.data.corpus import Corpus
from scigpt.data.loader import BatchLoader
from scigpt.data.mixture import CorpusConfig, DataConfig, Mixture
from scigpt.data.normalize import Scales
from scigpt.model.backbone import ModelConfig, SciGPT, Vocabulary
from scigpt.model.initial import Initial
from scigpt.train.objective import group_weight, share_of_loss
from scigpt.train.optim import OptimConfig
from scigpt.train.processes import Processes
from scigpt.train.strategies import LayoutConfig, StrategyConfig, build


def bytes_of(field: str) -> int:
    """A line of /proc/self/status: VmRSS, or its highest value VmHWM."""
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(f"{field}:"))
    return 1024 * int(line.split()[1])


def main(path: str, strategy: StrategyConfig) -> None:
    torch.set_num_threads(1)
    corpus = Corpus.open(path)
    scales = Scales.from_stats(corpus.layout, corpus.stats.to_json(), 1)
    data = DataConfig([CorpusConfig(path)], frames=2, tokens=16, patch=4, data_width=2)
    vocabulary, config = Vocabulary.from_corpora([corpus]), ModelConfig(depth=14, width=768, heads=12)
    with Processes.join(600) as processes:
        made = build(strategy, LayoutConfig(bf16=False, activation_checkpointing=False, compile=False), processes.place)
        with torch.device("meta"):
            model = SciGPT(config, vocabulary)
        count, initial = sum(p.numel() for p in model.parameters()), Initial(model, 0)
        mesh = made.mesh
        with BatchLoader(Mixture([corpus], data, 0), [scales], 0, 1, mesh.data_rank, mesh.data_world) as loader:
            batch = next(loader)[1][0]
        before = bytes_of("VmRSS")
        made.setup(model, initial, OptimConfig())
        for _ in range(2):
            with made.accumulate(True):
                made.backward(share_of_loss(made.forward(batch), made.model.head, 2 * group_weight([batch])).loss)
            made.update(1.0, made.norm())
            made.forget()
        held, most = bytes_of("VmRSS") - before, bytes_of("VmHWM") - before
        processes.barrier()
    sys.stdout.write(json.dumps({"parameters": count, "held": held, "most": most}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], StrategyConfig(**json.loads(sys.argv[2])))
