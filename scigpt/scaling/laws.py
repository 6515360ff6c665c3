"""The forms a scaling law may take: what the loss is, given parameters, data, compute, patch and context.

Almost all are sums of power terms, `L = sum_k c_k prod_j x_j^(-+e)`, with coefficients that are not negative and exponents that several
terms may share (`PowerSum`). A solver works with internal parameters `theta`: every column is divided by a reference value (its geometric
mean in the table), the loss likewise, so that a coefficient is the share of the loss that its term has in the middle of the table. `report`
turns them into the parameters people write (`E`, `A`, `alpha`, ...).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import ClassVar

import numpy as np

Columns = Mapping[str, np.ndarray]
Parameters = Mapping[str, np.ndarray | float]
TINY = 1e-300
EXPONENT = (1e-3, 4.0)
"""Bounds of an exponent: below the first a term is a constant, beyond the second it is gone within a factor of two."""
LARGEST = 1e3
"""Bound of a coefficient, in units of the loss in the middle of the table."""
ALIKE = 1e-9
REPEATS = (0.1, 1e3)
"""Bounds of R_D and R_N: repeats are worthless, repeats are as good as fresh data."""
REPEATED = 0.05
"""Less of an epoch than this, seen again, tells nothing."""
FARTHEST = 60.0
"""Bound of the log of a compute-optimal size, where one of the terms is all but gone."""


class Law(ABC):
    """A form of the loss.

    Attributes:
        name: in tables and on the command line.
        parameters: names, in the order of `theta`.
        columns: of the table, that it is a function of.
        coefficients: how many of the parameters (the first ones) the loss is linear in.
        assumed: how many columns `grid` has beyond the parameters: what `design` must assume while the coefficients are unknown.
    """

    name: str
    parameters: tuple[str, ...]
    columns: tuple[str, ...]
    coefficients: int
    assumed: ClassVar[int] = 0

    @property
    @abstractmethod
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest `theta`, `(p,)` each."""

    @abstractmethod
    def evaluate(self, theta: np.ndarray, logs: Columns) -> tuple[np.ndarray, np.ndarray]:
        """Log of the loss `(R, n)` and its derivative `(R, p, n)` at `theta` `(R, p)`, for logs of columns `(n,)` over their references."""

    @abstractmethod
    def grid(self, logs: Columns) -> np.ndarray:
        """Points `(G, q)` of the parameters after the coefficients, among which variable projection looks for starts."""

    @abstractmethod
    def design(self, shape: np.ndarray, logs: Columns) -> np.ndarray:
        """`(G, K, n)`: what each coefficient is multiplied by, at `shape` `(G, q)`."""

    @abstractmethod
    def report(self, theta: np.ndarray, reference: Mapping[str, float]) -> dict[str, np.ndarray]:
        """The parameters as people write them, `(R,)` each, in the units of the table; `reference` has the columns and `loss`."""

    @abstractmethod
    def theta(self, parameters: Parameters, reference: Mapping[str, float]) -> np.ndarray:
        """Inverse of `report`: `(R, p)`."""

    @abstractmethod
    def on(self, columns: Mapping[str, str]) -> Law:
        """The same law of other columns: `on({"tokens": "samples"})` counts the data in samples, as a fit across patch sizes must."""

    def lacks(self, columns: Columns) -> str | None:
        """Why a table with these columns can say nothing of some parameter; None where it can."""
        for name in self.columns:
            if np.ptp(np.log(columns[name])) < ALIKE:
                return f"{name} is {columns[name][0]:g} in every run, so the law {self.name} cannot tell what it does"
        return None

    def unclear(self, columns: Columns) -> list[str]:
        """What the values in a table leave open, in sentences."""
        return []

    def reference(self, columns: Columns) -> dict[str, float]:
        """The geometric mean of each column."""
        return {name: float(np.exp(np.mean(np.log(columns[name])))) for name in self.columns}

    def logs(self, columns: Columns, reference: Mapping[str, float]) -> dict[str, np.ndarray]:
        return {name: np.log(np.asarray(columns[name], np.float64) / reference[name]) for name in self.columns}

    def loss(self, parameters: Parameters, columns: Columns) -> np.ndarray:
        """The loss `(R, n)` at reported parameters (numbers or `(R,)`) and columns `(n,)`."""
        one = dict.fromkeys((*self.columns, "loss"), 1.0)
        shaped = {name: np.atleast_1d(np.asarray(columns[name], np.float64)) for name in self.columns}
        return np.exp(self.evaluate(self.theta(parameters, one), self.logs(shaped, one))[0])


