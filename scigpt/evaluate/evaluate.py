"""Evaluate a run: every corpus and split, the model beside the baselines, as numbers, pictures and a page.

`results.json` (numbers that are undefined or not finite are null):

    schema_version  1
    run             path, checkpoint, step, steps, parameters, size, code_version, licences
    options         windows, rollouts, steps
    corpora[]       name, path, fingerprint, trained_on, licences, attributions, source, grid, geometry, calendar, step,
                    variables {role: [key]}, coefficients {name: {min, max}}, fno (null, or what `scigpt.evaluate.fno` tells), splits[]
      splits[]      split, distribution ("in" or "out"), description, records, windows, frames
        one_step    {variable: {unit, windows (with a defined VRMSE), methods {method: {vrmse, vrmse_median, nrmse, relative_l2, rmse,
                    maximum (means over windows), diverged (windows)}}}}
        summary     vrmse {method: mean over variables}, best_baseline, ratio (model / best baseline), difference (null, or mean of model
                    minus best baseline, its 95 % interval low and high, trajectories), verdict (better, even, worse, undefined)
        uncertainty, images, picks  {variable: {method: {score: number}}}; reliability  {variable: {levels, observed}}: see
                    `scigpt.evaluate.further`
        answers     null, or what a head says of whole windows, see `scigpt.evaluate.answers` (one_step is then empty)
        regions     {region: {windows, vrmse {method}}}
        coefficients {coefficient: {range: {windows, vrmse {method}}}}
        spectra     null, or kind, bands {band: [low, high]}, variables {variable: {truth [k], methods {method: {bands {band: {error,
                    power_ratio}}, and of the model power [k], error [k]}}}}
        rollout     null, or windows, context, steps, lead_times [steps], lead_unit ("s", or "1" for simulated time),
                    variables {variable: {method: {vrmse [steps], ranges {"1-10": mean}, survival (median steps until VRMSE > 1)}}},
                    summary {"1-10": as above}, drift {variable: {truth or model: {mean [steps], mean_square [steps]}}}, spectra {"1-10": as
                    above}
        pictures[]  file, caption

Methods are "model", the baselines of `scigpt.evaluate.baselines`, "climatology" where there is one, and "FNO" on request. Definitions stand
in `scigpt.evaluate.metrics`, `spectra`, `conservation`, `breakdown` and `intervals`.
"""

from __future__ import annotations

import json
import logging
import math
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from scigpt.adapt.start import Start
from scigpt.data.corpus import Corpus
from scigpt.data.domain import Domain
from scigpt.data.files import dump_json, load_json, replace_folder
from scigpt.data.mixture import CorpusConfig
from scigpt.errors import UserError
from scigpt.evaluate import fno
from scigpt.evaluate.card import render
from scigpt.evaluate.climatology import Climatology
from scigpt.evaluate.gallery import draw
from scigpt.evaluate.plan import Options, Plan, Subject, plan
from scigpt.evaluate.rollout import Model
from scigpt.evaluate.study import Beside, study
from scigpt.model.backbone import SciGPT
from scigpt.train.config import RunConfig, load
from scigpt.train.engine import CHECKPOINTS
from scigpt.train.provenance import FILE as PROVENANCE
from scigpt.train.report import log_evaluation
from scigpt.train.run import CONFIG, METRICS, checkpoint_of

_log = logging.getLogger(__name__)

CARD, RESULTS, PAGE = "card", "results.json", "index.html"
SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """A run and its best checkpoint, where it keeps that, or its newest complete one; additions of low rank are merged."""

    path: Path
    config: RunConfig
    model: SciGPT
    facts: Mapping[str, Any]
    fingerprints: Mapping[str, str]
    domains: tuple[Domain, ...] = ()

    @classmethod
    def open(cls, path: Path) -> TrainedRun:
        """Load the model of a run.

        Raises:
            UserError: a folder that is no run, or has no complete checkpoint.
        """
        if not (path / CONFIG).is_file():
            raise UserError(f"{path}: is not the folder of a run (it has no {CONFIG}); give the folder that `scigpt pretrain` wrote")
        found = checkpoint_of(path)
        if found is None:
            raise UserError(f"{path}: has no complete checkpoint under {CHECKPOINTS}; let `scigpt pretrain` run until it has saved one")
        config = load(path / CONFIG)
        model = Start.of(found).model()
        provenance = path / PROVENANCE
        about = load_json(provenance, "the provenance of a run") if provenance.exists() else {"licences": [], "launches": []}
        facts = {
            "path": str(path),
            "checkpoint": found.path.name,
            "step": found.step,
            "steps": config.train.steps,
            "parameters": sum(p.numel() for p in model.parameters()),
            "size": config.model.size,
            "code_version": about["launches"][-1]["commit"] if about["launches"] else None,
            "licences": about["licences"],
        }
        domains = tuple(Domain.from_json(d) for d in found.state.get("domains") or ())
        return cls(path, config, model.eval(), facts, found.state["corpora"], domains)


