"""The runs of a sweep: which sizes, lengths and data, from its budgets and limits."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from scigpt.data.corpus import Corpus
from scigpt.data.mixture import BLOCK, CorpusConfig, DataConfig, Mixture
from scigpt.data.patching import choose_patch, token_count
from scigpt.errors import UserError
from scigpt.launch.output import si
from scigpt.launch.sweep.config import LengthsConfig, SweepConfig
from scigpt.launch.sweep.ladder import Ladder, Shape
from scigpt.launch.sweep.table import Role, Row, Table, checkpoint_of, code_version, identity
from scigpt.model.backbone import Vocabulary
from scigpt.train.account import Account, account, parameters
from scigpt.train.config import RunConfig
from scigpt.train.processes import Place

SHARE = 0.9
"""Share of a sweep's budget that is planned for where the sweep chooses its isoFLOP budgets itself: lengths are rounded."""
LEAST_BUDGETS, LEAST_SIDE, LEAST_SIZES = 3, 2, 3
"""isoFLOP budgets; sizes on each side of an expected minimum; sizes of a grid."""


@dataclass(frozen=True)
class Cell:
    """A run that is planned.

    Args:
        part: of the sweep that asks for it.
        budget, centre: of its isoFLOP line, FLOPs and parameters.
        trunk: what it branches from at `branch_step`.
    """

    part: str
    role: Role
    shape: Shape
    config: RunConfig
    budget: float | None = None
    centre: float | None = None
    axes: dict[str, Any] = field(default_factory=dict)
    trunk: Cell | None = None
    branch_step: int | None = None

    @property
    def steps(self) -> int:
        return self.config.train.steps

    @property
    def name(self) -> str:
        words = [self.part, si(self.shape.params).replace(" ", ""), f"{self.steps} steps"]
        return " ".join([*words, *(f"{k}={v}" for k, v in self.axes.items() if k in self.part), *self._seed])

    @property
    def _seed(self) -> list[str]:
        return [f"seed {self.config.seed}"] if self.role == "seed-repeat" else []


@dataclass(frozen=True, slots=True)
class Rate:
    """What a step costs and reads, on average."""

    flops: float
    tokens: float


@dataclass(frozen=True)
class Line:
    """Sizes at one budget, around where the minimum is expected."""

    centre: float
    shapes: list[Shape]


