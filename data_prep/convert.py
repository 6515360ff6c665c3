"""Conversion: a source becomes a corpus, shard by shard, resumable, with the same bytes for any number of workers."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import scigpt
from scigpt.data.card import card
from scigpt.data.corpus import CARD, MANIFEST, SCHEMA_VERSION, STATS, Corpus, manifest_bytes
from scigpt.data.duplicates import describe, duplicates
from scigpt.data.files import DiskFull, dump_json, load_json, sync_folder, write_bytes
from scigpt.data.gaps import Gaps
from scigpt.data.shard import ShardRecord, index_path
from scigpt.data.statistics import Statistics
from scigpt.data_prep.pools import Unfinished, run_tasks
from scigpt.data_prep.shard_task import ShardTask, same_shape
from scigpt.data_prep.source import Plan, Source
from scigpt.errors import UserError

_NAME = re.compile(r"[a-z0-9_-]+")
_log = logging.getLogger(__name__)


def convert(
    source: Source,
    out: Path,
    name: str | None = None,
    workers: int = 1,
    shard_bytes: int = 64 << 20,
    progress: bool = True,
    accepted_licence: str | None = None,
    cluster: str | None = None,
) -> Path:
    """Make the corpus `out` from a source.

    Shards are written in a folder `.NAME.partial` beside `out`, each as an independent task, and the folder takes its name when all is
    there. After an interruption the same call keeps what is finished. The bytes depend on source, inputs, options and shard size alone.

    Args:
        source: what to convert; worker processes build their own from `(class, inputs, options)`.
        out: the folder to make; its parents are made too.
        name: of the corpus; the folder's name by default.
        workers: processes.
        shard_bytes: about how large a shard becomes.
        progress: whether to draw a progress bar on standard error.
        accepted_licence: recorded in the manifest.
        cluster: a Dask cluster that writes the shards instead; see `run_tasks`.

    Returns:
        `out`; at once if it is already there and made by the same recipe.

    Raises:
        UserError: inputs that are refused (layouts that differ, NaN among valid values, too many values out of bounds), a folder in the
            way, an empty plan.
        DiskFull: too little space, before or while writing; finished shards stay for the next call.
    """
    out = Path(out).absolute()
    plan = source.plan()
    _check_plan(source, plan)
    recipe = recipe_of(source, plan, name or out.name, shard_bytes, accepted_licence)
    if _already_there(out, recipe):
        _log.info("%s is already there, made by the same recipe", out)
        return out
    for note in plan.notes:
        _log.info("%s: %s", source.name, note)
    partial = out.parent / f".{out.name}.partial"
    made = [folder for folder in partial.parents if not folder.exists()]
    with locked(partial):
        manifest = _finished(partial, recipe)
        if manifest is None:
            begun = partial / "recipe.json"
            if begun.is_file() and begun.read_bytes() != dump_json(recipe):
                _empty(partial)
            write_bytes(begun, dump_json(recipe))
            tasks = shard_tasks(source, plan, partial, shard_bytes, recipe["fingerprint"])
            try:
                run_tasks(tasks, plan, workers, progress, cluster)
                manifest = _finish(source, plan, recipe, partial, tasks)
            except (DiskFull, Unfinished):
                if not any(task.result() for task in tasks):
                    _discard(partial, made)
                raise
            except UserError:  # the input is refused: nothing here is of use to another call
                _discard(partial, made)
                raise
            finally:
                for file in partial.glob("*.tmp"):
                    file.unlink()
        kept = {MANIFEST, STATS, CARD} | {f for s in manifest["shards"] for f in (s["file"], index_path(Path(s["file"])).name)}
        for file in partial.iterdir():
            if file.name not in kept:
                file.unlink()
        os.replace(partial, out)
        sync_folder(out.parent)
    return out


def _finished(partial: Path, recipe: dict[str, Any]) -> dict[str, Any] | None:
    """The manifest, where all was written by a call that ended before the folder had its name."""
    if not (partial / MANIFEST).is_file():
        return None
    try:
        manifest = Corpus.open(partial).manifest
    except UserError:
        return None
    return manifest if manifest["recipe"]["fingerprint"] == recipe["fingerprint"] else None


def _discard(partial: Path, made: Sequence[Path]) -> None:
    """Remove the working folder, and the parents that were made for it."""
    shutil.rmtree(partial)
    for folder in made:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _check_plan(source: Source, plan: Plan) -> None:
    if not plan.refs:
        raise UserError(f"source {source.name} finds no sample in its input; check the inputs and the options that choose a window")
    splits = {s.name for s in plan.splits}
    seen: set[str] = set()
    for ref in plan.refs:
        if ref.split not in splits or not _NAME.fullmatch(ref.split):
            raise UserError(f"source {source.name} puts sample {ref.key} into the split {ref.split!r}; expected one of {', '.join(splits)}")
        if ref.key in seen:
            raise UserError(f"source {source.name} plans the sample {ref.key} twice; keys are unique in a corpus")
        seen.add(ref.key)


def recipe_of(source: Source, plan: Plan, name: str, shard_bytes: int, accepted_licence: str | None) -> dict[str, Any]:
    """What decides the bytes, in the manifest's words."""
    options = {k: _plain(v) for k, v in dataclasses.asdict(source.options).items()}
    recipe = {
        "source": source.name,
        "options": options,
        "seed": options.get("seed"),
        "inputs": [{"name": n, "sha256": h} for n, h in plan.inputs],
        "shard_bytes": shard_bytes,
    }
    decisive = {
        **recipe,
        "name": name,
        "refs": [[r.key, r.split, dict(r.spec)] for r in plan.refs],
        "splits": [asdict(s) for s in plan.splits],
        "schema_version": SCHEMA_VERSION,
        "code_version": scigpt.__version__,
    }
    return {
        **recipe,
        "name": name,
        "fingerprint": hashlib.sha256(dump_json(decisive)).hexdigest(),
        "accepted_licence": accepted_licence,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def _already_there(out: Path, recipe: dict[str, Any]) -> bool:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    try:
        corpus = Corpus.open(out)
    except UserError as error:
        raise UserError(f"{out} is in the way and is not a whole corpus ({error}); move it away or choose another --out") from None
    if corpus.manifest["recipe"]["fingerprint"] != recipe["fingerprint"]:
        raise UserError(f"{out} holds a corpus made by another recipe; move it away or choose another --out")
    return True


@contextlib.contextmanager
def locked(partial: Path) -> Iterator[Path]:
    """The working folder, for this process alone; the lock is on the folder itself and ends with the process."""
    try:
        partial.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(partial, os.O_RDONLY)
    except OSError as error:
        raise UserError(f"{partial.parent}: cannot write here: {error.strerror}; choose another --out") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"{partial}: another process is making this corpus; wait for it or stop it") from None
    else:
        yield partial
    finally:
        os.close(descriptor)


