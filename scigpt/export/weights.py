"""Writing an export of a run or a checkpoint; `scigpt.export.folder` says what is in one."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from tqdm import tqdm

from scigpt.adapt.start import EXPORT, Start
from scigpt.data.corpus import Corpus
from scigpt.data.domain import Domain
from scigpt.data.files import load_json
from scigpt.errors import UserError
from scigpt.evaluate.evaluate import CARD as EVALUATION
from scigpt.evaluate.evaluate import RESULTS
from scigpt.export.card import model_card
from scigpt.export.folder import CARD, SCHEMA_VERSION, WEIGHTS, Exported, make, spelled
from scigpt.model.backbone import SciGPT
from scigpt.train import checkpoint
from scigpt.train.checkpoint import Checkpoint
from scigpt.train.config import RunConfig, build
from scigpt.train.provenance import FILE as PROVENANCE
from scigpt.train.run import CHECKPOINTS, RESULT, checkpoint_of

FORMATS = ("safetensors", "torch-export", "onnx")
TERMS = ("licences", "attributions", "redistributable")
TOLD = ("loss", "score", "parameters", "data", "flops", "own_flops", "seconds", "processes", "skipped_steps")
"""What an export says of a finished run besides its steps."""

_log = logging.getLogger(__name__)


def write(run: Path, out: Path, form: str = "safetensors", steps: int = 4) -> Path:
    """Export a run's best checkpoint, where it keeps that, or its newest; or the checkpoint `run`.

    `out` appears when all of it is on the disk. An export that is there is replaced.

    Args:
        form: safetensors, or with programs besides, one for a step and one for a rollout in each domain: torch-export or onnx.
        steps: of the rollout programs.

    Returns:
        `out`.

    Raises:
        UserError: nothing to export, an `out` that is something else than an export or cannot be written, data whose licences are unknown,
            a model or task of which no program can be made.
    """
    if form not in FORMATS:
        raise UserError(f"--format {form}: a run is exported as {', '.join(FORMATS)}; choose one of these")
    found = checkpoint_of(run)
    if found is None:
        raise UserError(f"{run}: has no complete checkpoint; give the folder of a run that has saved one, or of a checkpoint")
    start = Start.of(found)
    facts = _facts(found, start)
    if form != FORMATS[0] and facts["task"]["name"] != "forecast":
        raise UserError(f"{run}: its task is {facts['task']['name']}, and programs forecast; use --format safetensors")
    for each in facts["unknown"]:
        _log.warning(
            "%s: began with %s, which is not there any more; add the licences of its data before you pass the export on", run, each
        )
    if not facts["redistributable"]:
        names = sorted({c["name"] for c in facts["learned_from"] if not c["redistributable"]})
        _log.warning(
            "%s: the data of %s may not be redistributed; the export holds weights and statistics and none of the data, see whether the "
            "licences it names allow to pass these on",
            run,
            ", ".join(names),
        )

    def fill(folder: Path) -> None:
        model = start.model().eval()
        save_file({name: p.detach().contiguous() for name, p in model.named_parameters()}, folder / WEIGHTS, {"format": "pt"})
        if form != FORMATS[0]:
            from scigpt.export import programs

            for domain in tqdm(facts["domains"], desc=f"programs ({form})", unit="domain", file=sys.stderr):
                facts["programs"] += programs.write(model, Domain.from_json(domain), form, folder, steps)
        facts["files"] = {p.name: checkpoint.sealed(p) for p in sorted(folder.iterdir())}
        (folder / CARD).write_text(model_card(facts, _evaluation(found)), encoding="utf-8")
        (folder / EXPORT).write_bytes(spelled(facts))
        for name in (CARD, EXPORT):
            checkpoint.sealed(folder / name)

    return make(out, fill)


def opened(path: Path) -> tuple[SciGPT, tuple[Domain, ...], str]:
    """The model of a run or a checkpoint, its domains and the name of its task, without an export.

    Raises:
        UserError: neither of the two.
    """
    found = checkpoint_of(path)
    if found is None:
        raise UserError(
            f"{path}: is no export and has no complete checkpoint; give the folder of `scigpt export`, of a run or of a checkpoint"
        )
    config = _config(found)
    domains = tuple(Domain.from_json(d) for d in _own(found, config)[1])
    return Start.of(found).model().eval(), domains, config.task.name


def _facts(found: Checkpoint, start: Start) -> dict[str, Any]:
    """What `config.json` says, but for its files."""
    config = _config(found)
    corpora, domains = _own(found, config)
    before, unknown = _before(found, config)
    corpora += [c for i, c in enumerate(before) if c not in before[:i]]
    return {
        "schema_version": SCHEMA_VERSION,
        "model_type": "scigpt",
        "run": _name(found),
        "checkpoint": found.path.name,
        "step": found.step,
        "code_version": found.state.get("code_version"),
        "model": asdict(start.config),
        "vocabulary": start.vocabulary.to_json(),
        "task": config.to_json()["task"],
        "domains": domains,
        "learned_from": corpora,
        "licences": _union(c["licences"] for c in corpora),
        "attributions": _union(c["attributions"] for c in corpora),
        "redistributable": all(c["redistributable"] for c in corpora),
        "unknown": unknown,
        "training": _training(found, config),
        "programs": [],
        "files": {},
    }


def _training(found: Checkpoint, config: RunConfig) -> dict[str, Any]:
    """What the run came to, as far as it has."""
    run, told = _run_of(found), dict[str, Any]()
    with suppress(UserError):
        told = load_json(run / RESULT, "the result of a run") if run is not None else {}
    about = {"step": found.step, "steps": config.train.steps, "seed": config.seed, "precision": config.train.precision}
    return about | {"adapted": config.init is not None and config.adapt.mode} | {k: told[k] for k in TOLD if k in told}


def _evaluation(found: Checkpoint) -> dict[str, Any] | None:
    """What `scigpt evaluate` has found of this very checkpoint."""
    run = _run_of(found)
    if run is None or not (run / EVALUATION / RESULTS).is_file():
        return None
    results: dict[str, Any] = load_json(run / EVALUATION / RESULTS, "the results of an evaluation")
    return results if results["run"]["checkpoint"] == found.path.name else None


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


def _own(found: Checkpoint, config: RunConfig) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The data of a checkpoint, as the provenance of its run tells it or, without a run, as the corpora do; and its domains.

    Raises:
        UserError: something that only the corpora know, and one of them cannot be opened.
    """
    run, name, domains = _run_of(found), _name(found), found.state.get("domains")
    corpora = [Corpus.open(Path(c.path)) for c in config.data.corpora] if run is None or domains is None else []
    if domains is None:
        domains = [Domain.of(c, settings, config.data).to_json() for c, settings in zip(corpora, config.data.corpora, strict=True)]
    if run is None:
        return [{"run": name, **_entry(c.name, {**c.manifest, "fingerprint": c.fingerprint})} for c in corpora], domains
    told = load_json(run / PROVENANCE, "the provenance of a run")["corpora"]
    return [{"run": name, **_entry(n, about)} for n, about in told.items()], domains


def _entry(name: str, about: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, **{key: about[key] for key in ("fingerprint", *TERMS)}}


def _before(found: Checkpoint, config: RunConfig) -> tuple[list[dict[str, Any]], list[str]]:
    """The data of the pretrained models that a checkpoint descends from, and the names of those of which it cannot be told."""
    corpora: list[dict[str, Any]] = []
    passed: set[Path] = set()
    while config.init is not None and (path := _init(config.init, found)) not in passed:
        passed.add(path)
        try:
            if (path / EXPORT).is_file():
                facts = Exported.open(path).facts
                return [*corpora, *facts["learned_from"]], facts["unknown"]
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
