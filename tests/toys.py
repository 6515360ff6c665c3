"""Small batches of any shape, and a model with weights that make every path matter."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from scigpt.data.batches import Batch, collate
from scigpt.data.normalize import Scales
from scigpt.data.sample import Boundary, Coordinate, Geometry, Level, Origin, Role, Sample, Time, Variable
from scigpt.model.backbone import ModelConfig, SciGPT, Vocabulary

UNITS = {"a": "1", "b": "1", "f": "1", "s": "1", "d": "1", "air_temperature": "K"}
ROLES: dict[str, Role] = {"f": "forcing", "s": "static", "d": "diagnostic"}
VOCABULARY = Vocabulary(UNITS, {"viscosity": (0.5, 0.3)})


def make_batch(
    shape: Sequence[int],
    names: Sequence[str] = ("a", "b"),
    geometry: Geometry = "plane",
    boundary: Boundary | None = None,
    count: int = 2,
    seed: int = 0,
    gaps: float = 0.0,
    patch: int = 8,
    steady: bool = False,
    level: Level | None = None,
) -> Batch:
    """A batch of random smooth-ish fields of shape `(T, Z, Y, X)`."""
    rng = np.random.default_rng(seed)
    t, z, y, x = shape
    variables = tuple(Variable(n, UNITS[n], ROLES.get(n, "state"), level) for n in names)
    coordinates = {}
    if geometry == "points":
        coordinates = {n: Coordinate(("x",), rng.uniform(-80, 80, x), "degrees") for n in ("latitude", "longitude")}
    if geometry == "sphere":
        coordinates = {
            "latitude": Coordinate(("y",), np.linspace(80, -80, y), "degrees_north"),
            "longitude": Coordinate(("x",), np.arange(x) * 360.0 / x, "degrees_east"),
        }
    samples = []
    for _ in range(count):
        values = rng.standard_normal((1, len(names), z, y, x)) + 0.3 * np.cumsum(rng.standard_normal((t, len(names), z, y, x)), 0)
        valid = rng.random(values.shape) >= gaps
        if steady:
            valid[0, [v.role == "state" for v in variables]] = False
        samples.append(
            Sample(
                values.astype(np.float32), valid, variables, Time.regular(0.0, 0.5, t), Origin("test", "CC0-1.0"), geometry,
                boundary or Boundary(), coordinates, {"viscosity": float(rng.uniform(0, 1))}, steady,
            )
        )  # fmt: skip
    n = len(names)
    scales = Scales((("identity", 1.0),) * n, (0.1,) * n, (1.3,) * n, tuple(0.0 if r == "s" else 0.4 for r in names))
    return collate(samples, scales, "test", patch)


@pytest.fixture(scope="session")
def model() -> SciGPT:
    return make_model()


def make_model(**config: object) -> SciGPT:
    torch.manual_seed(0)
    model = SciGPT(ModelConfig(**{"depth": 2, "width": 64, **config}), VOCABULARY)  # type: ignore[arg-type]
    with torch.no_grad():  # zero-initialised parts would hide mistakes
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()
