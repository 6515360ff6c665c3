"""`scigpt plan`: size, FLOPs, memory and hours of a run before anything is submitted. It touches no GPU and trains nothing."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Iterator
from dataclasses import asdict, astuple, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scigpt.errors import UserError
from scigpt.launch.output import Json, show, si, table
from scigpt.launch.pretrain import Config, Overrides

if TYPE_CHECKING:
    from scigpt.data.batches import Batch
    from scigpt.data.mixture import Mixture
    from scigpt.model.backbone import ModelConfig, Recompute, SciGPT
    from scigpt.train.config import RunConfig
    from scigpt.train.memory import Activations, Held
    from scigpt.train.mesh import Mesh

GIB = 2**30
MFU = 0.35
AGAIN: dict[Recompute, float] = {False: 0.0, "selective": 0.05, True: 1 / 3}
"""More work by what a block computes again in the backward pass, the least first."""
NODE = 8
"""Processes of a node, where `strategy.shard` of hsdp is not stated."""
MOST_PROCESSES = 1024
"""The search for a configuration that fits ends there."""
USABLE = 0.9
"""Share of a device's memory that training may fill; the rest is for the context, the communication library and the allocator's gaps."""


@dataclass(frozen=True, slots=True)
class Device:
    """What a device can do.

    Args:
        bf16, fp32: peak rate of dense matrix products, TFLOP/s; `fp32` without TF32, which scigpt does not turn on.
        memory: GiB that a program finds on it.
        source: of the rates.
    """

    name: str
    bf16: float
    fp32: float
    memory: float
    source: str


_NVIDIA, _AMD = "https://www.nvidia.com/en-us/data-center", "https://www.amd.com/en/products/accelerators/instinct"
DEVICES = {
    d.name: d
    for d in (
        Device("a100-40", 312.0, 19.5, 39.4, f"{_NVIDIA}/a100"),
        Device("a100", 312.0, 19.5, 79.1, f"{_NVIDIA}/a100"),
        Device("h100", 989.4, 66.9, 79.1, f"{_NVIDIA}/h100"),
        Device("h200", 989.4, 66.9, 139.8, f"{_NVIDIA}/h200"),
        Device("gh200", 989.4, 66.9, 94.5, f"{_NVIDIA}/grace-hopper-superchip"),
        Device("mi250x", 191.5, 47.9, 64.0, f"{_AMD}/mi200/mi250x.html (one of its two dies, as programs see it)"),
        Device("mi300x", 1307.4, 163.4, 192.0, f"{_AMD}/mi300/mi300x.html"),
    )
}


@dataclass(frozen=True, slots=True)
class Hardware:
    """What a plan counts on.

    Args:
        name: for the reader.
        peak: FLOP/s of dense matrix products of a device, in the precision of the run.
        memory: bytes of a device; those of the machine where the devices are the processes of one machine (`shared`).
        mfu: share of the peak that training reaches.
        gpu: whether it is one.
    """

    name: str
    peak: float
    memory: int
    mfu: float
    gpu: bool = True
    shared: bool = False

    def limit(self, processes: int) -> int:
        """Bytes that each of the processes may fill."""
        return int(USABLE * self.memory / (processes if self.shared else 1))


def hardware(device: str | None, peak: float | None, memory: float | None, mfu: float, precision: str, threads: int | None) -> Hardware:
    """The device of that name, or this machine; `peak` (TFLOP/s) and `memory` (GiB) replace what is known of it.

    Raises:
        UserError: an unknown name; a peak without a memory.
    """
    if device is None and peak is None:
        machine = _this_machine(precision, threads, mfu)
        return machine if memory is None else replace(machine, memory=int(memory * GIB))
    if device is None:
        if memory is None:
            raise UserError("--peak says how fast a device is and not how much it holds; give --memory GIB too")
        return Hardware("device", peak * 1e12 if peak else 0.0, int(memory * GIB), mfu)
    known = DEVICES.get(device.lower())
    if known is None:
        near = difflib.get_close_matches(device.lower(), DEVICES, 1, 0.4)
        hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(DEVICES)}"
        raise UserError(f"the device {device!r} is unknown; {hint} Any other is given by --peak TFLOPS and --memory GIB")
    rate = known.bf16 if precision == "bf16" else known.fp32
    return Hardware(known.name, (peak or rate) * 1e12, int((memory or known.memory) * GIB), mfu)


def _this_machine(precision: str, threads: int | None, mfu: float) -> Hardware:
    """The CPU, as fast as it multiplies matrices now."""
    import torch

    from scigpt.launch.timing import matrix_product_rate

    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        peak = matrix_product_rate(precision, 2) * torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
    return Hardware("this machine's CPU", peak, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), mfu, gpu=False, shared=True)


def memory_here() -> Hardware:
    """The device that a run started here gets, and its memory; how fast it is does not matter."""
    import torch

    if torch.cuda.is_available():
        device = torch.cuda.get_device_properties(0)
        return Hardware(device.name, 1.0, device.total_memory, MFU)
    return Hardware("this machine's CPU", 1.0, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), MFU, gpu=False, shared=True)


def plan(
    config: Config,
    overrides: Overrides = None,
    device: Annotated[str | None, typer.Option("--device", help=f"One of {', '.join(DEVICES)}; without it, this machine's CPU.")] = None,
    peak: Annotated[float | None, typer.Option("--peak", min=0.0, help="TFLOP/s of a device, instead of its data sheet's.")] = None,
    memory: Annotated[float | None, typer.Option("--memory", min=0.0, help="GiB of a device, instead of its data sheet's.")] = None,
    mfu: Annotated[float, typer.Option("--mfu", min=0.001, max=1.0, help="Share of the peak that training reaches.")] = MFU,
    processes: Annotated[int | None, typer.Option("--processes", min=1, help="Processes, one a device; else strategy.processes.")] = None,
    json: Json = False,
) -> None:
    """Predict parameters, FLOPs, memory of each device by strategy, and hours, without a GPU. What cannot fit ends with code 2, the reason,
    and the nearest configuration that does."""
    from scigpt.train.config import load

    settings = load(config, overrides or ())
    count = processes or settings.strategy.processes or (1 if settings.strategy.name == "single" else None)
    if count is None:
        raise UserError(f"{config}: the strategy {settings.strategy.name} needs a number of processes; give --processes N")
    machine = hardware(device, peak, memory, mfu, settings.train.precision, settings.train.threads)
    result = Planner(settings, machine, "--processes {}" if processes else "strategy.processes={}").report(count)
    show(result, json, _text)
    if result["refusal"]:
        raise UserError(f"{config}: {result['refusal']}")


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes on the fullest device, by what they are for; `host` is CPU memory beside it. `windows` are those of a pass of `corpus`, whose
    activations are the largest."""

    parameters: int
    gradients: int
    optimizer: int
    buffers: int
    activations: int
    temporary: int
    host: int
    corpus: str
    windows: int

    @property
    def parts(self) -> dict[str, int]:
        return {k: v for k, v in asdict(self).items() if k not in ("host", "corpus", "windows")}

    @property
    def total(self) -> int:
        return sum(self.parts.values())


