"""Corpus: a folder of shards of one layout, with a manifest that names every byte, training statistics and a card."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scigpt.data.files import dump_json, load_json, sha256_of
from scigpt.data.sample import Layout, Sample
from scigpt.data.shard import ShardReader, index_path
from scigpt.data.statistics import Statistics
from scigpt.errors import UserError

SCHEMA_VERSION = 1
MANIFEST, STATS, CARD = "manifest.json", "stats.json", "CARD.md"
_OPEN_SHARDS = 64


@dataclass(frozen=True, slots=True)
class Entry:
    """One sample of a split: shard within the split, index within the shard, key, number of frames."""

    shard: int
    index: int
    key: str
    frames: int


class Corpus:
    """A finished corpus, read by random access. `Corpus.open` is the way to one.

    `fingerprint` is the SHA-256 of the manifest, and with it of every file: equal fingerprints are equal data.
    """

    def __init__(self, path: Path, manifest: dict[str, Any], stats: Statistics, fingerprint: str, entries: dict[str, list[Entry]]) -> None:
        self.path = path
        self.manifest = manifest
        self.stats = stats
        self.fingerprint = fingerprint
        self.name: str = manifest["name"]
        self.layout = Layout.from_json(manifest["layout"])
        self._entries = entries
        self._shards = {split: [s["file"] for s in manifest["shards"] if s["split"] == split] for split in entries}
        self._reader = functools.lru_cache(maxsize=_OPEN_SHARDS)(ShardReader)

    def __reduce__(self) -> tuple[Any, ...]:
        return Corpus, (self.path, self.manifest, self.stats, self.fingerprint, self._entries)

    @classmethod
    def open(cls, path: Path | str) -> Corpus:
        """Open a corpus after checking that manifest, statistics, sidecars and the sizes of the shards agree.

        Raises:
            UserError: a folder that is no corpus, or whose files disagree; `verify` looks at every byte.
        """
        path = Path(path)
        if not path.is_dir():
            raise UserError(f"{path}: there is no such folder; expected a corpus made by `scigpt data make` or `scigpt data prepare`")
        if not (path / MANIFEST).is_file():
            raise UserError(f"{path}: has no {MANIFEST}, so it is not a (finished) corpus; run the command that makes it again")
        manifest = _manifest(path)
        entries: dict[str, list[Entry]] = {shard["split"]: [] for shard in manifest["shards"]}
        counts: Counter[str] = Counter()
        for shard in manifest["shards"]:
            file, split = path / shard["file"], shard["split"]
            _matches(index_path(file), shard["index_sha256"])
            reader = ShardReader(file)
            size = file.stat().st_size if file.is_file() else None
            if size != shard["bytes"]:
                found = "is missing" if size is None else f"has {size} bytes"
                raise UserError(f"{file}: {found}, the manifest says {shard['bytes']} bytes; restore the shard or make the corpus again")
            if (len(reader), sum(reader.frames)) != (shard["samples"], shard["frames"]):
                raise UserError(
                    f"{index_path(file)}: lists {len(reader)} samples with {sum(reader.frames)} frames, the manifest says "
                    f"{shard['samples']} with {shard['frames']}; make the corpus again"
                )
            if split not in manifest["splits"]:
                raise UserError(f"{path / MANIFEST}: shard {shard['file']} is of the unlisted split {split}; make the corpus again")
            entries[split] += [Entry(counts[split], i, k, n) for i, (k, n) in enumerate(zip(reader.keys, reader.frames, strict=True))]
            counts[split] += 1
        for split, about in manifest["splits"].items():
            held = len(entries.get(split, ()))
            if held != about["samples"]:
                raise UserError(
                    f"{path / MANIFEST}: split {split} is said to have {about['samples']} samples, its shards have {held}; "
                    f"make the corpus again"
                )
        _matches(path / STATS, manifest["stats_sha256"])
        stats = Statistics.from_json(load_json(path / STATS, "the statistics of a corpus"))
        return cls(path, manifest, stats, sha256_of(path / MANIFEST), entries)

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self._entries)

    def entries(self, split: str) -> Sequence[Entry]:
        """The samples of a split in their stored order."""
        if split not in self._entries:
            raise UserError(f"{self.path}: has no split {split!r}; it has {', '.join(self._entries)}")
        return self._entries[split]

    def read(self, split: str, i: int, frames: slice | None = None, y: slice | None = None, x: slice | None = None) -> Sample:
        """Sample `i` of a split, or a window of it; see `ShardReader.read`."""
        entry = self.entries(split)[i]
        return self._reader(self.path / self._shards[split][entry.shard]).read(entry.index, frames, y, x)


def manifest_bytes(manifest: dict[str, Any]) -> bytes:
    """The one spelling of a manifest, with a checksum of the rest so that damage to the manifest itself is found."""
    rest = {k: v for k, v in manifest.items() if k != "checksum"}
    return dump_json({**rest, "checksum": hashlib.sha256(dump_json(rest)).hexdigest()}, indent=1)


def _manifest(path: Path) -> dict[str, Any]:
    file = path / MANIFEST
    manifest = load_json(file, "the manifest of a corpus")
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if version != SCHEMA_VERSION:
        raise UserError(f"{file}: schema version {version}, expected {SCHEMA_VERSION}; make the corpus again with this version of scigpt")
    if manifest_bytes(manifest) != file.read_bytes():
        raise UserError(f"{file}: does not match its own checksum; it was changed or damaged, restore it or make the corpus again")
    return manifest


def _matches(file: Path, sha256: str) -> None:
    if not file.is_file():
        raise UserError(f"{file}: is missing; restore it or make the corpus again")
    if sha256_of(file) != sha256:
        raise UserError(f"{file}: does not match its sha256 in the manifest; it was changed, restore it or make the corpus again")


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
        manifest = _manifest(path)
    except UserError as error:
        return [str(error)]
    problems = []
    for file, sha256 in ((path / STATS, manifest["stats_sha256"]), (path / CARD, manifest["card_sha256"])):
        try:
            _matches(file, sha256)
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
    except (tarfile.TarError, OSError, ValueError) as error:
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