@dataclass(frozen=True, slots=True)
class Term:
    """`coefficient * prod column^(sign * exponent)`; `factors` are `(column, exponent, sign)`. Without factors it is a floor."""

    coefficient: str
    factors: tuple[tuple[str, str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class PowerSum(Law):
    """A sum of power terms."""

    name: str
    terms: tuple[Term, ...]

    @property
    def coefficients(self) -> int:  # type: ignore[override]
        return len(self.terms)

    @property
    def exponents(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(exponent for term in self.terms for _, exponent, _ in term.factors))

    @property
    def parameters(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(term.coefficient for term in self.terms) + self.exponents

    @property
    def columns(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(dict.fromkeys(column for term in self.terms for column, _, _ in term.factors))

    def on(self, columns: Mapping[str, str]) -> PowerSum:
        terms = tuple(replace(term, factors=tuple((columns.get(c, c), e, s) for c, e, s in term.factors)) for term in self.terms)
        return replace(self, terms=terms)

    def unclear(self, columns: Columns) -> list[str]:
        """A column with two values shows one difference of the loss: not how it bends, so neither the exponent nor what is left at the
        end."""
        of: dict[str, set[str]] = {}
        for term in self.terms:
            for column, exponent, _ in term.factors:
                of.setdefault(exponent, set()).add(column)
        alone = {column for names in of.values() if len(names) == 1 for column in names}
        floor = any(not term.factors for term in self.terms)
        few = [name for name in self.columns if floor and name in alone and len(np.unique(columns[name])) < 3]
        return [f"{name} has two values only: its exponent, its coefficient and the floor cannot be told apart" for name in few]

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        many = len(self.exponents)
        return (
            np.array([0.0] * len(self.terms) + [EXPONENT[0]] * many),
            np.array([LARGEST] * len(self.terms) + [EXPONENT[1]] * many),
        )

    def evaluate(self, theta: np.ndarray, logs: Columns) -> tuple[np.ndarray, np.ndarray]:
        count = len(self.terms)
        powers = self.design(theta[:, count:], logs)
        parts = powers * theta[:, :count, None]
        loss = np.maximum(parts.sum(1), TINY)
        jacobian = np.empty((theta.shape[0], theta.shape[1], loss.shape[1]))
        np.divide(powers, loss[:, None], out=jacobian[:, :count])
        for j, name in enumerate(self.exponents, count):
            slope = np.zeros_like(loss)
            for k, term in enumerate(self.terms):
                for column, exponent, sign in term.factors:
                    if exponent == name:
                        slope += sign * logs[column] * parts[:, k]
            np.divide(slope, loss, out=jacobian[:, j])
        return np.log(loss), jacobian

    def grid(self, logs: Columns) -> np.ndarray:
        many = len(self.exponents)
        axis = np.geomspace(0.03, 2.0, {1: 96, 2: 24, 3: 13, 4: 8}[many])
        return np.array(list(product(axis, repeat=many)))

    def design(self, shape: np.ndarray, logs: Columns) -> np.ndarray:
        place = {name: j for j, name in enumerate(self.exponents)}
        size = next(iter(logs.values())).size
        powers = np.ones((shape.shape[0], len(self.terms), size))
        for k, term in enumerate(self.terms):
            if term.factors:
                log = sum(sign * shape[:, place[exponent], None] * logs[column] for column, exponent, sign in term.factors)
                np.exp(log, out=powers[:, k])
        return powers

    def report(self, theta: np.ndarray, reference: Mapping[str, float]) -> dict[str, np.ndarray]:
        count = len(self.terms)
        values = {name: theta[:, count + j].copy() for j, name in enumerate(self.exponents)}
        scaled = {term.coefficient: theta[:, k] * self._unit(term, values, reference) for k, term in enumerate(self.terms)}
        return scaled | values

    def theta(self, parameters: Parameters, reference: Mapping[str, float]) -> np.ndarray:
        values = {name: np.atleast_1d(np.asarray(parameters[name], np.float64)) for name in self.parameters}
        scaled = [values[term.coefficient] / self._unit(term, values, reference) for term in self.terms]
        return np.stack(np.broadcast_arrays(*scaled, *(values[name] for name in self.exponents)), 1)

    def _unit(self, term: Term, exponents: Mapping[str, np.ndarray], reference: Mapping[str, float]) -> np.ndarray:
        """A reported coefficient over its internal one."""
        log = sum((-sign * exponents[exponent] * np.log(reference[column]) for column, exponent, sign in term.factors), np.zeros(1))
        return reference["loss"] * np.exp(log)


_FLOOR = Term("E")
_MODEL = Term("A", (("params", "alpha", -1),))
_DATA = Term("B", (("tokens", "beta", -1),))

CHINCHILLA = PowerSum("chinchilla", (_FLOOR, _MODEL, _DATA))
"""`L = E + A N^-alpha + B D^-beta` (Hoffmann et al. 2022, arXiv 2203.15556, equation 2)."""
TIED = PowerSum("tied", (_FLOOR, _MODEL, Term("B", (("tokens", "alpha", -1),))))
"""The same with `beta = alpha`: for fewer than 15 runs."""
PATCH = PowerSum("patch", (_FLOOR, _MODEL, _DATA, Term("K", (("patch", "kappa", 1),))))
"""`chinchilla` and a floor that grows with the patch, `K p^kappa`: what a patch blurs is lost for any model and any data."""
CONTEXT = PowerSum("context", (_FLOOR, _MODEL, _DATA, Term("K", (("context", "kappa", -1),))))
"""`chinchilla` and a floor that falls with the frames seen, `K T^-kappa`."""
PATCH_CONTEXT = PowerSum("patch+context", (*PATCH.terms, Term("K_T", (("context", "kappa_T", -1),))))
"""Both, each with a floor of its own."""
FRONTIER = PowerSum("frontier", (_FLOOR, Term("K", (("flops", "gamma", -1),))))
"""`L* = E + K C^-gamma` of the best loss per compute."""
POWER = PowerSum("power", (Term("K", (("flops", "gamma", -1),)),))
"""`L* = K C^-gamma`, without a floor."""
TRANSFER = PowerSum(
    "transfer", (_FLOOR, Term("A", (("pretraining", "alpha", -1), ("examples", "beta", -1))), Term("G", (("examples", "beta", -1),)))
)
"""`L = (A p^-alpha + G) f^-beta + E` of pretraining data p and fine-tuning data f; G is the transfer gap."""


@dataclass(frozen=True, slots=True)
class Repetition(Law):
    """Data seen again is worth less each time, and so are parameters beyond what the unique data can fill (Muennighoff et al. 2023,
    arXiv 2305.16264, equations 5 and 6): `L = E + A N'^-alpha + B D'^-beta` with

        D' = U + U R_D (1 - exp(-(D/U - 1)/R_D)),    N' = V + V R_N (1 - exp(-(N/V - 1)/R_N)),

    U the unique tokens (at most D) and V the best size for U fresh tokens (at most N), `alpha A V^-alpha = beta B U^-beta`. Internally R_D
    and R_N are logs.
    """

    name: str = "repetition"
    data: str = "tokens"
    unique: str = "unique_tokens"
    parameters = ("E", "A", "B", "alpha", "beta", "R_D", "R_N")
    coefficients = 3
    assumed = 1

    @property
    def columns(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("params", self.data, self.unique)

    def on(self, columns: Mapping[str, str]) -> Repetition:
        return replace(self, data=columns.get(self.data, self.data), unique=columns.get(self.unique, self.unique))

    def lacks(self, columns: Columns) -> str | None:
        if np.max(columns[self.data] / columns[self.unique]) < 1 + REPEATED:
            return f"no run sees its data again ({self.data} above {self.unique}), so the law {self.name} cannot tell what that is worth"
        return CHINCHILLA.on({"tokens": self.data}).lacks(columns)

    def reference(self, columns: Columns) -> dict[str, float]:
        """Unique and all data are measured against the same value."""
        params, data = (float(np.exp(np.mean(np.log(columns[name])))) for name in ("params", self.data))
        return {"params": params, self.data: data, self.unique: data}

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        small, large = np.log(REPEATS)
        return (
            np.array([0.0, 0.0, 0.0, EXPONENT[0], EXPONENT[0], small, small]),
            np.array([LARGEST, LARGEST, LARGEST, EXPONENT[1], EXPONENT[1], large, large]),
        )

    def evaluate(self, theta: np.ndarray, logs: Columns) -> tuple[np.ndarray, np.ndarray]:
        e, a, b, alpha, beta, log_d, log_n = (theta[:, j, None] for j in range(7))
        safe_a, safe_b = np.maximum(a, TINY), np.maximum(b, TINY)
        fresh = np.minimum(logs[self.data], logs[self.unique])
        best = (np.log(alpha * safe_a / (beta * safe_b)) + beta * fresh) / alpha
        within = np.abs(best) < FARTHEST
        data, data_by_r, _ = _worth(logs[self.data] - fresh, log_d)
        size, size_by_r, size_by_v = _worth(np.maximum(logs["params"] - np.clip(best, -FARTHEST, FARTHEST), 0.0), log_n)
        by_v = np.where(within, size_by_v, 0.0) / alpha
        size = size + np.minimum(logs["params"], np.clip(best, -FARTHEST, FARTHEST))
        of_n, of_d = np.exp(-alpha * size), np.exp(-beta * (fresh + data))
        loss = np.maximum(e + a * of_n + b * of_d, TINY)
        pull_n, pull_d = -alpha * a * of_n / loss, -beta * b * of_d / loss
        jacobian = np.stack(
            [
                1.0 / loss,
                of_n / loss + pull_n * by_v / safe_a,
                of_d / loss - pull_n * by_v / safe_b,
                -size * a * of_n / loss + pull_n * by_v * (1.0 / alpha - best),
                -(fresh + data) * b * of_d / loss + pull_n * by_v * (fresh - 1.0 / beta),
                pull_d * data_by_r,
                pull_n * size_by_r,
            ],
            1,
        )
        return np.log(loss), jacobian

    def grid(self, logs: Columns) -> np.ndarray:
        """The last column, which is no parameter, is log V at the mean of log U: V depends on the coefficients."""
        exponents, params = np.geomspace(0.12, 1.2, 8), logs["params"]
        best = np.linspace(params.min() - 1.0, params.max(), 5)
        return np.array(list(product(exponents, exponents, np.log([2.0, 6.0, 15.0, 40.0]), np.log([3.0, 10.0, 1000.0]), best)))

    def design(self, shape: np.ndarray, logs: Columns) -> np.ndarray:
        alpha, beta, log_d, log_n, middle = (shape[:, j, None] for j in range(5))
        fresh = np.minimum(logs[self.data], logs[self.unique])
        data = fresh + _worth(logs[self.data] - fresh, log_d)[0]
        best = middle + beta / alpha * (fresh - fresh.mean())
        size = np.minimum(logs["params"], best) + _worth(np.maximum(logs["params"] - best, 0.0), log_n)[0]
        return np.stack([np.ones_like(data), np.exp(-alpha * size), np.exp(-beta * data)], 1)

    def report(self, theta: np.ndarray, reference: Mapping[str, float]) -> dict[str, np.ndarray]:
        first = CHINCHILLA.on({"tokens": self.data}).report(theta[:, :5], reference)
        return first | {"R_D": np.exp(theta[:, 5]), "R_N": np.exp(theta[:, 6])}

    def theta(self, parameters: Parameters, reference: Mapping[str, float]) -> np.ndarray:
        first = CHINCHILLA.on({"tokens": self.data}).theta(parameters, reference)
        logs = [np.broadcast_to(np.log(np.asarray(parameters[name], np.float64)), len(first)) for name in ("R_D", "R_N")]
        return np.concatenate([first, np.stack(logs, 1)], 1)


@dataclass(frozen=True, slots=True)
class Passes(Repetition):
    """`repetition` without that of excess parameters: `L = E + A N^-alpha + B D'^-beta`, the limit of large R_N. A parameter fewer, for
    tables too small or too narrow to tell R_N."""

    name: str = "passes"
    parameters = ("E", "A", "B", "alpha", "beta", "R_D")  # type: ignore[assignment]
    assumed = 0

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        low, high = Repetition(data=self.data, unique=self.unique).bounds
        return low[:6], high[:6]

    def evaluate(self, theta: np.ndarray, logs: Columns) -> tuple[np.ndarray, np.ndarray]:
        e, a, b, alpha, beta, log_d = (theta[:, j, None] for j in range(6))
        fresh = np.minimum(logs[self.data], logs[self.unique])
        again, by_r, _ = _worth(logs[self.data] - fresh, log_d)
        data = fresh + again
        of_n, of_d = np.exp(-alpha * logs["params"]), np.exp(-beta * data)
        loss = np.maximum(e + a * of_n + b * of_d, TINY)
        slopes = [np.ones_like(loss), of_n, of_d, -logs["params"] * a * of_n, -data * b * of_d, -beta * b * of_d * by_r]
        return np.log(loss), np.stack(slopes, 1) / loss[:, None]

    def grid(self, logs: Columns) -> np.ndarray:
        exponents = np.geomspace(0.05, 1.5, 11)
        return np.array(list(product(exponents, exponents, np.log([0.5, 2.0, 8.0, 30.0, 120.0]))))

    def design(self, shape: np.ndarray, logs: Columns) -> np.ndarray:
        alpha, beta, log_d = (shape[:, j, None] for j in range(3))
        fresh = np.minimum(logs[self.data], logs[self.unique])
        data = fresh + _worth(logs[self.data] - fresh, log_d)[0]
        return np.stack([np.ones_like(data), np.exp(-alpha * logs["params"]), np.exp(-beta * data)], 1)

    def report(self, theta: np.ndarray, reference: Mapping[str, float]) -> dict[str, np.ndarray]:
        return CHINCHILLA.on({"tokens": self.data}).report(theta[:, :5], reference) | {"R_D": np.exp(theta[:, 5])}

    def theta(self, parameters: Parameters, reference: Mapping[str, float]) -> np.ndarray:
        first = CHINCHILLA.on({"tokens": self.data}).theta(parameters, reference)
        last = np.broadcast_to(np.log(np.asarray(parameters["R_D"], np.float64)), len(first))
        return np.concatenate([first, last[:, None]], 1)


def _worth(log_times: np.ndarray, log_r: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log of how many times the first pass `exp(log_times)` passes are worth, its derivative by `log_r`, and, with the passes being x / v
    at fixed x, the derivative by log v of log v plus the result."""
    r = np.exp(log_r)
    again = np.expm1(log_times)
    fade = np.exp(-again / r)
    worth = 1.0 + r * (1.0 - fade)
    return np.log(worth), (r * (1.0 - fade) - again * fade) / worth, 1.0 - (again + 1.0) * fade / worth


@dataclass(frozen=True, slots=True)
class Broken(Law):
    """A power law whose exponent changes once: `L = E + K x^-c0 (1 + (x/d)^(1/f))^(-c1 f)` (Caballero et al. 2022, arXiv 2210.14891,
    equation 1, n = 1). The exponent goes from c0 to c0 + c1 at x = d, the sooner the smaller f. Internally d and f are logs."""

    name: str = "broken"
    column: str = "flops"
    parameters = ("E", "K", "c0", "c1", "d", "f")
    coefficients = 2

    @property
    def columns(self) -> tuple[str, ...]:  # type: ignore[override]
        return (self.column,)

    def on(self, columns: Mapping[str, str]) -> Broken:
        return replace(self, column=columns.get(self.column, self.column))

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        steep = EXPONENT[1]
        return np.array([0.0, 0.0, -steep, -steep, -FARTHEST, np.log(0.02)]), np.array(
            [LARGEST, LARGEST, steep, steep, FARTHEST, np.log(5.0)]
        )

    def evaluate(self, theta: np.ndarray, logs: Columns) -> tuple[np.ndarray, np.ndarray]:
        e, k, c0, c1, log_d, log_f = (theta[:, j, None] for j in range(6))
        x, f = logs[self.column], np.exp(log_f)
        beyond = (x - log_d) / f
        soft = np.logaddexp(0.0, beyond)
        turned = np.exp(np.minimum(beyond, 0.0)) / (1.0 + np.exp(-np.abs(beyond)))  # the logistic function of `beyond`
        power = np.exp(-c0 * x - c1 * f * soft)
        loss = np.maximum(e + k * power, TINY)
        pull = k * power / loss
        slopes = [1.0 / loss, power / loss, -x * pull, -f * soft * pull, c1 * turned * pull, -c1 * f * (soft - beyond * turned) * pull]
        return np.log(loss), np.stack(slopes, 1)

    def grid(self, logs: Columns) -> np.ndarray:
        x = logs[self.column]
        places = np.linspace(x.min(), x.max(), 11)[1:-1]
        return np.array(list(product(np.geomspace(0.02, 1.5, 10), np.linspace(-0.6, 0.6, 8), places, np.log([0.1, 0.4, 1.2]))))

    def design(self, shape: np.ndarray, logs: Columns) -> np.ndarray:
        c0, c1, log_d, log_f = (shape[:, j, None] for j in range(4))
        x, f = logs[self.column], np.exp(log_f)
        power = np.exp(-c0 * x - c1 * f * np.logaddexp(0.0, (x - log_d) / f))
        return np.stack([np.ones_like(power), power], 1)

    def report(self, theta: np.ndarray, reference: Mapping[str, float]) -> dict[str, np.ndarray]:
        e, k, c0, c1, log_d, log_f = theta.T
        unit = reference[self.column]
        values = [e * reference["loss"], k * reference["loss"] * unit**c0, c0, c1, np.exp(log_d) * unit, np.exp(log_f)]
        return dict(zip(self.parameters, values, strict=True))

    def theta(self, parameters: Parameters, reference: Mapping[str, float]) -> np.ndarray:
        e, k, c0, c1, d, f = (np.atleast_1d(np.asarray(parameters[name], np.float64)) for name in self.parameters)
        unit = reference[self.column]
        internal = [e / reference["loss"], k / reference["loss"] / unit**c0, c0, c1, np.log(d / unit), np.log(f)]
        return np.stack(np.broadcast_arrays(*internal), 1)


REPETITION = Repetition()
PASSES = Passes()
BROKEN = Broken()

LAWS: dict[str, Law] = {
    law.name: law for law in (CHINCHILLA, TIED, REPETITION, PATCH, CONTEXT, FRONTIER, POWER, BROKEN, TRANSFER, PASSES, PATCH_CONTEXT)
}
