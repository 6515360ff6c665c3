"""The training loop. A run is a function of its configuration and data: stopped anywhere, the same command gives the same numbers."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import scigpt
from scigpt.adapt.start import Start, is_new, planned
from scigpt.adapt.trainable import prepare
from scigpt.data.corpus import Corpus
from scigpt.data.domain import Domain
from scigpt.data.duplicates import describe, duplicates
from scigpt.data.files import dump_json, write_bytes
from scigpt.data.loader import BatchLoader, evaluation_batches, window_that_fits, windows
from scigpt.data.mixture import CorpusConfig, Mixture
from scigpt.data.tasks import build_task
from scigpt.errors import UserError
from scigpt.model.attention import preferred_kernels
from scigpt.model.backbone import SciGPT, Vocabulary
from scigpt.model.initial import Initial
from scigpt.train import checkpoint, provenance
from scigpt.train.account import account, parameters
from scigpt.train.checkpoint import Checkpoint
from scigpt.train.config import RunConfig, flatten
from scigpt.train.guard import Guard
from scigpt.train.journal import Journal, number
from scigpt.train.objective import group_weight, share_of_loss
from scigpt.train.preempt import Preemption
from scigpt.train.processes import Processes
from scigpt.train.record import Read, Step, incident, ledger_line, metrics_line
from scigpt.train.report import Mlflow, Progress
from scigpt.train.rollout import push_forward
from scigpt.train.run import CHECKPOINTS, INCIDENTS, LEDGER, METRICS, RESULT, begin, open_run, settled, trunk_of
from scigpt.train.saver import Saver
from scigpt.train.strategies import build
from scigpt.train.validate import validate
from scigpt.train.watchdog import Watchdog

_log = logging.getLogger(__name__)


def train(config: RunConfig, trainer: Callable[..., Trainer] | None = None) -> dict[str, Any]:
    """Begin or continue a run, alone or as one process of a job, and return its summary.

    `trainer` makes another kind of `Trainer` of the same arguments.

    Its `status` is `finished` or, after a signal, `stopped`.

    Raises:
        UserError: whatever a user can mend: configuration, data, a full disk, a run that diverges.
    """
    join = Processes.join(config.strategy.timeout)
    with Preemption() as preemption, join as processes, _reproducible(config.train.threads), ExitStack() as stack:
        with processes.together():
            config = settled(config, config.strategy.mesh(processes.place).data_world)
            run = stack.enter_context(open_run(config)) if processes.first else Path(config.run)
        return (trainer or Trainer)(config, run, processes, preemption, stack).fit()


@contextmanager
def _reproducible(threads: int | None) -> Iterator[None]:
    """Equal inputs give equal bits wherever torch can; its settings are put back afterwards."""
    filling: Any = torch.utils.deterministic  # a module whose setting mypy does not see
    before = torch.get_num_threads(), torch.get_deterministic_debug_mode(), filling.fill_uninitialized_memory
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads or before[0])
    torch.set_deterministic_debug_mode("warn")  # as use_deterministic_algorithms, which imports the compiler (2 s)
    filling.fill_uninitialized_memory = False  # 5 % of a step, and nothing reads what it has not written
    try:
        with preferred_kernels():
            yield
    finally:
        torch.set_num_threads(before[0])
        torch.set_deterministic_debug_mode(before[1])
        filling.fill_uninitialized_memory = before[2]


class Trainer:
    """One process of one launch of a run. What outlives the launch is in `_save` and `_resume`."""

    def __init__(self, config: RunConfig, run: Path, processes: Processes, preemption: Preemption, stack: ExitStack) -> None:
        self.config, self.run, self.processes, self.preemption = config, run, processes, preemption
        self.new: frozenset[str] = frozenset()  # parameters that the pretrained model does not have
        with processes.together():
            self.corpora = [Corpus.open(c.path) for c in config.data.corpora]
            self.domains = [Domain.of(c, s, config.data) for c, s in zip(self.corpora, config.data.corpora, strict=True)]
            self.scales = [domain.scales for domain in self.domains]
            self.mixture = Mixture(self.corpora, config.data, config.seed)
            self.tasks = [build_task(config.task, c, s, config.seed) for c, s in zip(self.corpora, self.scales, strict=True)]
            self.validation_sets = tuple(self._validation_sets())
            self.strategy = build(config.strategy, config.train.layout, processes.place)
            mesh = self.strategy.mesh
            self.mixture.split(range(self.mixture.data_width), mesh.data_rank, mesh.data_world)
        self.own = self._newest()
        with processes.together():
            model, start = self._model()
        self.parameters = sum(p.numel() for p in model.parameters())  # now, while every process has all of them
        self.trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        self.guard = Guard(config.guard)
        self.step, self.next_group, self.skipped, self.loss = 0, 0, 0, float("nan")
        self.validation: dict[str, dict[str, float | None]] = {}
        self.error: UserError | None = None
        sizes = {METRICS: 0, LEDGER: 0}
        self.branched = 0  # steps that were the trunk's
        self.best: dict[str, Any] | None = None
        self.stale = 0  # validations since the best one
        with processes.together():
            self.resumed = self.own or self._trunk()
            if self.resumed:
                self._resume(self.resumed, model)
            if self.own:
                sizes, self.branched = self.own.state["journals"], int(self.own.state.get("branch_step", 0))
            elif self.resumed:
                self.branched = self.step
        whole = self.resumed.model().__getitem__ if self.resumed else Initial(model, config.seed)
        if start is not None and not self.resumed:
            whole = start.fill(model, whole, config.adapt.like)
        self.strategy.setup(model, whole, config.optim)
        if self.resumed:
            self.strategy.restore_optimizer(self.resumed.optimizer())
        writer = mesh.coordinates["shard"], mesh.sizes["shard"]
        self.saver = Saver(run / CHECKPOINTS, processes, writer, config.train.keep, self._pinned)
        self.journals: dict[str, Journal] = {}
        with processes.together():
            if processes.first:
                begin(run, config)
                checkpoint.sweep(run / CHECKPOINTS)
                if not self.done:
                    (run / RESULT).unlink(missing_ok=True)
                self.journals = {name: stack.enter_context(closing(Journal(run / name, size))) for name, size in sizes.items()}
                provenance.record(run, self.corpora, self.resumed.step if self.resumed else None, processes.world)
                # a corpus by itself was looked through when it was made
                leaks = [describe(d) for d in duplicates(self.corpora) if d.leak] if len(self.corpora) > 1 else []
                for note in (*self.mixture.notes, *leaks):
                    _log.info("%s", note)
        self.watchdog = stack.enter_context(Watchdog(run, processes.rank, config.train.watchdog))

    def _model(self) -> tuple[SciGPT, Start | None]:
        """The model without storage, and the pretrained weights it starts from, if it starts now and from some."""
        config, start = self.config, None
        if self.own is not None:
            shape, self.vocabulary = config.model, Vocabulary.from_json(self.own.state["vocabulary"])
            self.new = frozenset(self.own.state.get("new_parameters", ()))
        else:
            shape, self.vocabulary, start = planned(config, self.corpora)
        with torch.device("meta"):
            model = SciGPT(shape, self.vocabulary)
        if config.init is not None:
            if start is not None:
                self.new = frozenset(name for name, _ in model.named_parameters() if is_new(name, start))
            prepare(model, config.adapt, self.new.__contains__)
        return model, start

    @property
    def done(self) -> bool:
        """Whether the last step is done, or no more is to be hoped for."""
        patience = self.config.train.patience
        return self.step >= self.config.train.steps or (patience is not None and self.stale >= patience)

    def _pinned(self, step: int) -> bool:
        best = self.best if self.config.train.keep_best else None
        return self.config.train.pinned(step) or (best is not None and best["step"] == step)

    def fit(self) -> dict[str, Any]:
        """Train to the last step or to the next signal."""
        config, status, began, tokens, flops = self.config.train, "FAILED", time.perf_counter(), 0, 0
        saved = self.step if self.own else None
        first, mesh, hide = self.processes.first, self.strategy.mesh, config.hide_coefficients
        progress = Progress(self.run.name, self.step, config.steps) if first else None
        mlflow = Mlflow(self.config.report if first else replace(self.config.report, mlflow=False), self.run, flatten(self.config))
        loader = BatchLoader(
            self.mixture,
            self.scales,
            self.next_group,
            config.micro_batch,
            mesh.data_rank,
            mesh.data_world,
            self.config.data.prefetch,
            hide_coefficients=hide,
            tasks=self.tasks,
        )
        try:
            with loader, self.watchdog.ending():
                while not self.done:
                    start, waited = time.perf_counter(), loader.wait_seconds
                    groups = self._fetch(loader)
                    weights = self._agree(groups)
                    if weights is None:
                        break
                    done = self._update(groups, weights)
                    done.seconds, done.data_wait = time.perf_counter() - start, loader.wait_seconds - waited
                    self.step, self.next_group = self.step + 1, self.next_group + len(groups)
                    self._record(groups, done, mlflow)
                    self.watchdog.beat()
                    if progress:
                        progress.step(done)
                    tokens, flops = tokens + done.tokens, flops + done.flops
                    improved = config.keep_best and self.best is not None and self.best["step"] == self.step
                    if improved or self.step % config.checkpoint_every == 0 or self.step in config.keep_steps:
                        saved = self._save()
            self.processes.agree_on(self.error or self.saver.error)  # or some would save and wait for the part of one that does not
            if saved != self.step:
                self._save()
            self.saver.wait()
            self.processes.agree_on(self.saver.error)
            status = "FINISHED" if self.done else "KILLED"
            with self.processes.together():
                if first and status == "FINISHED":
                    self._conclude("finished")
        except BaseException:
            self.saver.abandon()
            raise
        finally:
            if progress:
                progress.close()
            mlflow.close(status)
        seconds = time.perf_counter() - began
        return {
            "run": str(self.run),
            "status": "finished" if self.done else "stopped",
            "signal": self.preemption.signal,
            "step": self.step,
            "steps": config.steps,
            "processes": self.processes.world,
            "resumed_from_step": self.resumed.step if self.resumed else None,
            "parameters": self.parameters,
            "trained_parameters": self.trained,
            "loss": number(self.loss),
            "validation": self.validation,
            "best": self.best,
            "skipped_steps": self.skipped,
            "tokens": tokens,
            "flops": flops,
            "seconds": seconds,
            "tokens_per_second": tokens / seconds,
            "flops_per_second": flops / seconds,
            "data_wait_share": loader.wait_seconds / seconds,
            "checkpoint": str(checkpoint.folder_of(self.run / CHECKPOINTS, self.step)),
            "mlflow": mlflow.uri,
        }

    def _fetch(self, loader: BatchLoader) -> list[Read]:
        """The groups of the next step; data that cannot be read is told at the next agreement."""
        try:
            return [next(loader) for _ in range(self.config.train.groups)]
        except UserError as error:
            self.error = error
            return []

    def _agree(self, groups: list[Read]) -> list[float] | None:
        """One exchange of numbers on the host before each step: who was asked to stop, who has failed, and the weight of each group.

        Returns:
            The weights over all processes; None when all stop here.
        """
        weight = self.strategy.model.head.weight
        weights = [group_weight(batches, weight) for _, batches in groups] or [0.0] * self.config.train.groups
        error = self.error or self.saver.error
        told = self.processes.total([float(self.preemption.signal is not None), *self.processes.trouble(error), *weights])
        self.processes.raise_first(told[1 : 1 + self.processes.world], error)
        return None if told[0] else told[1 + self.processes.world :]

    def _update(self, groups: list[Read], weights: list[float]) -> Step:
        """One optimizer step on the mean of the groups' means, or exactly nothing where the guard refuses it.

        `weights` are those of the groups over all processes; one without a valid target anywhere is left out on all of them.
        """
        strategy, model, config = self.strategy, self.strategy.model, self.config
        done = Step(config.optim.learning_rate(self.step, config.train.steps))
        strategy.optimizer.set_rate(done.rate)
        share = 1.0 / max(1, sum(w > 0 for w in weights))
        passes = [(batch, weight / share) for (_, batches), weight in zip(groups, weights, strict=True) if weight > 0 for batch in batches]
        pushed = config.train.pushed(self.step)
        arriving = strategy.placed([batch for batch, _ in passes])
        for i, (placed, (_, total)) in enumerate(zip(arriving, passes, strict=True)):
            if pushed:
                with strategy.autocast():
                    placed = push_forward(strategy.forward, placed, pushed)
            with strategy.accumulate(i + 1 == len(passes)):
                with strategy.autocast():
                    part = share_of_loss(strategy.forward(placed), model.head, total)
                strategy.backward(part.loss)
            done.add(placed, part, model.tokens(placed), (3 + pushed) * model.flops(placed))
        done.norm = strategy.norm() if passes else 0.0  # the one place of a step where the host waits for the device
        done.sum_over(self.processes)
        done.skipped = self.guard.judge(done.loss, done.norm) if passes else self.guard.refuse("no target is valid")
        if done.skipped is None:
            strategy.update(config.train.clip, done.norm)
        strategy.forget()
        return done

    def _record(self, groups: list[Read], done: Step, mlflow: Mlflow) -> None:
        """Validation when it is due, metrics and ledger of the step just done, the post-mortem of a skipped one."""
        config = self.config.train
        line, due = metrics_line(self.step, done, groups), self.step % config.log_every == 0
        if due:
            line["variables"] = done.variables(self.processes)
        if self.step % config.validate_every == 0 or self.step == config.steps:
            line["validation"] = self.validation = self._validate()
            self._compare()
        try:
            self._write(line, groups)
            if done.skipped is not None:
                self._explain(groups, done)
        except UserError as error:
            self.error = error
        if self.processes.first:
            mlflow.log(line)
            if due or "validation" in line:
                mlflow.flush()
        if done.skipped is None:
            self.loss = done.loss
            return
        self.skipped += 1
        if self.guard.exhausted:
            if self.processes.first:
                self._conclude("diverged")
            raise self.processes.everywhere(
                f"{self.run}: {self.guard.row} steps in a row were skipped, the last (step {self.step}) because {done.skipped}; look into "
                f"{self.run / INCIDENTS}, then lower optim.lr or mend the data, and begin another run"
            )

    def _compare(self) -> None:
        """The score of this step against the best one so far. A run without validation has none."""
        score = self._score()
        if score is None:
            return
        if self.best is None or score < self.best["score"]:
            self.best, self.stale = {"step": self.step, "score": score}, 0
        else:
            self.stale += 1

    def _write(self, line: dict[str, Any], groups: list[Read]) -> None:
        if self.processes.first:
            self.journals[METRICS].write(line)
            self.journals[LEDGER].write(ledger_line(self.step, self.mixture, groups))

    def _explain(self, groups: list[Read], done: Step) -> None:
        """What each process has seen of a skipped step, in a file of its own."""
        folder, world = self.run / INCIDENTS, self.processes.world
        folder.mkdir(exist_ok=True)
        if self.processes.first:
            _log.warning("step %d is skipped: %s", self.step, done.skipped)
        about = incident(self.step, done, self.guard.median, self.mixture, groups)
        name = f"step-{self.step}" + (f".rank-{self.processes.rank}" if world > 1 else "")
        write_bytes(folder / f"{name}.json", dump_json(about, indent=1))

    def _validation_sets(self) -> Iterator[tuple[int, CorpusConfig, str, int]]:
        """Number and settings of the corpus, split and frames of a window: as in training, or fewer where the records are shorter.

        Raises:
            UserError: a split that is missing, empty or too short, told before training and not at the first validation.
        """
        for i, (corpus, settings) in enumerate(zip(self.corpora, self.config.data.corpora, strict=True)):
            for split in settings.valid:
                if split not in corpus.splits:
                    raise UserError(
                        f"{corpus.path}: has no split {split!r} to validate on, only {', '.join(corpus.splits)}; set valid to some of "
                        f"these, or to [] for no validation"
                    )
                window = self.mixture.windows[i]
                frames = window_that_fits(corpus, split, window)
                windows(corpus, settings, frames, split, 1)
                if frames < window.frames:
                    _log.info("corpus %s: split %s is validated in windows of %d frames, it has no longer ones", corpus.name, split, frames)
                yield i, settings, split, frames

    def _validate(self) -> dict[str, dict[str, float | None]]:
        """By corpus, and by split where a corpus has several."""
        found, mesh = {}, self.strategy.mesh
        for i, settings, split, frames in self.validation_sets:
            corpus, size = self.corpora[i], min(self.mixture.sizes[i], self.config.train.micro_batch or self.mixture.sizes[i])
            limit, patch = self.config.train.validate_windows, self.config.data.patch
            batches = evaluation_batches(
                corpus, self.scales[i], settings, frames, split, size, limit, patch, mesh.data_rank, mesh.data_world, self.tasks[i]
            )
            found[corpus.name if len(settings.valid) == 1 else f"{corpus.name}/{split}"] = validate(self.strategy, self.processes, batches)
            self.watchdog.beat()
        return found

    def _save(self) -> int:
        """Begin to write a checkpoint; returns its step."""
        state: dict[str, Any] = {}
        if self.processes.first:
            state = {
                "next_group": self.next_group,
                "skipped": self.skipped,
                "branch_step": self.branched,
                "loss": number(self.loss),
                "validation": self.validation,
                "best": self.best if self.config.train.keep_best else None,
                "stale": [self.best, self.stale],
                "new_parameters": sorted(self.new),
                "guard": self.guard.state(),
                "journals": {name: journal.sync() for name, journal in self.journals.items()},
                "config": self.config.to_json(),
                "vocabulary": self.vocabulary.to_json(),
                "domains": [domain.to_json() for domain in self.domains],
                "corpora": {c.name: c.fingerprint for c in self.corpora},
                "mixture": self.mixture.fingerprint,
                "code_version": scigpt.__version__,
            }
        self.saver.save(self.step, self.strategy.state(), state)
        self.watchdog.beat()
        return self.step

    def _conclude(self, status: str) -> None:
        """Write what the run came to. A divergence is a result too."""
        config, mesh = self.config, self.strategy.mesh
        micro_batch, done, before = config.train.micro_batch, self.step * config.train.groups, self.branched * config.train.groups
        whole, trunk = (account(self.mixture, config.model, g, micro_batch, self.tasks) for g in (done, before))
        lines = (json.loads(line) for line in (self.run / METRICS).read_text().splitlines())
        result = {
            "schema_version": 1,
            "status": status,
            "step": self.step,
            "steps": config.train.steps,
            "loss": number(self.loss),
            "score": self._score(),
            "best": self.best,
            "validation": self.validation,
            "parameters": parameters(config.model, self.vocabulary),
            "trained_parameters": self.trained,
            **whole.to_json(),
            "own_flops": whole.flops["total"] - trunk.flops["total"],
            "seconds": sum(line["seconds"] for line in lines),
            "processes": mesh.world,
            "branch_from": config.train.branch_from,
            "branch_step": self.branched or None,
            "skipped_steps": self.skipped,
        }
        write_bytes(self.run / RESULT, dump_json(result, indent=1))

    def _score(self) -> float | None:
        """Mean of the corpora's validation losses, weighted as they are in training; of several splits of a corpus the first counts. None
        where a corpus has none."""
        total = 0.0
        for corpus, settings in zip(self.corpora, self.config.data.corpora, strict=True):
            names = (corpus.name, *(f"{corpus.name}/{split}" for split in settings.valid[:1]))
            loss = next((self.validation[name]["loss"] for name in names if name in self.validation), None)
            if loss is None:
                return None
            total += settings.weight * loss
        return total / sum(c.weight for c in self.config.data.corpora)

    def _trunk(self) -> Checkpoint | None:
        """The checkpoint to branch from.

        Raises:
            UserError: one that is broken, or of another run.
        """
        if self.config.train.branch_from is None:
            return None
        found, _ = trunk_of(self.config)
        if self.processes.first and (problem := checkpoint.broken(found.path)):
            raise UserError(f"{found.path}: {problem}; branch off from another checkpoint")
        return found

    def _newest(self) -> Checkpoint | None:
        """The checkpoint to go on from, the same on every process; the first one has verified it."""
        found = self.processes.shared(lambda: checkpoint.step_of(c.path) if (c := checkpoint.newest(self.run / CHECKPOINTS)) else None)
        return None if found is None else checkpoint.opened(checkpoint.folder_of(self.run / CHECKPOINTS, found))

    def _resume(self, found: Checkpoint, model: SciGPT) -> None:
        """Take up a checkpoint, its tensors aside.

        Raises:
            UserError: data or model that are not the checkpoint's.
        """
        state, now = found.state, {c.name: c.fingerprint for c in self.corpora}
        for name in sorted(now.keys() | state["corpora"].keys()):
            if now.get(name) != state["corpora"].get(name):
                raise UserError(
                    f"{found.path}: the corpus {name} is not the one this run was trained on; put that one back, or begin another run"
                )
        if self.mixture.fingerprint != state["mixture"]:
            raise UserError(
                f"{found.path}: this scigpt orders the data otherwise than {state['code_version']}, which began the run; use that one"
            )
        checkpoint.check_parameters(model, found.model(), found.path)
        self.guard.restore(state["guard"])
        self.step, self.next_group, self.skipped = found.step, int(state["next_group"]), int(state["skipped"])
        self.loss = float("nan") if state["loss"] is None else float(state["loss"])
        self.validation = dict(state["validation"])
        self.best, self.stale = state.get("stale", (None, 0))
        if self.processes.first:
            _log.info("%s: goes on from step %d of %d", self.run, self.step, self.config.train.steps)
