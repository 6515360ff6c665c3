"""An export of weights: what a run has learned, without what only its training needs, in a folder that can be passed on.

    model.safetensors   every parameter by name, float32; additions of low rank are merged
    scigpt.json         {"schema_version": 1, "run", "checkpoint", "step", "code_version", "model": ModelConfig, "vocabulary", "task",
                        "data": {"frames", "patch"}, "scales": {corpus: {"variables": keys in the order of the rest, or null, ...}},
                        "corpora": [{"run", "name", "fingerprint", "licences", "attributions", "redistributable"}], "licences",
                        "attributions", "redistributable", "unknown": [pretrained models whose data could not be found out],
                        "bytes", "sha256" (of model.safetensors), "checksum" (the sha256 of the rest)}

`corpora` names the data of the run and of every pretrained model it descends from; licences and attributions are their union.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from scigpt.adapt.start import EXPORT, Start
from scigpt.data.corpus import Corpus
from scigpt.data.files import dump_json, load_json, sha256_of, sync_folder
from scigpt.data.loader import scales_of
from scigpt.errors import UserError
from scigpt.model.backbone import ModelConfig, Vocabulary
from scigpt.train import checkpoint
from scigpt.train.checkpoint import Checkpoint, Tensors
from scigpt.train.config import RunConfig, build
from scigpt.train.provenance import FILE as PROVENANCE
from scigpt.train.run import CHECKPOINTS, checkpoint_of

WEIGHTS = "model.safetensors"
SCHEMA_VERSION = 1
TERMS = ("licences", "attributions", "redistributable")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Exported:
    """An export on disk.

    Args:
        tensors: whole parameters by name, each read from the file when it is asked for; `tensors.shape(name)` reads none.
        facts: the content of `scigpt.json`.
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
            UserError: a folder that is none, or whose files are not as they were written.
        """
        about = path / EXPORT
        facts = load_json(about, "the description of an export")
        version = facts.get("schema_version") if isinstance(facts, dict) else None
        if version != SCHEMA_VERSION:
            raise UserError(
                f"{about}: schema version {version}, expected {SCHEMA_VERSION}; export the run again with this version of scigpt"
            )
        if _spelled(facts) != about.read_bytes():
            raise UserError(f"{about}: does not match its own checksum; it was changed or damaged, restore it or export the run again")
        weights = path / WEIGHTS
        if not weights.is_file():
            raise UserError(f"{weights}: is missing; restore it or export the run again")
        if sha256_of(weights) != facts["sha256"]:
            raise UserError(
                f"{weights}: does not match its sha256 in {EXPORT}; it was changed or damaged, restore it or export the run again"
            )
        with safe_open(weights, "pt") as file:
            index = {name: {"shape": file.get_slice(name).get_shape(), "pieces": [[WEIGHTS, 0]]} for name in file.keys()}  # noqa: SIM118
        config = build(ModelConfig, facts["model"], str(about), "model")
        return cls(path, config, Vocabulary.from_json(facts["vocabulary"]), Tensors(path, index), facts)


def write(run: Path, out: Path) -> Path:
    """Export a run's best checkpoint, where it keeps that, or its newest; or the checkpoint `run`.

    `out` appears when all of it is on the disk. An export that is there is replaced.

    Returns:
        `out`.

    Raises:
        UserError: nothing to export, an `out` that is something else than an export or cannot be written, data whose licences are unknown.
    """
    found = checkpoint_of(run)
    if found is None:
        raise UserError(f"{run}: has no complete checkpoint; give the folder of a run that has saved one, or of a checkpoint")
    _refuse(out)
    start = Start.of(found)
    facts = _facts(found, start)
    for each in facts["unknown"]:
        _log.warning(
            "%s: began with %s, which is not there any more; add the licences of its data before you pass the export on", run, each
        )
    if not facts["redistributable"]:
        names = sorted({c["name"] for c in facts["corpora"] if not c["redistributable"]})
        _log.warning(
            "%s: the data of %s may not be redistributed; the export holds weights and statistics and none of the data, see whether the "
            "licences it names allow to pass these on",
            run,
            ", ".join(names),
        )
    model = start.model()
    temporary = out.with_name(f".{out.name}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        tensors = {name: p.detach().contiguous() for name, p in model.named_parameters()}
        save_file(tensors, temporary / WEIGHTS, {"format": "pt"})
        facts |= checkpoint.sealed(temporary / WEIGHTS)
        (temporary / EXPORT).write_bytes(_spelled(facts))
        checkpoint.sealed(temporary / EXPORT)
        sync_folder(temporary)
        _put(temporary, out)
    except (OSError, SafetensorError) as error:  # safetensors tells an error of the system in words
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UserError(f"{out}: the export cannot be written ({reason}); make room there or choose another folder") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return out


def _spelled(facts: Mapping[str, Any]) -> bytes:
    """The one spelling of `scigpt.json`."""
    rest = {k: v for k, v in facts.items() if k != "checksum"}
    return dump_json({**rest, "checksum": hashlib.sha256(dump_json(rest)).hexdigest()}, indent=1)


def _refuse(out: Path) -> None:
    if out.is_dir() and ((out / EXPORT).is_file() or not any(out.iterdir())):
        return
    if out.exists():
        raise UserError(f"{out}: is there and is not an export; choose another place, or remove it yourself")


def _put(folder: Path, out: Path) -> None:
    """Give a folder its name, in the place of an older one."""
    old = out.with_name(f".{out.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        os.replace(out, old)
    os.replace(folder, out)
    sync_folder(out.parent)
    shutil.rmtree(old, ignore_errors=True)


def _facts(found: Checkpoint, start: Start) -> dict[str, Any]:
    """What `scigpt.json` says, but for the file of the weights."""
    config = _config(found)
    corpora, scales = _own(found, config)
    before, unknown = _before(found, config)
    corpora += [c for i, c in enumerate(before) if c not in before[:i]]
    return {
        "schema_version": SCHEMA_VERSION,
        "run": _name(found),
        "checkpoint": found.path.name,
        "step": found.step,
        "code_version": found.state.get("code_version"),
        "model": asdict(start.config),
        "vocabulary": start.vocabulary.to_json(),
        "task": config.to_json()["task"],
        "data": {"frames": config.data.frames, "patch": config.data.patch},
        "scales": scales,
        "corpora": corpora,
        "licences": _union(c["licences"] for c in corpora),
        "attributions": _union(c["attributions"] for c in corpora),
        "redistributable": all(c["redistributable"] for c in corpora),
        "unknown": unknown,
    }


def _config(found: Checkpoint) -> RunConfig:
    return build(RunConfig, found.state["config"], str(found.path / checkpoint.STATE))


def _union(lists: Iterable[Iterable[str]]) -> list[str]:
    return sorted({x for found in lists for x in found})


def _run_of(found: Checkpoint) -> Path | None:
    """The run that a checkpoint lies in."""
    folder = found.path.resolve().parent
    return folder.parent if folder.name == CHECKPOINTS and (folder.parent / PROVENANCE).is_file() else None


def _name(found: Checkpoint) -> str:
    return (_run_of(found) or found.path.resolve()).name


def _own(found: Checkpoint, config: RunConfig) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The data of a checkpoint, as the provenance of its run tells it or, without a run, as the corpora do; and scales by corpus.

    Raises:
        UserError: no run, and a corpus that cannot be opened.
    """
    run, name, scales = _run_of(found), _name(found), {}
    if run is None:
        entries = []
        for settings in config.data.corpora:
            corpus = Corpus.open(Path(settings.path))
            entries.append({"run": name, **_entry(corpus.name, {**corpus.manifest, "fingerprint": corpus.fingerprint})})
            made = scales_of(corpus, settings)
            scales[corpus.name] = {"variables": [v.key for v in corpus.layout.variables], **made.to_json()}
        return entries, scales
    told = load_json(run / PROVENANCE, "the provenance of a run")["corpora"]
    for corpus_name, numbers in found.state["scales"].items():
        scales[corpus_name] = {"variables": _variables(Path(told[corpus_name]["path"]), told[corpus_name]["fingerprint"]), **numbers}
    return [{"run": name, **_entry(n, about)} for n, about in told.items()], scales


