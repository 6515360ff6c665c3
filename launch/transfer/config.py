"""TransferConfig: what a transfer study compares."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig

from scigpt.errors import UserError
from scigpt.evaluate.fno import FnoConfig
from scigpt.train.config import build, plain, read
from scigpt.train.report import ReportConfig

MODES = ("full", "frozen", "lora")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]*")


@dataclass(frozen=True)
class TaskSpec:
    """What a pretrained model is adapted to.

    Args:
        name: for people, and for the names of files.
        corpus: its folder; the first records of its training split are the examples.
        distance: from what was pretrained on, in a word: in, mild, strong.
        train, test: splits; every record of `test` is scored.
        valid: splits on which few-shot runs are validated, for `train.keep_best` and `train.patience`; more data than the examples.
    """

    name: str
    corpus: str
    distance: str = ""
    train: str = "train"
    test: str = "test"
    valid: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise UserError(f"name is {self.name!r}; expected letters, digits, spaces, dots and dashes")


@dataclass(frozen=True)
class TransferConfig:
    """A transfer study: zero-shot, fine-tuned, from scratch and a Fourier neural operator, at equal data and equal steps.

    Args:
        study: its folder.
        pretrain: configuration of the pretraining run, or the path of such a file; its run lies in STUDY/pretrain unless it says otherwise.
        init: a run or a checkpoint that is there, instead of `pretrain`.
        tasks: what it is adapted to.
        leave_one_out: corpora of `pretrain`, by path: for each the model is pretrained on the others and adapted to it.
        examples: numbers of records of the training split to learn from.
        seeds: repeats of every few-shot run, with seeds from 0 on: other orders of the same examples, other initial weights.
        modes: ways of fine-tuning.
        finetune: what a few-shot run changes of the configuration of pretraining, as `train.steps: 200`.
        scratch: what a run from scratch changes of that again. Steps, groups and tokens are those of fine-tuning.
        frozen, lora: what these modes change of `finetune`.
        fno: a Fourier neural operator beside them; None: none.
        workers: processes of one thread each.
        keep: keep the checkpoints of few-shot runs after they are scored.
        report: MLflow.
    """

    study: str
    examples: list[int]
    pretrain: Any = None
    init: str | None = None
    tasks: list[TaskSpec] = field(default_factory=list)
    leave_one_out: list[str] = field(default_factory=list)
    seeds: int = 3
    modes: list[str] = field(default_factory=lambda: ["full"])
    finetune: dict[str, Any] = field(default_factory=dict)
    scratch: dict[str, Any] = field(default_factory=dict)
    frozen: dict[str, Any] = field(default_factory=dict)
    lora: dict[str, Any] = field(default_factory=dict)
    fno: FnoConfig | None = None
    workers: int = 1
    keep: bool = False
    report: ReportConfig = field(default_factory=ReportConfig)

    def __post_init__(self) -> None:
        if not self.study:
            raise UserError("study is empty; give the folder of the study")
        if (self.pretrain is None) == (self.init is None):
            raise UserError("expected either pretrain (a configuration to train) or init (a run that is there)")
        if not self.tasks and not self.leave_one_out:
            raise UserError("there is nothing to transfer to; add tasks, or leave_one_out")
        if self.leave_one_out and self.pretrain is None:
            raise UserError("leave_one_out needs pretrain, as the model is trained again without each corpus")
        if not self.examples or min(self.examples) < 1 or len(set(self.examples)) < len(self.examples):
            raise UserError(f"examples is {self.examples}; expected different numbers of records, as [16, 64, 256]")
        for name in ("seeds", "workers"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; expected 1 or more")
        wrong = next((m for m in self.modes if m not in MODES), None)
        if wrong is not None or not self.modes or len(set(self.modes)) < len(self.modes):
            raise UserError(f"modes is {self.modes}; expected some of {', '.join(MODES)}")

    def to_yaml(self) -> str:
        """As it can be read again."""
        return yaml.safe_dump(json.loads(json.dumps(dataclasses.asdict(self))), sort_keys=False)


def load_transfer(path: Path, overrides: Sequence[str] = ()) -> TransferConfig:
    """A YAML file, then `key=value` overrides.

    Raises:
        UserError: a file that cannot be read, an unknown key (with the nearest name), a value of the wrong type.
    """
    given = read(path, "transfer study")
    if not isinstance(given, DictConfig):
        raise UserError(
            f"the transfer study {path} is not a list of keys with values; it needs study, examples, tasks and pretrain or init"
        )
    return build(TransferConfig, plain(given, overrides, str(path)), str(path))


def changed(data: Mapping[str, Any], changes: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Plain data with `{"train.steps": 200}` or `{"train": {"steps": 200}}` put in.

    Raises:
        UserError: a key below something that has no keys.
    """
    found: dict[str, Any] = json.loads(json.dumps(data))
    for key, value in flat(changes):
        *parents, last = key.split(".")
        inner = found
        for parent in parents:
            inner = inner.setdefault(parent, {})
            if not isinstance(inner, dict):
                raise UserError(f"{where}: {key} leads through {parent}, which has no keys; state {parent} as a whole")
        inner[last] = value
    return found


def flat(changes: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys with their values."""
    for key, value in changes.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
