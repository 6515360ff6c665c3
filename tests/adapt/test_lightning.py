"""The stock `lightning.Trainer` takes the steps of our own engine, and goes on where it stopped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from runs import lines, make_corpus, settings, write

from scigpt.adapt.lightning import CorpusDataModule, SciGPTModule
from scigpt.data.batches import Batch
from scigpt.errors import UserError
from scigpt.evaluate.evaluate import TrainedRun
from scigpt.model.backbone import Vocabulary
from scigpt.train.config import RunConfig, load
from scigpt.train.engine import train
from scigpt.train.optim import OptimConfig
from scigpt.train.run import checkpoint_of


class Watch(Callback):
    """Losses and windows (their times and first values) of every training batch; of several processes, each writes a file of its own."""

    def __init__(self, folder: Path | None = None) -> None:
        self.losses: list[float] = []
        self.windows: list[torch.Tensor] = []
        self.folder = folder

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        self.losses.append(float(outputs["loss"]))
        self.windows.append(seen(batch))

    def on_train_end(self, trainer: Trainer, module: Any) -> None:
        if self.folder is not None:
            torch.save((self.losses, self.windows, module.model.state_dict()), self.folder / f"rank-{trainer.global_rank}.pt")


def seen(batch: Batch) -> torch.Tensor:
    return torch.cat([batch.seconds.flatten(1), batch.values[..., 0, 0, :].flatten(1).double()], 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two corpora of different grids, and a run on the first."""
    path = tmp_path_factory.mktemp("lightning")
    make_corpus(path), make_corpus(path, "wide", size=12, seed=100)
    torch.set_num_threads(1)
    train(configured(path, "pretrained", ["toys"]))
    return path


def configured(
    folder: Path, name: str, corpora: Sequence[str] = ("toys", "wide"), changes: dict[str, Any] | None = None, **steps: Any
) -> RunConfig:
    data = settings([folder / c for c in corpora], folder / name, **{"steps": 10} | steps) | (changes or {})
    return load(write(data, folder / f"{name}.yaml"))


def trainer(folder: Path, steps: int = 10, *callbacks: Callback, **options: Any) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    kept = {"enable_checkpointing": any(isinstance(c, ModelCheckpoint) for c in callbacks), "default_root_dir": folder}
    where = {"accelerator": "cpu", "devices": 1, "max_steps": steps, "gradient_clip_val": 1.0}
    return Trainer(**{**quiet, **kept, **where, "callbacks": list(callbacks), **options})


def weights(module: SciGPTModule) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in module.model.named_parameters()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


CASES = {
    "plain": ({}, {}),
    "rollout": ({"groups": 2, "rollout": 3, "hide_coefficients": 0.5, "clip": 0.1}, {}),
    "frozen": ({}, {"adapt": {"mode": "frozen", "new_rate": 3.0, "layer_decay": 0.5}}),
    "lora": ({}, {"adapt": {"mode": "lora", "rank": 2}}),
    "coefficients": ({"groups": 2, "hide_coefficients": 0.0}, {"task": {"name": "coefficients", "coefficients": ["viscosity"]}}),
}


@pytest.mark.parametrize("case", CASES)
def test_takes_the_steps_of_our_engine(folder: Path, tmp_path: Path, case: str) -> None:
    steps, changes = CASES[case]
    changes = changes | ({"init": str(folder / "pretrained")} if "adapt" in changes else {})
    config = configured(folder, case, changes=changes, **steps)
    train(config)
    ours, groups, watch = lines(folder / case), config.train.groups, Watch()
    module, data = SciGPTModule(config), CorpusDataModule.of(config)
    trainer(tmp_path, 10, watch, accumulate_grad_batches=groups, gradient_clip_val=config.train.clip).fit(module, data)
    theirs = [sum(watch.losses[i : i + groups]) for i in range(0, len(watch.losses), groups)]
    assert theirs == pytest.approx([line["loss"] for line in ours], rel=1e-6)
    found = checkpoint_of(folder / case)
    assert found is not None
    for name, values in weights(module).items():
        torch.testing.assert_close(values, found.model()[name], rtol=1e-5, atol=1e-6)
    (logged,) = trainer(tmp_path).validate(module, data, verbose=False)
    expected = ours[-1]["validation"]
    for key in ("loss", "vrmse"):
        values = [entry[key] for entry in expected.values() if entry[key] is not None]
        if values:
            assert logged[f"valid_{key}"] == pytest.approx(sum(values) / len(values), rel=1e-5)
            assert logged[f"valid_{key}/wide"] == pytest.approx(expected["wide"][key], rel=1e-5)