class Design:
    """The runs that a sweep asks for.

    Attributes:
        cells: in the order of the parts; equal runs once.
        dropped: `{"part", "run", "reason"}` of runs that are not planned.
        warnings: what the user should know.

    Raises:
        UserError: whatever would stop `scigpt pretrain`, or a design from which nothing can be learned.
    """

    def __init__(self, config: SweepConfig, base: RunConfig) -> None:
        self.config = config
        self.corpora = [Corpus.open(c.path) for c in base.data.corpora]
        self.vocabulary = Vocabulary.from_corpora(self.corpora)
        processes = base.strategy.processes or 1
        width = base.data.data_width or base.strategy.mesh(Place(0, processes, 0, processes)).data_world
        decay = base.optim.decay if config.decay is None else config.decay
        if config.warmup + decay > 1:
            raise UserError(f"warmup {config.warmup} and optim.decay {decay} of the base are more than the whole run; lower one of them")
        self.base = replace(base, data=replace(base.data, data_width=width), optim=replace(base.optim, decay=decay))
        self.ladder = Ladder(base.model, self.vocabulary, config.ladder.aspect)
        self.lowest = self.ladder.nearest(config.ladder.smallest or 1)
        self.cells: list[Cell] = []
        self.dropped: list[dict[str, str]] = []
        self.warnings: list[str] = []
        self._mixtures: dict[str, Mixture] = {}
        self._rates: dict[tuple[Shape, str], Rate] = {}  # FLOPs outside the blocks and of one, tokens
        self._axes = {name: self._value(name, self.base.data) for name in config.axes.given}
        self._lay_out()

    def rows(self, folder: Path) -> list[tuple[Cell, Row]]:
        """Rows of a table in this folder; equal runs that several parts ask for are one row, of the first of them."""
        code, prints = code_version(), [c.fingerprint for c in self.corpora]
        found: dict[str, tuple[Cell, Row]] = {}
        ids: dict[int, str] = {}
        for cell in self.cells:
            parent = None if cell.trunk is None else ids[id(cell.trunk)]
            key = ids[id(cell)] = identity(cell.config, prints, code, parent, cell.branch_step)
            if key in found:
                if found[key][1].fitted != (cell.role not in ("lr-probe", "hold-out")):
                    raise UserError(
                        f"{cell.name} and {found[key][1].name} are one run, and only one of the two may enter the fit; change one"
                    )
                continue
            found[key] = cell, self._row(cell, key, parent, folder)
        if len(found) < len(self.cells):
            self.warnings.append(f"{len(self.cells) - len(found)} runs are asked for by two parts and planned once")
        return list(found.values())

    def table(self, folder: Path, rows: Sequence[Row]) -> Table:
        """Cheapest first, a trunk before its branches, hold-outs last."""
        by_id = {r.id: r for r in rows}

        def place(row: Row) -> tuple[Any, ...]:
            first = by_id[row.parent] if row.parent else row
            return row.role == "hold-out", first.own_flops, first.id, row.parent is not None, row.own_flops, row.id

        fingerprints = {c.name: c.fingerprint for c in self.corpora}
        return Table(folder, code_version(), fingerprints, tuple(sorted(rows, key=place)))

    def _row(self, cell: Cell, key: str, parent: str | None, folder: Path) -> Row:
        whole = self._account(cell.config, cell.steps)
        before = self._account(cell.config, cell.branch_step).flops["total"] if cell.branch_step else 0
        run, train = folder / "runs" / key, cell.config.train
        if parent and cell.branch_step:
            train = replace(train, branch_from=str(checkpoint_of(folder, parent, cell.branch_step)))
        data = whole.data
        return Row(
            id=key,
            name=cell.name,
            role=cell.role,
            config=replace(cell.config, run=str(run), train=train).to_json(),
            group=parent or key,
            params=parameters(cell.config.model, self.vocabulary),
            tokens=data.tokens,
            samples=data.samples,
            values=data.values,
            unique_samples=data.unique_samples,
            epochs=data.epochs,
            flops=whole.flops["total"],
            own_flops=whole.flops["total"] - before,
            steps=cell.steps,
            parent=parent,
            branch_step=cell.branch_step,
            budget=cell.budget,
            axes=cell.axes,
        )

    # ---------------------------------------------------------------- parts

    def _lay_out(self) -> None:
        config = self.config
        if config.grid:
            self.cells += self._grid(config.grid)
        if config.trunks:
            self.cells += self._trunks(config.trunks)
        self.budgets = self._budgets()
        if config.isoflop:
            self.cells += self._isoflop()
        fitted = list(self.cells)
        if config.seeds:
            self.cells += self._seeds(fitted)
        if config.lr:
            self.cells += self._probes(fitted)
        for name, axis in config.axes.given.items():
            for value in axis.values:
                self.cells += self._axis(name, value, self.budgets[: axis.budgets], axis.sizes)
        if config.hold_out:
            self.cells += self._hold_out(fitted)

    def _budgets(self) -> list[float]:
        """Of the isoFLOP lines, the largest first."""
        config = self.config.isoflop
        if config is None:
            return []
        found = sorted(config.budgets or [], reverse=True)
        if not found:
            top = config.top or self._affordable_top()
            found = [top / config.ratio**k for k in range(config.count)]
        if len(found) < LEAST_BUDGETS:
            raise UserError(f"isoflop has {len(found)} budgets, and a power law of its minima needs {LEAST_BUDGETS}; raise isoflop.count")
        if found[0] / found[-1] < self.config.min_span:
            raise UserError(
                f"the budgets of isoflop span a factor of {found[0] / found[-1]:.3g}; an exponent needs {self.config.min_span:g} or more: "
                f"raise isoflop.ratio or isoflop.count"
            )
        return found

    def _affordable_top(self) -> float:
        """The largest budget of a line so that all parts together cost `SHARE` of the sweep's."""
        config, spent = self.config, sum(self._own_flops(c) for c in self.cells)
        iso = config.isoflop
        assert iso is not None
        if config.lr:
            steps = (config.lr.steps or config.min_steps) * len(config.lr.rates) * config.lr.count
            spent += steps * self._rate(self.lowest, self.base.data).flops
        powers = [iso.ratio**-k for k in range(iso.count)]
        units = iso.sizes * sum(powers)
        units += sum(len(a.values) * a.sizes * sum(powers[: a.budgets]) for a in config.axes.given.values())
        if config.seeds:
            units += config.seeds.cells * config.seeds.repeats * powers[iso.count // 2]
        if config.hold_out and config.hold_out.flops is None:
            units += config.hold_out.ratio * config.hold_out.sizes
        left = SHARE * config.budget.total - spent - sum((config.hold_out and config.hold_out.flops) or [])
        if left <= 0:
            raise UserError(
                f"grid, trunks, lr and hold_out cost more than {SHARE:.0%} of the budget of {config.budget.total:.3g} FLOP and leave "
                f"nothing for isoflop; raise budget, or make them smaller"
            )
        return left / units

    def _isoflop(self) -> Iterator[Cell]:
        iso = self.config.isoflop
        assert iso is not None
        for budget in reversed(self.budgets):
            line = self._line("isoflop", budget, self.base.data, iso.sizes)
            for shape in line.shapes:
                yield self._cell("isoflop", "grid", shape, self._steps(budget, shape, self.base.data), budget=budget, centre=line.centre)

    def _grid(self, config: LengthsConfig) -> Iterator[Cell]:
        sizes: set[int] = set()
        for shape, lengths in self._lengths("grid", config):
            for steps in lengths:
                sizes.add(shape.params)
                yield self._cell("grid", "grid", shape, steps)
        self._enough("grid", sizes)

    def _trunks(self, config: LengthsConfig) -> Iterator[Cell]:
        """One run of each size, as long as its longest point, and branches of it in which the rate falls earlier. The warm-up of all is
        that of the shortest point."""
        decay = self.base.optim.decay
        if not decay:
            raise UserError("trunks branch where the learning rate begins to fall, and decay is 0; set decay, as decay: 0.2")
        sizes: set[int] = set()
        for shape, lengths in self._lengths("trunks", config):
            sizes.add(shape.params)
            longest, shorter = lengths[-1], lengths[:-1]
            optim = replace(self.base.optim, warmup=self._warmup(lengths[0]))
            branches = {steps: steps - round(decay * steps) for steps in shorter}
            trunk = self._cell("trunks", "trunk", shape, longest)
            kept = replace(trunk.config.train, keep_steps=sorted(branches.values()))
            trunk = replace(trunk, config=replace(trunk.config, optim=optim, train=kept))
            yield trunk
            for steps, step in branches.items():
                cell = self._cell("trunks", "anneal", shape, steps)
                yield replace(cell, config=replace(cell.config, optim=optim), trunk=trunk, branch_step=step)
        self._enough("trunks", sizes)

    def _lengths(self, part: str, config: LengthsConfig) -> Iterator[tuple[Shape, list[int]]]:
        """Sizes and the steps of their runs, rising, within the limits."""
        for shape in self._sizes(part, config):
            per_step = self._rate(shape, self.base.data).tokens
            longest: float = config.steps or self.config.min_steps * config.ratio ** (config.points - 1)
            if config.tokens_per_param:
                longest = config.tokens_per_param * shape.params / per_step
            lengths = sorted({round(longest / config.ratio**k) for k in range(config.points)})
            kept = [steps for steps in lengths if self._admits(part, shape, steps)]
            if kept:
                yield shape, kept

    def _sizes(self, part: str, config: LengthsConfig) -> list[Shape]:
        if config.sizes:
            wanted: Sequence[float] = config.sizes
        elif self.config.ladder.largest is None:
            raise UserError(f"{part}.count takes sizes up to the end of the ladder, and it has none; set ladder.largest, or {part}.sizes")
        else:
            wanted = np.geomspace(self.lowest.params, self.config.ladder.largest, config.count).tolist()
        return sorted({self.ladder.nearest(n) for n in wanted}, key=lambda s: s.params)

    @staticmethod
    def _enough(part: str, sizes: set[int]) -> None:
        if len(sizes) < LEAST_SIZES:
            raise UserError(
                f"{part} has {len(sizes)} different sizes after rounding to the ladder and leaving out what is too short or too long, and "
                f"it needs {LEAST_SIZES}; raise {part}.count, spread {part}.sizes, or lower min_steps"
            )

    def _seeds(self, fitted: Sequence[Cell]) -> Iterator[Cell]:
        """Repeats of cells that are evenly spaced from the cheapest to the middle of the sweep, in the middle of their lines."""
        config = self.config.seeds
        assert config is not None
        middle: dict[Any, Cell] = {}
        for cell in fitted:
            line = cell.budget or id(cell)
            if line not in middle or _off(cell) < _off(middle[line]):
                middle[line] = cell
        cells = sorted(middle.values(), key=lambda c: c.steps * self._rate(c.shape, c.config.data).flops)
        places = np.linspace(0, (len(cells) - 1) // 2, config.cells).round().astype(int)
        for i in sorted(set(places.tolist())):
            for k in range(config.repeats):
                train = replace(cells[i].config.train, keep_steps=[])
                repeated = replace(cells[i].config, seed=self.base.seed + 1 + k, train=train)
                yield replace(cells[i], part="seeds", role="seed-repeat", config=repeated, trunk=None, branch_step=None)

    def _probes(self, fitted: Sequence[Cell]) -> Iterator[Cell]:
        config = self.config.lr
        assert config is not None
        shapes = sorted({c.shape for c in fitted}, key=lambda s: s.params)[: config.count]
        if config.sizes:
            shapes = sorted({self.ladder.nearest(n) for n in config.sizes}, key=lambda s: s.params)
        for shape in shapes:
            for factor in config.rates:
                cell = self._cell("lr", "lr-probe", shape, config.steps or self.config.min_steps)
                lr = factor * self.base.optim.lr
                optim = replace(cell.config.optim, lr=lr)
                yield replace(cell, config=replace(cell.config, optim=optim), axes=cell.axes | {"lr": lr})

    def _axis(self, name: str, value: Any, budgets: Sequence[float], sizes: int) -> Iterator[Cell]:
        data = self._varied(name, value)
        for budget in reversed(budgets):
            line = self._line(f"axes.{name}", budget, data, sizes)
            for shape in line.shapes:
                steps = self._steps(budget, shape, data)
                cell = self._cell(name, "grid", shape, steps, budget=budget, centre=line.centre)
                yield replace(cell, config=replace(cell.config, data=data), axes=cell.axes | {name: value})

    def _hold_out(self, fitted: Sequence[Cell]) -> Iterator[Cell]:
        config = self.config.hold_out
        assert config is not None
        costs = [c.steps * self._rate(c.shape, c.config.data).flops for c in fitted]
        budgets = config.flops or [config.ratio * max(costs)]
        if min(budgets) <= max(costs):
            raise UserError(
                f"hold_out.flops {min(budgets):.3g} is not more than the dearest run of the fit ({max(costs):.3g}); an extrapolation is "
                f"judged by larger runs, so raise it"
            )
        count = 0
        for budget in sorted(budgets):
            iso = self.config.isoflop
            ratio = config.tokens_per_param or (iso.tokens_per_param if iso else None)
            if not ratio and not iso:
                ratio = float(np.exp(np.mean([np.log(self._tokens(c) / c.shape.params) for c in fitted])))
            centre = self._centre("hold_out", budget, self.base.data, ratio)
            powers = [(-1) ** (k + 1) * ((k + 1) // 2) for k in range(config.sizes)]
            for shape in dict.fromkeys(self.ladder.nearest(centre * config.span**p) for p in powers):
                steps = self._steps(budget, shape, self.base.data)
                if self._admits("hold_out", shape, steps):
                    count += 1
                    yield self._cell("hold_out", "hold-out", shape, steps, budget=budget)
        if not count:
            raise UserError(f"no run of hold_out has from {self.config.min_steps} to {self.config.max_steps} steps; change hold_out.flops")

    # ---------------------------------------------------------------- one line

    def _line(self, part: str, budget: float, data: DataConfig, count: int) -> Line:
        iso = self.config.isoflop
        assert iso is not None
        centre = self._centre(part, budget, data, iso.tokens_per_param)
        admitted = self._admitted(part, budget, data)
        low, high = max(centre / iso.span, admitted[0].params), min(centre * iso.span, admitted[-1].params)
        if high < low:
            low, high = admitted[0].params, admitted[-1].params
        self._clipped(part, budget, data, centre, (low, high))
        shapes = sorted({self.ladder.nearest(n) for n in np.geomspace(low, high, count)}, key=lambda s: s.params)
        shapes = [s for s in shapes if self.config.min_steps <= self._steps(budget, s, data) <= self.config.max_steps]
        if len(shapes) == 1:
            raise UserError(f"{part} at {budget:.3g} FLOP: all sizes are the same after rounding to the ladder; {self._wider(part)}")
        below, above = (sum(s.params < centre * 0.98 for s in shapes), sum(s.params > centre * 1.02 for s in shapes))
        if min(below, above) < LEAST_SIDE:
            ends = f"from {size(shapes[0].params)} to {size(shapes[-1].params)}" if shapes else "none at all"
            raise UserError(
                f"{part} at {budget:.3g} FLOP: of {len(shapes)} sizes ({ends}) {below} are smaller and {above} larger than the expected "
                f"minimum at {size(centre)}, and a minimum needs {LEAST_SIDE} on each side; {self._wider(part)}"
            )
        return Line(centre, shapes)

    def _wider(self, part: str) -> str:
        count = "isoflop.sizes" if part == "isoflop" else f"{part}.sizes"
        return f"raise the budgets or {count}, lower min_steps or ladder.smallest, raise ladder.largest, or widen ladder.aspect"

    def _centre(self, part: str, budget: float, data: DataConfig, ratio: float | None) -> float:
        """Parameters where the minimum of a line is expected: at so many tokens per parameter, or in the middle of what is admitted."""
        if ratio is None:
            admitted = self._admitted(part, budget, data)
            return math.sqrt(admitted[0].params * admitted[-1].params)

        def ratio_at(params: float) -> float:
            shape = self.ladder.nearest(params)
            rate = self._rate(shape, data)
            return budget / rate.flops * rate.tokens / shape.params * (shape.params / params) ** 2  # between shapes D / N falls as N^-2

        high = float(self.lowest.params)
        while ratio_at(high) > ratio:
            high *= 2
        low = high / 2
        while ratio_at(low) < ratio:
            low /= 2
        while high / low > 1.001:
            middle = math.sqrt(low * high)
            low, high = (middle, high) if ratio_at(middle) > ratio else (low, middle)
        return math.sqrt(low * high)

    def _admitted(self, part: str, budget: float, data: DataConfig) -> list[Shape]:
        """Rungs of the ladder that a budget trains for an admitted number of steps."""
        low, high = self.config.min_steps, self.config.max_steps
        first, last = self.lowest, self.config.ladder.largest
        top = float(first.params)
        while (last is None or top < last) and self._steps(budget, self.ladder.nearest(top), data) >= low:
            top *= 2
        rungs = self.ladder.rungs(first.params, max(first.params, min(top, last or top)))
        found = [s for s in rungs if low <= self._steps(budget, s, data) <= high]
        if not found:
            steps = self._steps(budget, first, data)
            small = f"the smallest model ({size(first.params)}) has {steps} steps"
            what = small if steps < low else f"all models have more than {high} steps"
            knob = "raise the budget, or lower min_steps or ladder.smallest" if steps < low else "lower the budget or raise ladder.largest"
            raise UserError(f"{part} at {budget:.3g} FLOP: {what}, and {low} to {high} are admitted; {knob}")
        return found

    def _clipped(self, part: str, budget: float, data: DataConfig, centre: float, kept: tuple[float, float]) -> None:
        """Note the sizes that the span asks for and the limits do not admit."""
        span = self.config.isoflop.span if self.config.isoflop else 1
        for end, edge, side in ((centre / span, kept[0], "smaller"), (centre * span, kept[1], "larger")):
            if edge / end > 1.1 or end / edge > 1.1:
                shape = self.ladder.nearest(end)
                steps, bounds = self._steps(budget, shape, data), (self.config.min_steps, self.config.max_steps)
                why = "the ladder ends there"
                if steps < bounds[0] or steps > bounds[1]:
                    why = f"{size(shape.params)} have {steps} steps, {bounds[0]} to {bounds[1]} are admitted"
                self.dropped.append({"part": part, "run": f"{budget:.3g} FLOP, {side} than {size(edge)}", "reason": why})

    def _admits(self, part: str, shape: Shape, steps: int) -> bool:
        low, high = self.config.min_steps, self.config.max_steps
        if low <= steps <= high:
            return True
        what = f"fewer than min_steps {low}" if steps < low else f"more than max_steps {high}"
        self.dropped.append({"part": part, "run": f"{size(shape.params)}, {steps} steps", "reason": what})
        return False

    # ---------------------------------------------------------------- one run

    def _cell(self, part: str, role: Role, shape: Shape, steps: int, budget: float | None = None, centre: float | None = None) -> Cell:
        base = self.base
        train = replace(base.train, steps=steps, keep_steps=[], branch_from=None)
        optim = replace(base.optim, warmup=self._warmup(steps))
        config = replace(base, model=shape.of(base.model), train=train, optim=optim)
        return Cell(part, role, shape, config, budget, centre, dict(self._axes))

    def _warmup(self, steps: int) -> int:
        return round(self.config.warmup * steps)

    def _steps(self, budget: float, shape: Shape, data: DataConfig) -> int:
        return round(budget / self._rate(shape, data).flops)

    def _tokens(self, cell: Cell) -> float:
        return cell.steps * self._rate(cell.shape, cell.config.data).tokens

    def _own_flops(self, cell: Cell) -> float:
        return (cell.steps - (cell.branch_step or 0)) * self._rate(cell.shape, cell.config.data).flops

    def _rate(self, shape: Shape, data: DataConfig) -> Rate:
        key = shape, repr(data)
        if key not in self._rates:
            groups = 16 * BLOCK
            whole = account(self._mixture(data, self.base.seed), shape.of(self.base.model), groups, self.base.train.micro_batch)
            step = self.base.train.groups / groups
            self._rates[key] = Rate(whole.flops["total"] * step, whole.data.tokens * step)
        return self._rates[key]

    def _account(self, config: RunConfig, steps: int) -> Account:
        mixture = self._mixture(config.data, config.seed)
        return account(mixture, config.model, steps * config.train.groups, config.train.micro_batch)

    def _mixture(self, data: DataConfig, seed: int) -> Mixture:
        key = f"{data!r} {seed}"
        if key not in self._mixtures:
            self._mixtures[key] = Mixture(self.corpora, data, seed)
        return self._mixtures[key]

    # ---------------------------------------------------------------- axes

    @staticmethod
    def _value(name: str, data: DataConfig) -> Any:
        """What the base has on an axis."""
        if name in ("patch", "frames"):
            return getattr(data, name)
        if name == "unique":
            return 1.0
        values = [c.weight if name == "mixture" else getattr(c, name) for c in data.corpora]
        return values if name == "mixture" or any(v != values[0] for v in values) else values[0]

    def _varied(self, name: str, value: Any) -> DataConfig:
        """The data with one thing changed; a group has as many windows as before.

        Raises:
            UserError: a value that changes nothing, or that a corpus does not follow.
        """
        data, where = self.base.data, f"axes.{name}"
        if name in ("patch", "frames") and any(getattr(c, name) is not None for c in data.corpora):
            raise UserError(f"{where}: a corpus of the base states its own {name} and would not follow; leave it out there")
        if name == "unique" and any(c.limit is not None for c in data.corpora):
            raise UserError(f"{where}: a corpus of the base has a limit already; leave it out there")
        if name == "mixture" and len(value) != len(data.corpora):
            raise UserError(f"{where}: {value} has {len(value)} weights for {len(data.corpora)} corpora")
        if name in ("patch", "frames"):
            changed = replace(data, **{name: value})
        else:
            changed = replace(data, corpora=[self._corpus(name, value, i, c) for i, c in enumerate(data.corpora)])
        before, after = (self._mixture(d, self.base.seed) for d in (data, changed))
        ratio = np.average([a / b for a, b in zip(_window_tokens(after), _window_tokens(before), strict=True)], weights=_weights(data))
        changed = replace(changed, tokens=math.ceil(round(data.tokens * ratio, 6)))
        after = self._mixture(changed, self.base.seed)
        if (after.windows, _patches(after), after.epoch_windows, _weights(changed)) == (
            before.windows,
            _patches(before),
            before.epoch_windows,
            _weights(data),
        ):
            raise UserError(f"{where}: {value} changes nothing in these corpora; leave it out")
        if after.sizes != before.sizes:
            self.warnings.append(f"{where}={value}: groups have {list(after.sizes)} windows, in the base {list(before.sizes)}")
        return changed

    def _corpus(self, name: str, value: Any, i: int, corpus: CorpusConfig) -> CorpusConfig:
        if name == "unique":
            records = len(self.corpora[i].entries(corpus.train))
            return replace(corpus, limit=max(1, round(value * records)))
        if name == "mixture":
            return replace(corpus, weight=value[i])
        return replace(corpus, **{name: value})


def _off(cell: Cell) -> float:
    """How far a cell is from the middle of its line."""
    return abs(math.log(cell.shape.params / cell.centre)) if cell.centre else 0.0


def _weights(data: DataConfig) -> list[float]:
    total = sum(c.weight for c in data.corpora)
    return [c.weight / total for c in data.corpora]


def _grids(mixture: Mixture) -> Iterator[tuple[tuple[int, int, int], tuple[int, int, int], int]]:
    """Grid, patch and frames that a model is given of each corpus."""
    for corpus, window, preferred in zip(mixture.corpora, mixture.windows, mixture.patches, strict=True):
        z, y, x = corpus.layout.grid
        height, width = window.crop or (y, x)
        yield (z, height, width), choose_patch((z, height, width), preferred, corpus.layout.geometry), window.frames - 1


def _patches(mixture: Mixture) -> list[tuple[int, int, int]]:
    return [patch for _, patch, _ in _grids(mixture)]


def _window_tokens(mixture: Mixture) -> list[int]:
    return [frames * token_count(grid, patch) for grid, patch, frames in _grids(mixture)]


def size(params: float) -> str:
    return f"{si(params).replace(' ', '')} parameters"
