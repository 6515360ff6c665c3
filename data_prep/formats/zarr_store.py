"""Zarr stores on disk whose chunks are whole: the Blosc decoder reads beyond the end of a chunk that was cut off, without a word."""

from __future__ import annotations

import json
import os
from functools import cached_property
from pathlib import Path
from typing import Any

from zarr.storage import LocalStore

_HEADER = 16
"""Bytes before a Blosc buffer, the last four of which are its whole length, the header included (Blosc chunk format)."""
METADATA = (".zarray", ".zmetadata", "zarr.json")


class WholeChunks(LocalStore):
    """A store that raises a ValueError for a chunk that is shorter, or longer, than its Blosc header says."""

    @cached_property
    def blosc_arrays(self) -> frozenset[str]:
        """Paths of the arrays of which each file is one Blosc buffer."""
        found: set[str] = set()
        for folder, below, names in os.walk(self.root):
            place = Path(folder).relative_to(self.root).as_posix().removeprefix(".")
            for name in set(METADATA) & set(names):
                data = json.loads(Path(folder, name).read_bytes())
                if name == ".zmetadata":
                    arrays = {k.removesuffix(".zarray").rstrip("/"): v for k, v in data["metadata"].items() if k.endswith(".zarray")}
                    found |= {f"{place}/{k}".strip("/") for k, v in arrays.items() if _packed(v)}
                elif _packed(data):
                    found.add(place)
                if name == ".zarray" or data.get("node_type") == "array":
                    below.clear()  # they hold chunks
        return frozenset(found)

    async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Any:
        found = await super().get(key, prototype, byte_range)
        name = key.rpartition("/")[2]
        if found is None or byte_range is not None or name.startswith(".") or name == "zarr.json":
            return found
        if any(key.startswith(f"{array}/") for array in self.blosc_arrays) or "" in self.blosc_arrays:
            told = int.from_bytes(found[:_HEADER].to_bytes()[12:], "little")
            if len(found) < _HEADER or told != len(found):
                raise ValueError(f"the chunk {key} has {len(found)} bytes and its header says {told}")
        return found


def _packed(array: Any) -> bool:
    """Whether Blosc is what is done last to a chunk."""
    if array.get("zarr_format") == 2:
        return (array.get("compressor") or {}).get("id") == "blosc"
    codecs = array.get("codecs") or [{}]
    return codecs[-1].get("name") == "blosc"
