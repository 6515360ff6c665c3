"""RunConfig: everything one pretraining run is made of, and how YAML and `key=value` fill it in."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeGuard, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from scigpt.adapt.config import AdaptConfig
from scigpt.data.mixture import DataConfig
from scigpt.data.tasks import TaskConfig
from scigpt.errors import UserError
from scigpt.model.backbone import ModelConfig, Recompute
from scigpt.train.float8 import check_width
from scigpt.train.guard import GuardConfig
from scigpt.train.optim import OptimConfig
from scigpt.train.report import ReportConfig
from scigpt.train.strategies import LayoutConfig, StrategyConfig

T = TypeVar("T")


@dataclass(frozen=True)
class TrainConfig:
    """The loop.

    Args:
        steps: optimizer steps of the whole run.
        groups: groups per optimizer step; the step's loss is the mean of the groups' means. A group is of one corpus, so several of them
            keep the gradient from swinging between tasks.
        micro_batch: samples per forward pass; None passes a whole group at once. It changes memory, not the gradient.
        precision: `bf16` runs matrix products in bfloat16; parameters and normalisation stay float32.
        clip: largest norm of the gradient.
        hide_coefficients: share of samples whose coefficients are not told, so that the model works with and without them.
        validate_every, validate_windows: steps between validations, windows of each corpus in one.
        checkpoint_every, keep: steps between checkpoints, number of newest ones kept.
        keep_every: checkpoints of steps that are multiples of it are kept for good; None: none.
        keep_steps: checkpoints are written after these steps too, and kept for good: where other runs shall branch off.
        branch_from: checkpoint (`RUN/checkpoints/step-00000400`) of another run, the trunk, to go on from instead of from the beginning.
            Up to there both must be the same run; only the number of steps and the decay of the learning rate may differ. What comes out is
            what this configuration gives without a trunk.
        keep_best: a checkpoint is written after every validation whose score is the lowest so far, and kept until a better one is there;
            it is the one that `evaluate` and others take.
        patience: validations without a lower score after which the run ends; None: it runs to its last step.
        rollout: forecasts ahead that the model is trained on. With more than 1, frames of the input are replaced by the model's own
            forecasts of them, made without gradient from forecasts in turn (the push-forward trick, Brandstetter et al., arXiv:2202.03376,
            section 3.2).
        rollout_ramp: share of the run over which the forecasts ahead grow from 1 to `rollout`.
        log_every: steps between two batches of metrics for MLflow.
        threads: CPU threads of torch; None leaves torch's choice. Another number rounds differently.
        activation_checkpointing: true keeps only the inputs of each block for the backward pass and computes the rest again: an eighth of
            their memory or less, a third more work. `selective` keeps what matrix products and attention give as well: half the memory, a
            few percent more time.
        compile: compile each block with torch.compile.
        float8: in training, matrix products of the blocks in float8, by torchao (the extra `float8`), with one scale for each tensor. For
            widths of 1536 and more, with `precision` bf16 and, on a GPU, `compile`; not with deepspeed, nor where weights are frozen. What
            needs no gradient stays in bfloat16, validation among it, and so do passes whose number of tokens is no multiple of 16.
        watchdog: seconds without a finished step after which the stacks of all threads are written to RUN/stacks and the process ends.
    """

    steps: int = 1000
    groups: int = 4
    micro_batch: int | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    clip: float = 1.0
    hide_coefficients: float = 0.1
    validate_every: int = 200
    validate_windows: int = 32
    checkpoint_every: int = 200
    keep: int = 2
    keep_every: int | None = None
    keep_steps: list[int] = field(default_factory=list)
    branch_from: str | None = None
    keep_best: bool = False
    patience: int | None = None
    rollout: int = 1
    rollout_ramp: float = 0.5
    log_every: int = 10
    threads: int | None = None
    activation_checkpointing: Recompute = False
    compile: bool = False
    float8: bool = False
    watchdog: float = 1800.0

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if (
                isinstance(value, (int, float))
                and not isinstance(value, bool)
                and value <= 0
                and f.name not in ("hide_coefficients", "rollout_ramp")
            ):
                raise UserError(f"{f.name} is {value}; expected a number above 0")
        if any(step < 1 for step in self.keep_steps):
            raise UserError(f"keep_steps is {self.keep_steps}; expected steps of 1 or more")
        if self.threads is not None and self.threads > 1024:
            raise UserError(f"threads is {self.threads}; expected at most 1024, and best the number of processors")
        for name in ("hide_coefficients", "rollout_ramp"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} is {getattr(self, name)}; expected a share between 0 and 1")
        if self.float8 and self.precision != "bf16":
            raise UserError(f"float8 is true and precision is {self.precision}; set precision to bf16, or float8 to false")

    def pinned(self, step: int) -> bool:
        """Whether the checkpoint of a step stays for good."""
        return step in self.keep_steps or (self.keep_every is not None and step % self.keep_every == 0)

    def pushed(self, step: int) -> int:
        """How often the frames of the input are replaced by forecasts in step `step` (from 0): 0 to `rollout - 1`."""
        growing = self.rollout_ramp * self.steps
        return self.rollout - 1 if step >= growing else int(self.rollout * step / growing)

    @property
    def layout(self) -> LayoutConfig:
        return LayoutConfig(self.precision == "bf16", self.activation_checkpointing, self.compile, self.float8)


@dataclass(frozen=True)
class RunConfig:
    """One run. `run` is its folder; `seed` decides the initial weights, the order of the data and every other draw.

    With `init` (the folder of a run, a checkpoint or an export) it starts from pretrained weights: size and shape of the model are theirs
    (of `model` only `head`, `head_options` and `attention` count), and `adapt` says what is trained.
    """

    run: str
    data: DataConfig
    seed: int = 0
    init: str | None = None
    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    strategy: StrategyConfig = field(default_factory=StrategyConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)
    report: ReportConfig = field(default_factory=ReportConfig)

    def __post_init__(self) -> None:
        if not self.train.float8:
            return
        if self.strategy.name == "deepspeed":
            raise UserError("train.float8 does not go with strategy deepspeed; set strategy to fsdp2, or train.float8 to false")
        if self.adapt.mode != "full":
            raise UserError(f"train.float8 trains all weights and adapt.mode is {self.adapt.mode}; set train.float8 to false")
        if self.init is None:  # else the width is that of a model yet to be opened
            check_width(self.model.resolved()[1])

    def to_json(self) -> dict[str, Any]:
        return json.loads(json.dumps(dataclasses.asdict(self)))

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.to_json(), sort_keys=False)


def load(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """A YAML file over the defaults, then `key=value` overrides (`train.steps=500`, `data.corpora.0.weight=2`).

    Raises:
        UserError: a file that cannot be read, an unknown key (with its full path and the nearest name), a value of the wrong type.
    """
    return build(RunConfig, plain(read(path, "config"), overrides, str(path)), str(path))


def read(path: Path, what: str) -> Any:
    """A YAML file, its references not yet resolved; `what` it is, for the reader of an error.

    Raises:
        UserError: a file that cannot be read or is not YAML.
    """
    try:
        return OmegaConf.load(path)
    except OSError as error:
        raise UserError(f"the {what} {path} cannot be read ({error.strerror}); give the path of a YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"the {what} {path} is not valid YAML: {' '.join(str(error).split())}") from None


def plain(given: Any, overrides: Sequence[str], source: str) -> Any:
    """Plain data with `key=value` overrides put in, for `build`; `source` it is from.

    Raises:
        UserError: an override that is none or does not fit, a reference that leads nowhere.
    """
    if isinstance(given, DictConfig) and isinstance(given.get("strategy"), str):
        given.strategy = {"name": given.strategy}
    for override in overrides:
        key, equals, _ = override.partition("=")
        key = "strategy.name" if key == "strategy" else key
        if not equals or not key:
            raise UserError(f"{override!r} is not an override; expected key=value, as in train.steps=500")
        try:
            value = OmegaConf.from_dotlist(["value=" + override.partition("=")[2]])["value"]
            OmegaConf.update(given, key, value, force_add=True)
        except (OmegaConfBaseException, yaml.YAMLError, TypeError, ValueError, IndexError, AssertionError) as error:
            raise UserError(f"the override {override!r} cannot be applied to {source}: {str(error).splitlines()[0]}") from None
    try:
        return OmegaConf.to_container(given, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(f"{source} cannot be resolved: {' '.join(str(error).split())}") from None


def build(cls: type[T], data: Any, source: str, where: str = "") -> T:
    """A config dataclass from plain data; nested dataclasses, lists of them and plain fields, each checked by OmegaConf.

    OmegaConf forgets where in a list an error happened, so the walk over nested configs is ours.
    """
    place = where or "the config"
    if not isinstance(data, Mapping):
        raise UserError(f"{source}: {place} is {data!r}; expected keys of {cls.__name__} with values")
    hints = get_type_hints(cls)
    values: dict[str, Any] = {}
    for key, value in data.items():
        path = f"{where}.{key}" if where else str(key)
        if key not in hints:
            near = difflib.get_close_matches(str(key), hints, 1, 0.5)
            hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(hints)}"
            raise UserError(f"{source}: unknown key {path}; {hint}")
        values[str(key)] = _value(cls, str(key), hints[key], value, source, path)
    for f in dataclasses.fields(cls):  # type: ignore[arg-type]
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and f.name not in values:
            raise UserError(f"{source}: {where + '.' if where else ''}{f.name} is missing; {place} needs it")
    try:
        return cls(**values)
    except UserError as error:
        raise UserError(f"{source}: {where + ': ' if where else ''}{error}") from None


def _value(cls: type, key: str, hint: Any, value: Any, source: str, path: str) -> Any:
    inner = [a for a in get_args(hint) if a is not type(None)] if get_origin(hint) in (Union, types.UnionType) else [hint]
    if value is not None and len(inner) == 1:
        only: Any = inner[0]
        if _is_config(only):
            return build(only, value, source, path)
        item: Any = (get_args(only) or (None,))[0]
        if get_origin(only) in (list, tuple) and _is_config(item):
            if not isinstance(value, list):
                raise UserError(f"{source}: {path} is {value!r}; expected a list of {item.__name__}")
            built: list[Any] = [build(item, v, source, f"{path}[{i}]") for i, v in enumerate(value)]
            return get_origin(only)(built)
    try:
        merged: Any = OmegaConf.merge(OmegaConf.structured(cls), {key: value})
    except (OmegaConfBaseException, TypeError, ValueError) as error:
        reason = "expected a list" if "ListConfig" in str(error) else str(getattr(error, "msg", None) or error).splitlines()[0]
        raise UserError(f"{source}: {path} is {value!r}; {reason[0].lower() + reason[1:]}") from None
    checked = merged[key]
    if isinstance(checked, float) and not math.isfinite(checked):
        raise UserError(f"{source}: {path} is {checked}; expected a finite number")
    return OmegaConf.to_object(checked) if OmegaConf.is_config(checked) else checked


def _is_config(hint: Any) -> TypeGuard[type]:
    return isinstance(hint, type) and dataclasses.is_dataclass(hint)


FREE = re.compile(
    r"run|report\..*|strategy\..*"
    r"|train\.(validate_every|validate_windows|checkpoint_every|keep|keep_every|keep_steps\.\d+|branch_from|keep_best|log_every|micro_batch|threads|activation_checkpointing|compile|float8|watchdog)"
    r"|data\.(prefetch|corpora\.\d+\.(path|valid.*))"
)
"""What a run may change when it goes on. None of it changes the order of the data (a corpus that has moved is known by its fingerprint, a
trunk by its configuration); `strategy`, `micro_batch`, `threads`, `compile` and `float8` change the rounding."""


def differences(old: RunConfig, new: RunConfig) -> list[str]:
    """Keys (`train.steps: 100 -> 50`) that differ and may not, so that the run cannot go on. More steps are allowed."""
    before, after = dict(_flat(old.to_json())), dict(_flat(new.to_json()))
    changed = []
    for key in sorted(before.keys() | after.keys()):
        a, b = before.get(key), after.get(key)
        grown = key == "train.steps" and a is not None and b is not None and b >= a
        if a != b and not FREE.fullmatch(key) and not grown:
            changed.append(f"{key}: {a} -> {b}")
    return changed


def _flat(data: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else None
    if items is None:
        yield prefix, data
        return
    for key, value in items:
        yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))


def flatten(config: RunConfig) -> dict[str, Any]:
    """Dotted keys to values: the parameters of a report."""
    return dict(_flat(config.to_json()))
