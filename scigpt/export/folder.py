"""An export: what a run has learned, without what only its training needs, in a folder that can be passed on.

    model.safetensors   every parameter by name, float32; additions of low rank are merged
    config.json         {"schema_version": 2, "model_type": "scigpt", "run", "checkpoint", "step", "code_version", "model": ModelConfig,
                        "vocabulary", "task", "domains": [Domain], "learned_from": [{"run", "name", "fingerprint", "licences",
                        "attributions", "redistributable"}], "licences", "attributions", "redistributable", "unknown": [pretrained models
                        whose data could not be found out], "training": {what the run came to}, "programs": [see
                        `scigpt.export.programs`], "files": {name: {"bytes", "sha256"}}, "checksum" (the sha256 of the rest)}
    README.md           the model card; yours to edit
    step-NAME.pt2, rollout-NAME.pt2, or .onnx    programs, where they were asked for

`learned_from` names the data of the run and of every pretrained model it descends from; licences and attributions are their union. Names
and places follow the Hugging Face hub. Nothing here needs more than torch, numpy and safetensors.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from scigpt.adapt.start import EXPORT, Start
from scigpt.data.domain import Domain
from scigpt.data.files import dump_json, load_json, replace_folder, sha256_of, sync_folder
from scigpt.errors import UserError
from scigpt.model.backbone import ModelConfig, SciGPT, Vocabulary
from scigpt.train.checkpoint import Tensors

WEIGHTS, CARD = "model.safetensors", "README.md"
SCHEMA_VERSION = 2
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".dill", ".npy", ".npz")
"""Names under which pickles travel."""


@dataclass(frozen=True, slots=True)
class Exported:
    """An export on disk.

    Args:
        tensors: whole parameters by name, each read from the file when it is asked for; `tensors.shape(name)` reads none.
        facts: the content of `config.json`.
    """

    path: Path
    config: ModelConfig
    vocabulary: Vocabulary
    tensors: Tensors
    facts: Mapping[str, Any]

    @classmethod
    def open(cls, path: Path) -> Exported:
        """Verify and open an export.

        Raises:
            UserError: a folder that is none, of another schema, whose files are not as they were written, or that holds a pickle.
        """
        about = path / EXPORT
        facts = load_json(about, "the description of an export")
        _check_schema(about, facts)
        if spelled(facts) != about.read_bytes():
            raise UserError(f"{about}: does not match its own checksum; it was changed or damaged, restore it or export the run again")
        for name, expected in facts["files"].items():
            file = path / name
            if file.parent != path:
                raise UserError(f"{about}: names the file {name}, which lies elsewhere; no export of scigpt does, do not use it")
            if not file.is_file():
                raise UserError(f"{file}: is missing; restore it or export the run again")
            if sha256_of(file) != expected["sha256"]:
                raise UserError(
                    f"{file}: does not match its sha256 in {EXPORT}; it was changed or damaged, restore it or export the run again"
                )
        _refuse_pickles(path, facts["files"])
        try:
            with safe_open(path / WEIGHTS, "pt") as file:
                index = {n: {"shape": file.get_slice(n).get_shape(), "pieces": [[WEIGHTS, 0]]} for n in file.keys()}  # noqa: SIM118
            config = ModelConfig(**{**facts["model"], "attention": "sdpa"})  # flash-attn may not be here
        except (SafetensorError, TypeError) as error:
            raise UserError(f"{path}: cannot be read ({error}); it was made by another version of scigpt, export the run again") from None
        return cls(path, config, Vocabulary.from_json(facts["vocabulary"]), Tensors(path, index), facts)

    @property
    def domains(self) -> tuple[Domain, ...]:
        """What the run was trained on; not what the pretrained models before it were."""
        return tuple(Domain.from_json(d) for d in self.facts["domains"])

    def model(self) -> SciGPT:
        """The model, in evaluation mode."""
        return Start(self.path, self.config, self.vocabulary, self.tensors, self.vocabulary).model().eval()


def spelled(facts: Mapping[str, Any]) -> bytes:
    """The one spelling of `config.json`."""
    rest = {k: v for k, v in facts.items() if k != "checksum"}
    return dump_json({**rest, "checksum": hashlib.sha256(dump_json(rest)).hexdigest()}, indent=1)


def _check_schema(about: Path, facts: Any) -> None:
    version = facts.get("schema_version") if isinstance(facts, dict) else None
    if version == SCHEMA_VERSION:
        return
    if not isinstance(version, int):
        raise UserError(
            f"{about}: is not the description of an export of scigpt (it has no schema_version); give a folder of `scigpt export`"
        )
    if version > SCHEMA_VERSION:
        raise UserError(f"{about}: has schema version {version} and this scigpt knows up to {SCHEMA_VERSION}; update scigpt to read it")
    raise UserError(f"{about}: has schema version {version}, expected {SCHEMA_VERSION}; export the run again with this version of scigpt")


def _refuse_pickles(folder: Path, known: Mapping[str, Any]) -> None:
    """Nothing of a pickle would be read, but who passes the folder on would pass it on too."""
    for file in sorted(folder.rglob("*")):
        inside = file.relative_to(folder)
        if inside.parts[0] in (".git", ".cache") or str(inside) in known or not file.is_file():
            continue
        with open(file, "rb") as content:
            head = content.read(2)
        if file.suffix.lower() in PICKLES or (head[:1] == b"\x80" and head[1:] in (b"\x02", b"\x03", b"\x04", b"\x05")):
            raise UserError(f"{file}: does not belong to the export and may hold a pickle, which can run code; remove it")


def make(out: Path, fill: Callable[[Path], None]) -> Path:
    """A folder that appears when all of it is on the disk; an export that is there is replaced.

    Args:
        fill: writes everything into the folder it is given.

    Raises:
        UserError: an `out` that is something else than an export, or cannot be written.
    """
    if out.exists() and not (out.is_dir() and (is_export(out) or not any(out.iterdir()))):
        raise UserError(f"{out}: is there and is not an export; choose another place, or remove it yourself")
    temporary = out.with_name(f".{out.name}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        fill(temporary)
        sync_folder(temporary)
        replace_folder(temporary, out)
    except (OSError, SafetensorError) as error:  # safetensors tells an error of the system in words
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UserError(f"{out}: the export cannot be written ({reason}); make room there or choose another folder") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return out


def is_export(path: Path) -> bool:
    """Whether a folder was written by an export of any schema."""
    try:
        facts = load_json(path / EXPORT, "the description of an export")
    except UserError:
        return False
    return isinstance(facts, dict) and facts.get("model_type") == "scigpt"
