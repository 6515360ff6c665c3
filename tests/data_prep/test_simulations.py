"""Public simulations: each layout, written here by h5py, scipy, numpy or torch as its publisher does, equals what was written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
import torch

from scigpt.data.batches import collate
from scigpt.data.corpus import Corpus
from scigpt.data.normalize import Scales, normalize
from scigpt.data.sample import Sample
from scigpt.data.verify import verify
from scigpt.data_prep.convert import convert
from scigpt.data_prep.inspect import format_report, inspect, reader
from scigpt.data_prep.pde.poisson import solve
from scigpt.data_prep.source import Plan, SampleRef, Source, parse_options
from scigpt.data_prep.sources import SOURCES
from scigpt.errors import UserError

RNG = np.random.default_rng(0)


def source(name: str, path: Path | list[Path], *words: str) -> Source:
    cls = SOURCES[name]
    return cls(path if isinstance(path, list) else [path], parse_options(cls.Options, words))


def read(name: str, path: Path | list[Path], *words: str) -> tuple[Plan, list[Sample]]:
    """All samples, in the order of the trajectories in the files."""
    made = source(name, path, *words)
    plan = made.plan()
    return plan, list(made.samples(in_order(plan)))


def in_order(plan: Plan) -> list[SampleRef]:
    return sorted(plan.refs, key=lambda r: [r.spec[k] for k in ("file", "recording", "trajectory", "start")])


def field(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def names(sample: Sample) -> list[str]:
    return [v.name for v in sample.variables]


# one file of each layout


def well(path: Path, names: tuple[str, ...] = ("x", "y"), shape: tuple[int, ...] = (8, 12), frames: int = 5, n: int = 2) -> dict[str, Any]:
    arrays = {"pressure": field(n, frames, *shape), "velocity": field(n, frames, *shape, len(shape)), "mask": field(*shape)}
    tensor, viscosity, heat = field(n, frames, *shape, len(shape), len(shape)), field(n), field(frames)
    with h5py.File(path, "w") as f:
        f.attrs.update(dataset_name="made", grid_type="cartesian", n_spatial_dims=len(shape), n_trajectories=n)
        dims = f.create_group("dimensions")
        dims.attrs["spatial_dims"] = list(names)
        axes = {"time": np.arange(frames) * 0.5} | {a: np.arange(s) / s for a, s in zip(names, shape, strict=True)}
        for name, values in axes.items():
            dims.create_dataset(name, data=values.astype(np.float32)).attrs["sample_varying"] = False
        groups = [f.create_group(f"t{i}_fields") for i in range(3)]
        for group, members in zip(groups, (["pressure", "mask"], ["velocity"], ["stress"]), strict=True):
            group.attrs["field_names"] = members

        def put(group: h5py.Group, name: str, values: np.ndarray, sample: bool, time: bool) -> None:
            made = group.create_dataset(name, data=values)
            made.attrs.update(sample_varying=sample, time_varying=time, dim_varying=[True] * len(shape))

        put(groups[0], "pressure", arrays["pressure"], True, True)
        put(groups[0], "mask", arrays["mask"], False, False)
        put(groups[1], "velocity", arrays["velocity"], True, True)
        put(groups[2], "stress", tensor, True, True)
        scalars = f.create_group("scalars")
        scalars.attrs["field_names"] = ["viscosity", "gravity", "heat"]
        put(scalars, "viscosity", viscosity, True, False)
        put(scalars, "gravity", np.float64(9.5), False, False)
        put(scalars, "heat", heat, False, True)
        conditions = f.create_group("boundary_conditions")
        for dim, kind in zip(names, ("PERIODIC", "WALL", "OPEN"), strict=False):
            condition = conditions.create_group(f"{dim}_{kind.lower()}")
            condition.attrs.update(bc_type=kind, associated_dims=[dim], associated_fields=[], sample_varying=False, time_varying=False)
            mask = np.zeros(shape[names.index(dim)], bool)
            mask[0] = mask[-1] = True
            condition.create_dataset("mask", data=mask)
    return arrays | {"stress": tensor, "viscosity": viscosity, "heat": heat}


def advection(path: Path, n: int = 12) -> np.ndarray:
    values = field(n, 7, 32)
    with h5py.File(path, "w") as f:
        f["tensor"], f["x-coordinate"], f["t-coordinate"] = values, np.arange(32) / 32, np.arange(8) * 0.1
    return values


def compressible(path: Path, space: tuple[int, ...] = (8, 10, 12)) -> dict[str, np.ndarray]:
    arrays = {name: field(3, 4, *space) for name in ("density", "pressure", "Vx", "Vy", "Vz")[: 2 + len(space)]}
    with h5py.File(path, "w") as f:
        for name, values in (arrays | {f"{a}-coordinate": np.arange(s) + 0.5 for a, s in zip("xyz", space, strict=False)}).items():
            f[name] = values
        f["t-coordinate"] = np.arange(5) * 0.25
        f.attrs.update(eta=1e-2, zeta=2e-2, M=0.1)
    return arrays


def seeds(path: Path, shape: tuple[int, ...] = (6, 10, 8, 2), n: int = 3) -> list[np.ndarray]:
    arrays = [field(*shape) for _ in range(n)]
    with h5py.File(path, "w") as f:
        for i, values in enumerate(arrays):
            group = f.create_group(f"{i:04d}")
            group["data"] = values
            for axis, size in zip("txy", shape[:-1], strict=False):
                group[f"grid/{axis}"] = np.arange(size) * (0.25 if axis == "t" else 1.0) + i
            group.attrs["config"] = f"sim:\n  Du: 0.001\n  k: {i}.5\n  xdim: 10\n  seed: {i}\n  t: 5\n  n: 1\n  x_left: -1.0\nname: made\n"
    return arrays


def smoke(path: Path, splits: tuple[str, ...] = ("train", "valid")) -> dict[str, dict[str, np.ndarray]]:
    made = {s: {name: field(3, 5, 12, 8).astype(np.float64) for name in ("u", "vx", "vy")} for s in splits}
    with h5py.File(path, "w") as f:
        for split, arrays in made.items():
            for name, values in arrays.items():
                f[f"{split}/{name}"] = values
            for name, size in (("t", 5), ("x", 12), ("y", 8)):
                f[f"{split}/{name}"] = np.tile(np.linspace(1, 2, size), (3, 1))
            f[f"{split}/buo_y"] = [0.2, 0.3, 0.4]
    return made


def kuramoto(path: Path, split: str) -> np.ndarray:
    values = field(4, 6, 32)
    with h5py.File(path, "w") as f:
        f[f"{split}/pde_6-32"] = values
        f[f"{split}/dt"], f[f"{split}/dx"], f[f"{split}/v"] = np.full(4, 0.2), np.linspace(0.4, 0.5, 4), np.linspace(0.5, 1.5, 4)
    return values


def solenoidal(n: int, m: int) -> np.ndarray:
    """A velocity (2, x, y) without divergence for centred differences."""
    psi = np.sin(2 * np.pi * np.arange(n)[:, None] / n) * np.cos(4 * np.pi * np.arange(m) / m) + 0.3 * np.cos(6 * np.pi * np.arange(m) / m)
    return np.stack([(np.roll(psi, -1, 1) - np.roll(psi, 1, 1)) * m, -(np.roll(psi, -1, 0) - np.roll(psi, 1, 0)) * n]).astype(np.float32)


def operators(path: Path, columns: int = 3, n: int = 10) -> tuple[np.ndarray, np.ndarray]:
    fields, tensor = field(n, 2, 32, 32), field(n, columns)
    with h5py.File(path, "w") as f:
        f["fields"], f["tensor"] = fields, tensor
        if columns == 5:
            f["other"] = field(n, 1)
    return fields, tensor


# The Well


def test_the_well(tmp_path: Path) -> None:
    arrays = well(tmp_path / "a.hdf5")
    _, (first, second) = read("the-well", tmp_path / "a.hdf5", "split=train")
    stress = ["stress_xx", "stress_xy", "stress_yx", "stress_yy"]
    assert names(second) == ["pressure_field", "mask", "velocity_x", "velocity_y", *stress, "heat"]
    assert [v.role for v in second.variables] == ["state", "static", *["state"] * 6, "forcing"]
    assert second.values.shape == (5, 9, 1, 12, 8)  # y before x
    expected = {
        "pressure_field": arrays["pressure"][1],
        "mask": np.broadcast_to(arrays["mask"], (5, 8, 12)),
        "velocity_x": arrays["velocity"][1, ..., 0],
        "velocity_y": arrays["velocity"][1, ..., 1],
        **{name: arrays["stress"][1, ..., i // 2, i % 2] for i, name in enumerate(stress)},
        "heat": np.broadcast_to(arrays["heat"][:, None, None], (5, 8, 12)),
    }
    for c, name in enumerate(names(second)):
        np.testing.assert_array_equal(second.values[:, c, 0], expected[name].transpose(0, 2, 1), err_msg=name)
    assert (second.boundary.x, second.boundary.y) == (("periodic", "periodic"), ("wall", "wall"))
    assert second.coefficients == {"viscosity": float(arrays["viscosity"][1]), "gravity": 9.5}
    assert first.coefficients["viscosity"] == float(arrays["viscosity"][0])
    np.testing.assert_array_equal(second.time.seconds, [0, 0.5, 1, 1.5, 2])
    assert second.time.calendar == "none"
    np.testing.assert_array_equal(second.coordinates["x"].values, np.arange(8) / 8)
    assert second.origin.licence == "CC-BY-4.0"
    assert second.valid.all()


def test_the_well_in_three_dimensions_and_its_folders(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        (tmp_path / "data" / split).mkdir(parents=True)
        arrays = well(tmp_path / "data" / split / "a.hdf5", ("x", "y", "z"), (4, 6, 8))
    plan, samples = read("the-well", tmp_path / "data", "variables=velocity_z:speed,pressure:pressure_field,mask")
    assert {s.name: sum(r.split == s.name for r in plan.refs) for s in plan.splits} == {"train": 2, "valid": 2, "test": 2}
    test = samples[0]  # the folder that comes first in the alphabet
    assert test.values.shape == (5, 3, 8, 6, 4)
    assert names(test) == ["speed", "pressure_field", "mask"]
    assert (test.boundary.x[0], test.boundary.y[0], test.boundary.z[0]) == ("periodic", "wall", "open")
    np.testing.assert_array_equal(test.values[:, 0], arrays["velocity"][0, ..., 2].transpose(0, 3, 2, 1))


def test_the_well_on_the_sphere(tmp_path: Path) -> None:
    arrays = well(tmp_path / "a.hdf5", ("theta", "phi"), (6, 12))
    with h5py.File(tmp_path / "a.hdf5", "r+") as f:
        f["dimensions/theta"][:] = (np.arange(6) + 0.5) * np.pi / 6
        f["dimensions/phi"][:] = np.arange(12) * 2 * np.pi / 12
    _, (first, _) = read("the-well", tmp_path / "a.hdf5", "split=train")
    assert first.geometry == "sphere"
    np.testing.assert_allclose(first.coordinates["latitude"].values, [75, 45, 15, -15, -45, -75], atol=1e-4)
    np.testing.assert_allclose(first.coordinates["longitude"].values, np.arange(12) * 30, atol=1e-3)
    assert (first.boundary.y[0], first.boundary.x[0]) == ("pole", "periodic")
    assert "velocity_theta" in names(first)
    assert "stress_theta_phi" in names(first)
    np.testing.assert_array_equal(first.values[:, 0, 0], arrays["pressure"][0])


def test_the_well_keeps_fields_that_do_not_vary_along_an_axis(tmp_path: Path) -> None:
    well(tmp_path / "a.hdf5")
    profile, along_x = field(1, 12), field(8)
    with h5py.File(tmp_path / "a.hdf5", "r+") as f:
        for name, values in (("profile", profile), ("slope", along_x)):
            made = f["t0_fields"].create_dataset(name, data=values)
            made.attrs.update(sample_varying=False, time_varying=False, dim_varying=[name == "slope", name == "profile"])
        f["t0_fields"].attrs["field_names"] = ["pressure", "profile", "slope"]
        wall = f["boundary_conditions/y_wall"]
        wall["mask"][-1] = False
    _, (first, _) = read("the-well", tmp_path / "a.hdf5", "split=train", "variables=pressure,profile,slope")
    np.testing.assert_array_equal(first.values[:, 1, 0], np.broadcast_to(profile.T, (5, 12, 8)))
    np.testing.assert_array_equal(first.values[:, 2, 0], np.broadcast_to(along_x, (5, 12, 8)))
    assert first.boundary.y == ("wall", "open")


# PDEBench


def test_pdebench_tensor_with_one_more_time(tmp_path: Path) -> None:
    values = advection(tmp_path / "1D_Burgers_Sols_Nu0.01.hdf5")
    plan, samples = read("pdebench", tmp_path / "1D_Burgers_Sols_Nu0.01.hdf5")
    assert [(s.name, sum(r.split == s.name for r in plan.refs)) for s in plan.splits] == [("train", 10), ("valid", 1), ("test", 1)]
    for sample, stored in zip(samples, values, strict=True):
        np.testing.assert_array_equal(sample.values[:, 0, 0, 0], stored)
    np.testing.assert_allclose(samples[3].time.seconds, np.arange(7) * 0.1)
    assert names(samples[0]) == ["velocity_x"]
    assert samples[0].coefficients == {"nu": 0.01}
    assert samples[0].boundary.x == ("periodic", "periodic")
    np.testing.assert_array_equal(samples[0].coordinates["x"].values, np.arange(32) / 32)


@pytest.mark.parametrize("space", [(16,), (8, 10), (4, 6, 8)])
def test_pdebench_compressible(tmp_path: Path, space: tuple[int, ...]) -> None:
    file = tmp_path / f"{len(space)}D_CFD_Rand_Eta0.01_Zeta0.02_periodic_Train.hdf5"
    arrays = compressible(file, space)
    _, samples = read("pdebench", file)
    second, d = samples[1], len(space)
    assert names(second) == ["density", "pressure_field", *[f"velocity_{a}" for a in "xyz"[:d]]]
    assert second.values.shape == (4, 2 + d, *(1,) * (3 - d), *space[::-1])
    for c, values in enumerate(arrays.values()):
        np.testing.assert_array_equal(second.values[:, c].reshape(4, *space[::-1]), values[1].transpose(0, *range(d, 0, -1)))
    assert second.coefficients == {"eta": 0.01, "zeta": 0.02, "m": 0.1}
    assert all(getattr(second.boundary, a) == ("periodic", "periodic") for a in "xyz"[:d])
    assert second.boundary.z == (("periodic", "periodic") if d == 3 else ("open", "open"))
    np.testing.assert_array_equal(second.time.seconds, np.arange(4) * 0.25)


@pytest.mark.parametrize(
    ("shape", "variables", "sides"),
    [
        ((6, 10, 8, 2), ["activator", "inhibitor"], ("wall", "wall")),
        ((6, 10, 8, 1), ["surface_height"], ("open", "open")),
        ((6, 10, 1), ["concentration"], ("given", "open")),
    ],
)
def test_pdebench_groups_of_seeds(tmp_path: Path, shape: tuple[int, ...], variables: list[str], sides: tuple[str, str]) -> None:
    arrays = seeds(tmp_path / "a.h5", shape)
    _, samples = read("pdebench", tmp_path / "a.h5")
    for i, (sample, stored) in enumerate(zip(samples, arrays, strict=True)):
        assert names(sample) == variables
        for c in range(shape[-1]):
            np.testing.assert_array_equal(sample.values[:, c, 0], np.atleast_3d(stored[..., c]).transpose(0, 2, 1))
        assert sample.coefficients == {"Du": 0.001, "k": i + 0.5}
        assert sample.boundary.x == sides
        np.testing.assert_array_equal(sample.time.seconds, np.arange(6) * 0.25 + i)
        np.testing.assert_array_equal(sample.coordinates["x"].values, np.arange(10) + i)
        assert f"{i:04d}" in sample.origin.place


def test_pdebench_darcy_is_steady(tmp_path: Path) -> None:
    tensor, nu = field(10, 1, 8, 6), field(10, 8, 6)
    with h5py.File(tmp_path / "2D_DarcyFlow_beta0.1_Train.hdf5", "w") as f:
        f["tensor"], f["nu"], f["x-coordinate"], f["y-coordinate"] = tensor, nu, np.arange(8.0), np.arange(6.0)
        f.attrs["beta"] = 0.1
    _, samples = read("pdebench", tmp_path / "2D_DarcyFlow_beta0.1_Train.hdf5")
    assert samples[2].steady
    assert [(v.name, v.role) for v in samples[2].variables] == [("permeability", "static"), ("solution", "state")]
    np.testing.assert_array_equal(samples[2].values[1, 1, 0], tensor[2, 0].T)
    np.testing.assert_array_equal(samples[2].values[0, 0, 0], nu[2].T)
    assert not samples[2].valid[0, 1].any()
    assert samples[2].coefficients == {"beta": 0.1}
    assert samples[2].boundary.y == ("wall", "wall")


# PDEArena


def test_pdearena_smoke_in_its_own_splits(tmp_path: Path) -> None:
    made = smoke(tmp_path / "NavierStokes2D.h5")
    plan, samples = read("pdearena", tmp_path / "NavierStokes2D.h5")
    assert {s.name: sum(r.split == s.name for r in plan.refs) for s in plan.splits} == {"train": 3, "valid": 3}
    sample = samples[next(i for i, r in enumerate(in_order(plan)) if r.split == "valid" and r.spec["trajectory"] == 2)]
    for c, name in enumerate(("u", "vx", "vy")):
        np.testing.assert_array_equal(sample.values[:, c, 0], made["valid"][name][2].transpose(0, 2, 1).astype(np.float32))
    assert names(sample) == ["concentration", "velocity_x", "velocity_y"]
    assert sample.coefficients == {"buoyancy_y": 0.4}
    assert sample.boundary.x == sample.boundary.y == ("wall", "wall")
    np.testing.assert_allclose(sample.time.seconds, np.linspace(1, 2, 5))
    np.testing.assert_allclose(sample.coordinates["y"].values, np.linspace(1, 2, 8))


def test_pdearena_kuramoto_sivashinsky(tmp_path: Path) -> None:
    files = [tmp_path / f"KS_{s}_1.h5" for s in ("train", "test")]
    made = [kuramoto(f, s) for f, s in zip(files, ("train", "test"), strict=True)]
    plan, samples = read("pdearena", files)
    assert [r.split for r in plan.refs] == ["train"] * 4 + ["test"] * 4
    np.testing.assert_array_equal(samples[5].values[:, 0, 0, 0], made[1][1])
    np.testing.assert_allclose(samples[3].time.seconds, np.arange(6) * 0.2)
    np.testing.assert_allclose(samples[3].coordinates["x"].values, np.arange(32) * 0.5)
    assert samples[3].coefficients == {"viscosity": 1.5}
    assert samples[3].boundary.x == ("periodic", "periodic")


# PDEgym


@pytest.mark.parametrize("transposed", [False, True])
def test_pdegym_velocity_in_either_order(tmp_path: Path, transposed: bool) -> None:
    flow = np.tile(solenoidal(16, 24), (12, 4, 1, 1, 1)) * (1 + np.arange(4, dtype=np.float32))[:, None, None, None]
    tracer = field(12, 4, 1, 16, 24)
    values = np.concatenate([flow, tracer], axis=2)
    with h5py.File(tmp_path / "NS-PwC.nc", "w") as f:
        f["velocity"] = values.swapaxes(-1, -2) if transposed else values
    plan, samples = read("pdegym", tmp_path / "NS-PwC.nc")
    assert names(samples[0]) == ["velocity_x", "velocity_y", "concentration"]
    for c in range(3):
        np.testing.assert_array_equal(samples[7].values[:, c, 0], values[7, :, c].swapaxes(-1, -2))
    np.testing.assert_allclose(samples[0].time.seconds, [0, 1 / 3, 2 / 3, 1])
    assert samples[0].boundary.x == samples[0].boundary.y == ("periodic", "periodic")
    assert [r.split for r in in_order(plan)] == ["train"] * 10 + ["valid", "test"]
    (wrong,) = {s.values.shape[-1] for s in read("pdegym", tmp_path / "NS-PwC.nc", f"order={'xy' if transposed else 'yx'}")[1]}
    assert wrong == 24


def test_pdegym_waves_fluids_and_poisson(tmp_path: Path) -> None:
    wave, speed = field(4, 3, 8, 6), field(4, 8, 6)
    with h5py.File(tmp_path / "Wave-Layer.nc", "w") as f:
        f["solution"], f["c"] = wave, speed
    _, samples = read("pdegym", tmp_path / "Wave-Layer.nc")
    assert [(v.name, v.role) for v in samples[1].variables] == [("solution", "state"), ("sound_speed", "static")]
    np.testing.assert_array_equal(samples[1].values[:, 0, 0], wave[1].swapaxes(-1, -2))
    np.testing.assert_array_equal(samples[1].values[2, 1, 0], speed[1].T)
    assert samples[1].boundary.x == ("open", "open")

    fluid = field(4, 3, 6, 8, 6)
    with h5py.File(tmp_path / "GCE-RT.nc", "w") as f:
        f["solution"] = fluid
    _, samples = read("pdegym", tmp_path / "GCE-RT.nc")
    assert names(samples[0]) == ["density", "velocity_x", "velocity_y", "pressure_field", "gravitational_potential"]
    for c, stored in enumerate((0, 1, 2, 3, 5)):
        np.testing.assert_array_equal(samples[3].values[:, c, 0], fluid[3, :, stored].swapaxes(-1, -2))

    given, found = field(4, 8, 6), field(4, 8, 6)
    with h5py.File(tmp_path / "Poisson-Gauss.nc", "w") as f:
        f["source"], f["solution"] = given, found
    _, samples = read("pdegym", tmp_path / "Poisson-Gauss.nc")
    assert samples[2].steady
    np.testing.assert_array_equal(samples[2].values[0, 0, 0], given[2].T)
    np.testing.assert_array_equal(samples[2].values[1, 1, 0], found[2].T)
    assert samples[2].boundary.y == ("wall", "wall")


def test_pdegym_holds_out_as_upstream(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "ACE.nc", "w") as f:
        f["solution"] = np.ones((1600, 2, 4, 4), np.float32)
    plan = source("pdegym", tmp_path / "ACE.nc").plan()
    assert [(s.name, sum(r.split == s.name for r in plan.refs)) for s in plan.splits] == [("train", 1300), ("valid", 60), ("test", 240)]
    assert min(r.spec["trajectory"] for r in plan.refs if r.split == "test") == 1360


# SuperBench


def test_superbench_folders(tmp_path: Path) -> None:
    values = {}
    for split in ("train", "valid_1", "valid_2", "test_1", "test_2"):
        (tmp_path / "nskt_16k" / split).mkdir(parents=True)
        values[split] = field(6, 3, 8, 12)
        with h5py.File(tmp_path / "nskt_16k" / split / "nskt.h5", "w") as f:
            f["fields"] = values[split]
    plan, _ = read("superbench", tmp_path / "nskt_16k", "step=0.5")
    assert [(s.name, s.distribution) for s in plan.splits] == [
        ("train", "in"), ("valid_1", "in"), ("valid_2", "out"), ("test_1", "in"), ("test_2", "out"),
    ]  # fmt: skip
    made = source("superbench", tmp_path / "nskt_16k", "step=0.5")
    for ref, sample in zip(plan.refs, made.samples(plan.refs), strict=True):
        np.testing.assert_array_equal(sample.values[:, :, 0], values[ref.split])
        assert names(sample) == ["velocity_x", "velocity_y", "vorticity"]
        np.testing.assert_array_equal(sample.time.seconds, np.arange(6) * 0.5)
        assert sample.boundary.x == ("periodic", "periodic")


def test_superbench_weather_is_on_the_sphere(tmp_path: Path) -> None:
    (tmp_path / "era5").mkdir()
    values = np.abs(field(3, 3, 9, 16)) + np.array([0, 280, 20], np.float32)[:, None, None]
    with h5py.File(tmp_path / "era5" / "2008.h5", "w") as f:
        f["fields"] = values
    _, (sample,) = read("superbench", tmp_path / "era5" / "2008.h5")
    assert sample.geometry == "sphere"
    assert [v.key for v in sample.variables] == ["kinetic_energy@10m", "air_temperature@2m", "total_column_water_vapour"]
    assert [v.unit for v in sample.variables] == ["1", "K", "kg m**-2"]
    np.testing.assert_allclose(sample.coordinates["latitude"].values, np.linspace(90, -90, 9))
    np.testing.assert_array_equal(sample.values[:, :, 0], values)


# operator scaling


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (3, ["diffusion_xx", "diffusion_yy", "diffusion_xy"]),
        (5, ["diffusion_xx", "diffusion_yy", "diffusion_xy", "advection_x", "advection_y"]),
        (2, ["diffusion_xx", "diffusion_yy", "diffusion_xy", "omega"]),
    ],
)
def test_operator_scaling(tmp_path: Path, columns: int, expected: list[str]) -> None:
    files = [tmp_path / f"_{s}_k1_5_{n}.h5" for s, n in (("train", "32k"), ("val", "4k"), ("test", "4k"))]
    made = [operators(f, columns) for f in files]
    plan, samples = read("operator-scaling", files)
    assert [(s.name, sum(r.split == s.name for r in plan.refs)) for s in plan.splits] == [("train", 10), ("valid", 10), ("test", 10)]
    assert list(samples[0].coefficients) == expected
    by_file = {Path(f).name: m for f, m in zip(files, made, strict=True)}
    for sample in samples[::7]:
        fields, tensor = by_file[sample.origin.files[0].name]
        i = int(sample.origin.place.rsplit(" ", 1)[1])
        np.testing.assert_array_equal(sample.values[1, :, 0], fields[i])
        told = tensor[i].astype(float)
        told = [told[0], told[0], 0.0, told[1]] if columns == 2 else told
        np.testing.assert_array_equal(list(sample.coefficients.values()), told)
        assert sample.steady
        assert sample.boundary.x == ("periodic", "periodic")
    with pytest.raises(UserError, match="equation=helmholtz" if columns == 3 else "equation=poisson"):
        read("operator-scaling", files, f"equation={'helmholtz' if columns == 3 else 'poisson'}")


# plain arrays


def plain(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Written by numpy, scipy or torch, or by h5py as MATLAB 7.3 does (axes reversed, 512 bytes of text first)."""
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".pt":
        torch.save({k: torch.from_numpy(np.ascontiguousarray(v.T)).permute(*range(v.ndim)[::-1]) for k, v in arrays.items()}, path)
    elif path.stem == "v73":
        with h5py.File(path, "w", userblock_size=512) as f:
            for name, values in arrays.items():
                f[name] = values.T
        with path.open("r+b") as file:
            file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    else:
        scipy.io.savemat(path, arrays)


