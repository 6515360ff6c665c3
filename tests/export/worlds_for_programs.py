"""One small domain of every kind that a program must be able to carry, and batches of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
from toys import ROLES, UNITS

from scigpt.data.batches import Batch, collate
from scigpt.data.domain import Domain
from scigpt.data.normalize import Scales
from scigpt.data.sample import Boundary, Coordinate, Level, Origin, Sample, Time, Variable

Make = Callable[[int, int], Batch]
"""Count and frames to a batch."""

DAY = 86400.0


def _variables(names: str) -> tuple[Variable, ...]:
    return tuple(Variable(n, UNITS[n], ROLES.get(n, "state")) for n in names)


def _sample(
    i: int, frames: int, grid: tuple[int, int, int], variables: tuple[Variable, ...], gaps: float = 0.2, told: bool = False, **more: object
) -> Sample:
    rng = np.random.default_rng((i, frames, *grid))
    shape = (len(variables), *grid)
    values = (rng.standard_normal((1, *shape)) + 0.3 * rng.standard_normal((frames, *shape)).cumsum(0)).astype(np.float32)
    time = more.pop("time", None) or Time.regular(0.3 * i, 0.5, frames)
    coefficients = {"viscosity": 0.2 + 0.1 * i} if told else {}
    origin = Origin("test", "CC0-1.0")
    return Sample(values, rng.random(values.shape) >= gaps, variables, time, origin, coefficients=coefficients, **more)  # type: ignore[arg-type]


def _scales(variables: tuple[Variable, ...], transform: tuple[tuple[str, float], ...] | None = None) -> Scales:
    n = len(variables)
    increment = tuple(0.0 if v.role == "static" else 0.4 for v in variables)
    return Scales(transform or (("identity", 1.0),) * n, tuple(0.1 * i for i in range(n)), (1.3,) * n, increment, 0.7)


def _world(
    name: str, sample: Callable[[int, int], Sample], frames: int = 3, scales: Scales | None = None, crop: tuple[int, int] | None = None
) -> tuple[Domain, Make]:
    first = sample(0, frames)
    scales = scales or _scales(first.variables)
    coefficients = {"viscosity": (0.0, 1.0)} if any(sample(i, frames).coefficients for i in range(2)) else {}
    coordinates = {n: {"axes": list(c.axes), "unit": c.unit, "spacing": None} for n, c in first.coordinates.items()}
    layout = first.layout
    if crop is not None:  # the samples are what the model saw; the domain tells of the whole
        layout = replace(layout, grid=(1, 40, 36), boundary=Boundary(y=("pole", "pole"), x=("periodic", "periodic")))
    calendar = first.time.calendar
    domain = Domain(name, layout, calendar, 0.5, False, frames, 8, crop, scales, coefficients, coordinates)
    return domain, lambda count, length: collate([sample(i, length) for i in range(count)], scales, name, 8)


def _flat(y: int, x: int) -> Mapping[str, Coordinate]:
    return {
        "latitude": Coordinate(("y",), np.linspace(80, -80, y), "degrees_north"),
        "longitude": Coordinate(("x",), np.arange(x) * 360.0 / x, "degrees_east"),
    }


def line() -> tuple[Domain, Make]:
    """1-D, asinh and log1p, a coefficient that is told of every second sample, wall and open."""
    variables = _variables("ab")
    scales = _scales(variables, (("asinh", 0.5), ("log1p", 0.5)))

    def sample(i: int, frames: int) -> Sample:
        made = _sample(i, frames, (1, 1, 19), variables, told=i % 2 == 0, boundary=Boundary(x=("wall", "open")))
        made.values[:, 1] = np.abs(made.values[:, 1])
        return made

    return _world("line", sample, scales=scales)


def torus() -> tuple[Domain, Make]:
    """2-D, periodic along sides that no patch divides."""
    return _world("torus", lambda i, t: _sample(i, t, (1, 19, 22), _variables("ab"), told=True, boundary=Boundary.all("periodic")))


def basin() -> tuple[Domain, Make]:
    """2-D, walls and open sides, a variable on a level."""
    variables = (Variable("air_temperature", "K", "state", Level("pressure", 850.0)), Variable("a", "1"))
    boundary = Boundary(y=("wall", "wall"), x=("open", "given"))
    return _world("basin", lambda i, t: _sample(i, t, (1, 19, 10), variables, boundary=boundary))


def box() -> tuple[Domain, Make]:
    """3-D."""
    return _world("box", lambda i, t: _sample(i, t, (5, 9, 8), _variables("a"), boundary=Boundary(z=("wall", "open"))))


def stations() -> tuple[Domain, Make]:
    """Points with latitude, longitude, height."""

    def sample(i: int, frames: int) -> Sample:
        rng = np.random.default_rng(i)
        draws = {"latitude": rng.uniform(-80, 80, 7), "longitude": rng.uniform(0, 360, 7), "height": rng.uniform(0, 2000, 7)}
        places = {n: Coordinate(("x",), v, "m" if n == "height" else "degrees") for n, v in draws.items()}
        return _sample(i, frames, (1, 1, 7), _variables("as"), geometry="points", coordinates=places)

    return _world("stations", sample)


def globe() -> tuple[Domain, Make]:
    """A sphere with poles, every role, a calendar, coordinates where no patch divides the grid."""

    def sample(i: int, frames: int) -> Sample:
        time = Time.regular((3500 + 90 * i) * DAY, 0.25 * DAY, frames, "noleap")
        boundary = Boundary(y=("pole", "pole"), x=("periodic", "periodic"))
        variables = _variables("afsd")
        return _sample(i, frames, (1, 9, 12), variables, geometry="sphere", boundary=boundary, coordinates=_flat(9, 12), time=time)

    return _world("globe", sample)


def ocean() -> tuple[Domain, Make]:
    """A curvilinear grid, around the Earth."""

    def sample(i: int, frames: int) -> Sample:
        y, x = np.meshgrid(np.linspace(-70, 80, 8), np.arange(12) * 30.0, indexing="ij")
        places = {"latitude": y + 3 * np.sin(np.deg2rad(x)), "longitude": x + 5 * np.cos(np.deg2rad(y))}
        coordinates = {n: Coordinate(("y", "x"), v, "degrees") for n, v in places.items()}
        boundary = Boundary(x=("periodic", "periodic"))
        return _sample(i, frames, (1, 8, 12), _variables("a"), geometry="sphere", boundary=boundary, coordinates=coordinates)

    return _world("ocean", sample)


def region() -> tuple[Domain, Make]:
    """A part of a globe, which is open where it was cut out."""

    def sample(i: int, frames: int) -> Sample:
        coordinates = {n: Coordinate(c.axes, c.values[:8] / 2 + i, c.unit) for n, c in _flat(8, 8).items()}
        return _sample(i, frames, (1, 8, 8), _variables("af"), geometry="sphere", coordinates=coordinates)

    return _world("region", sample, crop=(8, 8))


def poisson() -> tuple[Domain, Make]:
    """A steady problem, its solution and its source."""

    def sample(i: int, frames: int) -> Sample:
        made = _sample(i, frames, (1, 10, 10), _variables("as"), told=True, gaps=0.0, steady=True, boundary=Boundary.all("wall"))
        made.valid[0, 0] = False
        return made

    return _world("poisson", sample, frames=2)


def arrays(batch: Batch, program: Mapping[str, object]) -> dict[str, np.ndarray]:
    """A batch as the inputs of a program, with NaN wherever it must not look: in gaps and in what it is to predict."""
    predicted = torch.tensor([v.predicted for v in batch.layout.variables])
    values = torch.where(batch.valid, batch.values, torch.nan)
    values[:, -program["steps"] :, predicted] = torch.nan  # type: ignore[operator]
    found = replace(batch, values=values)
    return {i["name"]: np.ascontiguousarray(getattr(found, i["name"]).numpy()) for i in program["inputs"]}  # type: ignore[attr-defined]


def apart(domain: Domain, one: np.ndarray, other: torch.Tensor) -> float:
    """Largest difference of two forecasts in units of the training data's spread, of what is predicted."""
    predicted = torch.tensor([v.predicted for v in domain.layout.variables])
    shape = (len(other), -1, *other.shape[-4:])
    first, second = (domain.scales.forward(t.reshape(shape))[:, :, predicted] for t in (torch.from_numpy(one), other))
    assert torch.isfinite(first).all()
    return float((first - second).abs().max())