def _empty(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def shard_tasks(source: Source, plan: Plan, folder: Path, shard_bytes: int, fingerprint: str) -> list[ShardTask]:
    """Runs of consecutive samples of one split; the number of workers has no part in it."""
    each = max(1, shard_bytes // max(1, plan.bytes_per_sample))
    tasks = []
    for split in plan.splits:
        refs = [r for r in plan.refs if r.split == split.name]
        for i, start in enumerate(range(0, len(refs), each)):
            file = folder / f"{split.name}-{i:06d}.tar"
            tasks.append(
                ShardTask(type(source), source.inputs, source.options, file, split.name, tuple(refs[start : start + each]), fingerprint)
            )
    return tasks


def _finish(source: Source, plan: Plan, recipe: dict[str, Any], folder: Path, tasks: Sequence[ShardTask]) -> dict[str, Any]:
    """Merge what the shards counted, in the order of the shards, and write statistics, card and, last, the manifest."""
    every = [load_json(task.result_file, "the result of a shard") for task in tasks]
    left_out = sum(r["left_out"] for r in every)
    results = [r for r in every if r["record"] is not None]
    if not results:
        files = ", ".join(name for name, _ in plan.inputs[:3])
        words = "tile=, min_valid=, mask=" if hasattr(source.options, "mask") else "tile=, min_valid="
        raise UserError(f"{files}: not one of the {left_out} samples holds enough valid values; check {words} and the place")
    shape = results[0]["shape"]
    for result in results:
        same_shape(results[0]["first"], shape, result["first"], result["shape"])
    stats = Statistics()
    coefficients: dict[str, dict[str, float]] = {}
    for result in results:
        if result["stats"] is not None:
            stats.merge(Statistics.from_json(result["stats"]))
        for name, (low, high) in sorted(result["coefficients"].items()):
            known = coefficients.setdefault(name, {"min": low, "max": high})
            coefficients[name] = {"min": min(known["min"], low), "max": max(known["max"], high)}
    records = [ShardRecord(**result["record"]) for result in results]
    layout = {k: v for k, v in shape.items() if k not in ("calendar", "coordinates")}
    stats_bytes = dump_json(stats.to_json())
    about = source.describe()
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "name": recipe["name"],
        "layout": layout,
        "calendar": shape["calendar"],
        "step": stats.step,
        "splits": {
            split.name: {
                "distribution": split.distribution,
                "description": split.description,
                "samples": sum(r.samples for r in records if r.split == split.name),
                "frames": sum(r.frames for r in records if r.split == split.name),
                **_gaps(results, split.name).summary(shape["calendar"], stats.step, layout["steady"], source.hole),
            }
            for split in plan.splits
            if any(r.split == split.name for r in records)
        },
        "left_out": left_out,
        "use": about.use,
        "shards": [asdict(r) for r in records],
        "stats_sha256": hashlib.sha256(stats_bytes).hexdigest(),
        "licences": sorted({v for r in results for v in r["licences"]}),
        "attributions": _attributions(results, about.attribution),
        "redistributable": source.redistributable,
        "recipe": {k: v for k, v in recipe.items() if k != "name"},
        "coefficients": coefficients,
        "out_of_bounds": _out_of_bounds(source, results),
        "code_version": scigpt.__version__,
    }
    text = card(manifest, stats).encode()
    manifest["card_sha256"] = hashlib.sha256(text).hexdigest()
    write_bytes(folder / STATS, stats_bytes)
    write_bytes(folder / CARD, text)
    write_bytes(folder / MANIFEST, manifest_bytes(manifest))
    for found in duplicates([Corpus.open(folder)]):
        told = describe(found).replace(f"{folder}, ", "")
        if found.leak:
            raise UserError(f"{told}; leave one of the inputs out, or split so that they fall together")
        _log.warning("%s", told)
    return manifest


def _attributions(results: Sequence[dict[str, Any]], general: str) -> list[str]:
    found = {v for r in results for v in r["attributions"]}
    return sorted(found if not general or any(general in v for v in found) else found | {general})


def _gaps(results: Sequence[dict[str, Any]], split: str) -> Gaps:
    gaps = Gaps()
    for result in results:
        if result["record"]["split"] == split:
            gaps.merge(Gaps.from_json(result["gaps"]))
    return gaps


def outline(source: Source, out: Path, workers: int = 1, shard_bytes: int = 64 << 20) -> dict[str, Any]:
    """What `convert` would do, without doing it; one sample is made for an estimate of size and time and thrown away.

    Returns:
        `splits` (samples and shards of each), `samples`, `shards`, `bytes` and `seconds` (estimated), `free_bytes`, `licence`, `use`,
        `redistributable`, `inputs`, `notes`.
    """
    plan = source.plan()
    _check_plan(source, plan)
    about, folder = source.describe(), Path(out).absolute().parent
    while not folder.is_dir():
        folder = folder.parent
    tasks = shard_tasks(source, plan, folder, shard_bytes, "")
    with tempfile.TemporaryDirectory() as scratch:
        began = time.perf_counter()
        trial = dataclasses.replace(tasks[0], file=Path(scratch) / "trial.tar", refs=tasks[0].refs[:1])
        trial.run()
        seconds = time.perf_counter() - began
        size = sum(f.stat().st_size for f in Path(scratch).glob("trial.tar"))
    count = len(plan.refs)
    return {
        "source": source.name,
        "splits": {
            s.name: {"samples": sum(r.split == s.name for r in plan.refs), "shards": sum(t.split == s.name for t in tasks)}
            for s in plan.splits
        },
        "samples": count,
        "shards": len(tasks),
        "bytes": count * (size or plan.bytes_per_sample),
        "seconds": count * seconds / max(1, min(workers, len(tasks))),
        "free_bytes": shutil.disk_usage(folder).free,
        "licence": about.licence,
        "use": about.use,
        "redistributable": source.redistributable,
        "inputs": [name for name, _ in plan.inputs],
        "notes": list(plan.notes),
    }


def _out_of_bounds(source: Source, results: Sequence[dict[str, Any]]) -> dict[str, int]:
    """How many values of each variable were implausible; too large a share of a file means a wrong unit or a broken file."""
    counts = {}
    for key, about in results[0]["bounds"].items():
        by_file: dict[str, list[dict[str, Any]]] = {}
        for result in results:
            for files, count in result["bounds"][key]["files"].items():
                by_file.setdefault(files, []).append(count)
        for each in by_file.values():
            outside, valid = (sum(c[k] for c in each) for k in ("outside", "valid"))
            if outside > source.max_out_of_bounds * valid:
                worst = max(each, key=lambda c: c["worst"])["where"]
                raise UserError(
                    f"{outside / valid:.3%} of the values of {key} lie outside {about['plausible']}, "
                    f"most of them in {worst}; at most {source.max_out_of_bounds:.3%} of a file may, check its unit and its "
                    f"missing-value mark"
                )
        counts[key] = sum(c["outside"] for each in by_file.values() for c in each)
    return counts
