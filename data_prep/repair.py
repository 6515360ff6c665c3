"""Repair: what is broken in a corpus is made again from its recipe, with the bytes that its manifest names, and nothing else is touched."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import os
import shutil
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scigpt.data.card import card
from scigpt.data.corpus import CARD, MANIFEST, STATS, TRAIN, read_manifest
from scigpt.data.files import dump_json, load_json, sha256_of, sync_folder, write_bytes
from scigpt.data.shard import SCHEMA_VERSION, ShardReader, index_path
from scigpt.data.statistics import Statistics
from scigpt.data_prep.convert import locked, recipe_of, shard_tasks
from scigpt.data_prep.files import fingerprints, locate, members
from scigpt.data_prep.pde import EQUATIONS
from scigpt.data_prep.pools import run_tasks
from scigpt.data_prep.shard_task import ShardTask
from scigpt.data_prep.source import Plan, Source
from scigpt.data_prep.sources import SOURCES
from scigpt.errors import UserError


def repair(folder: Path, inputs: Sequence[Path] = (), workers: int = 1, progress: bool = True) -> list[str]:
    """Mend a corpus in place.

    An index is read off its shard where that is whole; a shard is made again by the task that made it, in a folder `.NAME.repair` beside
    the corpus (which an interrupted repair goes on from); statistics and card are counted again. A file is put in place only with the
    SHA-256 that the manifest names, and whole files are not touched.

    Args:
        folder: the corpus; its manifest must be whole, because that says what the rest should be.
        inputs: the files that the corpus was made from, wherever they lie now; needed only where something must be read from them.
        workers: processes.
        progress: whether to draw a progress bar on standard error.

    Returns:
        What was done, a sentence for each file; files that do not belong there are reported and left. Empty for a whole corpus.

    Raises:
        UserError: a damaged manifest, inputs that are not those of the manifest, or bytes that come out different.
    """
    folder = Path(folder).absolute()
    manifest = _manifest(folder)
    shards = {s["file"]: s for s in manifest["shards"]}
    told: dict[str, str] = {}
    with locked(folder.parent / f".{folder.name}.repair") as scratch, _kept_if_useful(scratch):
        broken = [f for f, s in shards.items() if not _whole(folder / f, s["sha256"])]
        for file, shard in shards.items():
            index = index_path(folder / file)
            if _whole(index, shard["index_sha256"]):
                continue
            if file not in broken and _digest(rebuilt := _index_of(folder / file)) == shard["index_sha256"]:
                write_bytes(index, rebuilt)
                told[index.name] = f"{index.name}: read off its shard"
            else:
                told[index.name] = f"{index.name}: written with its shard"
                broken += [file] if file not in broken else []
        stats, again = None, list(broken)
        if stats_broken := not _whole(folder / STATS, manifest["stats_sha256"]):
            stats = None if broken else _stored_statistics(folder, manifest)
            again = again if stats is not None else [f for f, s in shards.items() if f in broken or s["split"] == TRAIN]
        results = _make_again(manifest, again, scratch, inputs, workers, progress) if again else {}
        told |= {f: f"{f}: made again from {manifest['recipe']['source']}" for f in broken}
        if stats_broken:
            stats = stats or _merged(results[f]["stats"] for f, s in shards.items() if s["split"] == TRAIN)
            told[STATS] = f"{STATS}: counted again"
            write_bytes(scratch / STATS, _same(STATS, dump_json(stats.to_json()), manifest["stats_sha256"], manifest))
        if not _whole(folder / CARD, manifest["card_sha256"]):
            stats = stats or Statistics.from_json(load_json(folder / STATS, "the statistics of a corpus"))
            told[CARD] = f"{CARD}: written again"
            about = {k: v for k, v in manifest.items() if k not in ("card_sha256", "checksum")}
            write_bytes(scratch / CARD, _same(CARD, card(about, stats).encode(), manifest["card_sha256"], manifest))
        for name in told:
            if (scratch / name).is_file():
                os.replace(scratch / name, folder / name)
        sync_folder(folder)
        shutil.rmtree(scratch)
    listed = {MANIFEST, STATS, CARD, *shards, *(index_path(Path(f)).name for f in shards)}
    strays = [f"{p.name}: is not listed in the manifest; it was left where it is" for p in sorted(folder.iterdir()) if p.name not in listed]
    return [*told.values(), *strays]


class _Differs(UserError):
    """What was made again is not what was there."""


@contextlib.contextmanager
def _kept_if_useful(scratch: Path) -> Iterator[None]:
    """After a failure that another call may not meet (a full disk, a worker that died) finished shards stay for it."""
    try:
        yield
    except UserError as error:
        if isinstance(error, _Differs) or not any(scratch.glob("*.result.json")):
            shutil.rmtree(scratch)
        raise


def _manifest(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; expected a corpus")
    try:
        return read_manifest(folder)
    except UserError as error:
        raise UserError(
            f"{error}; a corpus is repaired from its manifest, so that one itself cannot be: run the command that made the corpus again"
        ) from None


def _whole(file: Path, digest: str) -> bool:
    return file.is_file() and sha256_of(file) == digest


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _same(name: str, data: bytes, digest: str, manifest: dict[str, Any]) -> bytes:
    if _digest(data) != digest:
        raise _differs(name, manifest)
    return data


def _differs(name: str, manifest: dict[str, Any]) -> _Differs:
    return _Differs(
        f"{name} comes out with other bytes than the manifest names, so nothing was changed; the corpus was made with scigpt "
        f"{manifest['code_version']}: repair it with that version and its libraries, or make it again"
    )


def _index_of(shard: Path) -> bytes:
    """The sidecar that a whole shard implies."""
    samples: dict[str, dict[str, Any]] = {}
    with tarfile.open(shard, "r:") as tar, open(shard, "rb") as data:
        for member in tar:
            key, _, name = member.name.partition(".")
            data.seek(member.offset_data)
            payload = data.read(member.size)
            about: dict[str, Any] = {"offset": member.offset_data, "size": member.size, "sha256": _digest(payload)}
            sample = samples.setdefault(key, {"key": key, "frames": 0, "members": {}})
            if name.endswith(".npy"):
                header = io.BytesIO(payload)
                np.lib.format.read_magic(header)
                shape, _, dtype = np.lib.format.read_array_header_1_0(header)
                about |= {"data_offset": member.offset_data + header.tell(), "dtype": dtype.str, "shape": list(shape)}
                if name == "values.npy":
                    sample["frames"] = shape[0]
            sample["members"][name] = about
    whole = {"bytes": shard.stat().st_size, "sha256": sha256_of(shard), "samples": list(samples.values())}
    return dump_json({"schema_version": SCHEMA_VERSION, "shard": shard.name, **whole})


def _stored_statistics(folder: Path, manifest: dict[str, Any]) -> Statistics | None:
    """The training statistics counted from the shards; None where these hold packed values, which are not quite those that were counted."""
    parts = []
    for shard in manifest["shards"]:
        if shard["split"] == TRAIN:
            reader, part = ShardReader(folder / shard["file"]), Statistics()
            for i in range(len(reader)):
                part.update(reader.read(i))
            parts.append(part.to_json())
    stats = _merged(parts)
    return stats if _digest(dump_json(stats.to_json())) == manifest["stats_sha256"] else None


def _merged(parts: Iterable[Any]) -> Statistics:
    stats = Statistics()
    for part in parts:
        stats.merge(Statistics.from_json(part))
    return stats


def _make_again(
    manifest: dict[str, Any], files: Sequence[str], scratch: Path, inputs: Sequence[Path], workers: int, progress: bool
) -> dict[str, dict[str, Any]]:
    """Make these shards in the scratch folder and check their bytes; what each task counted, by file."""
    source, plan = _planned(manifest, inputs)
    recipe = manifest["recipe"]
    tasks = {t.file.name: t for t in shard_tasks(source, plan, scratch, recipe["shard_bytes"], recipe["fingerprint"])}
    wanted: list[ShardTask] = [tasks[f] for f in files]
    run_tasks(wanted, plan, workers, progress)
    results = {t.file.name: load_json(t.result_file, "the result of a shard") for t in wanted}
    for shard in manifest["shards"]:
        if shard["file"] in results and results[shard["file"]]["record"] != shard:
            raise _differs(shard["file"], manifest)
    return results


def _planned(manifest: dict[str, Any], inputs: Sequence[Path]) -> tuple[Source, Plan]:
    """The source of the recipe over these inputs, and the plan that has the fingerprint of the manifest."""
    recipe = manifest["recipe"]
    if "shard_bytes" not in recipe:
        raise UserError("the corpus was made by a version of scigpt that did not record its recipe in full; make it again")
    found = {**EQUATIONS, **SOURCES}.get(recipe["source"])
    if found is None:
        raise UserError(f"the corpus is made by the source {recipe['source']}, which is not installed; install the package that has it")
    if recipe["inputs"] and not inputs:
        names = ", ".join(i["name"] for i in recipe["inputs"][:4])
        more = f" and {len(recipe['inputs']) - 4} more" if len(recipe["inputs"]) > 4 else ""
        raise UserError(f"to make a part of the corpus again its inputs are needed: give --input with {names}{more}")
    source = found(_in_order(recipe["inputs"], inputs), _options(found.Options, recipe["options"]))
    plan = source.plan()
    if str(recipe_of(source, plan, manifest["name"], recipe["shard_bytes"], None)["fingerprint"]) == recipe["fingerprint"]:
        return source, plan
    read = {digest for _, digest in plan.inputs}
    for entry in recipe["inputs"]:
        if entry["sha256"] not in read:
            raise UserError(
                f"none of the inputs has the bytes of the {entry['name']} that the corpus was made from; give that file as well"
            )
    raise UserError(
        f"the recipe gives another plan than the one that the corpus was made by with scigpt {manifest['code_version']}; files keep "
        f"their names, and another version makes the corpus again"
    )


def _in_order(recorded: Sequence[dict[str, str]], inputs: Sequence[Path]) -> list[Path]:
    """The given inputs in the order in which the manifest has them, by their hashes.

    Of a folder that holds other files too, those that are meant.

    Raises:
        UserError: a file that is none of them.
    """
    order = {entry["sha256"]: i for i, entry in enumerate(recorded)}
    hidden = [f for path in inputs if locate(path).is_dir() for f in members(locate(path))]
    digests = fingerprints([*map(locate, inputs), *hidden])
    given: list[Path] = []
    for path in inputs:
        inside = members(locate(path))
        mixed = inside != [locate(path)] and any(digests[f] not in order for f in inside)
        given += [f for f in inside if digests[f] in order] if mixed else [path]
    placed = []
    for path in given:
        file = locate(path)
        digest = digests[file]
        if digest not in order and file.is_file():
            known = file.name in {entry["name"] for entry in recorded}
            what = "has other bytes than the file of that name" if known else "is none of the files"
            raise UserError(f"{path} {what} that the corpus was made from; give the files that the manifest lists")
        placed.append((order.get(digest, len(order)), path))
    return [path for _, path in sorted(placed, key=lambda p: p[0])]


def _options(options_type: type, recorded: dict[str, Any]) -> Any:
    """The dataclass of options that a manifest spells in JSON."""
    fields = {f.name for f in dataclasses.fields(options_type)}
    if unknown := recorded.keys() - fields:
        raise UserError(
            f"this version of scigpt does not know the option {', '.join(sorted(unknown))} of the recipe; make the corpus again"
        )
    return options_type(**{k: _typed(v) for k, v in recorded.items()})


def _typed(value: Any) -> Any:
    """JSON has no tuples, and options have no lists."""
    return tuple(map(_typed, value)) if isinstance(value, list) else value
