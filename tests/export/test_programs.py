"""A program is the model: fields in, fields out, the same numbers without a line of scigpt."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import worlds_for_programs as worlds
from toys import make_model
from worlds_for_programs import Make, apart, arrays

import scigpt
from scigpt.data.domain import Domain
from scigpt.data.patching import choose_patch, token_grid
from scigpt.errors import UserError
from scigpt.evaluate.rollout import rollout
from scigpt.export.programs import Program, Rollout, Step, inputs_of, load_program, save, write
from scigpt.model.attention import choose_window
from scigpt.model.backbone import SciGPT

MODEL = make_model()
STEPS = 2
World = Callable[[], tuple[Domain, Make]]


def agrees(program: Program, model: SciGPT, domain: Domain, make: Make) -> None:
    """Program and framework, at batch sizes that it was not traced with."""
    about = program.description
    for count in (1, 3):
        batch = make(count, about["frames"])
        with torch.no_grad():
            if about["kind"] == "step":
                expected = model(batch).physical()[:, -1]
            else:
                expected = rollout(model, batch, domain.frames - 1, about["steps"], domain.frames - 1)
        found = program(**arrays(batch, about))
        assert found.shape == expected.shape
        assert apart(domain, found, expected) <= 1e-5


def one(folder: Path, world: World, form: str, model: SciGPT = MODEL, steps: int = 1) -> Program:
    domain, make = world()
    program = load_program(
        folder / save((Rollout(model, domain, steps) if steps > 1 else Step(model, domain)).eval(), form, folder)["file"]
    )
    agrees(program, model, domain, make)
    return program


@pytest.fixture(scope="module")
def globe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a globe, and the descriptions that `write` gave."""
    folder = tmp_path_factory.mktemp("globe")
    made = write(MODEL, worlds.globe()[0], "torch-export", folder, STEPS)
    (folder / "made.json").write_text(json.dumps(made))
    return folder


@pytest.mark.drill
@pytest.mark.parametrize("kind", ["step", "rollout"])
def test_a_globe_with_every_role_a_calendar_and_gaps(globe: Path, kind: str) -> None:
    program = load_program(globe / f"{kind}-globe.pt2")
    assert program.description in json.loads((globe / "made.json").read_text())
    assert program.description["inputs"] == inputs_of(worlds.globe()[0], STEPS if kind == "rollout" else 1)
    agrees(program, MODEL, *worlds.globe())


def test_a_steady_problem_of_a_model_that_was_trained_with_flash_attention(tmp_path: Path) -> None:
    model = make_model()
    layers = [part for block in model.blocks for part in (block.space, block.time)]
    for layer in layers:
        layer.kernel = "flash"
    made = save(Step(model, worlds.poisson()[0]).eval(), "torch-export", tmp_path)
    assert {layer.kernel for layer in layers} == {"flash"}
    agrees(load_program(tmp_path / made["file"]), MODEL, *worlds.poisson())


def test_onnx_of_a_series_with_transforms_and_untold_coefficients(tmp_path: Path) -> None:
    program = one(tmp_path, worlds.line, "onnx", make_model(depth=1))
    assert program.description["opset"] == 20
    assert _place() not in (tmp_path / program.description["file"]).read_bytes()


def test_a_pt2_holds_every_weight_once_and_no_pickle(globe: Path) -> None:
    path = globe / "rollout-globe.pt2"
    with zipfile.ZipFile(path) as archive:
        sizes = {n.split("/", 1)[1]: archive.getinfo(n).file_size for n in archive.namelist()}
        configs = [json.loads(archive.read(n)) for n in archive.namelist() if n.endswith("_config.json")]
    assert [size for name, size in sizes.items() if name.startswith("data/sample_inputs/")] == [0]
    assert not any(entry["use_pickle"] for config in configs for entry in config["config"].values())
    weights = sum(size for name, size in sizes.items() if name.startswith("data/weights/weight_"))
    assert weights == sum(4 * p.numel() for p in MODEL.parameters())
    assert _place() not in path.read_bytes()