@dataclass(frozen=True, slots=True)
class Change:
    """A configuration, and the words that make it of the one asked for."""

    config: RunConfig
    processes: int
    words: tuple[str, ...] = ()


class Planner:
    """Predictions for a configuration and for variants of it, over corpora that are opened once.

    Args:
        spelling: how a user says the number of processes.

    Raises:
        UserError: whatever would stop `scigpt pretrain` with this configuration.
    """

    def __init__(self, config: RunConfig, machine: Hardware, spelling: str) -> None:
        from scigpt.adapt.start import is_new, planned
        from scigpt.data.corpus import Corpus
        from scigpt.data.loader import scales_of
        from scigpt.data.tasks import build_task
        from scigpt.train.run import with_model

        config = with_model(config)
        self.config, self.machine, self.spelling = config, machine, spelling
        self.corpora = [Corpus.open(c.path) for c in config.data.corpora]
        self.scales = [scales_of(c, s) for c, s in zip(self.corpora, config.data.corpora, strict=True)]
        self.tasks = [build_task(config.task, c, s, config.seed) for c, s in zip(self.corpora, self.scales, strict=True)]
        _, self.vocabulary, start = planned(config, self.corpora)
        self._new = (lambda name: is_new(name, start)) if start is not None else None
        self._models: dict[tuple[Any, ...], SciGPT] = {}
        self._passes: dict[tuple[Any, ...], dict[int, Activations]] = {}
        self._mixtures: dict[int | None, Mixture] = {}

    def report(self, processes: int) -> dict[str, Any]:
        """All numbers of the configuration as it is."""
        config = self.config
        need, limit = self.need(config, processes), self.machine.limit(processes)
        return {
            "run": config.run,
            "model": self._model_report(),
            "device": asdict(self.machine) | {"usable": limit},
            "processes": processes,
            "strategy": label(config),
            "memory": dict(self._by_strategy(processes)),
            "fullest": {"corpus": need.corpus, "windows": need.windows},
            **self._work(processes),
            "refusal": None if need.total <= limit else self.refusal(need, processes),
        }

    def _model_report(self) -> dict[str, Any]:
        from scigpt.train.memory import parts

        depth, width, heads = self.config.model.resolved()
        by_part, (trained, whole) = parts(self._model(self.config.model)), self.trained()
        return {"depth": depth, "width": width, "heads": heads, "parameters": whole, "trained": trained, "by_part": by_part}

    def trained(self) -> tuple[int, int]:
        """How many parameters are trained, of how many."""
        parameters = list(self._model(self.config.model).parameters())
        return sum(p.numel() for p in parameters if p.requires_grad), sum(p.numel() for p in parameters)

    def _by_strategy(self, processes: int) -> Iterator[tuple[str, dict[str, Any]]]:
        """What every strategy would need at this number of processes; those of one process do not differ."""
        own = label(self.config)
        names = [("ddp", 1), ("hsdp", 1), ("fsdp2", 1), *(("deepspeed", stage) for stage in (1, 2, 3))] if processes > 1 else []
        if processes <= (self.config.strategy.shard or NODE):
            names = [n for n in names if n[0] != "hsdp"]  # one copy: the same as fsdp2
        configs = [replace(self.config, strategy=replace(self.config.strategy, name=n, stage=s)) for n, s in names]  # type: ignore[arg-type]
        for config in configs if own in map(label, configs) else [self.config, *configs]:
            try:
                need = self.need(config, processes)
            except UserError:
                if config == self.config:
                    raise
                continue  # hsdp, where a node's processes do not divide all
            fits = need.total <= self.machine.limit(processes)
            yield label(config), {**need.parts, "total": need.total, "host": need.host, "fits": fits}

    def _work(self, processes: int) -> dict[str, Any]:
        """Tokens, FLOPs and time. The groups of the run are shared among the corpora by weight."""
        config, model, mixture = self.config, self._model(self.config.model), self._mixture(self.config, processes)
        groups, weights = config.train.groups, [c.weight for c in config.data.corpora]
        tokens = flops = 0.0
        corpora = []
        for i, corpus in enumerate(self.corpora):
            share, size, one = weights[i] / sum(weights), mixture.sizes[i], self._batch(i, 1)
            passes = self._mesh(config, processes).data_world * self._cuts(config, processes)[i][1]
            window = model.flops(self._batch(i, 2)) - model.flops(one)  # a pass costs a little whatever its number of windows
            tokens += groups * share * size * model.tokens(one)
            flops += groups * share * 3 * (size * window + passes * (model.flops(one) - window))
            epochs = config.train.steps * groups * share * size / mixture.epoch_windows[i]
            about = {"name": corpus.name, "share": share, "windows": size, "tokens": size * model.tokens(one), "epochs": epochs}
            corpora.append(about)
        work = flops * (1 + AGAIN[config.train.activation_checkpointing])
        seconds = work / (processes * self.machine.peak * self.machine.mfu)
        hours = config.train.steps * seconds / 3600
        step = {"tokens": tokens, "flops": flops, "seconds": seconds}
        total = {"steps": config.train.steps, "tokens": config.train.steps * tokens, "flops": config.train.steps * flops}
        return {"corpora": corpora, "step": step, "total": total | {"hours": hours, "device_hours": processes * hours}}

    # ---------------------------------------------------------------- memory

    def need(self, config: RunConfig, processes: int) -> Need:
        """Memory of the fullest device.

        Raises:
            UserError: processes that the strategy or the groups cannot be split over.
        """
        if config.init is not None:  # whatever it says of the model itself
            config = replace(config, model=self.config.model)
        kept, found = self._held(config, processes), []
        for i, (corpus, (windows, _)) in enumerate(zip(self.corpora, self._cuts(config, processes), strict=True)):
            one = self._activations(config, i, windows)
            found.append((one.saved + one.temporary, one, corpus.name, windows))
        _, most, name, windows = max(found, key=lambda f: f[0])
        state = (kept.parameters, kept.gradients, kept.optimizer, kept.buffers)
        return Need(*state, most.saved, most.temporary, kept.host, name, windows)

    def _held(self, config: RunConfig, processes: int) -> Held:
        from scigpt.train.memory import held

        passes = config.train.groups * max(cuts for _, cuts in self._cuts(config, processes))
        return held(self._model(config.model), config.strategy, self._mesh(config, processes), config.train.layout, passes)

    def _cuts(self, config: RunConfig, processes: int) -> list[tuple[int, int]]:
        """For each corpus the windows of its largest pass, and the passes that a process makes of a group."""
        mixture, world, found = self._mixture(config, processes), self._mesh(config, processes).data_world, []
        for size in mixture.sizes:
            share = len(mixture.split(range(size), 0, world)[0])
            cuts = math.ceil(share / (config.train.micro_batch or share))
            found.append((math.ceil(share / cuts), cuts))
        return found

    def _activations(self, config: RunConfig, corpus: int, windows: int) -> Activations:
        """Found for one window and two other numbers of them; they grow in proportion, so any other follows."""
        from scigpt.train.memory import Activations, activations

        layout, gathered = config.train.layout, config.strategy.name in ("fsdp2", "hsdp")
        known = self._passes.setdefault((_key(config.model), layout, gathered and layout.bf16, corpus), {})
        several = [n for n in known if n > 1]
        if windows not in known and (windows == 1 or len(several) < 2):
            batch = self._batch(corpus, windows)
            known[windows] = activations(config.model, self.vocabulary, batch, layout, gathered, self.machine.gpu, self._adapt)
        if windows in known:
            return known[windows]
        a, b = several
        part = (windows - a) / (b - a)
        found = (round(x + part * (y - x)) for x, y in zip(astuple(known[a]), astuple(known[b]), strict=True))
        return Activations(*found)

    def _batch(self, corpus: int, windows: int) -> Batch:
        from scigpt.train.memory import blank_batch

        window, patch = self._shapes.windows[corpus], self._shapes.patches[corpus]
        settings, task = self.config.data.corpora[corpus], self.tasks[corpus]
        return blank_batch(self.corpora[corpus], settings, window, self.scales[corpus], patch, windows, task)

    @cached_property
    def _shapes(self) -> Mixture:
        """Any mixture: windows and patches are the same in all."""
        return next(iter(self._mixtures.values()))

    def _mixture(self, config: RunConfig, processes: int) -> Mixture:
        from scigpt.data.mixture import Mixture
        from scigpt.train.run import with_width

        data = with_width(config, self._mesh(config, processes).data_world).data
        if data.data_width not in self._mixtures:
            self._mixtures[data.data_width] = Mixture(self.corpora, data, config.seed)
        return self._mixtures[data.data_width]

    @staticmethod
    def _mesh(config: RunConfig, processes: int) -> Mesh:
        from scigpt.train.processes import Place

        return config.strategy.mesh(Place(0, processes, 0, min(NODE, processes)))

    def _model(self, config: ModelConfig) -> SciGPT:
        import torch

        from scigpt.model.backbone import SciGPT

        if _key(config) not in self._models:
            with torch.device("meta"):
                self._models[_key(config)] = SciGPT(config, self.vocabulary)
            self._adapt(self._models[_key(config)])
        return self._models[_key(config)]

    def _adapt(self, model: SciGPT) -> None:
        """Freeze and insert what an adapted run does."""
        from scigpt.adapt.trainable import prepare

        if self._new is not None:
            prepare(model, self.config.adapt, self._new)

    # ---------------------------------------------------------------- what would fit

    def refusal(self, need: Need, processes: int) -> str:
        """One sentence: what it needs, what there is, and the nearest configuration that fits."""
        config, limit = self.config, self.machine.limit(processes)
        part = max(need.parts, key=lambda p: need.parts[p])
        of = f" (a pass of {need.windows} windows of {need.corpus})" if part in ("activations", "temporary") else ""
        found = self.nearest(processes)
        near = f"the nearest that fits: {' '.join(found.words)}" if found else "and nothing smaller that was tried fits"
        return (
            f"{label(config)} on {processes} x {self.machine.name} needs {need.total / GIB:.1f} GiB on each device, "
            f"{need.parts[part] / GIB:.1f} of them for {part}{of}, and there are {limit / GIB:.1f}; {near}"
        )

    def nearest(self, processes: int) -> Change | None:
        """The first that fits, in the order of what is least to change."""
        return next((c for c in self._changes(processes) if c is not None), None)

    def _changes(self, processes: int) -> Iterator[Change | None]:
        asked = Change(self.config, processes)
        yield from self._squeezed(asked)
        yield from self._spread(asked)
        for smaller in self._smaller(asked):
            yield self._fitting(smaller)
            yield from self._squeezed(smaller)
            yield from self._spread(smaller)

    def _squeezed(self, change: Change) -> Iterator[Change | None]:
        """Fewer windows in a pass; blocks computed again; both."""
        yield self._fewer_windows(change)
        train = change.config.train
        for how in (how for how, work in AGAIN.items() if work > AGAIN[train.activation_checkpointing]):
            config = replace(change.config, train=replace(train, activation_checkpointing=how))
            again = replace(change, config=config, words=(*change.words, f"train.activation_checkpointing={str(how).lower()}"))
            yield self._fitting(again)
            yield self._fewer_windows(again)

    def _spread(self, change: Change) -> Iterator[Change | None]:
        """State split over the processes; then over more of them."""
        count = change.processes
        for more in self._splits(change) if count > 1 else ():
            yield self._fitting(more)
            yield from self._squeezed(more)
        while not self.machine.shared and (count := 2 * count) <= MOST_PROCESSES:
            *_, split = self._splits(change) or [change]
            more = replace(split, processes=count, words=(*split.words, self.spelling.format(count)))
            yield self._fitting(more)
            yield from self._squeezed(more)

    @staticmethod
    def _splits(change: Change) -> list[Change]:
        """Strategies that split more than this one, the least first."""
        strategy, found = change.config.strategy, []
        if strategy.name == "deepspeed":
            found = [(replace(strategy, stage=stage), f"strategy.stage={stage}") for stage in range(strategy.stage + 1, 4)]
        elif strategy.name != "fsdp2":
            found = [(replace(strategy, name="fsdp2"), "strategy=fsdp2")]
        return [replace(change, config=replace(change.config, strategy=s), words=(*change.words, word)) for s, word in found]

    @staticmethod
    def _smaller(change: Change) -> Iterator[Change]:
        from scigpt.model.sizes import DEPTHS, width_of

        model = change.config.model
        if change.config.init is not None:
            return  # its size is that of the pretrained model
        depth, width, _ = model.resolved()
        stated = [name for name in ("depth", "width", "heads") if getattr(model, name) is not None]
        words = [f"model.{name}=null" for name in stated]
        blocks = {size: d * width_of(d) ** 2 for size, d in DEPTHS.items()}  # in proportion to their parameters
        for size in sorted((s for s in DEPTHS if blocks[s] < depth * width**2), key=lambda s: -blocks[s]):
            smaller = replace(change.config, model=replace(model, size=size, depth=None, width=None, heads=None))
            yield replace(change, config=smaller, words=(*change.words, f"model.size={size}", *words))

    def _fewer_windows(self, change: Change) -> Change | None:
        """With as many windows in a pass as fit, if that is fewer than now."""
        try:
            most = max(windows for windows, _ in self._cuts(change.config, change.processes))
        except UserError:
            return None
        fits, low, high = None, 1, most - 1
        while low <= high:
            middle = (low + high) // 2
            config = replace(change.config, train=replace(change.config.train, micro_batch=middle))
            found = self._fitting(replace(change, config=config, words=(*change.words, f"train.micro_batch={middle}")))
            low, high, fits = (middle + 1, high, found) if found else (low, middle - 1, fits)
        return fits

    def _fitting(self, change: Change) -> Change | None:
        limit = self.machine.limit(change.processes)
        try:
            kept = self._held(change.config, change.processes)
            if kept.parameters + kept.gradients + kept.optimizer + kept.buffers > limit:
                return None  # whatever the passes need
            return change if self.need(change.config, change.processes).total <= limit else None
        except UserError:  # processes that cannot share the groups
            return None


