"""Programs: a whole forecast, from fields in the variables' units to fields in the variables' units, as one file that runs without scigpt.

    step-DOMAIN      one forecast
    rollout-DOMAIN   several, each from those before, as `scigpt.evaluate.rollout` makes them; not of steady problems

`.pt2` is a `torch.export` program: `torch.export.load(path).module()(**inputs)`. `.onnx` runs in any ONNX runtime. Both take the same
inputs, by name, of any number of samples (B) at once; T is fixed: a window of the training, of a rollout with more frames at its end.

    values        float32 (B, T, C, Z, Y, X)  in the variables' units, channels and grid as the model saw them; anything where invalid. Of
                                              the frames that are forecast, only forcing and static variables are read
    valid         bool, the same shape        False in gaps
    seconds       float64 (B, T)              time of each frame, since 2000-01-01 in the domain's calendar; simulated time in its own unit
    season        float32 (B, T)              share of the year that has passed; not of simulated time
    coefficients  float32 (B, K)              of the equation, in alphabetical order; only of domains that have some
    known         bool (B, K)                 which of them are told
    latitude, longitude, height               float32 (B, Y, X), degrees and m, of every point; those that the domain has

They give `forecast`, float32: `(B, C, Z, Y, X)`, the last frame, or `(B, steps, C, Z, Y, X)`; channels that are not predicted hold no
meaning. It is the mean of the head's distribution. Each file holds all weights once, and its own description, by which `load_program`
checks what it is given.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from scigpt.data.batches import Batch, area, steps_of
from scigpt.data.domain import Domain
from scigpt.data.patching import choose_patch
from scigpt.data.sample import Layout
from scigpt.errors import UserError
from scigpt.evaluate.rollout import rollout
from scigpt.model.attention import Projections
from scigpt.model.backbone import SciGPT

if TYPE_CHECKING:
    from torch.export import ExportedProgram

SUFFIXES: Mapping[str, str] = {"torch-export": ".pt2", "onnx": ".onnx"}
ABOUT = "scigpt.json"
"""Name of the description inside a program."""
OPSET = 20
LARGEST_PROTOBUF = 2**31 - 2**24
"""Bytes of weights up to which an ONNX program is one file; beyond, the weights lie beside it in NAME.onnx.data."""
PLACES = ("latitude", "longitude", "height")
NAMES = ("values", "valid", "seconds", "season", "coefficients", "known", *PLACES)
DAY = 86400.0


def inputs_of(domain: Domain, steps: int = 1) -> list[dict[str, Any]]:
    """Name, dtype and shape of each input of a program that forecasts `steps` frames; an axis of any length is "batch"."""
    frames, (z, y, x) = domain.frames - 1 + steps, _layout(domain).grid
    field, count = ["batch", frames, len(domain.layout.variables), z, y, x], len(domain.coefficients)
    found = [("values", "float32", field), ("valid", "bool", field), ("seconds", "float64", ["batch", frames])]
    if domain.calendar != "none":
        found += [("season", "float32", ["batch", frames])]
    if count:
        found += [("coefficients", "float32", ["batch", count]), ("known", "bool", ["batch", count])]
    found += [(name, "float32", ["batch", y, x]) for name in _places(domain)]
    return [{"name": name, "dtype": dtype, "shape": shape} for name, dtype, shape in found]


def _layout(domain: Domain) -> Layout:
    """What the model saw at once."""
    return domain.layout if domain.crop is None else domain.layout.cropped(*domain.crop)


def _places(domain: Domain) -> tuple[str, ...]:
    """The coordinates that the network sees: as in `scigpt.data.batches.collate`, those on the axes y and x, and none without a place."""
    flat = [n for n in domain.coordinates if set(domain.coordinates[n]["axes"]) <= {"y", "x"}]
    found = tuple(n for n in PLACES if n in flat)
    return found if "latitude" in found and "longitude" in found else ()


class Step(nn.Module):
    """The forecast of the last frame of a window; see the module for inputs and output."""

    kind, steps = "step", 1

    def __init__(self, model: SciGPT, domain: Domain) -> None:
        super().__init__()
        self.model, self.domain = model, domain

    def forward(
        self,
        values: Tensor,
        valid: Tensor,
        seconds: Tensor,
        season: Tensor | None = None,
        coefficients: Tensor | None = None,
        known: Tensor | None = None,
        latitude: Tensor | None = None,
        longitude: Tensor | None = None,
        height: Tensor | None = None,
    ) -> Tensor:
        return self.answer(self.batch(values, valid, seconds, season, coefficients, known, latitude, longitude, height))

    def answer(self, batch: Batch) -> Tensor:
        forecast: Tensor = self.model(batch).physical()[:, -1]
        return forecast

    def batch(
        self,
        values: Tensor,
        valid: Tensor,
        seconds: Tensor,
        season: Tensor | None,
        coefficients: Tensor | None,
        known: Tensor | None,
        latitude: Tensor | None,
        longitude: Tensor | None,
        height: Tensor | None,
    ) -> Batch:
        """What `scigpt.data.batches.collate` makes of samples."""
        domain, layout, nothing = self.domain, _layout(self.domain), values.new_zeros(values.shape[0], 0)
        curvilinear = latitude is not None and len(domain.coordinates["latitude"]["axes"]) == 2
        return Batch(
            values=torch.where(valid, values, 0.0),
            valid=valid,
            seconds=seconds,
            step=steps_of(seconds),
            season=torch.zeros_like(seconds, dtype=torch.float32) if season is None else season,
            hour=torch.zeros_like(seconds, dtype=torch.float32) if season is None else (seconds % DAY / DAY).float(),
            coefficients=nothing if coefficients is None else coefficients,
            known=nothing.bool() if known is None else known,
            weight=area(layout, latitude, longitude, curvilinear, values.shape[0]),
            latitude=latitude,
            longitude=longitude,
            height=height,
            layout=layout,
            scales=domain.scales,
            patch=choose_patch(layout.grid, domain.patch, layout.geometry),
            corpus=domain.name,
            calendar=domain.calendar,
            coefficient_names=tuple(sorted(domain.coefficients)),
        )


class Rollout(Step):
    """The forecast of the last `steps` frames, each from those before it; see the module for inputs and output."""

    kind = "rollout"

    def __init__(self, model: SciGPT, domain: Domain, steps: int) -> None:
        super().__init__(model, domain)
        self.steps = steps

    def answer(self, batch: Batch) -> Tensor:
        context = self.domain.frames - 1
        return rollout(self.model, batch, context, self.steps, context)


def write(model: SciGPT, domain: Domain, form: str, folder: Path, steps: int = 4) -> list[dict[str, Any]]:
    """Write the programs of one domain, `step-NAME` and, unless its problems are steady, `rollout-NAME` of `steps` steps.

    Returns:
        One description each: `{file, kind, domain, frames, steps, inputs, outputs, torch}`, and of ONNX `opset`.

    Raises:
        UserError: a head that does not forecast fields, a domain the model does not know, too few steps, packages that are not installed.
    """
    if steps < 1:
        raise UserError(f"a rollout program of {steps} steps forecasts nothing; expected 1 or more")
    made = [Step(model, domain)]
    if not domain.layout.steady:
        made.append(Rollout(model, domain, steps))
    return [save(program.eval(), form, folder) for program in made]


def save(program: Step, form: str, folder: Path) -> dict[str, Any]:
    """Write one program; see `write`."""
    domain, kind, steps = program.domain, program.kind, program.steps
    inputs = inputs_of(domain, steps)
    told = [steps] if kind == "rollout" else []
    path = folder / f"{kind}-{domain.name}{SUFFIXES[form]}"
    about = {
        "file": path.name,
        "kind": kind,
        "domain": domain.name,
        "frames": domain.frames - 1 + steps,
        "steps": steps,
        "inputs": inputs,
        "outputs": [{"name": "forecast", "dtype": "float32", "shape": ["batch", *told, *inputs[0]["shape"][2:]]}],
        "torch": torch.__version__,
    }
    with _sdpa(program.model), torch.no_grad(), _quiet():
        exported = _traced(program, _example(inputs))
        if form == "onnx":
            about["opset"] = OPSET
            _save_onnx(exported, about, path)
        else:
            torch.export.save(exported, path, extra_files={ABOUT: json.dumps(about)})
    return about


def _example(inputs: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """Inputs to trace a program with: two samples, nothing told, a second from frame to frame."""
    found = {i["name"]: torch.zeros(2, *i["shape"][1:], dtype=getattr(torch, i["dtype"])) for i in inputs}
    found["seconds"] += torch.arange(found["seconds"].shape[1])
    return found


def _traced(program: Step, example: Mapping[str, Tensor]) -> ExportedProgram:
    """The program as a graph, without its example and without the places of this machine's code."""
    batch = program.batch(*(example.get(n) for n in NAMES))  # type: ignore[arg-type]
    # run once before: what `scigpt.data.constant` keeps must be made of numbers, not of what stands for them in a trace
    if not program.model(batch).distribution.relative:
        head = program.model.config.head
        raise UserError(f"the head {head} does not forecast fields, so no program can be made of it; export with --format safetensors")
    program(**example)
    count = torch.export.Dim("batch", min=1)
    exported = torch.export.export(program, (), dict(example), dynamic_shapes={n: {0: count} for n in example}, strict=False)
    exported.example_inputs = None
    for node in exported.graph.nodes:
        for about in ("stack_trace", "nn_module_stack", "source_fn_stack", "from_node"):
            node.meta.pop(about, None)
    return exported