@pytest.mark.parametrize("name", ["a.npz", "a.mat", "v73.mat", "a.pt"])
def test_plain_arrays_with_coordinates(tmp_path: Path, name: str) -> None:
    usol, x, t = field(24, 10).astype(np.float64), np.linspace(-1, 1, 24)[:, None], np.linspace(0, 0.9, 10)[:, None]
    plain(tmp_path / name, {"usol": usol, "x": x, "t": t, "nu": np.array([[0.25]])})
    told = ("field=usol", "axes=x,t", "x=x", "t=t", "variable=velocity_x", "boundary=x:wall", "licence=MIT")
    for words in ((), told):
        _, (sample,) = read("arrays", tmp_path / name, *words)
        np.testing.assert_array_equal(sample.values[:, 0, 0, 0], usol.T.astype(np.float32))
        np.testing.assert_array_equal(sample.time.seconds, t.ravel())
        np.testing.assert_array_equal(sample.coordinates["x"].values, x.ravel())
        assert sample.coefficients == {"nu": 0.25}
    assert names(sample) == ["velocity_x"]
    assert sample.boundary.x == ("wall", "wall")
    assert sample.origin.licence == "MIT"


@pytest.mark.parametrize("name", ["a.npz", "a.mat", "v73.mat", "a.pt"])
def test_plain_arrays_of_trajectories_and_components(tmp_path: Path, name: str) -> None:
    state = field(5, 6, 8, 7, 2)
    plain(tmp_path / name, {"state": state, "other": field(3, 3)})
    words = ["field=state", "axes=n,t,x,y,c", "variable=eastward_wind,northward_wind", "unit=km h-1", "step=0.5"]
    _, samples = read("arrays", tmp_path / name, *words, "boundary=periodic")
    assert len(samples) == 5
    assert samples[0].values.shape == (6, 2, 1, 7, 8)
    assert [v.unit for v in samples[0].variables] == ["m s**-1"] * 2
    np.testing.assert_allclose(samples[3].values[:, 1, 0], state[3, ..., 1].transpose(0, 2, 1) / 3.6, rtol=1e-6)
    np.testing.assert_array_equal(samples[0].time.seconds, np.arange(6) * 0.5)
    with pytest.raises(UserError, match="say with field=NAME"):
        read("arrays", tmp_path / name)
    with pytest.raises(UserError, match=r"names 3 axes"):
        read("arrays", tmp_path / name, "field=state", "axes=t,y,x")


