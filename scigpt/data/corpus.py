"""Corpus: a folder of shards of one layout, with a manifest that names every byte, training statistics and a card."""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from scigpt.data.files import dump_json, load_json, sha256_of
from scigpt.data.sample import Layout, Sample
from scigpt.data.shard import ShardReader, index_path
from scigpt.data.statistics import Statistics
from scigpt.errors import UserError

SCHEMA_VERSION = 1
TRAIN = "train"
"""The split that is trained on."""
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
        self.use: Literal["train", "validate"] = manifest.get("use", "train")
        self.layout = Layout.from_json(manifest["layout"])
        self._entries = entries
        self._shards = {split: [path / s["file"] for s in manifest["shards"] if s["split"] == split] for split in entries}
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
        manifest = read_manifest(path)
        entries: dict[str, list[Entry]] = {shard["split"]: [] for shard in manifest["shards"]}
        counts: Counter[str] = Counter()
        for shard in manifest["shards"]:
            file, split = path / shard["file"], shard["split"]
            require_hash(index_path(file), shard["index_sha256"])
            reader = ShardReader(file)
            size = file.stat().st_size if file.is_file() else None
            if size != shard["bytes"]:
                found = "is missing" if size is None else f"has {size} bytes"
                raise UserError(f"{file}: {found}, the manifest says {shard['bytes']} bytes; `scigpt data repair` makes it again")
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
        require_hash(path / STATS, manifest["stats_sha256"])
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

    def read(
        self,
        split: str,
        i: int,
        frames: slice | None = None,
        y: slice | None = None,
        x: slice | None = None,
        out: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> Sample:
        """Sample `i` of a split, or a window of it; see `ShardReader.read`."""
        entry = self.entries(split)[i]
        return self._reader(self._shards[split][entry.shard]).read(entry.index, frames, y, x, out)


def manifest_bytes(manifest: dict[str, Any]) -> bytes:
    """The one spelling of a manifest, with a checksum of the rest so that damage to the manifest itself is found."""
    rest = {k: v for k, v in manifest.items() if k != "checksum"}
    return dump_json({**rest, "checksum": hashlib.sha256(dump_json(rest)).hexdigest()}, indent=1)


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a corpus folder.

    Raises:
        UserError: missing, of another schema, or not as it was written.
    """
    file = path / MANIFEST
    manifest = load_json(file, "the manifest of a corpus")
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if version != SCHEMA_VERSION:
        raise UserError(f"{file}: schema version {version}, expected {SCHEMA_VERSION}; make the corpus again with this version of scigpt")
    try:
        whole = manifest_bytes(manifest) == file.read_bytes()
    except ValueError:  # an infinite number, which is not JSON
        whole = False
    if not whole:
        raise UserError(f"{file}: does not match its own checksum; it was changed or damaged, restore it or make the corpus again")
    return manifest


def require_hash(file: Path, sha256: str) -> None:
    """Raise a UserError for a file that is missing or of another SHA-256."""
    if not file.is_file():
        raise UserError(f"{file}: is missing; `scigpt data repair` makes it again")
    if sha256_of(file) != sha256:
        raise UserError(f"{file}: does not match its sha256 in the manifest; it was changed, `scigpt data repair` makes it again")
