"""The training loop. A run is a function of its configuration and data: stopped anywhere, the same command gives the same numbers."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import torch

import scigpt
from scigpt.data.corpus import Corpus
from scigpt.data.files import dump_json, write_bytes
from scigpt.data.keyed import key
from scigpt.data.loader import BatchLoader, evaluation_batches, windows
from scigpt.data.mixture import CorpusConfig, Mixture
from scigpt.data.normalize import Scales
from scigpt.errors import UserError
from scigpt.model.backbone import SciGPT, Vocabulary
from scigpt.train import checkpoint, provenance
from scigpt.train.checkpoint import Checkpoint
from scigpt.train.config import RunConfig, flatten
from scigpt.train.guard import Guard
from scigpt.train.journal import Journal, number
from scigpt.train.objective import group_weight, share_of_loss
from scigpt.train.optim import AdamW
from scigpt.train.preempt import Preemption
from scigpt.train.record import Read, Step, incident, ledger_line, metrics_line
from scigpt.train.report import Mlflow, Progress
from scigpt.train.run import CHECKPOINTS, INCIDENTS, LEDGER, METRICS, begin, open_run
from scigpt.train.strategies import Single
from scigpt.train.validate import validate

_log = logging.getLogger(__name__)


def train(config: RunConfig) -> dict[str, Any]:
    """Begin or continue a run and return its summary; `status` is `finished` or, after a signal, `stopped`.

    Raises:
        UserError: whatever a user can mend: configuration, data, a full disk, a run that diverges.
    """
    with Preemption() as preemption, open_run(config) as run, _reproducible(config.train.threads), ExitStack() as stack:
        return Trainer(config, run, preemption, stack).fit()


@contextmanager
def _reproducible(threads: int | None) -> Iterator[None]:
    """Equal inputs give equal bits wherever torch can; its settings are put back afterwards."""
    before = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads or before[0])
    torch.set_deterministic_debug_mode("warn")  # as use_deterministic_algorithms, which imports the compiler (2 s)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.set_deterministic_debug_mode(before[1])


class Trainer:
    """One launch of a run. What outlives the launch is in `_save` and `_resume`."""

    def __init__(self, config: RunConfig, run: Path, preemption: Preemption, stack: ExitStack) -> None:
        self.config, self.run, self.preemption = config, run, preemption
        self.corpora = [Corpus.open(c.path) for c in config.data.corpora]
        strides = [c.stride for c in config.data.corpora]
        self.scales = [Scales.from_stats(c.layout, c.stats.to_json(), s) for c, s in zip(self.corpora, strides, strict=True)]
        self.mixture = Mixture(self.corpora, config.data, config.seed)
        self.validation_sets = tuple(self._validation_sets())
        self.vocabulary = Vocabulary.from_corpora(self.corpora)
        self.strategy = Single(config.train.precision)
        with torch.random.fork_rng():
            torch.manual_seed(key(config.seed, "weights") >> 1)
            self.model = SciGPT(config.model, self.vocabulary)
        self.strategy.setup(self.model)
        self.optimizer = AdamW(self.model.parameter_groups(), config.optim)
        self.guard = Guard(config.guard)
        self.step, self.next_group, self.skipped, self.loss = 0, 0, 0, float("nan")
        self.validation: dict[str, dict[str, float | None]] = {}
        sizes = {METRICS: 0, LEDGER: 0}
        self.resumed = checkpoint.newest(run / CHECKPOINTS)
        if self.resumed:
            self._resume(self.resumed)
            sizes = self.resumed.state["journals"]
        begin(run, config)
        self.journals = {name: stack.enter_context(closing(Journal(run / name, size))) for name, size in sizes.items()}
        provenance.record(run, self.corpora, self.resumed.step if self.resumed else None)
        for note in self.mixture.notes:
            _log.info("%s", note)

    def fit(self) -> dict[str, Any]:
        """Train to the last step or to the next signal."""
        config, status, began, tokens, flops = self.config.train, "FAILED", time.perf_counter(), 0, 0
        saved = self.step if self.resumed else None
        progress = Progress(self.run.name, self.step, config.steps)
        mlflow = Mlflow(self.config.report, self.run, flatten(self.config))
        strategy, hide = self.strategy, config.hide_coefficients
        loader = BatchLoader(
            self.mixture, self.scales, self.next_group, config.micro_batch, strategy.rank, strategy.world, hide_coefficients=hide
        )
        try:
            with loader:
                while self.step < config.steps and not self.strategy.agree(self.preemption.signal is not None):
                    start, waited = time.perf_counter(), loader.wait_seconds
                    groups = [next(loader) for _ in range(config.groups)]
                    done = self._update(groups)
                    done.seconds, done.data_wait = time.perf_counter() - start, loader.wait_seconds - waited
                    self.step, self.next_group = self.step + 1, self.next_group + len(groups)
                    self._record(groups, done, mlflow)
                    progress.step(done)
                    tokens, flops = tokens + done.tokens, flops + done.flops
                    if self.step % config.checkpoint_every == 0:
                        saved = self._save()
            if saved != self.step:
                self._save()
            status = "FINISHED" if self.step == config.steps else "KILLED"
        finally:
            progress.close()
            mlflow.close(status)
        seconds = time.perf_counter() - began
        return {
            "run": str(self.run),
            "status": "finished" if self.step == config.steps else "stopped",
            "signal": self.preemption.signal,
            "step": self.step,
            "steps": config.steps,
            "resumed_from_step": self.resumed.step if self.resumed else None,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "loss": number(self.loss),
            "validation": self.validation,
            "skipped_steps": self.skipped,
            "tokens": tokens,
            "flops": flops,
            "seconds": seconds,
            "tokens_per_second": tokens / seconds,
            "flops_per_second": flops / seconds,
            "data_wait_share": loader.wait_seconds / seconds,
            "checkpoint": str(self.run / CHECKPOINTS / f"step-{self.step:08d}"),
            "mlflow": mlflow.uri,
        }

    def _update(self, groups: list[Read]) -> Step:
        """One optimizer step on the mean of the groups' means, or exactly nothing where the guard refuses it."""
        config = self.config.train
        done = Step(self.config.optim.learning_rate(self.step, config.steps))
        self.optimizer.set_rate(done.rate)
        placed = [[self.strategy.place(b) for b in batches] for _, batches in groups]
        weights = [self.strategy.total(group_weight(batches)) for batches in placed]
        share = 1.0 / max(1, sum(w > 0 for w in weights))
        for batches, weight in zip(placed, weights, strict=True):
            for batch in batches if weight > 0 else ():
                with self.strategy.autocast():
                    part = share_of_loss(self.model, batch, weight / share)
                self.strategy.backward(part.loss)
                done.add(batch, part, self.model.tokens(batch), 3 * self.model.flops(batch))
        done.norm = self.strategy.clip(self.optimizer.parameters, config.clip)
        done.skipped = self.guard.judge(done.loss, done.norm) if any(weights) else self.guard.refuse("no target is valid")
        if done.skipped is None:
            self.strategy.update(self.optimizer.inner)
        self.optimizer.zero_grad()
        return done

    def _record(self, groups: list[Read], done: Step, mlflow: Mlflow) -> None:
        """Validation when it is due, metrics and ledger of the step just done, the post-mortem of a skipped one."""
        config = self.config.train
        line, due = metrics_line(self.step, done, groups), self.step % config.log_every == 0
        if due:
            line["variables"] = done.variables()
        if self.step % config.validate_every == 0 or self.step == config.steps:
            line["validation"] = self.validation = self._validate()
        self.journals[METRICS].write(line)
        self.journals[LEDGER].write(ledger_line(self.step, self.mixture, groups))
        mlflow.log(line)
        if due or "validation" in line:
            mlflow.flush()
        if done.skipped is None:
            self.loss = done.loss
            return
        self.skipped += 1
        _log.warning("step %d is skipped: %s", self.step, done.skipped)
        folder = self.run / INCIDENTS
        folder.mkdir(exist_ok=True)
        about = incident(self.step, done, self.guard.median, self.mixture, groups)
        write_bytes(folder / f"step-{self.step}.json", dump_json(about, indent=1))
        if self.guard.exhausted:
            raise UserError(
                f"{self.run}: {self.guard.row} steps in a row were skipped, the last (step {self.step}) because {done.skipped}; look into "
                f"{folder}, then lower optim.lr or mend the data, and begin another run"
            )

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
                longest = max((entry.frames for entry in corpus.entries(split)), default=0)
                frames = min(window.frames, max(2, (longest - 1) // window.stride + 1))
                windows(corpus, settings, frames, split, 1)
                if frames < window.frames:
                    _log.info("corpus %s: split %s is validated in windows of %d frames, it has no longer ones", corpus.name, split, frames)
                yield i, settings, split, frames

    def _validate(self) -> dict[str, dict[str, float | None]]:
        """By corpus, and by split where a corpus has several."""
        found = {}
        for i, settings, split, frames in self.validation_sets:
            corpus, size = self.corpora[i], min(self.mixture.sizes[i], self.config.train.micro_batch or self.mixture.sizes[i])
            limit, patch = self.config.train.validate_windows, self.config.data.patch
            batches = evaluation_batches(corpus, self.scales[i], settings, frames, split, size, limit, patch)
            found[corpus.name if len(settings.valid) == 1 else f"{corpus.name}/{split}"] = validate(self.model, self.strategy, batches)
        return found

    def _save(self) -> int:
        """Write a checkpoint; returns its step."""
        state = {
            "next_group": self.next_group,
            "skipped": self.skipped,
            "loss": number(self.loss),
            "validation": self.validation,
            "guard": self.guard.state(),
            "journals": {name: journal.sync() for name, journal in self.journals.items()},
            "config": self.config.to_json(),
            "vocabulary": self.vocabulary.to_json(),
            "scales": {c.name: s.to_json() for c, s in zip(self.corpora, self.scales, strict=True)},
            "corpora": {c.name: c.fingerprint for c in self.corpora},
            "mixture": self.mixture.fingerprint,
            "code_version": scigpt.__version__,
        }
        folder, keep = self.run / CHECKPOINTS, self.config.train.keep
        checkpoint.save(folder, self.step, self.model.state_dict(), self.optimizer.state(), state, keep)
        return self.step

    def _resume(self, found: Checkpoint) -> None:
        """Take up a checkpoint.

        Raises:
            UserError: data, model or optimizer that are not the checkpoint's.
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
        checkpoint.load_parameters(self.model, found.model(), found.path)
        self.optimizer.restore(found.optimizer())
        self.guard.restore(state["guard"])
        self.step, self.next_group, self.skipped = found.step, int(state["next_group"]), int(state["skipped"])
        self.loss = float("nan") if state["loss"] is None else float(state["loss"])
        self.validation = dict(state["validation"])
        _log.info("%s: goes on from step %d of %d", self.run, self.step, self.config.train.steps)
