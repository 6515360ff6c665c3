"""An export forecasts with torch, safetensors, numpy, xarray and the wheel alone, and `import scigpt` costs nothing."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import venv
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from runs import make_corpus, settings, write
from test_project import wheel  # noqa: F401
from toy import ToySource

from scigpt.data.sample import Coordinate, Sample, Time, Variable
from scigpt.data_prep.convert import convert
from scigpt.data_prep.source import SampleRef
from scigpt.export import weights
from scigpt.train.config import load
from scigpt.train.engine import train

NEEDED = ("torch", "safetensors", "numpy", "xarray")


class Weather(ToySource):
    """Daily maps of the globe with dates."""

    def samples(self, refs: Sequence[SampleRef]) -> Iterator[Sample]:
        for sample in super().samples(refs):
            latitude, longitude = np.linspace(78.75, -78.75, 8), 45.0 * np.arange(8)
            yield replace(
                sample,
                values=np.float32(280) + sample.values,
                variables=(Variable("air_temperature", "K"),),
                time=Time.regular(6.3e8, 86400.0, len(sample.time), "standard"),
                geometry="sphere",
                boundary=replace(sample.boundary, z=("open", "open"), y=("pole", "pole")),
                coordinates={
                    "latitude": Coordinate(("y",), latitude, "degrees_north"),
                    "longitude": Coordinate(("x",), longitude, "degrees_east"),
                },
                coefficients={},
            )


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run on simulated planes and on dated maps."""
    path = tmp_path_factory.mktemp("fresh")
    maps = convert(Weather(options=Weather.Options(samples=20, size=8, frames=8)), path / "weather", progress=False)
    train(load(write(settings([make_corpus(path), maps], path / "run", steps=10), path / "run.yaml")))
    return weights.write(path / "run", path / "out")


FORECAST = """
import sys

def offline(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        raise RuntimeError("a forecast needs no network")

sys.addaudithook(offline)

import numpy as np
import xarray as xr

import scigpt

path, out = sys.argv[1:]
random = np.random.default_rng(0)
model = scigpt.load(path)
plane = xr.Dataset(
    {"concentration": (("time", "y", "x"), random.standard_normal((3, 8, 8), np.float32), {"units": "1"})},
    {"time": 0.1 * np.arange(3)},
)
maps = xr.Dataset(
    {"air_temperature": (("time", "lat", "lon"), 280 + random.standard_normal((3, 8, 8), np.float32), {"units": "K"})},
    {
        "time": np.arange("2024-02-27", "2024-03-01", dtype="datetime64[D]").astype("datetime64[ns]"),
        "lat": ("lat", np.linspace(78.75, -78.75, 8), {"units": "degrees_north"}),
        "lon": ("lon", 45.0 * np.arange(8), {"units": "degrees_east"}),
    },
)
found = [model.forecast(plane, steps=4), model.forecast(maps, steps=4)]
assert str(found[1]["time"].values[-1])[:10] == "2024-03-04", found[1]["time"]
np.savez(out, plane=found[0]["concentration"].values, maps=found[1]["air_temperature"].values)
"""

LACKING = """
import sys
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def closure(names):
    found, todo = set(), list(names)
    while todo:
        name = canonicalize_name(todo.pop())
        if name in found:
            continue
        try:
            needs = map(Requirement, distribution(name).requires or [])
        except PackageNotFoundError:
            continue
        found.add(name)
        todo += [r.name for r in needs if r.marker is None or r.marker.evaluate({"extra": ""})]
    return found


here = closure(sys.argv.pop(1).split(","))
owners = packages_distributions()
away = {top for top, names in owners.items() if top != "scigpt" and not {canonicalize_name(n) for n in names} & here}
assert {"cftime", "pint", "omegaconf", "scipy", "netCDF4", "yaml", "tqdm"} <= away, away

# to an import as to `importlib.util.find_spec` they are not there
sys.modules.update(dict.fromkeys(away - sys.modules.keys()))
"""


def expected(export: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """The forecasts of this process, which has everything."""
    script = FORECAST.replace("sys.addaudithook(offline)", "")  # a hook stays for ever
    (folder / "here.py").write_text(script)
    monkeypatch.setattr(sys, "argv", ["here.py", str(export), str(folder / "here.npz")])
    runpy.run_path(str(folder / "here.py"))
    return dict(np.load(folder / "here.npz"))


def test_an_export_forecasts_where_there_is_little_else(export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = expected(export, tmp_path, monkeypatch)
    arguments = [",".join(NEEDED), str(export), str(tmp_path / "little.npz")]
    done = subprocess.run([sys.executable, "-c", LACKING + FORECAST, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    little = np.load(tmp_path / "little.npz")
    for name, values in whole.items():
        assert values.shape == (4, 8, 8)
        assert np.isfinite(values).all()
        np.testing.assert_allclose(little[name], values, rtol=0, atol=1e-5 * values.std())


IMPORTS = """
import json, time

def cost(name):
    before = time.process_time()
    __import__(name)
    return time.process_time() - before

print(json.dumps({name: cost(name) for name in ("torch", "scigpt", "xarray", "scigpt.export.forecaster")}))
"""


def test_its_import_costs_nothing_beside_that_of_torch() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    seconds = json.loads(done.stdout)
    assert seconds["scigpt"] < 0.1 * seconds["torch"]
    assert seconds["scigpt"] + seconds["scigpt.export.forecaster"] < 1.0
    done = subprocess.run([sys.executable, "-c", "import sys, scigpt; sys.exit('torch' in sys.modules)"])
    assert done.returncode == 0  # `scigpt --help` does not wait for it


@pytest.mark.drill
def test_an_export_forecasts_in_a_fresh_environment(
    export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    built: Path = request.getfixturevalue("wheel")
    whole = expected(export, tmp_path, monkeypatch)
    venv.create(tmp_path / "fresh", with_pip=True)
    python = str(tmp_path / "fresh" / "bin" / "python")
    own = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}

    def run(*arguments: str) -> str:
        done = subprocess.run([python, *arguments], cwd=tmp_path, env=own, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return done.stdout

    torch = f"torch=={version('torch').partition('+')[0]}"
    run("-m", "pip", "install", "--quiet", torch, *NEEDED[1:])
    run("-m", "pip", "install", "--quiet", "--no-deps", str(built))
    installed = {each["name"].lower() for each in json.loads(run("-m", "pip", "list", "--format", "json"))}
    assert not installed & {"cftime", "pint", "omegaconf", "scipy", "netcdf4", "pyyaml", "lightning"}
    (tmp_path / "there.py").write_text(FORECAST)
    run("-I", "there.py", str(export), str(tmp_path / "there.npz"))
    there = np.load(tmp_path / "there.npz")
    for name, values in whole.items():
        np.testing.assert_allclose(there[name], values, rtol=0, atol=1e-5 * values.std())