def _entry(name: str, about: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, **{key: about[key] for key in ("fingerprint", *TERMS)}}


def _variables(path: Path, fingerprint: str) -> list[str] | None:
    """Keys of a corpus's variables, None where it is not there any more."""
    with suppress(UserError):
        corpus = Corpus.open(path)
        if corpus.fingerprint == fingerprint:
            return [v.key for v in corpus.layout.variables]
    return None


def _before(found: Checkpoint, config: RunConfig) -> tuple[list[dict[str, Any]], list[str]]:
    """The data of the pretrained models that a checkpoint descends from, and the names of those of which it cannot be told."""
    corpora: list[dict[str, Any]] = []
    passed: set[Path] = set()
    while config.init is not None and (path := _init(config.init, found)) not in passed:
        passed.add(path)
        try:
            if (path / EXPORT).is_file():
                facts = Exported.open(path).facts
                return [*corpora, *facts["corpora"]], facts["unknown"]
            earlier = checkpoint_of(path)
            if earlier is None:
                return corpora, [path.name]
            config, found = _config(earlier), earlier
            corpora += _own(found, config)[0]
        except UserError:
            return corpora, [path.name]
    return corpora, []


def _init(init: str, found: Checkpoint) -> Path:
    """The folder that `init` of a checkpoint's configuration names, from here or from where its run was begun."""
    run = _run_of(found)
    if Path(init).exists() or run is None:
        return Path(init).resolve()
    return (Path(load_json(run / PROVENANCE, "the provenance of a run")["launches"][0]["folder"]) / init).resolve()