def evaluate(
    run: Path,
    corpora: Sequence[Path] = (),
    split: str | None = None,
    options: Options | None = None,
    progress: bool = True,
    with_fno: bool = False,
) -> dict[str, Any]:
    """Evaluate the newest checkpoint of a run and write `RUN/card/` (replaced as a whole, when everything is done).

    Args:
        corpora: folders, instead of the corpora of the run's configuration.
        split: the one split to evaluate, instead of every split but the one trained on.
        with_fno: train an FNO beside the run on each gridded corpus that the run was trained on, and score it too.

    Returns:
        The content of `results.json`.

    Raises:
        UserError: whatever a user can mend, before anything is computed: no complete checkpoint, a corpus whose variables or units
            the model does not know, a split that does not exist, a window longer than the records, an extra that is not installed.
    """
    if with_fno:
        fno.require()
    options = options or Options()
    trained = TrainedRun.open(run)
    work = _plans(trained, corpora, split, options)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = trained.model.to(device)
    folder = run / f"{CARD}.tmp"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        described: dict[str, dict[str, Any]] = {}
        beside: dict[str, Beside] = {}
        for each in work:
            corpus = each.subject.corpus
            if corpus.name not in described:
                beside[corpus.name], about_fno = _beside(trained, each.subject, device, progress, with_fno)
                described[corpus.name] = {**_describe(corpus, trained), "fno": about_fno, "splits": []}
            done = study(model, each, device, progress, beside[corpus.name])
            stem = re.sub(r"[^a-z0-9]+", "-", f"{corpus.name}-{each.split}".lower())
            pictures = [asdict(p) for p in draw(done, folder, f"{len(described)}-{stem}")]
            described[corpus.name]["splits"].append({**done.numbers, "pictures": pictures})
        results = {
            "schema_version": SCHEMA_VERSION,
            "run": dict(trained.facts),
            "options": asdict(options),
            "corpora": list(described.values()),
        }
        (folder / PAGE).write_text(render(results), encoding="utf-8")
        results = _finite(results)
        (folder / RESULTS).write_bytes(dump_json(results, indent=1))
        for kept in (run / CARD).glob(f"{fno.STEM}*"):  # hours of training, perhaps
            shutil.copy2(kept, folder / kept.name)
        replace_folder(folder, run / CARD)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    log_evaluation(trained.config.report, run, flatten(results), trained.facts["step"], run / CARD)
    return results


def _beside(trained: TrainedRun, subject: Subject, device: str, progress: bool, with_fno: bool) -> tuple[Beside, dict[str, Any] | None]:
    """What stands beside the model on a corpus, and what is told about its FNO."""
    corpus, config = subject.corpus, trained.config
    climatology = Climatology.of(corpus, subject.config, subject.scales, progress)
    if not with_fno or not fno.applicable(corpus.layout) or trained.fingerprints.get(corpus.name) != corpus.fingerprint:
        return Beside({}, climatology), None
    groups = 0
    for line in (trained.path / METRICS).read_text().splitlines():
        read = json.loads(line)
        groups += read["corpora"].count(corpus.name) if read["step"] <= trained.facts["step"] else 0
    made = fno.train_beside(
        trained.path / CARD, corpus, subject.config, config.data, config.seed, groups, trained.model.flops, device, progress
    )
    rivals: dict[str, Model] = {fno.NAME: made[0]}
    return Beside(rivals, climatology), made[1]


