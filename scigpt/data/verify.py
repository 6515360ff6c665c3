"""Verification: every byte of a corpus against its manifest, and every file against what the others say of it."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from scigpt.data.corpus import CARD, MANIFEST, STATS, read_manifest, require_hash
from scigpt.data.files import load_json, sha256_of
from scigpt.data.shard import index_path
from scigpt.errors import UserError


def verify(path: Path | str) -> list[str]:
    """Every problem of a corpus, by file and place; empty when every byte is as it was written.

    Hashes all files and all members of shards, walks the tars, parses every meta and array header, compares counts and looks for
    files that are missing or not listed.
    """
    path = Path(path)
    if not path.is_dir():
        return [f"{path}: there is no such folder"]
    if not (path / MANIFEST).is_file():
        return [f"{path}: has no {MANIFEST}"]
    try:
        manifest = read_manifest(path)
    except UserError as error:
        return [str(error)]
    problems = []
    for file, sha256 in ((path / STATS, manifest["stats_sha256"]), (path / CARD, manifest["card_sha256"])):
        try:
            require_hash(file, sha256)
        except UserError as error:
            problems.append(str(error))
    keys: Counter[str] = Counter()
    for shard in manifest["shards"]:
        problems += _shard_problems(path, shard, manifest, keys)
    problems += [f"{path}: sample key {key} occurs {n} times" for key, n in keys.items() if n > 1]
    for split, about in manifest["splits"].items():
        for what in ("samples", "frames"):
            total = sum(s[what] for s in manifest["shards"] if s["split"] == split)
            if total != about[what]:
                problems.append(f"{path / MANIFEST}: split {split} says {about[what]} {what}, its shards have {total}")
    listed = {MANIFEST, STATS, CARD}
    listed |= {f for s in manifest["shards"] for f in (s["file"], index_path(Path(s["file"])).name)}
    problems += [f"{file}: is not listed in the manifest" for file in sorted(path.iterdir()) if file.name not in listed]
    return problems


def _shard_problems(path: Path, shard: dict[str, Any], manifest: dict[str, Any], keys: Counter[str]) -> list[str]:
    file, sidecar = path / shard["file"], index_path(path / shard["file"])
    if not file.is_file():
        return [f"{file}: is missing"]
    problems = []
    whole = file.stat().st_size == shard["bytes"]
    if not whole:
        problems.append(f"{file}: has {file.stat().st_size} bytes, the manifest says {shard['bytes']}")
    if not sidecar.is_file():
        return [*problems, f"{sidecar}: is missing"]
    if sha256_of(sidecar) != shard["index_sha256"]:
        return [*problems, f"{sidecar}: does not match its sha256 in the manifest"]
    index = load_json(sidecar, "the index of a shard")
    keys.update(s["key"] for s in index["samples"])
    if (len(index["samples"]), sum(s["frames"] for s in index["samples"])) != (shard["samples"], shard["frames"]):
        problems.append(f"{sidecar}: its samples and frames are not those of the manifest")
    damaged = list(_member_problems(file, index, shard["split"], manifest["layout"]))
    if not damaged and whole and sha256_of(file) != shard["sha256"]:
        damaged = [f"{file}: every member is whole, but the bytes between them (tar headers or padding) do not match its sha256"]
    return problems + damaged


def _member_problems(file: Path, index: dict[str, Any], split: str, layout: dict[str, Any]) -> Iterator[str]:
    expected = sorted((m["offset"], m["size"], f"{s['key']}.{name}") for s in index["samples"] for name, m in s["members"].items())
    try:
        with tarfile.open(file, "r:") as tar:
            found = sorted((m.offset_data, m.size, m.name) for m in tar)
    except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
        yield f"{file}: cannot be walked as a tar ({error})"
        found = None
    if found is not None and found != expected:
        yield f"{file}: its tar headers do not list the members of the index"
    with open(file, "rb") as data:
        for sample in index["samples"]:
            for name, member in sample["members"].items():
                where = f"{file}: member {sample['key']}.{name}"
                data.seek(member["offset"])
                payload = data.read(member["size"])
                if len(payload) < member["size"]:
                    yield f"{where} is cut off after {len(payload)} of {member['size']} bytes"
                elif hashlib.sha256(payload).hexdigest() != member["sha256"]:
                    yield f"{where} does not match its sha256"
                else:
                    yield from (f"{where} {problem}" for problem in _content_problems(name, payload, member, sample, split, layout))


def _content_problems(
    name: str, payload: bytes, member: dict[str, Any], sample: dict[str, Any], split: str, layout: dict[str, Any]
) -> Iterator[str]:
    """Of a member whose bytes are as written: does it say what the index and the manifest say?"""
    if name == "meta.json":
        meta = json.loads(payload)
        if (meta["key"], meta["split"]) != (sample["key"], split):
            yield f"is of sample {meta['key']} in split {meta['split']}, not {sample['key']} in {split}"
        if any(meta[k] != v for k, v in layout.items()):
            yield "has another layout than the manifest"
        return
    header = io.BytesIO(payload)
    np.lib.format.read_magic(header)
    shape, _, dtype = np.lib.format.read_array_header_1_0(header)
    if (list(shape), dtype.str, member["offset"] + header.tell()) != (member["shape"], member["dtype"], member["data_offset"]):
        yield f"has the array header {dtype.str} {shape}, its index says {member['dtype']} {tuple(member['shape'])}"
    if name == "values.npy" and shape[0] != sample["frames"]:
        yield f"has {shape[0]} frames, its index says {sample['frames']}"