def test_the_loss_falls(folder: Path, tmp_path: Path) -> None:
    one = {**settings([], folder)["data"], "corpora": [{"path": str(folder / "toys"), "limit": 1}]}
    config, watch = configured(folder, "falls", changes={"data": one}), Watch()
    trainer(tmp_path, 10, watch).fit(SciGPTModule(config), CorpusDataModule.of(config))
    assert len(watch.losses) == 10
    assert watch.losses[-1] < 0.5 * watch.losses[0]


def test_goes_on_where_it_stopped(folder: Path, tmp_path: Path) -> None:
    """In the middle of an epoch, at its end and in the next one; what a checkpoint holds is read without running anything."""
    config, groups = configured(folder, "whole"), 2
    data, keep, watch = CorpusDataModule.of(config), ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1), Watch()
    module = SciGPTModule(config)
    trainer(tmp_path, 22, keep, watch, accumulate_grad_batches=groups).fit(module, data)
    epoch = len(data.train_dataloader()) // groups
    assert 5 < epoch < 17
    for stopped in (4, epoch, epoch + 3):
        again, rest = SciGPTModule(config), Watch()
        resumed = trainer(tmp_path, 22, rest, accumulate_grad_batches=groups)
        resumed.fit(again, CorpusDataModule.of(config), ckpt_path=tmp_path / f"step={stopped}.ckpt", weights_only=True)
        assert rest.losses == watch.losses[stopped * groups :]
        assert same(weights(again), weights(module))


def test_a_checkpoint_is_a_module(folder: Path, tmp_path: Path) -> None:
    config = configured(folder, "kept", changes={"init": str(folder / "pretrained"), "adapt": {"mode": "frozen"}})
    module = SciGPTModule(config)
    one = trainer(tmp_path, 2)
    one.fit(module, CorpusDataModule.of(config))
    one.save_checkpoint(tmp_path / "last.ckpt")
    found = SciGPTModule.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    assert same(weights(found), weights(module))
    assert found.config == module.config
    trained = {name for name, p in module.model.named_parameters() if p.requires_grad}
    assert trained == {name for name, p in found.model.named_parameters() if p.requires_grad}
    assert 0 < len(trained) < len(weights(module))
    assert found.model.rates == module.model.rates


def test_from_a_run_and_back(folder: Path, tmp_path: Path) -> None:
    run = TrainedRun.open(folder / "pretrained")
    module = SciGPTModule.from_run(folder / "pretrained", OptimConfig(lr=1e-4, warmup=1))
    config = configured(folder, "back", ["toys"])
    data = CorpusDataModule.of(config)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert torch.equal(module(batch).raw, run.model(batch).raw)
    trainer(tmp_path, 2).fit(module, data)
    assert not same(weights(module), {name: p.detach() for name, p in run.model.named_parameters()})
    module.save_weights(tmp_path / "weights")
    assert same(weights(SciGPTModule(replace(config, init=str(tmp_path / "weights")))), weights(module))
    with pytest.raises(UserError, match="there already"):
        module.save_weights(tmp_path / "weights")


def test_stops_early_and_keeps_the_best(folder: Path, tmp_path: Path) -> None:
    config = configured(folder, "early", ["toys"], {"optim": {"lr": 1.0, "warmup": 1}})  # too fast: it gets worse
    best, stop = ModelCheckpoint(tmp_path, monitor="valid_loss"), EarlyStopping("valid_loss", patience=2)
    module, data = SciGPTModule(config), CorpusDataModule.of(config)
    short = trainer(tmp_path, -1, best, stop, max_epochs=30, limit_train_batches=3)
    short.fit(module, data)
    assert 3 <= short.current_epoch < 30
    found = SciGPTModule.load_from_checkpoint(best.best_model_path, weights_only=True)
    (scored,) = trainer(tmp_path).validate(found, data, verbose=False)
    assert scored["valid_loss"] == pytest.approx(float(best.best_model_score), rel=1e-6)
    assert data.next_group == 3 * short.current_epoch  # the epochs do not begin anew