def test_plain_steady_pairs(tmp_path: Path) -> None:
    x, y = RNG.random((20, 8, 8)) > 0.5, field(20, 8, 8)
    plain(tmp_path / "darcy.pt", {"x": x, "y": y})
    plan, samples = read("arrays", tmp_path / "darcy.pt", "given_variable=permeability", "given_role=static", "boundary=wall")
    assert [(s.name, sum(r.split == s.name for r in plan.refs)) for s in plan.splits] == [("train", 16), ("valid", 2), ("test", 2)]
    assert [(v.name, v.role) for v in samples[4].variables] == [("permeability", "static"), ("solution", "state")]
    np.testing.assert_array_equal(samples[4].values[0, 0, 0], x[4].astype(np.float32))
    np.testing.assert_array_equal(samples[4].values[1, 1, 0], y[4])
    assert samples[4].steady


def test_gaps_are_invalid(tmp_path: Path) -> None:
    values = field(4, 8, 6)
    values[2, 3, 4] = np.nan
    np.savez(tmp_path / "a.npz", u=values)
    _, (sample,) = read("arrays", tmp_path / "a.npz", "axes=t,y,x")
    assert (sample.valid.size - sample.valid.sum(), sample.valid[2, 0, 0, 3, 4], sample.values[2, 0, 0, 3, 4]) == (1, False, 0.0)