def _save_onnx(exported: ExportedProgram, about: Mapping[str, Any], path: Path) -> None:
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"--format onnx needs {error.name}: pip install 'scigpt[export]'") from None
    try:
        made = torch.onnx.export(
            exported,
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            output_names=["forecast"],
            custom_translation_table={torch.ops.aten.where.self: _where},
        )
    except torch.onnx.OnnxExporterError as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise UserError(
            f"{path.name}: a part of the model cannot be said in ONNX ({str(cause).split('. ')[0]}); use --format torch-export"
        ) from None
    assert made is not None
    made.model.metadata_props["scigpt"] = json.dumps(about)
    for node in made.model.graph.all_nodes():
        node.metadata_props.clear()
    size = sum(p.numel() * p.element_size() for p in exported.parameters())
    made.save(path, external_data=size > LARGEST_PROTOBUF)


def _where(condition: Any, chosen: Any, other: Any) -> Any:
    """ONNX Runtime does not choose between booleans."""
    from onnx_ir import DataType
    from onnxscript import opset20 as op

    if chosen.dtype == DataType.BOOL:
        return op.Or(op.And(condition, chosen), op.And(op.Not(condition), other))
    return op.Where(condition, chosen, other)


@contextmanager
def _sdpa(model: SciGPT) -> Iterator[None]:
    """A program runs where flash-attn may not be."""
    layers = [m for m in model.modules() if isinstance(m, Projections)]
    kernels = [m.kernel for m in layers]
    try:
        for layer in layers:
            layer.kernel = "sdpa"
        yield
    finally:
        for layer, kernel in zip(layers, kernels, strict=True):
            layer.kernel = kernel


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporters warn of what is of no interest here: that torchvision is missing, what will be called otherwise some day."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)


