"""Model and corpora for a `lightning.Trainer`.

The loop is the Trainer's: devices, precision, clipping, accumulation, checkpoints, stopping. Model, order of the data, loss, parameter
groups and schedule are ours, so `Trainer(max_steps=train.steps, gradient_clip_val=train.clip, accumulate_grad_batches=train.groups)` takes
the steps that `scigpt.train.engine` takes.
"""

from __future__ import annotations

import itertools
import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any, Self

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from scigpt.adapt import trainable
from scigpt.adapt.config import AdaptConfig
from scigpt.adapt.start import is_new, planned
from scigpt.data.batches import Batch
from scigpt.data.corpus import Corpus
from scigpt.data.loader import BatchLoader, evaluation_batches, scales_of, window_that_fits, windows
from scigpt.data.mixture import DataConfig, Mixture
from scigpt.data.tasks import TaskConfig, build_task
from scigpt.errors import UserError
from scigpt.model.backbone import Prediction, SciGPT, Vocabulary
from scigpt.model.initial import Initial
from scigpt.train import checkpoint, strategies
from scigpt.train.config import RunConfig, build
from scigpt.train.objective import group_weight, share_of_loss
from scigpt.train.optim import AdamW, OptimConfig
from scigpt.train.rollout import push_forward
from scigpt.train.run import with_model
from scigpt.train.validate import sums


