"""NASA Earthdata login: a token or a name and password from where people keep them, sent to NASA's hosts and nowhere else."""

from __future__ import annotations

import netrc
import os
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from scigpt.data_prep.fetch.errors import Refused

TOKEN = "EARTHDATA_TOKEN"
NASA = (".nasa.gov",)
HELP = (
    f"register at https://urs.earthdata.nasa.gov, then set {TOKEN} or write the line "
    "`machine urs.earthdata.nasa.gov login NAME password WORD` into ~/.netrc"
)


@dataclass(frozen=True)
class Earthdata:
    """Where credentials may go.

    Args:
        login: address of the login host: it alone is given the name and password.
        domains: endings of the names of hosts that may be given the token.
    """

    login: str = "https://urs.earthdata.nasa.gov"
    domains: tuple[str, ...] = NASA

    def available(self) -> bool:
        """Whether there is a token or a line in the netrc file."""
        return bool(os.environ.get(TOKEN, "").strip()) or self._password() is not None

    def header(self, url: str) -> str | None:
        """The value of `Authorization` for a request to this address; None where it must have none."""
        parts, login = urlsplit(url), urlsplit(self.login)
        if parts.scheme != login.scheme:  # never in the clear
            return None
        host = (parts.hostname or "").lower()
        if host == login.hostname and (known := self._password()):
            return "Basic " + b64encode(":".join(known).encode()).decode()
        token = os.environ.get(TOKEN, "").strip()
        if token and (host == login.hostname or any(f".{host}".endswith(domain) for domain in self.domains)):
            return f"Bearer {token}"
        return None

    def _password(self) -> tuple[str, str] | None:
        file = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
        try:
            known = netrc.netrc(str(file)).hosts.get(urlsplit(self.login).hostname or "")
        except FileNotFoundError:
            return None
        except (netrc.NetrcParseError, OSError, UnicodeDecodeError):  # whose message may hold the password
            raise Refused(f"{file} cannot be read as a netrc file; for Earthdata {HELP}") from None
        return (known[0], known[2]) if known and known[0] and known[2] else None
