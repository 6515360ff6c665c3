"""What can go wrong on the way: what will pass if one waits, and what ends the whole fetch; and how both are told."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

from scigpt.errors import UserError

_SIGNED = ("sig", "signature", "x-amz-signature", "x-goog-signature", "token", "access_token", "key", "api_key", "apikey", "code", "user")


class Transient(Exception):
    """A fault that may pass: the attempt is made again after a pause.

    Args:
        wait: seconds that the server asks for; None for a pause of our own.
    """

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class Refused(UserError):
    """Nothing further can be fetched in this state (login, terms, a server that wants to be left alone): all of it stops."""


class Absent(UserError):
    """The service has no data for this request (204): nothing to fetch, and no fault."""


class TooLarge(UserError):
    """The service finds the request too large (413): it must be asked for less."""


class Stopped(Exception):
    """The fetch was told to stop; what is there stays."""


def public(url: str) -> str:
    """The address as it may be printed and recorded: without a user, and without the query where that carries a signature or a key."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    names = {word.partition("=")[0].lower() for word in parts.query.split("&")}
    query = "" if names.intersection(_SIGNED) else parts.query
    return urlunsplit((parts.scheme, host, parts.path, query, ""))


def bare(url: str) -> str:
    """The address without any query, short enough for a sentence."""
    short = public(url).partition("?")[0]
    return short if len(short) <= 140 else f"{short[:60]}...{short[-75:]}"
