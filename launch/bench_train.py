"""`scigpt bench train`: the real training loop beside a bare loop on the same model and batches, and beside itself on data made ahead."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from torch.autograd.profiler import record_function

from scigpt.adapt.trainable import AdaptConfig
from scigpt.data.batches import Batch
from scigpt.data.loader import BatchLoader
from scigpt.data.mixture import CorpusConfig, DataConfig
from scigpt.data.patching import token_grid
from scigpt.data_prep.convert import convert
from scigpt.errors import UserError
from scigpt.launch.made_up import Maps, MapsOptions
from scigpt.launch.profiling import TRACED, folder_for, memory, trace
from scigpt.launch.timing import (
    Reading,
    Stopwatch,
    compiled,
    datasheet,
    device_of,
    matrix_product_rate,
    name_of,
    of_compilation,
    peak_memory,
)
from scigpt.model.backbone import ModelConfig, SciGPT
from scigpt.train.config import RunConfig, TrainConfig
from scigpt.train.engine import Trainer, train
from scigpt.train.objective import group_weight, share_of_loss
from scigpt.train.optim import AdamW
from scigpt.train.record import Read, Step
from scigpt.train.report import ReportConfig
from scigpt.train.run import with_model
from scigpt.train.strategies import prepare

NEVER = 1 << 40
LOGGED = 10
"""Steps between two batches of metrics, at most."""
PARTS = ("data", "forward", "backward", "optimizer", "communication", "host")
_QUIET = 0.005
"""CPU seconds in a fifth of a second below which no thread is busy any more."""


class Enough(Exception):
    """Ends the run from within."""


@dataclass(frozen=True, slots=True)
class Amount:
    """`rounds` times `steps` steps of each kind: few of them on a CPU, whose speed wanders with what its neighbours do; more on a GPU,
    where a block ends with waiting for the device."""

    steps: int
    rounds: int


class Shares:
    """Time by part of a step, on the clock of the main thread or of the GPU."""

    def __init__(self, watch: Stopwatch) -> None:
        self.watch, self.on, self.traced = watch, False, False
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._names: list[str] = []
        self._marks: list[Any] = []

    def enter(self, name: str) -> None:
        """From here on it is this part."""
        if self.on:
            self._names.append(name)
            self._marks.append(self.watch.mark())

    def begin(self) -> None:
        self.on = True
        self.enter("host")

    def end(self) -> None:
        self.enter("host")
        for name, seconds in zip(self._names, self.watch.between(self._marks), strict=False):
            self.seconds[name] += seconds
        self._names, self._marks, self.on = [], [], False

    def around(self, owner: Any, method: str, name: str, after: str | None = None) -> None:
        """Count a method as a part; `after` it comes that one, by default the one before."""
        call = getattr(owner, method)

        @wraps(call)
        def counted(*args: Any, **kwargs: Any) -> Any:
            before = self._names[-1] if self._names else "host"
            self.enter(name)
            with record_function(name) if self.traced else nullcontext():
                found = call(*args, **kwargs)
            self.enter(after or before)
            return found

        setattr(owner, method, counted)


class Measured(Trainer):
    """A run of which some steps are timed: as they are, with batches made ahead, and beside them a bare loop on a model of its own."""

    def __init__(self, amount: Amount, profile: Path | None, *args: Any) -> None:
        super().__init__(*args)
        self.amount, self.device, self.profile = amount, self.strategy.device, profile
        self.recording = ExitStack()
        self.shares = Shares(Stopwatch(self.device, time.thread_time))
        self.kind, self.warm = "warm", warm_up(self.config.train.log_every)
        self.began, self.tokens, self.flops, self.waited, self.peak = 0.0, 0, 0, 0.0, 0
        self.started = (0.0, 0.0, 0.0)
        self.seconds: dict[str, list[float]] = {"real": [], "synthetic": [], "bare": []}
        self.shapes: set[Any] = set()
        self.compiled: dict[str, float] = {"seconds": 0.0, "graphs": 0, "graph_breaks": 0}
        self.seen: list[list[Read]] = []
        self.ready: list[list[Read]] = []
        self.found: dict[str, Any] = {}
        strategy, around = self.strategy, self.shares.around
        around(strategy, "forward", "forward", "forward")  # what follows is the loss
        around(strategy, "backward", "backward", "host")
        for name in ("norm", "update", "forget"):
            around(strategy, name, "optimizer", "host")
        around(self.processes, "total", "communication")
        self.bare = Bare(self)

    def _fetch(self, loader: BatchLoader) -> list[Read]:
        if self.step == 0:
            self.reading = Reading.of(loader)
            self._compiled(-1)
        last = self.warm + 2 * self.amount.rounds * self.amount.steps
        block, within = divmod(self.step - self.warm, self.amount.steps)
        if block >= 0 and not within and self.step <= last:
            self._turn(block, loader)
        if self.step >= last:
            self._finish(self.step - last)
        self.shares.enter("data")
        groups = self.ready.pop(0) if self.kind == "synthetic" else super()._fetch(loader)
        self.shares.enter("host")
        if self.kind != "synthetic":
            self.seen.append(groups)
            self.shapes |= {(len(b), b.values.shape[1], token_grid(b.layout.grid, b.patch)) for _, batches in groups for b in batches}
        return groups

    def _update(self, groups: list[Read], weights: list[float]) -> Step:
        done = super()._update(groups, weights)
        if self.kind == "real":
            self.tokens, self.flops = self.tokens + done.tokens, self.flops + done.flops
        return done

    def _turn(self, block: int, loader: BatchLoader) -> None:
        """Between two steps: end what was measured, and begin what comes next. Real and synthetic blocks of steps alternate."""
        if self.kind == "warm":
            self._begin()
        else:
            self.seconds[self.kind].append((self._now() - self.began) / self.amount.steps)
        if self.kind == "real":
            self.shares.end()
            self.waited += loader.wait_seconds
            self.peak = max(self.peak, peak_memory(self.device) - self.bare.bytes())
            self.ready = [[(group, [random_like(b) for b in batches]) for group, batches in groups] for groups in self.seen]
        elif self.kind == "synthetic":
            self.seconds["bare"].append(self._run_bare())
        if block == 2 * self.amount.rounds:
            return
        self.kind = "synthetic" if block % 2 else "real"
        if self.kind == "real":
            self.waited -= loader.wait_seconds
            self.shares.begin()
            if self.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(self.device)
        self.began = self._now()

    def _finish(self, done: int) -> None:
        """All is measured; `done` steps have followed, which are recorded where somebody asks for it."""
        if not done:
            self._compiled(1)
            self.found, self.kind = self._result(), "traced"
        if self.profile is None or done > TRACED:
            self.recording.close()
            raise Enough
        if done in (0, TRACED) and self.processes.first:
            self.recording.close()
            self.shares.traced = True
            self.recording.enter_context((memory if done else trace)(self.profile, self.device))

    def _compiled(self, sign: int) -> None:
        if self.config.train.compile:
            self.compiled = {name: n + sign * now for (name, n), now in zip(self.compiled.items(), compiled().values(), strict=True)}

    def _run_bare(self) -> float:
        """Seconds of a step of the bare loop on the batches of the last real block; what it compiles (it does not ask for reproducible
        results, which makes other graphs) is its own."""
        work = self.bare.prepared(self.seen)
        self.seen = []
        self._compiled(1)
        torch.set_deterministic_debug_mode("default")
        try:
            began = self._now()
            for step in work:
                self.bare.step(step)
            return (self._now() - began) / len(work)
        finally:
            torch.set_deterministic_debug_mode("warn")
            self._compiled(-1)

    def _now(self) -> float:
        """CPU time of this thread, in which torch computes; on a GPU the clock on the wall, once the device has done all."""
        if self.device.type != "cuda":
            return time.thread_time()
        torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def _begin(self) -> None:
        """Warm the bare loop up, and wait until what a launch does once beside training is done, as importing MLflow."""
        self._run_bare()
        for _ in range(300):
            before = time.process_time()
            time.sleep(0.2)
            if time.process_time() - before < _QUIET:
                break
        self.started = time.process_time(), time.thread_time(), self.reading.cpu

    def _result(self) -> dict[str, Any]:
        gpu, groups, config = self.device.type == "cuda", self.config.train.groups, self.config
        rounds, steps = self.amount.rounds, self.amount.rounds * self.amount.steps
        real, synthetic, bare = (statistics.median(self.seconds[kind]) for kind in ("real", "synthetic", "bare"))
        reading, other = self.reading.cpu / self.reading.groups * groups, 0.0
        if not gpu:  # its threads work beside the main one: what they do is added to each step
            process, main, read = (
                now - then for now, then in zip((time.process_time(), time.thread_time(), self.reading.cpu), self.started, strict=True)
            )
            other = max(0.0, process - main - read) / (2 * steps)
            self.shares.seconds["data"] += reading * steps
            self.shares.seconds["host"] += other * steps
        added = 0.0 if gpu else reading + other
        beside = [((a + added) / b - 1, (a + added) / (s + other * (not gpu)) - 1) for a, s, b in zip(*self.seconds.values(), strict=True)]
        seconds, flops = real + added, self.flops / steps
        product, peak = matrix_product_rate(config.train.precision, device=self.device), datasheet(self.device, config.train.precision)
        readers = self.reading.wall / config.data.prefetch if gpu else self.reading.cpu
        return {
            "device": name_of(self.device),
            "clock": "clock on the wall, the device waited for" if gpu else "CPU time of all threads",
            "torch": torch.__version__,
            "parameters": self.parameters,
            "corpora": [corpus.name for corpus in self.corpora],
            "strategy": config.strategy.name,
            "processes": self.processes.world,
            "precision": config.train.precision,
            "rounds": rounds,
            "steps_per_round": self.amount.steps,
            "tokens_per_step": self.tokens / steps,
            "seconds_per_step": {"real": seconds, "synthetic": synthetic + (0.0 if gpu else other), "bare": bare},
            "over_bare_loop": statistics.median(b for b, _ in beside),
            "real_over_synthetic": statistics.median(s for _, s in beside),
            "loader_seconds_per_step": reading,
            "other_threads_seconds_per_step": None if gpu else other,
            "data_wait_share": self.waited / (real * steps) if gpu else None,
            "loader_headroom": real / (readers / self.reading.groups * groups),
            "windows_per_reader_second": self.reading.windows / self.reading.cpu,
            "mb_per_reader_second": self.reading.bytes / self.reading.cpu / 1e6,
            "time_shares": {name: s / sum(self.shares.seconds.values()) for name, s in self.shares.seconds.items()},
            "tokens_per_second": self.tokens / steps / seconds,
            "flops_per_second": flops / seconds,
            "matrix_product_flops_per_second": product,
            "share_of_matrix_product": flops / seconds / product / self.processes.world,
            "mfu": None if peak is None else flops / seconds / peak / self.processes.world,
            "flops_per_step": flops,
            "datasheet_flops_per_second": peak,
            "peak_memory_bytes": self.peak,
            "peak_memory_of": "tensors on the GPU, without the bare loop's model" if gpu else "this process, with the bare loop's model",
            "compile": self.compiled | {"recompiles": self.compiled["graphs"] - len(self.shapes)} if config.train.compile else None,
        }


def warm_up(log_every: int) -> int:
    """Steps before anything is measured; MLflow has been sent something by then."""
    return max(3, log_every)


class Bare:
    """What a training loop cannot do without: forward, backward, clipping, AdamW."""

    def __init__(self, trainer: Measured) -> None:
        self.strategy, self.clip = trainer.strategy, trainer.config.train.clip
        self.model = SciGPT(trainer.config.model, trainer.vocabulary, trainer.config.seed).to(trainer.device)
        prepare(self.model, trainer.config.train.layout)
        self.optimizer = AdamW(self.model.parameter_groups(), trainer.config.optim)

    def bytes(self) -> int:
        """What its model and optimizer take up on a GPU between its steps."""
        state = [t for group in self.optimizer.inner.state.values() for t in group.values()]
        return sum(t.nbytes for t in (*self.model.parameters(), *state)) if self.strategy.device.type == "cuda" else 0

    def prepared(self, steps: Sequence[Sequence[Read]]) -> list[list[tuple[Batch, float]]]:
        """The micro-batches of each step, and what the loss of each is divided by."""
        weight = self.model.head.weight
        return [[(b, group_weight(batches, weight) * len(groups)) for _, batches in groups for b in batches] for groups in steps]

    def step(self, passes: Sequence[tuple[Batch, float]]) -> None:
        for batch, total in passes:
            placed = batch.to(self.strategy.device, non_blocking=True)
            with self.strategy.autocast():
                loss = share_of_loss(self.model(placed), self.model.head, total).loss
            loss.backward()
        torch.nn.utils.clip_grad_norm_(self.optimizer.parameters, self.clip)
        self.optimizer.inner.step()
        self.optimizer.zero_grad()


def random_like(batch: Batch) -> Batch:
    """A batch of the same shape whose values are made up: synthetic data."""
    draw = torch.Generator().manual_seed(batch.values.numel())
    values = batch.scales.inverse(torch.randn(batch.values.shape, generator=draw))
    made = replace(batch, values=torch.where(batch.valid, values, 0.0))
    return made.pin_memory() if torch.cuda.is_available() else made


def measure(config: RunConfig | None, amount: Amount, device: str = "auto", profile: Path | None = None) -> dict[str, Any] | None:
    """Time the training of a configuration, or of a nano model on made-up maps. Nothing is left behind, and no server hears of it.
    The processes of a job measure together, and the first of them tells; the others return None.

    Args:
        profile: folder for a trace of two further steps and what holds memory.

    Raises:
        UserError: as training; `cpu` where training would take a GPU.
    """
    gpu = device_of(device).type == "cuda"
    if not gpu and torch.cuda.is_available():
        raise UserError("--device cpu: training takes the GPU that torch sees; hide it, as in CUDA_VISIBLE_DEVICES= scigpt bench train")
    files = None if profile is None else folder_for(profile)
    with tempfile.TemporaryDirectory(prefix="scigpt-bench-") as folder:
        config = default(Path(folder)) if config is None else with_model(config)
        corpora = [replace(c, valid=[]) for c in config.data.corpora]
        every = min(config.train.log_every, LOGGED)
        settings = replace(
            config.train, steps=warm_up(every) + 2 * amount.steps * amount.rounds + TRACED + 2, log_every=every, validate_every=NEVER,
            checkpoint_every=NEVER, keep_steps=[], keep_best=False, branch_from=None, patience=None, rollout=1,
            threads=config.train.threads if gpu else 1,
        )  # fmt: skip
        run = Path(folder) / "run"
        run.mkdir()  # each process of a job has its own
        config = replace(
            config, run=str(run), data=replace(config.data, corpora=corpora), train=settings, init=None,
            adapt=AdaptConfig(), report=ReportConfig(mlflow=config.report.mlflow),
        )  # fmt: skip
        runs: list[Measured] = []

        def trainer(*args: Any) -> Trainer:
            runs.append(Measured(amount, profile, *args))
            return runs[-1]

        try:
            train(config, trainer)
        except Enough:
            return runs[-1].found | ({"profile": files} if files else {}) if runs[-1].processes.first else None
        raise AssertionError("the run has ended by itself")


MAPS = MapsOptions(train=16, valid=0, test=0, ood=0)


def default(folder: Path, maps: MapsOptions = MAPS) -> RunConfig:
    """A nano model on maps, whose corpus is made here."""
    corpus = convert(Maps(options=maps), folder / "maps", progress=False)
    data = DataConfig(corpora=[CorpusConfig(path=str(corpus))], tokens=1024)
    return RunConfig(run=str(folder / "run"), data=data, model=ModelConfig(size="nano"), train=TrainConfig(groups=2))


def describe(result: dict[str, Any]) -> str:
    """The result for a person."""
    seconds, names = result["seconds_per_step"], ", ".join(result["corpora"])
    shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in result["time_shares"].items())
    mfu = "" if result["mfu"] is None else f"; MFU {100 * result['mfu']:.1f} % of {result['datasheet_flops_per_second'] / 1e12:.0f} TFLOP/s"
    compilation = [of_compilation(result["compile"])] if result["compile"] else []
    return "\n".join(
        [
            f"{result['parameters'] / 1e6:.2f}M parameters on {names}, {result['tokens_per_step']:.0f} tokens a step, "
            f"{result['precision']}, {result['device']}, {result['strategy']} x {result['processes']}",
            f"{seconds['real']:.4g} s a step ({result['clock']}), {result['rounds']} rounds of {result['steps_per_round']} steps; "
            f"{result['tokens_per_second']:.0f} tokens/s, {result['flops_per_second'] / 1e9:.1f} GFLOP/s, "
            f"{100 * result['share_of_matrix_product']:.0f} % of a matrix product beside it{mfu}",
            f"over a bare loop on the same model and batches ({seconds['bare']:.4g} s): {100 * result['over_bare_loop']:+.1f} %",
            f"over synthetic batches made ahead ({seconds['synthetic']:.4g} s): {100 * result['real_over_synthetic']:+.1f} %",
            f"loader: batches come {result['loader_headroom']:.0f} times as fast as steps take; a reader decodes "
            f"{result['windows_per_reader_second']:.0f} windows/s, {result['mb_per_reader_second']:.0f} MB/s of float32",
            f"time: {shares}",
            f"peak memory of {result['peak_memory_of']}: {result['peak_memory_bytes'] / 2**20:.0f} MiB",
            *compilation,
            *(f"{name}: {path}" for name, path in result.get("profile", {}).items()),
        ]
    )
