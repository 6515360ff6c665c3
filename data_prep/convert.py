"""Conversion: a source becomes a corpus, shard by shard, resumable, with the same bytes for any number of workers."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import fcntl
import hashlib
import logging
import multiprocessing
import os
import re
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import scigpt
from scigpt.data.card import card
from scigpt.data.corpus import CARD, MANIFEST, SCHEMA_VERSION, STATS, Corpus, manifest_bytes
from scigpt.data.files import DiskFull, dump_json, load_json, sha256_of, sync_folder, write_bytes
from scigpt.data.sample import Sample
from scigpt.data.shard import ShardRecord, index_path, write_shard
from scigpt.data.statistics import Statistics
from scigpt.data_prep.source import Plan, SampleRef, Source
from scigpt.errors import UserError

TRAIN = "train"
_NAME = re.compile(r"[a-z0-9_-]+")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShardTask:
    """One shard to write: all that a worker process needs."""

    source: type[Source]
    inputs: tuple[Path, ...]
    options: Any
    file: Path
    split: str
    refs: tuple[SampleRef, ...]
    fingerprint: str

    @property
    def result_file(self) -> Path:
        return self.file.with_suffix(".result.json")

    def result(self) -> dict[str, Any] | None:
        """What `run` wrote, if this shard was finished by the same recipe."""
        if not (self.result_file.is_file() and self.file.is_file() and index_path(self.file).is_file()):
            return None
        result = load_json(self.result_file, "the result of a shard")
        record = result["record"]
        same = result["fingerprint"] == self.fingerprint and self.file.stat().st_size == record["bytes"]
        return result if same and sha256_of(index_path(self.file)) == record["index_sha256"] else None

    def run(self, tick: Callable[[], object] = lambda: None) -> None:
        """Write shard, sidecar and, last, the result: record, statistics, what was out of bounds. Repeatable."""
        self.result_file.unlink(missing_ok=True)
        source = self.source(self.inputs, self.options)
        tally = _Tally(self.split, source)
        record = write_shard(self.file, self._samples(source, tally, tick))
        write_bytes(self.result_file, dump_json({"fingerprint": self.fingerprint, "record": asdict(record), **tally.to_json()}))

    def _samples(self, source: Source, tally: _Tally, tick: Callable[[], object]) -> Iterator[tuple[str, str, Sample]]:
        made = source.samples(self.refs)
        for ref in self.refs:
            sample = next(made, None)
            if sample is None:
                raise UserError(f"source {source.name} planned sample {ref.key} and did not yield it; report this with the input")
            yield ref.key, self.split, tally.take(ref.key, sample)
            tick()


class _Tally:
    """What is counted while a shard is written."""

    def __init__(self, split: str, source: Source) -> None:
        self.train, self.source = split == TRAIN, source
        self.stats = Statistics()
        self.shape: dict[str, Any] | None = None
        self.first = ""
        self.bounds: dict[str, dict[str, Any]] = {}
        self.coefficients: dict[str, list[float]] = {}
        self.licences: set[str] = set()
        self.attributions: set[str] = set()

    def take(self, key: str, sample: Sample) -> Sample:
        """Count a sample and return it with implausible values marked invalid."""
        where = _where(key, sample)
        shape = {**sample.layout.to_json(), "calendar": sample.time.calendar, "coordinates": sorted(sample.coordinates)}
        if self.shape is None:
            self.shape, self.first = shape, where
        _same_shape(self.first, self.shape, where, shape)
        sample = self._bound(where, sample)
        for name, value in sample.coefficients.items():
            low, high = self.coefficients.get(name, (value, value))
            self.coefficients[name] = [min(low, value), max(high, value)]
        self.licences.add(sample.origin.licence)
        self.attributions.add(sample.origin.attribution)
        if self.train:
            self.stats.update(sample)
        return sample

    def _bound(self, where: str, sample: Sample) -> Sample:
        valid = sample.valid.copy()
        for c, variable in enumerate(sample.variables):
            low, high = self.source.bounds(variable)
            about = self.bounds.setdefault(variable.key, {"plausible": f"{low:g} to {high:g} {variable.unit}", "files": {}})
            files = ", ".join(f.name for f in sample.origin.files)
            count = about["files"].setdefault(files, {"outside": 0, "valid": 0, "worst": 0, "where": where})
            count["valid"] += int(valid[:, c].sum())
            field = sample.values[:, c]
            # infinity is not implausible but wrong; it stays valid and the writer refuses it
            outside = valid[:, c] & np.isfinite(field) & ((field < low) | (field > high))
            found = int(outside.sum())
            count["outside"] += found
            if found > count["worst"]:
                count |= {"worst": found, "where": where}
            valid[:, c] &= ~outside
        return replace(sample, valid=valid)

    def to_json(self) -> dict[str, Any]:
        return {
            "stats": self.stats.to_json() if self.train else None,
            "shape": self.shape,
            "first": self.first,
            "bounds": self.bounds,
            "coefficients": self.coefficients,
            "licences": sorted(self.licences - {""}),
            "attributions": sorted(self.attributions - {""}),
        }


def _where(key: str, sample: Sample) -> str:
    files = ", ".join(f.name for f in sample.origin.files[:2])
    return f"sample {key}" + (f" ({files})" if files else "")


def _same_shape(first: str, one: dict[str, Any], second: str, other: dict[str, Any]) -> None:
    for what, value in one.items():
        if other[what] != value:
            told = [", ".join(v["name"] for v in s) if what == "variables" else s for s in (value, other[what])]
            raise UserError(
                f"{first} and {second} differ in {what}: {told[0]} and {told[1]}; all samples of a corpus share one layout, "
                f"so put them into two corpora or choose options that make them alike"
            )


def convert(
    source: Source,
    out: Path,
    name: str | None = None,
    workers: int = 1,
    shard_bytes: int = 64 << 20,
    progress: bool = True,
    accepted_licence: str | None = None,
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
    recipe = _recipe(source, plan, name or out.name, shard_bytes, accepted_licence)
    if _already_there(out, recipe):
        _log.info("%s is already there, made by the same recipe", out)
        return out
    for note in plan.notes:
        _log.info("%s: %s", source.name, note)
    partial = out.parent / f".{out.name}.partial"
    with _locked(partial):
        begun = partial / "recipe.json"
        if begun.is_file() and begun.read_bytes() != dump_json(recipe):
            _empty(partial)
        write_bytes(begun, dump_json(recipe))
        tasks = _tasks(source, plan, partial, shard_bytes, recipe["fingerprint"])
        try:
            _run(tasks, plan, workers, progress)
        except UserError:
            if not any(task.result() for task in tasks):
                shutil.rmtree(partial)
            raise
        finally:
            for file in partial.glob("*.tmp"):
                file.unlink()
        try:
            manifest = _finish(source, plan, recipe, partial, tasks)
        except UserError:  # the input as a whole is refused: nothing here is of use to another call
            shutil.rmtree(partial)
            raise
        kept = {MANIFEST, STATS, CARD} | {f for s in manifest["shards"] for f in (s["file"], index_path(Path(s["file"])).name)}
        for file in partial.iterdir():
            if file.name not in kept:
                file.unlink()
        os.replace(partial, out)
        sync_folder(out.parent)
    return out


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


def _recipe(source: Source, plan: Plan, name: str, shard_bytes: int, accepted_licence: str | None) -> dict[str, Any]:
    """What decides the bytes, in the manifest's words."""
    options = {k: _plain(v) for k, v in dataclasses.asdict(source.options).items()}
    recipe = {
        "source": source.name,
        "options": options,
        "seed": options.get("seed"),
        "inputs": [{"name": n, "sha256": h} for n, h in plan.inputs],
    }
    decisive = {
        **recipe,
        "name": name,
        "refs": [[r.key, r.split, dict(r.spec)] for r in plan.refs],
        "splits": [asdict(s) for s in plan.splits],
        "shard_bytes": shard_bytes,
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
def _locked(partial: Path) -> Iterator[None]:
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
        yield
    finally:
        os.close(descriptor)


def _empty(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def _tasks(source: Source, plan: Plan, folder: Path, shard_bytes: int, fingerprint: str) -> list[ShardTask]:
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


def _run(tasks: Sequence[ShardTask], plan: Plan, workers: int, progress: bool) -> None:
    todo = [task for task in tasks if task.result() is None]
    if not todo:
        return
    folder, total, missing = todo[0].file.parent, len(plan.refs), sum(len(task.refs) for task in todo)
    needed, free = missing * plan.bytes_per_sample, shutil.disk_usage(folder).free
    if needed > free:
        raise DiskFull(
            f"{folder}: about {needed / 1e9:.3g} GB are needed and {free / 1e9:.3g} GB are free; make room or choose another --out"
        )
    with tqdm(total=total, initial=total - missing, unit="sample", disable=not progress, desc=todo[0].source.name) as bar:
        if workers <= 1:
            for task in todo:
                task.run(bar.update)
            return
        others = set(multiprocessing.active_children())
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(min(workers, len(todo)), context, _worker) as pool:
            futures = {pool.submit(task.run): task for task in todo}
            try:
                for future in concurrent.futures.as_completed(futures):
                    future.result()
                    bar.update(len(futures[future].refs))
            except BrokenProcessPool:
                raise UserError(
                    f"a worker process died while it made {todo[0].source.name} samples (out of memory?); run the same command again with "
                    f"fewer --workers, it keeps what is finished"
                ) from None
            except KeyboardInterrupt:
                for process in set(multiprocessing.active_children()) - others:
                    process.terminate()
                raise
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


def _worker() -> None:
    """A worker leaves Ctrl-C to its parent and does not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _finish(source: Source, plan: Plan, recipe: dict[str, Any], folder: Path, tasks: Sequence[ShardTask]) -> dict[str, Any]:
    """Merge what the shards counted, in the order of the shards, and write statistics, card and, last, the manifest."""
    results = [load_json(task.result_file, "the result of a shard") for task in tasks]
    shape = results[0]["shape"]
    for result in results:
        _same_shape(results[0]["first"], shape, result["first"], result["shape"])
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
            }
            for split in plan.splits
            if any(r.split == split.name for r in records)
        },
        "shards": [asdict(r) for r in records],
        "stats_sha256": hashlib.sha256(stats_bytes).hexdigest(),
        "licences": sorted({v for r in results for v in r["licences"]}),
        "attributions": sorted({v for r in results for v in r["attributions"]} | ({about.attribution} - {""})),
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
    return manifest


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
