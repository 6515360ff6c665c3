"""From the configuration of a transfer study to its cells. Every mistake is told here, before anything is trained."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from scigpt.data.corpus import Corpus
from scigpt.data.files import dump_json, sha256_of
from scigpt.data.mixture import CorpusConfig, Mixture
from scigpt.data.patching import choose_patch
from scigpt.data.sample import Layout
from scigpt.errors import UserError
from scigpt.evaluate import fno
from scigpt.evaluate.fno import FnoConfig
from scigpt.evaluate.plan import Options, Plan, Subject, plan
from scigpt.launch.transfer.cells import RUNS, Cell, Study
from scigpt.launch.transfer.config import TransferConfig, changed, flat
from scigpt.model.backbone import ModelConfig, Vocabulary
from scigpt.model.sizes import forward_flops
from scigpt.train.account import account
from scigpt.train.config import FREE, RunConfig, build, flatten, load

COUNTED = re.compile(r"train\.keep_best|data\.corpora\.\d+\.valid.*")
"""Of what a run may change when it goes on (`FREE`), what decides a score here."""
MAIN = "pretrained"


@dataclass(frozen=True, slots=True)
class Task:
    """What is adapted to: how its corpus is read, what is scored, and which pretrainings are tried on it."""

    name: str
    distance: str
    corpus: Corpus
    settings: CorpusConfig
    test: str
    pretraining: str
    scored: Plan


@dataclass(frozen=True, slots=True)
class Pretraining:
    """A pretrained model: where it is or will be, what it knows, and what it is known by.

    Args:
        cell: that makes it; None where it was there before.
        key: of its identity.
    """

    name: str
    init: str
    model: ModelConfig
    vocabulary: Vocabulary
    cell: Cell | None
    key: str


class Design:
    """The cells of a study.

    Attributes:
        notes: what the user should know.

    Raises:
        UserError: whatever a user can mend: corpora that are missing or too small, variables in other units, changes that do not fit.
    """

    def __init__(self, config: TransferConfig, source: str) -> None:
        self.config, self.source, self.folder = config, source, Path(config.study)
        self.notes: list[str] = []
        self._templates: dict[bytes, RunConfig] = {}
        self._flops: dict[tuple[Any, ...], int] = {}
        self._shapes: dict[str, fno.Shape] = {}
        if config.fno is not None:
            fno.require()
        self.base, found = self._pretrained()
        self.pretrainings = {p.name: p for p in found}
        self.tasks = [*self._stated(), *self._left_out()]
        names = [t.name for t in self.tasks]
        if twice := next((n for n in names if names.count(n) > 1), None):
            raise UserError(f"{source}: two tasks are named {twice!r}; give them different names")
        self.study = Study(self.folder, tuple(self._cells()))

    # ---------------------------------------------------------------- pretraining

    def _pretrained(self) -> tuple[RunConfig, list[Pretraining]]:
        """The configuration that few-shot runs change, and the pretrained models."""
        if self.config.init is not None:
            return self._there(self.config.init)
        base = self._to_train()
        wanted = [(MAIN, base)] if self.config.tasks else []
        paths = [Path(c.path).resolve() for c in base.data.corpora]
        for path in self.config.leave_one_out:
            if Path(path).resolve() not in paths:
                raise UserError(f"{self.source}: leave_one_out: {path} is none of the corpora of pretrain; expected some of these")
            rest = [c for c, p in zip(base.data.corpora, paths, strict=True) if p != Path(path).resolve()]
            if not rest:
                raise UserError(f"{self.source}: leave_one_out: without {path} pretrain has no corpus; give it several")
            name = f"without-{Path(path).name}"
            wanted.append((name, replace(base, run=f"{base.run}-{name}", data=replace(base.data, corpora=rest))))
        return base, [self._planned(name, run) for name, run in wanted]

    def _there(self, init: str) -> tuple[RunConfig, list[Pretraining]]:
        from scigpt.adapt.start import Start
        from scigpt.train import checkpoint
        from scigpt.train.run import checkpoint_of

        found = checkpoint_of(Path(init))
        if found is None:
            raise UserError(
                f"{self.source}: init: {init} is no run with a complete checkpoint and no checkpoint; give what `scigpt pretrain` wrote, "
                f"as the study trains with its settings"
            )
        start = Start.of(found)
        base = build(RunConfig, found.state["config"], str(found.path))
        self._usable(base, "init")
        key = sha256_of(found.path / checkpoint.MANIFEST)
        return base, [Pretraining(MAIN, str(found.path), start.config, start.vocabulary, None, key)]

    def _to_train(self) -> RunConfig:
        given, place = self.config.pretrain, str(self.folder / "pretrain")
        if isinstance(given, str):
            base = replace(load(Path(given)), run=place)
        elif isinstance(given, dict):
            base = build(RunConfig, {"run": place, **given}, f"{self.source}: pretrain")
        else:
            raise UserError(f"{self.source}: pretrain is {given!r}; expected the path of a config file, or its keys with values")
        self._usable(base, "pretrain")
        if base.init is not None:
            raise UserError(f"{self.source}: pretrain.init is set; name a run that is there as init, instead of pretrain")
        if base.strategy.name != "single":
            raise UserError(
                f"{self.source}: pretrain.strategy is {base.strategy.name}, and cells run as one process each; train it with "
                f"`scigpt pretrain` and name the run as init"
            )
        train = replace(base.train, threads=base.train.threads or 1)
        return replace(base, train=train, data=replace(base.data, data_width=base.data.data_width or 1))

    def _usable(self, base: RunConfig, key: str) -> None:
        if base.task.name != "forecast":
            raise UserError(f"{self.source}: {key} has the task {base.task.name}; a transfer study compares forecasts, or steady solutions")

    def _planned(self, name: str, run: RunConfig) -> Pretraining:
        corpora = [Corpus.open(c.path) for c in run.data.corpora]
        mixture = Mixture(corpora, run.data, run.seed)
        flops = account(mixture, run.model, run.train.steps * run.train.groups, run.train.micro_batch).flops["total"]
        id = _id(kind="pretrain", config=_deciding(run), corpora=[c.fingerprint for c in corpora])
        cell = Cell(id, "pretrain", f"pretrain {name}", run.run, run.to_json(), flops, pretraining=name, keep=True)
        return Pretraining(name, run.run, run.model, Vocabulary.from_corpora(corpora), cell, id)

    # ---------------------------------------------------------------- tasks

    def _stated(self) -> Iterator[Task]:
        for t in self.config.tasks:
            yield self._task(t.name, t.distance, CorpusConfig(t.corpus, train=t.train, valid=list(t.valid)), t.test, MAIN)

    def _left_out(self) -> Iterator[Task]:
        known = {Path(c.path).resolve(): c for c in self.base.data.corpora}
        for path in self.config.leave_one_out:
            settings = replace(known[Path(path).resolve()], weight=1.0, limit=None, valid=[])
            yield self._task(Path(path).name, "left out", settings, "test", f"without-{Path(path).name}")

    def _task(self, name: str, distance: str, settings: CorpusConfig, test: str, pretraining: str) -> Task:
        corpus, where = Corpus.open(settings.path), f"{self.source}: task {name}: corpus {settings.path}"
        known = self.pretrainings[pretraining].vocabulary
        known.extended(Vocabulary.from_corpora([corpus]), f"{where}: the pretrained model")
        for split in dict.fromkeys((settings.train, test, *settings.valid)):
            if split not in corpus.splits or not corpus.entries(split):
                raise UserError(f"{where} has no records in a split {split!r}; it has {', '.join(corpus.splits)}")
        if test in (settings.train, *settings.valid):
            raise UserError(f"{where}: the split {test!r} is scored and trained or validated on; name another as test")
        records, most = len(corpus.entries(settings.train)), max(self.config.examples)
        if most > records:
            raise UserError(f"{where} has {records} records in {settings.train!r}, and examples asks for {most}; lower it or make more")
        keys = {v.name for v in corpus.layout.variables}
        if not keys & set(known.units):
            raise UserError(f"{where} shares no variable with the pretraining ({', '.join(known.units)}); there is nothing to transfer")
        if self.config.fno is not None and not fno.applicable(corpus.layout):
            raise UserError(f"{where} has no grid, which an FNO needs; set fno to null, or leave the task out")
        work = plan(Subject.of(corpus, settings, self.base.data), test, Options())
        return Task(name, distance, corpus, settings, test, pretraining, work)

    def _unseen(self, task: Task) -> list[str]:
        """Variables and coefficients that the pretrained model does not know."""
        known = self.pretrainings[task.pretraining].vocabulary
        names = {v.name for v in task.corpus.layout.variables} - set(known.units)
        return sorted(names | set(task.corpus.stats.to_json()["coefficients"]) - set(known.coefficients))

    # ---------------------------------------------------------------- cells

    def _cells(self) -> Iterator[Cell]:
        yield from (p.cell for p in self.pretrainings.values() if p.cell is not None)
        for task in self.tasks:
            if unseen := self._unseen(task):
                self.notes.append(f"{task.name}: no zero-shot score, as {', '.join(unseen)} is new to the pretrained model")
            else:
                yield self._zero_shot(task)
        for examples in sorted(self.config.examples):
            for seed in range(self.config.seeds):
                for task in self.tasks:
                    yield from self._few_shot(task, examples, seed)

    def _zero_shot(self, task: Task) -> Cell:
        before = self.pretrainings[task.pretraining]
        run = self._run(task, 0, 0, {}, before.model)
        deciding = {k: v for k, v in _deciding(run).items() if k.startswith("data.")}
        id = _id(kind="zero-shot", config=deciding, corpus=task.corpus.fingerprint, test=task.test, parent=before.key)
        about = self._about(task, id, replace(run, init=before.init), "zero-shot")
        parent = before.cell.id if before.cell else None
        return Cell(kind="zero-shot", flops=self._scoring(task, before.model), pretraining=before.name, parent=parent, **about)

    def _few_shot(self, task: Task, examples: int, seed: int) -> Iterator[Cell]:
        config, before = self.config, self.pretrainings[task.pretraining]
        label = f"{examples} examples, seed {seed}"
        told: dict[str, Any] = {"examples": examples, "seed": seed}
        tuned = None
        for mode in config.modes:
            own = {"frozen": config.frozen, "lora": config.lora}.get(mode, {})
            changes = {**dict(flat(config.finetune)), **dict(flat(own)), "adapt.mode": mode}
            tuned = self._run(task, examples, seed, changes, before.model)
            id = _id(kind="finetuned", config=_deciding(tuned), corpus=task.corpus.fingerprint, test=task.test, parent=before.key)
            about = self._about(task, id, replace(tuned, init=before.init), f"fine-tuned ({mode}), {label}")
            parent, flops = before.cell.id if before.cell else None, self._training(task, tuned)
            yield Cell(kind="finetuned", flops=flops, pretraining=before.name, parent=parent, mode=mode, **told, **about)
        changes = {k: v for k, v in flat(config.finetune) if k.split(".")[0] != "adapt"} | dict(flat(config.scratch))
        run = self._run(task, examples, seed, changes, before.model)
        assert tuned is not None
        self._equal(tuned, run)
        id = _id(kind="scratch", config=_deciding(run), corpus=task.corpus.fingerprint, test=task.test)
        yield Cell(kind="scratch", flops=self._training(task, run), **told, **self._about(task, id, run, f"from scratch, {label}"))
        if config.fno is not None:
            yield self._operator(task, run, config.fno, f"FNO, {label}", told)

    def _operator(self, task: Task, run: RunConfig, config: FnoConfig, label: str, told: dict[str, Any]) -> Cell:
        steps = config.steps or run.train.steps
        run = replace(run, train=replace(run.train, steps=steps))
        if task.name not in self._shapes:
            self._shapes[task.name] = config.shape(_cropped(task), len(task.corpus.stats.to_json()["coefficients"]))
        shape = self._shapes[task.name]
        mixture = Mixture([task.corpus], run.data, run.seed)
        windows = steps * run.train.groups * mixture.sizes[0]
        flops = 3 * round(shape.forward_flops()) * (mixture.windows[0].frames - 1) * windows
        size = asdict(config) | {"steps": steps, "width": shape.width}
        deciding = {k: v for k, v in _deciding(run).items() if k.startswith("data.") or k == "train.groups"}
        id = _id(kind="fno", config=deciding, seed=run.seed, fno=size, corpus=task.corpus.fingerprint, test=task.test)
        return Cell(kind="fno", flops=flops, fno=size, **told, **self._about(task, id, run, label))

    def _about(self, task: Task, id: str, run: RunConfig, label: str) -> dict[str, Any]:
        place = str(self.folder / RUNS / id)
        config = replace(run, run=place).to_json()
        named = {"id": id, "name": f"{task.name}: {label}", "run": place, "config": config}
        return {**named, "task": task.name, "test": task.test, "keep": self.config.keep}

    def _run(self, task: Task, examples: int, seed: int, changes: dict[str, Any], model: ModelConfig) -> RunConfig:
        """A run on the first examples of a task: as pretraining was, with the changes of the study."""
        run = self._template(changes, model)
        data = replace(run.data, corpora=[replace(task.settings, limit=examples or None)])
        train = run.train
        if not task.settings.valid:
            train = replace(train, validate_every=train.steps, keep_best=False, patience=None)
        return replace(run, seed=seed, data=data, train=train)

    def _template(self, changes: dict[str, Any], model: ModelConfig) -> RunConfig:
        """The same for all tasks, examples and seeds."""
        key = dump_json([changes, asdict(model)])
        if key not in self._templates:
            data = changed(self.base.to_json(), changes, self.source)
            data |= {"run": "", "init": None, "model": {**asdict(model), **_model_changes(changes)}, "strategy": {"name": "single"}}
            data["data"] |= {"data_width": 1}
            data["report"] |= {"mlflow": False}
            steps = data["train"]["steps"]
            data["train"] |= {"threads": 1, "branch_from": None, "keep_steps": [], "keep_every": None, "keep": 1, "checkpoint_every": steps}
            self._templates[key] = build(RunConfig, data, f"{self.source}: few-shot runs")
        return self._templates[key]

    def _equal(self, tuned: RunConfig, scratch: RunConfig) -> None:
        """Both see as many windows."""
        lengths: list[Callable[[RunConfig], int]] = [lambda r: r.train.steps, lambda r: r.train.groups, lambda r: r.data.tokens]
        for key, of in zip(("train.steps", "train.groups", "data.tokens"), lengths, strict=True):
            if of(tuned) != of(scratch):
                raise UserError(
                    f"{self.source}: {key} is {of(tuned)} in fine-tuning and {of(scratch)} from scratch; both must learn equally long"
                )

    def _training(self, task: Task, run: RunConfig) -> int:
        """FLOPs; they do not depend on the number of examples."""
        key = task.name, run.train.steps, run.train.groups, run.data.tokens, run.data.frames, run.data.patch
        if key not in self._flops:
            mixture = Mixture([task.corpus], run.data, run.seed)
            self._flops[key] = account(mixture, run.model, run.train.steps * run.train.groups, run.train.micro_batch).flops["total"]
        return self._flops[key]

    def _scoring(self, task: Task, model: ModelConfig) -> int:
        from scigpt.data.loader import windows

        depth, width, _ = model.resolved()
        layout, frames = _cropped(task), task.scored.frames
        patch = choose_patch(layout.grid, task.scored.subject.patch, layout.geometry)
        count = len(windows(task.corpus, task.settings, frames, task.test))
        return sum(forward_flops(layout, patch, count, frames, width, depth, model.window_tokens).values())

    # ---------------------------------------------------------------- for the reader

    def facts(self) -> dict[str, str]:
        """Of the study, in a few words each."""
        tuned = next(c for c in self.study.cells if c.kind == "finetuned")
        data, train, optim = (tuned.config[part] for part in ("data", "train", "optim"))
        found = {"Pretrained": self.config.init or ", ".join(c.path for c in self.base.data.corpora)}
        windows = train["groups"] * Mixture([self.tasks[0].corpus], build(RunConfig, tuned.config, "").data, 0).sizes[0]
        found["Few-shot runs"] = f"{train['steps']:,} steps of {windows} windows, patches of {data['patch']}, learning rate {optim['lr']:g}"
        size = next((c.fno for c in self.study.cells if c.fno is not None), None)
        if size is not None:
            told = f"width {size['width']}, {size['modes']} modes, rate {size['rate']:g}"
            found["FNO"] = f"{size['steps']:,} steps of the same windows, {told}"
        return found

    def summary(self) -> dict[str, Any]:
        """What is planned, as plain data."""
        states = self.study.states() if self.folder.is_dir() else {}
        kinds: dict[str, dict[str, Any]] = {}
        for cell in self.study.cells:
            name = f"finetuned ({cell.mode})" if cell.mode else cell.kind
            kind = kinds.setdefault(name, {"kind": name, "cells": 0, "done": 0, "flops": 0})
            kind["cells"] += 1
            kind["done"] += states.get(cell.id) == "done"
            kind["flops"] += cell.flops
        about = [{"id": c.id, "name": c.name, "flops": c.flops, "state": states.get(c.id, "ready")} for c in self.study.cells]
        return {
            "study": self.config.study,
            "tasks": [{"name": t.name, "distance": t.distance, "corpus": t.settings.path} for t in self.tasks],
            "kinds": list(kinds.values()),
            "flops": sum(c.flops for c in self.study.cells),
            "cells": about,
            "notes": self.notes,
        }


def _cropped(task: Task) -> Layout:
    layout, crop = task.corpus.layout, task.settings.crop
    return layout if crop is None else replace(layout, grid=(layout.grid[0], crop[0], crop[1]))


def _model_changes(changes: dict[str, Any]) -> dict[str, Any]:
    """What few-shot runs may state of the model; its size is that of the pretrained one."""
    found: dict[str, Any] = changed({"model": {}}, changes, "")["model"]
    return {k: v for k, v in found.items() if k in ("head", "head_options", "attention")}


def _deciding(run: RunConfig) -> dict[str, Any]:
    """What of a configuration decides the result; whose weights it starts from is told apart."""
    return {k: v for k, v in flatten(run).items() if k != "init" and (COUNTED.fullmatch(k) or not FREE.fullmatch(k))}


def _id(**about: Any) -> str:
    return hashlib.sha256(dump_json(json.loads(json.dumps(about)))).hexdigest()[:12]