class Program:
    """A program that was read from a file: called with arrays by name, it gives the forecast.

    Args:
        description: as `write` has given it.
    """

    def __init__(self, description: Mapping[str, Any], run: Callable[[dict[str, np.ndarray]], np.ndarray]) -> None:
        self.description, self._run = description, run

    def __call__(self, **arrays: np.ndarray) -> np.ndarray:
        """float32, see the module.

        Raises:
            UserError: an input that is missing, unknown, or of another dtype or shape.
        """
        check(self.description, arrays)
        return self._run(arrays)


def load_program(path: Path) -> Program:
    """Read a program, `.pt2` or `.onnx`, to run it on the CPU.

    Read a `.pt2` only from a path you trust: it is the one kind of file of scigpt whose format may hold pickled parts, which can run code.
    Those that `write` makes hold none of an input.

    Raises:
        UserError: a file that is none, or a package that is not installed.
    """
    if path.suffix not in SUFFIXES.values() or not path.is_file():
        raise UserError(f"{path}: is not a program; expected a file {' or '.join(SUFFIXES.values())} of an export")
    if path.suffix == ".onnx":
        return _load_onnx(path)
    told = {ABOUT: ""}
    try:
        module = torch.export.load(path, extra_files=told).module()
    except Exception as error:  # a file that is damaged fails in a hundred ways
        raise UserError(f"{path}: cannot be read as a program of torch.export ({error}); export the run again") from None

    def run(arrays: dict[str, np.ndarray]) -> np.ndarray:
        with torch.no_grad():
            found: np.ndarray = module(**{n: torch.from_numpy(a) for n, a in arrays.items()}).numpy()
        return found

    return Program(_described(path, told[ABOUT]), run)


def _load_onnx(path: Path) -> Program:
    try:
        import onnxruntime
    except ImportError:
        raise UserError(f"{path}: needs onnxruntime to run: pip install 'scigpt[export]'") from None
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # of classes that onnxruntime does not name
        raise UserError(f"{path}: cannot be read by ONNX Runtime ({error}); export the run again") from None

    def run(arrays: dict[str, np.ndarray]) -> np.ndarray:
        found: np.ndarray = session.run(None, arrays)[0]
        return found

    return Program(_described(path, session.get_modelmeta().custom_metadata_map.get("scigpt", "")), run)


def _described(path: Path, text: str) -> dict[str, Any]:
    if not text:
        raise UserError(f"{path}: was not written by scigpt (it does not describe its inputs); run it with the library that made it")
    about: dict[str, Any] = json.loads(text)
    return about


def check(description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Whether arrays are the inputs of a program.

    Raises:
        UserError: an input that is missing, unknown, or of another dtype or shape.
    """
    file, expected = description["file"], {i["name"]: i for i in description["inputs"]}
    wrong = [f"lacks {n}" for n in expected if n not in arrays] + [f"does not know {n}" for n in arrays if n not in expected]
    if wrong:
        raise UserError(f"{file}: {'; '.join(wrong)}; expected {', '.join(expected)}")
    count = len(arrays["values"]) if arrays["values"].ndim else 0
    for name, about in expected.items():
        array, (_, *shape) = arrays[name], about["shape"]
        if array.dtype != about["dtype"] or array.shape != (count, *shape) or not count:
            axes, dtype = ", ".join(map(str, about["shape"])), about["dtype"]
            raise UserError(
                f"{file}: {name} is {array.dtype} {array.shape}; expected {dtype} ({axes}), with one batch size of 1 or more in all"
            )