class Harmful:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, ("harmed",)


def test_nothing_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"u": torch.zeros(3, 4), "code": Harmful()}, tmp_path / "a.pt")
    np.savez(tmp_path / "a.npz", u=np.zeros((3, 4)), code=np.array([Harmful()], object))
    for name in ("a.pt", "a.npz"):
        with pytest.raises(UserError, match=rf"{name[:1]}\{name[1:]} cannot be read"):
            read("arrays", tmp_path / name, "field=u", "axes=t,x")
    assert not (tmp_path / "harmed").exists()


# all of them

WRITERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "the-well": ("a.hdf5", lambda p: well(p, n=4)),
    "pdebench": ("1D_Advection_Sols_beta0.4.hdf5", advection),
    "pdearena": ("ns.h5", smoke),
    "pdegym": ("NS-Sines.nc", lambda p: h5py.File(p, "w").create_dataset("velocity", data=field(10, 4, 2, 8, 8)).file.close()),
    "superbench": ("nskt_train.h5", lambda p: h5py.File(p, "w").create_dataset("fields", data=field(8, 3, 8, 8)).file.close()),
    "operator-scaling": ("a.h5", operators),
    "arrays": ("a.npz", lambda p: np.savez(p, u=field(6, 24), x=np.arange(24.0), t=np.arange(6.0))),
}