class SciGPTModule(LightningModule):
    """SciGPT with its objective and its optimizer; `model` is the plain network. Logs `train_loss`, `valid_loss` and `valid_vrmse`.

    The schedule of the learning rate spans the steps that the Trainer is told to take.

    Args:
        config: of a run, or its plain data. Of `train` only `rollout`, `rollout_ramp`, `activation_checkpointing` and `compile` count: the
            Trainer has its own words for the rest. With `init` the module starts from pretrained weights, and `adapt` says what is
            trained.
        vocabulary: what the model knows (or its plain data); None: what the corpora of `config` hold, behind what `init` knows.
        new: the module was adapted, and these parameters were none of the pretrained ones; for Lightning's `load_from_checkpoint`.

    Raises:
        UserError: a configuration, corpus or `init` that a user can mend.
    """

    def __init__(
        self,
        config: RunConfig | Mapping[str, Any],
        vocabulary: Vocabulary | Mapping[str, Any] | None = None,
        new: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        config = config if isinstance(config, RunConfig) else build(RunConfig, config, "SciGPTModule")
        start = None
        if isinstance(vocabulary, Mapping):
            vocabulary = Vocabulary.from_json(vocabulary)
        if vocabulary is None:
            config = with_model(config)
            shape, vocabulary, start = planned(config, [Corpus.open(Path(c.path)) for c in config.data.corpora])
            config = replace(config, model=shape)
        elif config.init is not None:
            raise UserError(f"init is {config.init} and a vocabulary is given; leave that out, it follows from init and the corpora")
        with torch.device("meta"):
            model = SciGPT(config.model, vocabulary)
        if start is not None:
            new = [name for name, _ in model.named_parameters() if is_new(name, start)]
        if new is not None:
            trainable.prepare(model, config.adapt, frozenset(new).__contains__)
        strategies.prepare(model, replace(config.train.layout, float8=False))  # which needs a package that the run alone had
        initial = Initial(model, config.seed)
        whole = initial if start is None else start.fill(model, initial)
        model.to_empty(device="cpu")
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(whole(name))
        self.model, self.config = model, replace(config, init=None)
        self._sums: dict[str, list[float]] = {}
        self._steps = config.train.steps
        # plain data: a checkpoint of Lightning can then be read with weights_only=True
        self.save_hyperparameters({"config": self.config.to_json(), "vocabulary": vocabulary.to_json(), "new": new})

    @classmethod
    def from_run(cls, path: str | Path, optim: OptimConfig | None = None) -> Self:
        """The model of a run: its best checkpoint, where it keeps that, or its newest; additions of low rank are merged.

        For data with variables that the run has not seen, give a configuration with `init` to the class instead.

        Args:
            path: folder of the run.
            optim: in place of the run's.

        Raises:
            UserError: a folder that is no run, or has no complete checkpoint.
        """
        from scigpt.evaluate.evaluate import TrainedRun  # brings all that an evaluation draws with

        run = TrainedRun.open(Path(path))
        config = replace(run.config, init=None, adapt=AdaptConfig(), model=run.model.config, optim=optim or run.config.optim)
        module = cls(config, run.model.vocabulary)
        module.model.load_state_dict(run.model.state_dict())
        return module

    def save_weights(self, folder: str | Path) -> None:
        """Write the model as a checkpoint without an optimizer, which `init` and `scigpt export` take. The first process writes.

        Raises:
            UserError: a folder that is there already or cannot be written.
        """
        if self.global_rank:
            return
        folder = Path(folder)
        if folder.exists():
            raise UserError(f"{folder}: is there already; choose another folder for the weights")
        temporary = folder.with_name(f"{folder.name}.tmp")
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
        except OSError as error:
            raise UserError(f"{folder}: cannot be written ({error.strerror}); choose another folder for the weights") from None
        parameters = ((name, p.detach().cpu()) for name, p in self.model.named_parameters())
        pieces = [checkpoint.Piece(checkpoint.MODEL, name, tuple(p.shape), 0, p.reshape(-1)) for name, p in parameters]
        part = checkpoint.write_pieces(temporary, pieces, 0, 1)
        state = {
            "step": self.global_step,
            "config": self.config.to_json(),
            "vocabulary": self.model.vocabulary.to_json(),
            "new_parameters": self.hparams["new"] or [],
        }
        checkpoint.complete(temporary, folder, [part], state)

    def forward(self, batch: Batch) -> Prediction:
        return self.model(batch)

    def configure_optimizers(self) -> Any:
        """AdamW over the model's parameter groups, its rate set before every step."""
        steps = self.trainer.estimated_stepping_batches
        if not 0 < steps < math.inf:
            raise UserError("the schedule of the learning rate needs the number of steps; give Trainer max_steps or max_epochs")
        self._steps, optim = int(steps), self.config.optim
        optimizer = AdamW(self.model.parameter_groups(), optim).inner
        optimizer._step_supports_amp_scaling = False  # or Lightning refuses to clip in mixed precision
        for group in optimizer.param_groups:
            group["lr"] = group["lr_scale"]  # what the schedule is multiplied with

        def rate(step: int) -> float:
            return optim.learning_rate(min(step, self._steps - 1), self._steps)

        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": LambdaLR(optimizer, rate), "interval": "step"}}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The mean error over the valid targets of a group, of which every process has a part; 0 where none is valid (our own engine leaves
        such a group out of the step's mean)."""
        head, world = self.model.head, self.trainer.world_size
        (total,) = self._over_all([group_weight([batch], head.weight)])
        pushed = replace(self.config.train, steps=self._steps).pushed(self.global_step)
        part = share_of_loss(self.model(push_forward(self.model, batch, pushed)), head, total or 1.0)
        loss = part.loss * world  # gradients are averaged over the processes
        self.log("train_loss", loss.detach(), prog_bar=True, batch_size=len(batch), sync_dist=world > 1)
        return loss

    def on_validation_epoch_start(self) -> None:
        self._sums = {}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        found = self._sums.setdefault(batch.corpus, [0.0] * 4)
        found[:] = (a + b for a, b in zip(found, sums(self.model(batch), self.model.head), strict=True))

    def on_validation_epoch_end(self) -> None:
        """`valid_loss`, the objective over all windows of a corpus, and `valid_vrmse`, as `scigpt.train.validate` has them; means over the
        corpora, and of each where there are several (`valid_loss/NAME`). NaN where there is nothing to score."""
        losses, errors = {}, {}
        for name, found in self._sums.items():
            error, weight, vrmse, count = self._over_all(found)
            losses[name], errors[name] = error / weight if weight else math.nan, vrmse / count if count else math.nan
        for label, values in (("valid_loss", losses), ("valid_vrmse", errors)):
            known = [v for v in values.values() if not math.isnan(v)]
            told = {label: fmean(known) if known else math.nan}
            if len(values) > 1:
                told |= {f"{label}/{name}": value for name, value in values.items()}
            self.log_dict(told, prog_bar=True, sync_dist=self.trainer.world_size > 1)

    def _over_all(self, values: Sequence[float]) -> list[float]:
        """Sum of each number over all processes."""
        if self.trainer.world_size == 1:
            return list(values)
        mine = torch.tensor(values, dtype=torch.float64, device=self.device)
        return torch.as_tensor(self.trainer.strategy.reduce(mine, reduce_op="sum")).tolist()


class CorpusDataModule(LightningDataModule):
    """The mixture of a run: a training batch is one group (of several processes, this one's part), in the order that `scigpt pretrain` has.

    An epoch is as many groups as hold the windows of all corpora once. The next one goes on where it ends, and a Trainer that goes on from
    a checkpoint goes on with the next group, in the middle of an epoch too. The validation loader runs through the splits of all corpora.

    Args:
        data: corpora and how they are cut. Where it states no `data_width` this is the number of processes.
        seed: of the order.
        task: what is asked of the model; None: forecasts.
        hide_coefficients: share of the windows whose coefficients are not told.
        validate_windows: of each corpus and split.

    Raises:
        UserError: here and in `setup`, whatever a user can mend in the data and their configuration.
    """

    def __init__(
        self,
        data: DataConfig,
        seed: int = 0,
        task: TaskConfig | None = None,
        hide_coefficients: float = 0.1,
        validate_windows: int = 32,
    ) -> None:
        super().__init__()
        if not 0 <= hide_coefficients <= 1:
            raise UserError(f"hide_coefficients is {hide_coefficients}; expected a share between 0 and 1")
        if validate_windows < 1:
            raise UserError(f"validate_windows is {validate_windows}; expected 1 or more")
        self.data, self.seed, self.task, self.hide_coefficients = data, seed, task or TaskConfig(), hide_coefficients
        self.validate_windows = validate_windows
        self.next_group = 0  # the first group that no step was taken on
        self._stage = ""

    @classmethod
    def of(cls, config: RunConfig) -> Self:
        """The data of a run."""
        return cls(config.data, config.seed, config.task, config.train.hide_coefficients, config.train.validate_windows)

    def setup(self, stage: str) -> None:
        self._stage = stage
        self.corpora = [Corpus.open(Path(c.path)) for c in self.data.corpora]
        self.scales = [scales_of(c, s) for c, s in zip(self.corpora, self.data.corpora, strict=True)]
        self.tasks = [build_task(self.task, c, s, self.seed) for c, s in zip(self.corpora, self.scales, strict=True)]
        place = (self.trainer.distributed_sampler_kwargs if self.trainer else None) or {"rank": 0, "num_replicas": 1}
        self.rank, self.world = int(place["rank"]), int(place["num_replicas"])
        self.mixture = self._mixture(self.data.data_width or self.world)
        if stage == "fit":
            self.next_group = 0

    def _mixture(self, width: int) -> Mixture:
        mixture = Mixture(self.corpora, replace(self.data, data_width=width), self.seed)
        mixture.split(range(width), self.rank, self.world)  # refuses a number of processes that cannot share a group
        return mixture

    def train_dataloader(self) -> Iterable[Batch]:
        return _Groups(self)

    def val_dataloader(self) -> Iterable[Batch]:
        return _Windows(list(self._validation()))

    def _validation(self) -> Iterator[Callable[[], Iterator[Batch]]]:
        """What yields the windows of each split: as long as in training, or shorter where the records are."""
        mixture, patch = self.mixture, self.data.patch
        every = zip(self.corpora, self.scales, self.data.corpora, mixture.windows, mixture.sizes, self.tasks, strict=True)
        for corpus, scales, settings, window, size, task in every:
            for split in settings.valid:
                frames = window_that_fits(corpus, split, window)
                windows(corpus, settings, frames, split, 1)  # a split without a window is told now
                first = (corpus, scales, settings, frames, split, size, self.validate_windows, patch, self.rank, self.world, task)
                yield lambda first=first: evaluation_batches(*first)  # type: ignore[misc]

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        return batch if device.type == "cpu" else batch.to(device, non_blocking=True)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Count what is trained on, not what was read ahead for it."""
        if self.trainer is not None and self.trainer.training:
            self.next_group += 1
        return batch

    def state_dict(self) -> dict[str, Any]:
        return {"next_group": self.next_group, "data_width": self.mixture.data_width, "mixture": self.mixture.fingerprint}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """
        Raises:
            UserError: other corpora, another cut or another seed than those of the checkpoint.
        """
        if self._stage != "fit":  # a model may be validated on any data
            return
        if self.data.data_width is None:
            self.mixture = self._mixture(int(state_dict["data_width"]))
        if state_dict["mixture"] != self.mixture.fingerprint:
            raise UserError(
                "the checkpoint was written with other corpora, another seed or another data configuration, so there is no order of the "
                "data to go on with; give the same ones, or begin anew with the weights alone (SciGPTModule.load_from_checkpoint)"
            )
        self.next_group = int(state_dict["next_group"])


class _Groups:
    """Training batches from the next group on, an epoch of them at a time; Lightning sees by its state that it can be resumed."""

    def __init__(self, data: CorpusDataModule) -> None:
        self.data = data

    def __len__(self) -> int:
        """Groups in an epoch: whole accumulated steps of them."""
        mixture, trainer = self.data.mixture, self.data.trainer
        weights = [c.weight for c in self.data.data.corpora]
        mean = sum(w * size for w, size in zip(weights, mixture.sizes, strict=True)) / sum(weights)
        each = trainer.accumulate_grad_batches if trainer is not None else 1
        return math.ceil(sum(mixture.epoch_windows) / mean / each) * each

    def __iter__(self) -> Iterator[Batch]:
        data = self.data  # looked at when the first batch is asked for: a checkpoint may be loaded before
        count, place, ahead = len(self), (data.rank, data.world), data.data.prefetch
        hide, tasks = data.hide_coefficients, data.tasks
        loader = BatchLoader(data.mixture, data.scales, data.next_group, None, *place, ahead, hide_coefficients=hide, tasks=tasks)
        with loader:
            for _, (_, (batch,)) in zip(range(count), loader, strict=False):
                yield batch

    def state_dict(self) -> dict[str, Any]:
        return self.data.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.data.load_state_dict(state_dict)


class _Windows:
    """The batches of all splits, as often as they are asked for."""

    def __init__(self, splits: Sequence[Callable[[], Iterator[Batch]]]) -> None:
        self._splits = splits

    def __iter__(self) -> Iterator[Batch]:
        return itertools.chain.from_iterable(make() for make in self._splits)
