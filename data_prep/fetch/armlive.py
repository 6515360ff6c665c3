"""The account of ARM Live: a user and a token from the environment, put into the query for its own host and never kept."""

from __future__ import annotations

import os
from dataclasses import dataclass
from urllib.parse import quote, urlsplit, urlunsplit

from scigpt.data_prep.fetch.errors import Refused

USER, TOKEN = "ARM_USER", "ARM_TOKEN"
HELP = f"register at https://adc.arm.gov/armlive, then set {USER} and {TOKEN} in the environment"


@dataclass(frozen=True)
class ArmLive:
    """Where the account may go: to the host of this service, over TLS (or on this machine)."""

    server: str = "https://adc.arm.gov/armlive/data"

    def available(self) -> bool:
        return all(os.environ.get(name, "").strip() for name in (USER, TOKEN))

    def asked(self, url: str) -> bool:
        """Whether this is a request to the service with the account in it."""
        parts, own = urlsplit(url), urlsplit(self.server)
        return (parts.scheme, parts.netloc) == (own.scheme, own.netloc) and parts.query.startswith("user=")

    def signed(self, url: str) -> str:
        """The address with the account in it, for one request; not to be printed or stored.

        Raises:
            Refused: no account, or another host.
        """
        parts, own = urlsplit(url), urlsplit(self.server)
        if not self.available():
            raise Refused(f"ARM Live needs an account; {HELP}")
        if parts.hostname != own.hostname or not (parts.scheme == "https" or parts.hostname in ("127.0.0.1", "localhost")):
            raise Refused(f"{parts.hostname}: the account of ARM Live is sent to {own.hostname} over https alone; check the address")
        account = ":".join(quote(os.environ[name].strip(), safe="") for name in (USER, TOKEN))
        query = f"user={account}" + (f"&{parts.query}" if parts.query else "")
        return urlunsplit((parts.scheme, parts.netloc, parts.path, query, ""))
