"""The key of the Energy Data eXchange, from the environment, sent to its host and nowhere else."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

KEY = "EDX_API_KEY"
HEADER = "EDX-API-Key"
HELP = f"register at https://edx.netl.doe.gov, take the API key of your profile there and set {KEY}"


@dataclass(frozen=True)
class Edx:
    """Where the key may go.

    Args:
        server: the address whose host and scheme may be given it.
    """

    server: str = "https://edx.netl.doe.gov"

    def available(self) -> bool:
        return bool(os.environ.get(KEY, "").strip())

    def headers(self, url: str) -> Mapping[str, str]:
        """For a request to this address; nothing where it must have no key."""
        parts, own, key = urlsplit(url), urlsplit(self.server), os.environ.get(KEY, "").strip()
        return {HEADER: key} if key and (parts.scheme, parts.netloc) == (own.scheme, own.netloc) else {}