def _key(config: ModelConfig) -> tuple[Any, ...]:
    return tuple(map(repr, asdict(config).values()))


def label(config: RunConfig) -> str:
    """The strategy in one word."""
    return f"zero-{config.strategy.stage}" if config.strategy.name == "deepspeed" else config.strategy.name


def _text(result: dict[str, Any]) -> str:
    model, device, step, total = result["model"], result["device"], result["step"], result["total"]
    by_part = ", ".join(f"{name} {si(n)}" for name, n in model["by_part"].items())
    of = f", {si(model['trained'])} of them trained" if model["trained"] < model["parameters"] else ""
    size = f"{si(model['parameters'])} parameters ({by_part}){of}; depth {model['depth']}, width {model['width']}, {model['heads']} heads"
    rates = f"{si(device['peak'])}FLOP/s, {device['usable'] / GIB:.1f} GiB usable"
    columns = ["parameters", "gradients", "optimizer", "buffers", "activations", "temporary", "total"]
    rows = []
    for name, need in result["memory"].items():
        mark = "*" if name == result["strategy"] else ""
        host = f"+ {need['host'] / GIB:.2f} on the host" if need["host"] else ""
        rows.append([name + mark, *(f"{need[c] / GIB:.2f}" for c in columns), "yes" if need["fits"] else "NO", host])
    corpora = [[c["name"], f"{c['share']:.1%}", c["windows"], f"{c['tokens']:,}", f"{c['epochs']:.2f}"] for c in result["corpora"]]
    fullest = result["fullest"]
    cost = f"{si(step['tokens'])} tokens, {si(step['flops'])}FLOP, {_time(step['seconds'])}"
    whole = f"{si(total['tokens'])} tokens, {si(total['flops'])}FLOP, {_time(3600 * total['hours'])}"
    return "\n".join(
        [
            f"{result['run']}: {size}",
            f"{result['processes']} x {device['name']}: {rates} each",
            "",
            table(["GiB a device", *columns, "fits", ""], rows),
            f"* as configured; activations are largest in passes of {fullest['windows']} windows of {fullest['corpus']}",
            "",
            table(["corpus", "of groups", "windows a group", "tokens a group", "epochs"], corpora),
            "",
            f"a step: {cost}",
            f"{total['steps']:,} steps: {whole}, {total['device_hours']:,.3g} device-hours, at {device['mfu']:.0%} of the peak",
        ]
    )


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"