@pytest.mark.parametrize("name", list(WRITERS))
def test_a_corpus_ready_for_training(tmp_path: Path, name: str) -> None:
    file, write = WRITERS[name]
    write(tmp_path / file)
    assert reader(tmp_path / file) is SOURCES[name]
    out = convert(source(name, tmp_path / file), tmp_path / "corpus", progress=False)
    assert verify(out) == []
    corpus = Corpus.open(out)
    samples = [corpus.read("train", i) for i in range(min(2, len(corpus.entries("train"))))]
    batch = collate(samples, Scales.from_stats(corpus.layout, corpus.stats.to_json()), patch=4)
    assert tuple(batch.values.shape) == (len(samples), *samples[0].values.shape)
    inputs = normalize(batch)
    assert torch.isfinite(inputs.value).all()
    assert torch.isfinite(inputs.target[inputs.mask]).all()
    assert inputs.mask.any()


def test_the_same_bytes_from_two_processes(tmp_path: Path) -> None:
    well(tmp_path / "a.hdf5", n=4)
    made = [
        convert(source("the-well", tmp_path / "a.hdf5"), tmp_path / f"{n}", "corpus", workers=n, shard_bytes=1 << 15, progress=False)
        for n in (1, 2)
    ]
    one, two = ((folder / "manifest.json").read_bytes() for folder in made)
    assert one == two


