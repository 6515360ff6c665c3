"""Where an adapted model starts: the weights of a run, a checkpoint or an export, grown by what the new data brings.

Variables and coefficients that the pretrained model has never seen become rows of their own behind the ones it knows (see
`scigpt.model.tokenizer.add_rows`). Nothing that was there moves, and a variable that is absent adds exactly nothing, so on old data the
grown model gives the numbers of the old one to the last bit.
"""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from scigpt.errors import UserError
from scigpt.model import lora
from scigpt.model.backbone import ModelConfig, SciGPT, Vocabulary
from scigpt.train import checkpoint
from scigpt.train.checkpoint import Checkpoint, Tensors

if TYPE_CHECKING:
    from scigpt.data.corpus import Corpus
    from scigpt.train.config import RunConfig

_log = logging.getLogger(__name__)

TABLE = re.compile(r"tokenizer\.(kernel|present|gaps|amplitude)|conditions\.coefficient|head\.(.+\.)?kernel")
"""Parameters with a row for each variable or coefficient."""
ADDED = "_added"
EXPORT = "config.json"
"""What an export has and a run has not."""
LARGEST_SCALE = 1e30
"""Spreads between its inverse and this are numbers that float32 can hold with room for products."""
BULK = 1e-3
"""Where most values lie within so small a share of the spread, a few others decide everything."""


@dataclass(frozen=True, slots=True)
class Start:
    """Pretrained weights: whole parameters by name, of a model of `config` that knows `vocabulary` (nothing added, nothing of low rank)."""

    path: Path
    config: ModelConfig
    vocabulary: Vocabulary
    tensors: Mapping[str, Tensor]
    raw: Vocabulary
    scale: float = 0.0

    @classmethod
    def open(cls, init: str) -> Start:
        """
        Args:
            init: folder of a run (its best checkpoint, or its newest), of a checkpoint, or of an export.

        Raises:
            UserError: none of these.
        """
        from scigpt.train.run import checkpoint_of  # what opens runs opens this

        path = Path(init)
        if (path / EXPORT).is_file():
            from scigpt.export.folder import Exported

            exported = Exported.open(path)
            return cls(path, exported.config, exported.vocabulary, exported.tensors, exported.vocabulary)
        found = checkpoint_of(path)
        if found is None:
            raise nothing_at(path)
        return cls.of(found)

    @classmethod
    def of(cls, found: Checkpoint) -> Start:
        """From a checkpoint."""
        from scigpt.train.config import build

        config = found.state["config"]
        model = build(ModelConfig, config["model"], str(found.path / checkpoint.STATE), "model")
        adapt = config.get("adapt") or {}
        scale = adapt["alpha"] / adapt["rank"] if adapt.get("mode") == "lora" else 0.0
        raw = Vocabulary.from_json(found.state["vocabulary"])
        return cls(found.path, model, raw.settled(), found.model(), raw, scale)

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def __getitem__(self, name: str) -> Tensor:
        """A whole parameter: additions of low rank merged, added rows in their alphabetical place."""
        values = self.tensors[name]
        stem = name.removesuffix(".weight")
        if f"{stem}.lora_a" in self.tensors:
            return lora.merged(values, self.tensors[f"{stem}.lora_a"], self.tensors[f"{stem}.lora_b"], self.scale)
        added = name + ADDED
        if added not in self.tensors or not TABLE.fullmatch(name):
            return values
        first, order, more = self._rows(name)
        rows = torch.cat([values[: len(first) - more], self.tensors[added]])  # without the row that stands for no coefficient
        place = {n: i for i, n in enumerate(first)}
        return rows[[place[n] for n in order]]

    def _rows(self, table: str) -> tuple[list[str], list[str], int]:
        """What the rows of a table stand for as they lie, in alphabetical order, and how many of them were added."""
        if table == "conditions.coefficient":
            return [*self.raw.coefficients], [*self.vocabulary.coefficients], self.raw.added_coefficients
        return [*self.raw.units], [*self.vocabulary.units], self.raw.added

    def shape(self, name: str) -> tuple[int, ...]:
        """Of `self[name]`, without reading it."""
        own = self.tensors.shape(name) if isinstance(self.tensors, Tensors) else tuple(self.tensors[name].shape)
        if name + ADDED not in self.tensors or not TABLE.fullmatch(name):
            return own
        return (len(self._rows(name)[1]), *own[1:])

    def model(self) -> SciGPT:
        """The pretrained model itself."""
        with torch.device("meta"):
            model = SciGPT(self.config, self.vocabulary)
        model.to_empty(device="cpu")
        with torch.no_grad():
            whole = self.fill(model, self.__getitem__)
            for name, parameter in model.named_parameters():
                parameter.copy_(whole(name))
        return model

    def fill(self, model: SciGPT, initial: Callable[[str], Tensor], like: Mapping[str, str] | None = None) -> Callable[[str], Tensor]:
        """The parameters a model starts with, by name: the pretrained ones; initial ones for what is new, but for new variables that are
        said to be `like` known ones.

        Raises:
            UserError: a parameter of the backbone that is missing or has another shape.
        """
        own = {name: tuple(p.shape) for name, p in model.named_parameters()}
        for name, shape in own.items():
            if is_new(name, self):
                continue
            there = self.shape(name) if name in self else "none"
            if there != shape:
                raise UserError(f"init: {self.path} has the parameter {name} in the shape {there} and the model needs {shape}")
        copies = self._copies(model.vocabulary, like or {})

        def whole(name: str) -> Tensor:
            if not is_new(name, self):
                return self[name]
            values, stem = initial(name), name.removesuffix(ADDED)
            if copies and name.endswith(ADDED) and stem in self and not stem.startswith("conditions."):
                known = self[stem]
                for new, old in copies.items():
                    values[new] = known[old]
            return values

        return whole

    def _copies(self, vocabulary: Vocabulary, like: Mapping[str, str]) -> dict[int, int]:
        """Row among the added variables, and the known row it begins as."""
        names = [*vocabulary.units]
        known, added = names[: len(names) - vocabulary.added], names[len(names) - vocabulary.added :]
        for new, old in like.items():
            for name, there, what in ((new, added, "new to the model"), (old, known, "known to the model")):
                if name not in there:
                    near = difflib.get_close_matches(name, there, 1)
                    hint = f"did you mean {near[0]}?" if near else f"those that are: {', '.join(there) or 'none'}"
                    raise UserError(f"adapt.like: {name} is not {what}; {hint}")
        return {added.index(new): known.index(old) for new, old in like.items()}