def flatten(results: Mapping[str, Any]) -> dict[str, float]:
    """Scores by name, `CORPUS/SPLIT/one_step/VARIABLE/METHOD/vrmse` and so on, fit for MLflow; what is null is left out."""
    scores: dict[str, float | None] = {}
    for corpus in results["corpora"]:
        for part in corpus["splits"]:
            where = f"{corpus['name']}/{part['split']}"
            scores |= _flat_summary(part["summary"], where)
            tables = {key: part[key] for key in ("uncertainty", "images", "picks")} | {
                "answers": (part["answers"] or {"scores": {}})["scores"]
            }
            for key, table in tables.items():
                for name, methods in table.items():
                    scores |= {f"{where}/{key}/{name}/{method}/{n}": x for method, row in methods.items() for n, x in row.items()}
            for region, entry in part["regions"].items():
                scores |= {f"{where}/region/{region}/{method}/vrmse": value for method, value in entry["vrmse"].items()}
            for name, bins in part["coefficients"].items():
                for label, entry in bins.items():
                    scores |= {f"{where}/{name}/{label}/{method}/vrmse": value for method, value in entry["vrmse"].items()}
            for label, spectra in [("one_step", part["spectra"]), *(part["rollout"] or {"spectra": {}})["spectra"].items()]:
                for variable, found in (spectra or {"variables": {}})["variables"].items():
                    for method, entry in found["methods"].items():
                        for band, share in entry["bands"].items():
                            scores |= {f"{where}/spectra_{label}/{variable}/{method}/{band}_{n}": v for n, v in share.items()}
            for variable, row in part["one_step"].items():
                for method, entry in row["methods"].items():
                    scores |= {f"{where}/one_step/{variable}/{method}/{name}": entry[name] for name in entry if name != "diverged"}
            if part["rollout"] is None:
                continue
            for span, summary in part["rollout"]["summary"].items():
                scores |= _flat_summary(summary, f"{where}/leads_{span}")
            for variable, methods in part["rollout"]["drift"].items():
                for method, entry in methods.items():
                    scores |= {f"{where}/drift/{variable}/{method}/{name}": curve[-1] for name, curve in entry.items()}
            for variable, methods in part["rollout"]["variables"].items():
                for method, entry in methods.items():
                    scores |= {f"{where}/rollout/{variable}/{method}/vrmse_{span}": value for span, value in entry["ranges"].items()}
                    scores[f"{where}/rollout/{variable}/{method}/survival"] = entry["survival"]
    return {re.sub(r"[^\w./-]", "_", name, flags=re.ASCII): value for name, value in scores.items() if value is not None}


def _flat_summary(summary: Mapping[str, Any], where: str) -> dict[str, float | None]:
    found = {f"{where}/vrmse/{method}": value for method, value in summary["vrmse"].items()}
    difference = summary["difference"] or {}
    return found | {f"{where}/difference/{name}": difference.get(name) for name in ("mean", "low", "high")}


def _plans(trained: TrainedRun, folders: Sequence[Path], split: str | None, options: Options) -> list[Plan]:
    """Everything that will be done, so that every mistake is told before the first number is computed."""
    data = trained.config.data
    known = {Path(c.path).resolve(): c for c in data.corpora}
    configs = [known.get(f.resolve(), CorpusConfig(str(f))) for f in folders] or list(data.corpora)
    subjects = [_subject(trained, config) for config in configs]
    work: list[Plan] = []
    short: list[UserError] = []
    for subject in subjects:
        held_out = [s for s in subject.corpus.splits if s != subject.config.train and subject.corpus.entries(s)]
        wanted = held_out if split is None else [s for s in subject.corpus.splits if s == split]
        for name in wanted:
            try:
                work.append(plan(subject, name, options))
            except UserError as error:
                if split is not None:
                    raise
                short.append(error)
    if short and not work:
        raise short[0]
    for reason in short:  # records too short for a score do not stop the others
        _log.warning("not scored: %s", reason)
    if not work:
        there = "; ".join(f"{s.corpus.name} has {', '.join(s.corpus.splits)}" for s in subjects)
        what = f"no corpus has a split {split!r}" if split is not None else "no corpus has a split that was not trained on"
        raise UserError(f"{trained.path}: {what} ({there}); name one of these with --split")
    return work


def _subject(trained: TrainedRun, config: CorpusConfig) -> Subject:
    corpus = Corpus.open(config.path)
    try:
        trained.model.vocabulary.rows(corpus.layout)
    except UserError as error:
        raise UserError(f"{corpus.path}: does not fit the model of {trained.path}: {error}") from None
    for name in corpus.stats.to_json()["coefficients"]:
        if name not in trained.model.vocabulary.coefficients:
            told = ", ".join(trained.model.vocabulary.coefficients) or "none"
            raise UserError(
                f"{corpus.path}: does not fit the model of {trained.path}: it does not know the coefficient {name}; it knows {told}"
            )
    return Subject.of(corpus, config, trained.config.data, trained.config.task, trained.config.seed, trained.domains)


def _describe(corpus: Corpus, trained: TrainedRun) -> dict[str, Any]:
    manifest, layout = corpus.manifest, corpus.layout
    roles = ("state", "diagnostic", "forcing", "static")
    return {
        "name": corpus.name,
        "path": str(corpus.path),
        "fingerprint": corpus.fingerprint,
        "trained_on": trained.fingerprints.get(corpus.name) == corpus.fingerprint,
        "licences": manifest["licences"],
        "attributions": manifest["attributions"],
        "source": manifest["recipe"]["source"],
        "grid": list(layout.grid),
        "geometry": layout.geometry,
        "steady": layout.steady,
        "calendar": manifest["calendar"],
        "step": manifest["step"],
        "variables": {role: keys for role in roles if (keys := [v.key for v in layout.variables if v.role == role])},
        "coefficients": manifest["coefficients"],
    }


def _finite(data: Any) -> Any:
    """The same data with null for every number that JSON cannot hold."""
    if isinstance(data, Mapping):
        return {k: _finite(v) for k, v in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(v) for v in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