def _place() -> bytes:
    return str(Path(scigpt.__file__).parent).encode()


def test_the_model_goes_on_as_if_nothing_had_been_exported(globe: Path) -> None:
    """What is traced must not stay behind in the constants that all models share."""
    _, make = worlds.globe()
    model, batch = make_model(), make(2, 3)
    model.train()(batch).physical().square().mean().backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert len(gradients) > 10
    assert all(torch.isfinite(g).all() for g in gradients)


def test_what_does_not_fit_is_said(globe: Path, tmp_path: Path) -> None:
    program = load_program(globe / "step-globe.pt2")
    given = arrays(worlds.globe()[1](2, 3), program.description)
    with pytest.raises(UserError, match="lacks season; does not know sesaon"):
        program(**{"sesaon" if n == "season" else n: a for n, a in given.items()})
    with pytest.raises(UserError, match=r"values is float32 \(2, 2, 4, 1, 9, 12\); expected float32 \(batch, 3, 4, 1, 9, 12\)"):
        program(**{**given, "values": given["values"][:, 1:]})
    with pytest.raises(UserError, match=r"seconds is float32 .* expected float64"):
        program(**{**given, "seconds": given["seconds"].astype(np.float32)})
    with pytest.raises(UserError, match=r"season is float32 \(1, 3\)"):
        program(**{**given, "season": given["season"][:1]})
    with pytest.raises(UserError, match="is not a program"):
        load_program(tmp_path / "step-globe.txt")
    (tmp_path / "step-globe.pt2").write_bytes((globe / "step-globe.pt2").read_bytes()[:5000])
    with pytest.raises(UserError, match="cannot be read as a program"):
        load_program(tmp_path / "step-globe.pt2")


def test_a_head_that_forecasts_no_fields_is_refused(tmp_path: Path) -> None:
    model = make_model(head="classes", head_options={"count": 3})
    with pytest.raises(UserError, match="head classes does not forecast fields"):
        write(model, worlds.line()[0], "torch-export", tmp_path)
    with pytest.raises(UserError, match="0 steps"):
        write(MODEL, worlds.line()[0], "torch-export", tmp_path, 0)


EVERY = [worlds.line, worlds.torus, worlds.basin, worlds.box, worlds.stations, worlds.globe, worlds.ocean, worlds.region, worlds.poisson]


@pytest.mark.drill
@pytest.mark.parametrize("form", ["torch-export", "onnx"])
@pytest.mark.parametrize("world", EVERY, ids=lambda w: w.__name__)
def test_every_kind_of_domain(world: World, form: str, tmp_path: Path) -> None:
    one(tmp_path, world, form)


@pytest.mark.drill
@pytest.mark.parametrize("form", ["torch-export", "onnx"])
@pytest.mark.parametrize("world", [worlds.globe, worlds.line], ids=lambda w: w.__name__)
def test_rollouts(world: World, form: str, tmp_path: Path) -> None:
    one(tmp_path, world, form, steps=3)


@pytest.mark.drill
@pytest.mark.parametrize("form", ["torch-export", "onnx"])
@pytest.mark.parametrize("head", ["gaussian", "quantile", "ensemble"])
def test_heads_give_their_mean(head: str, form: str, tmp_path: Path) -> None:
    one(tmp_path, worlds.line, form, make_model(head=head))


@pytest.mark.drill
@pytest.mark.parametrize("form", ["torch-export", "onnx"])
def test_windows_and_a_short_reach(form: str, tmp_path: Path) -> None:
    """Windowed attention that shifts, and time attention with a mask."""

    def world() -> tuple[Domain, Make]:
        domain, make = worlds.torus()
        patch = choose_patch(domain.layout.grid, 4)
        assert choose_window(token_grid(domain.layout.grid, patch), 8) is not None
        return replace(domain, frames=5, patch=4), lambda count, frames: replace(make(count, frames), patch=patch)

    one(tmp_path, world, form, make_model(window_tokens=8, reach=2))