def nothing_at(path: Path) -> UserError:
    return UserError(
        f"init: {path} is no run with a complete checkpoint, no checkpoint and no export; give the folder that `scigpt pretrain`, "
        f"`scigpt finetune` or `scigpt export` wrote"
    )


def is_new(name: str, start: Start) -> bool:
    """Whether a parameter of the adapted model has no counterpart in the pretrained one."""
    return name.endswith(ADDED) or ".lora_" in name or (name.startswith("head.") and name not in start)


def planned(config: RunConfig, corpora: Sequence[Corpus]) -> tuple[ModelConfig, Vocabulary, Start | None]:
    """Model and vocabulary of a run: of its configuration, or, with `init`, those of the pretrained model and what the corpora add.

    Raises:
        UserError: an `init` that is none; a variable in another unit; statistics of a new variable that float32 cannot work with.
    """
    brought = Vocabulary.from_corpora(corpora)
    if config.init is None:
        return config.model, brought, None
    start = Start.open(config.init)
    model = replace(start.config, head=config.model.head, head_options=config.model.head_options, attention=config.model.attention)
    vocabulary = start.vocabulary.extended(brought, f"init: {start.path}")
    new = [*vocabulary.units][len(vocabulary.units) - vocabulary.added :]
    for corpus in corpora:
        check_scales(corpus, new)
    return model, vocabulary, start


def check_scales(corpus: Corpus, names: Sequence[str]) -> None:
    """Warn of a variable among `names` of which a few values would outweigh all others.

    Raises:
        UserError: one whose spread is too large or too small for float32.
    """
    statistics: dict[str, Any] = corpus.stats.to_json()["variables"]
    for v in corpus.layout.variables:
        entry = statistics.get(v.key)
        if v.name not in names or not entry or not entry["count"]:
            continue
        spread = (entry["m2"] / entry["count"]) ** 0.5
        where = f"corpus {corpus.name} ({corpus.path}): the new variable {v.key}"
        if spread and not 1 / LARGEST_SCALE < spread < LARGEST_SCALE:
            raise UserError(f"{where} has a standard deviation of {spread:.3g} {v.unit}; give it in a unit in which it is nearer to 1")
        quantiles = sorted(float(q) for q in entry["quantiles"].values())
        if quantiles and quantiles[-1] - quantiles[0] < BULK * spread:
            _log.warning(
                "%s: most of its values lie within %.2g of its standard deviations, so a few others decide what is learned; mark faulty "
                "ones as gaps, or register a logarithmic transform for it",
                where,
                (quantiles[-1] - quantiles[0]) / spread,
            )