def test_bfloat16(folder: Path, tmp_path: Path) -> None:
    config = configured(folder, "half", ["toys"], precision="bf16")
    train(config)
    watch = Watch()
    trainer(tmp_path, 10, watch, precision="bf16-mixed").fit(SciGPTModule(config), CorpusDataModule.of(config))
    assert watch.losses == pytest.approx([line["loss"] for line in lines(folder / "half")], rel=1e-6)


@pytest.mark.drill
def test_two_processes_share_each_group(folder: Path, tmp_path: Path) -> None:
    """One process that goes on with the checkpoint of two has the same order of the data."""
    config = configured(folder, "shared")
    wide, alone = replace(config.data, data_width=2), Watch()
    module = SciGPTModule(config)
    trainer(tmp_path, 4, alone).fit(module, CorpusDataModule(wide, config.seed))
    keep = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=2, save_top_k=-1)
    both = trainer(tmp_path, 4, Watch(tmp_path), keep, devices=2, strategy="ddp_spawn")
    both.fit(SciGPTModule(config), CorpusDataModule(config.data, config.seed))
    (_, first, left), (_, second, right) = (torch.load(tmp_path / f"rank-{rank}.pt", weights_only=True) for rank in range(2))
    for a, b, whole in zip(first, second, alone.windows, strict=True):
        assert torch.equal(torch.cat([a, b]), whole)
    assert same(left, right)
    for name, values in weights(module).items():
        torch.testing.assert_close(left[name], values, rtol=1e-4, atol=1e-6)
    rest = Watch()
    resumed, data = trainer(tmp_path, 4, rest), CorpusDataModule(config.data, config.seed)
    resumed.fit(SciGPTModule(config), data, ckpt_path=tmp_path / "step=2.ckpt", weights_only=True)
    assert all(torch.equal(a, b) for a, b in zip(rest.windows, alone.windows[2:], strict=True))
    assert rest.losses == pytest.approx(alone.losses[2:], rel=1e-5)


def test_tells_what_is_wrong(folder: Path, tmp_path: Path) -> None:
    config = configured(folder, "wrong", ["toys"])
    module, data = SciGPTModule(config), CorpusDataModule.of(config)
    with pytest.raises(UserError, match="max_steps or max_epochs"):
        trainer(tmp_path, -1, max_epochs=-1).fit(module, data)
    with pytest.raises(UserError, match="hide_coefficients is 2"):
        CorpusDataModule(config.data, hide_coefficients=2.0)
    with pytest.raises(UserError, match="validate_windows is 0"):
        CorpusDataModule(config.data, validate_windows=0)
    with pytest.raises(UserError, match="leave that out"):
        SciGPTModule(replace(config, init=str(folder / "pretrained")), module.model.vocabulary)
    with pytest.raises(UserError, match=r"unknown key optim\.rate"):
        SciGPTModule(config.to_json() | {"optim": {"rate": 1.0}})
    with pytest.raises(UserError, match="is not the folder of a run"):
        SciGPTModule.from_run(tmp_path)
    lost = replace(config.data, corpora=[replace(config.data.corpora[0], valid=["nowhere"])])
    with pytest.raises(UserError, match="no split 'nowhere'"):
        trainer(tmp_path, 1).fit(module, CorpusDataModule(lost))
    with pytest.raises(UserError, match="does not know the variable"):
        trainer(tmp_path, 1).fit(SciGPTModule(config, Vocabulary({"temperature": "K"}, {})), data)


def test_refuses_to_go_on_with_other_data(folder: Path, tmp_path: Path) -> None:
    config = configured(folder, "other", ["toys"])
    one = trainer(tmp_path, 1)
    one.fit(SciGPTModule(config), CorpusDataModule.of(config))
    one.save_checkpoint(tmp_path / "one.ckpt")
    other = CorpusDataModule(config.data, seed=1)
    with pytest.raises(UserError, match="other corpora, another seed"):
        trainer(tmp_path, 2).fit(SciGPTModule(config), other, ckpt_path=tmp_path / "one.ckpt", weights_only=True)
    # to validate on other data is no mistake
    (found,) = trainer(tmp_path).validate(SciGPTModule(config), other, ckpt_path=tmp_path / "one.ckpt", verbose=False, weights_only=True)
    assert found["valid_loss"] > 0