@pytest.mark.parametrize("name", list(WRITERS))
def test_inspect_names_the_source(tmp_path: Path, name: str) -> None:
    file, write = WRITERS[name]
    write(tmp_path / file)
    report = inspect(tmp_path / file)
    assert (report["source"], report["problem"], report["calendar"]) == (name, None, "none")
    text = format_report(report)
    assert f"scigpt data prepare {name} --input" in text
    assert f"{report['simulated']['trajectories']} trajector" in text


def test_inspect_says_which_options_plain_arrays_need(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", u=field(3, 4), v=field(3, 4))
    report = inspect(tmp_path / "a.npz")
    assert report["source"] == "arrays"
    assert "options are needed: a.npz holds u (3, 4), v (3, 4); say with field=NAME" in format_report(report)


@pytest.mark.parametrize("name", list(WRITERS))
def test_bad_files(tmp_path: Path, name: str) -> None:
    file, write = WRITERS[name]
    write(tmp_path / file)
    whole, suffix = (tmp_path / file).read_bytes(), Path(file).suffix
    broken = {"empty": b"", "html": b"<html>404 not found</html>", **{f"cut{c}": whole[: len(whole) * c // 100] for c in (1, 30, 70, 97)}}
    for stem, content in broken.items():
        (tmp_path / f"{stem}{suffix}").write_bytes(content)
        with pytest.raises(UserError, match=stem) as caught:
            read(name, tmp_path / f"{stem}{suffix}", "split=train")
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 400
    with h5py.File(tmp_path / "nothing.h5", "w"):
        pass
    (tmp_path / "folder").mkdir()
    for bad in ("nothing.h5", "folder", "missing.h5"):
        with pytest.raises(UserError, match=bad.removesuffix(".h5")):
            read(name, tmp_path / bad)
    with pytest.raises(UserError, match="give --input PATH"):
        SOURCES[name]().plan()


@pytest.mark.parametrize(
    ("name", "missing", "sentence"),
    [
        ("the-well", "dimensions/time", "has no /dimensions/time"),
        ("the-well", "t1_fields", "has no /t1_fields"),
        ("the-well", "t1_fields/velocity", "has no /t1_fields/velocity"),
        ("pdebench", "t-coordinate", "has no /t-coordinate"),
        ("pdebench", "tensor", "is not laid out as pdebench files are"),
        ("pdearena", "train/vy", "has no /train/vy"),
        ("pdearena", "valid/t", "has no /valid/t"),
        ("operator-scaling", "tensor", "is not laid out as operator-scaling files are"),
    ],
)
def test_missing_keys(tmp_path: Path, name: str, missing: str, sentence: str) -> None:
    file, write = WRITERS[name]
    write(tmp_path / file)
    with h5py.File(tmp_path / file, "r+") as f:
        del f[missing]
    with pytest.raises(UserError, match=sentence) as caught:
        read(name, tmp_path / file)
    assert file in str(caught.value)


def test_options_that_do_not_fit(tmp_path: Path) -> None:
    file = tmp_path / WRITERS["pdebench"][0]
    advection(file)
    for word, sentence in {
        "variables=tensr": "did you mean tensor",
        "boundary=periodc": "expected one of periodic",
        "boundary=y:wall": "after an axis \\(x\\)",
        "splits=0.5,0.6,0.1": "must be three fractions",
        "frames_per_sample=0": "must be 1 or more",
    }.items():
        with pytest.raises(UserError, match=sentence):
            read("pdebench", file, word)
    with h5py.File(file, "r+") as f:
        del f["t-coordinate"]
        f["t-coordinate"] = np.arange(5.0)
    with pytest.raises(UserError, match="5 times for 7 frames"):
        read("pdebench", file)
    operators(tmp_path / "_val_k1_5_4k.h5")
    with pytest.raises(UserError, match="holds the split valid and no training data"):
        read("operator-scaling", tmp_path / "_val_k1_5_4k.h5")


def test_long_trajectories_are_cut(tmp_path: Path) -> None:
    values = advection(tmp_path / "a.hdf5")
    plan, samples = read("pdebench", tmp_path / "a.hdf5", "frames_per_sample=4", "boundary=wall", "variables=tensor:depth:m")
    assert [len(s.time) for s in samples[:4]] == [3, 4, 3, 4]
    np.testing.assert_array_equal(samples[1].values[:, 0, 0, 0], values[0, 3:])
    np.testing.assert_allclose(samples[1].time.seconds, [0.3, 0.4, 0.5, 0.6])
    assert (samples[0].variables[0].name, samples[0].variables[0].unit, samples[0].boundary.x) == ("depth", "m", ("wall", "wall"))
    splits: dict[int, set[str]] = {}
    for ref in plan.refs:
        splits.setdefault(ref.spec["trajectory"], set()).add(ref.split)
    assert all(len(s) == 1 for s in splits.values())


# real files


def real(name: str) -> Path:
    if "SCIGPT_REALDATA" not in os.environ:
        pytest.skip("SCIGPT_REALDATA is not set")
    return Path(os.environ["SCIGPT_REALDATA"]) / "pde" / name


def test_real_well() -> None:
    file = real("well_dummy.hdf5")
    _, samples = read("the-well", file)
    with h5py.File(file) as f:
        for i, sample in enumerate(samples):
            assert names(sample) == ["constant_field", "field_x", "field_y", "time_varying_scalar"]
            for c, stored in enumerate(
                (
                    f["t0_fields/constant_field"][i][None],
                    *(f["t1_fields/field"][i, ..., d] for d in range(2)),
                    f["scalars/time_varying_scalar"][:].reshape(-1, 1, 1),
                )
            ):
                np.testing.assert_array_equal(
                    sample.values[:, c, 0], np.broadcast_to(np.asarray(stored, np.float32).swapaxes(-1, -2), (10, 32, 32))
                )
            np.testing.assert_array_equal(sample.time.seconds, f["dimensions/time"][:])
            np.testing.assert_array_equal(sample.coordinates["y"].values, f["dimensions/y"][:])
            assert sample.coefficients == {"a": f["scalars/a"][()], "b": f["scalars/b"][()]}
            assert sample.boundary.x == sample.boundary.y == ("periodic", "periodic")


def test_real_pdebench() -> None:
    file = real("pdebench_2D_diff-react_32x32x21.h5")
    _, samples = read("pdebench", file)
    with h5py.File(file) as f:
        for seed, sample in zip(f, samples, strict=True):
            np.testing.assert_array_equal(sample.values[:, :, 0], np.einsum("txyc->tcyx", f[seed]["data"][:]))
            np.testing.assert_array_equal(sample.time.seconds, f[seed]["grid/t"][:])
            np.testing.assert_array_equal(sample.coordinates["x"].values, f[seed]["grid/x"][:])
            assert sample.coefficients == {"Du": 0.001, "Dv": 0.005, "k": 0.005}
            assert sample.boundary.x == sample.boundary.y == ("wall", "wall")
    file = real("1D_Advection_Sols_beta0.4.hdf5")
    _, samples = read("pdebench", file)
    with h5py.File(file) as f:
        for stored, sample in zip(f["tensor"][:], samples, strict=True):
            np.testing.assert_array_equal(sample.values[:, 0, 0, 0], stored)
            np.testing.assert_array_equal(sample.time.seconds, f["t-coordinate"][:41])
    # the speed beta=0.4 and the periodic boundary are those of the solution
    sample, step = samples[0], samples[0].time.seconds[10] - samples[0].time.seconds[0]
    modes = np.fft.rfft(sample.values[0, 0, 0, 0].astype(float)) * np.exp(-2j * np.pi * np.arange(129) * sample.coefficients["beta"] * step)
    np.testing.assert_allclose(sample.values[10, 0, 0, 0], np.fft.irfft(modes), atol=1e-3)
    assert sample.boundary.x == ("periodic", "periodic")


def test_real_operator_scaling_is_our_poisson() -> None:
    file = real("tlscaling_poisson_k1_5_n64.h5")
    _, samples = read("operator-scaling", file)
    with h5py.File(file) as f:
        for i, sample in enumerate(samples):
            np.testing.assert_array_equal(sample.values[1, :, 0], f["fields"][i])
            diffusion = np.array(list(sample.coefficients.values()))
            np.testing.assert_array_equal(diffusion, f["tensor"][i].astype(float))
            ours = solve(sample.values[1, 0, 0].astype(float), diffusion)
            assert np.linalg.norm(ours - sample.values[1, 1, 0]) < 1e-5 * np.linalg.norm(ours)


@pytest.mark.parametrize("name", ["Burgers.npz", "burgers_shock.mat"])
def test_real_burgers(name: str) -> None:
    file = real(name)
    stored = np.load(file) if name.endswith("npz") else scipy.io.loadmat(file)
    _, (sample,) = read("arrays", file, "variable=velocity_x", "boundary=wall")
    np.testing.assert_array_equal(sample.values[:, 0, 0, 0], stored["usol"].T.astype(np.float32))
    np.testing.assert_array_equal(sample.time.seconds, stored["t"].ravel())
    np.testing.assert_array_equal(sample.coordinates["x"].values, stored["x"].ravel())
    assert np.corrcoef(sample.values[0, 0, 0, 0], -np.sin(np.pi * stored["x"].ravel()))[0, 1] > 0.999  # the initial condition, in x


def test_real_darcy() -> None:
    file = real("darcy_test_16.pt")
    stored = torch.load(file, weights_only=True)
    assert not stored["y"].is_contiguous()
    _, samples = read("arrays", file)
    for i, sample in enumerate(samples):
        np.testing.assert_array_equal(sample.values[0, 0, 0], stored["x"][i].numpy().astype(np.float32))
        np.testing.assert_array_equal(sample.values[1, 1, 0], stored["y"][i].numpy())


def test_real_particles_are_refused() -> None:
    file = real("test.h5")
    for name in SOURCES:
        if name in WRITERS:
            with pytest.raises(UserError, match=r"test\.h5"):
                read(name, file)
    with pytest.raises(UserError, match="particles are on no grid"):
        read("pdebench", file)
    assert inspect(file)["source"] is None


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("the-well", "well_dummy.hdf5"),
        ("pdebench", "pdebench_2D_diff-react_32x32x21.h5"),
        ("pdebench", "1D_Advection_Sols_beta0.4.hdf5"),
        ("operator-scaling", "tlscaling_poisson_k1_5_n64.h5"),
        ("arrays", "Burgers.npz"),
        ("arrays", "burgers_shock.mat"),
        ("arrays", "darcy_test_16.pt"),
    ],
)
def test_real_files_become_corpora(tmp_path: Path, name: str, file: str) -> None:
    path = real(file)
    report = inspect(path)
    assert (report["source"], report["problem"]) == (name, None)
    out = convert(source(name, path), tmp_path / "corpus", progress=False)
    assert verify(out) == []
    assert sum(s["samples"] for s in Corpus.open(out).manifest["splits"].values()) == report["simulated"]["trajectories"]
