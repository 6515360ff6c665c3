"""Requests over HTTP: polite, patient, and with credentials only where they belong."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from scigpt import __version__
from scigpt.data_prep.fetch import armlive, edx
from scigpt.data_prep.fetch.earthdata import HELP, Earthdata
from scigpt.data_prep.fetch.errors import Absent, Refused, Stopped, TooLarge, Transient, bare
from scigpt.errors import UserError

Result = TypeVar("Result")

AGENT = f"scigpt/{__version__} (research data client; python-requests/{requests.__version__})"
_MOVED = (301, 302, 303, 307, 308)
_HOPS = 12
_PASSING = (408, 425, 429, 500, 502, 503, 504)
_PROGRESS = 1 << 20
_LARGEST_CATALOGUE = 512 << 20


@dataclass(frozen=True)
class Patience:
    """How often and how long.

    Args:
        attempts: failures in a row, with less than 1 MiB won between them, after which one gives up.
        first: seconds of the first pause; each further one is twice as long.
        longest: seconds; a server that asks for a longer pause ends the fetch.
        timeout: seconds without a byte that count as a failure.
    """

    attempts: int = 6
    first: float = 1.0
    longest: float = 300.0
    timeout: float = 60.0


_log = logging.getLogger(__name__)


class _Credentials(requests.auth.AuthBase):
    """Puts our own header or none; its mere presence keeps requests from sending what a netrc file holds for this host."""

    def __init__(self, header: str | None) -> None:
        self.header = header

    def __call__(self, request: Any) -> Any:
        if self.header is not None:
            request.headers["Authorization"] = self.header
        return request


@dataclass
class Network:
    """All requests of one fetch. Threads share it; each has a session (and cookies) of its own."""

    patience: Patience = field(default_factory=Patience)
    earthdata: Earthdata = field(default_factory=Earthdata)
    edx: edx.Edx = field(default_factory=edx.Edx)
    arm: armlive.ArmLive = field(default_factory=armlive.ArmLive)
    stopping: threading.Event = field(default_factory=threading.Event)
    _local: threading.local = field(default_factory=threading.local)
    _rest: dict[str, float] = field(default_factory=dict)

    def get(self, url: str) -> bytes:
        """The body behind an address of a catalogue, without credentials.

        Raises:
            UserError: not there, not allowed, not reachable after all attempts, or larger than 512 MiB.
        """

        def attempt() -> bytes:
            with self.open(url) as response, self.reading():
                body = bytearray()
                for piece in response.iter_content(1 << 18):
                    body += piece
                    if len(body) > _LARGEST_CATALOGUE:
                        raise UserError(f"{bare(url)}: the catalogue's answer is larger than 512 MiB; ask for less")
                return bytes(body)

        return self.persist(attempt, url)

    def persist(self, attempt: Callable[[], Result], url: str, won: Callable[[], int] = lambda: 0) -> Result:
        """What `attempt` gives, made again after each `Transient`; `won` counts the bytes got so far."""
        host, failures, reached = urlsplit(url).netloc, 0, won()
        while True:
            self.sleep(self._rest.get(host, 0.0) - time.monotonic())
            try:
                return attempt()
            except Transient as error:
                if won() >= reached + _PROGRESS:
                    failures, reached = 0, won()
                failures += 1
                if failures >= self.patience.attempts:
                    raise UserError(
                        f"{bare(url)}: {error}, {failures} times in a row; the same command goes on from what is there, try it later"
                    ) from None
                if failures == 1:
                    _log.info("%s: %s; trying again", bare(url), error)
                wait = error.wait
                if wait is None:
                    wait = min(self.patience.first * 2 ** (failures - 1) * random.uniform(0.75, 1.25), self.patience.longest)
                elif wait > self.patience.longest:
                    raise Refused(f"{bare(url)}: the server asks to wait {wait:.0f} s; run the same command again after that") from None
                else:
                    self._rest[host] = time.monotonic() + wait  # the other connections to this host keep still too
                self.sleep(wait)

    def sleep(self, seconds: float) -> None:
        """A pause that ends as soon as the fetch is told to stop.

        Raises:
            Stopped: it was.
        """
        if self.stopping.wait(max(seconds, 0.0)) if seconds > 0 else self.stopping.is_set():
            raise Stopped

    @contextmanager
    def open(self, url: str, headers: Mapping[str, str] | None = None, login: str | None = None) -> Iterator[requests.Response]:
        """The answer behind an address and its redirections, its body still to be read; status 200, 206 or 416.

        Args:
            login: `earthdata`, `edx` where that account is needed; credentials go to the hosts of `self.earthdata` or `self.edx` only.

        Raises:
            Transient: a fault that may pass.
            UserError: one that does not.
        """
        response = self._follow(url, dict(headers or {}), login)
        try:
            self._judge(response, url, login)
            yield response
        finally:
            response.close()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Faults while a body is read."""
        try:
            yield
        except (urllib3.exceptions.HTTPError, requests.RequestException, OSError) as error:
            if isinstance(error, OSError) and error.filename is not None:  # of our own disk
                raise
            raise Transient("the connection broke while the data were coming") from None

    def _session(self) -> requests.Session:
        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()
            self._local.session.headers["User-Agent"] = AGENT
        session: requests.Session = self._local.session
        return session

    def _follow(self, url: str, headers: dict[str, str], login: str | None) -> requests.Response:
        where = self.arm.signed(url) if login == "arm" else url
        for _ in range(_HOPS):
            if urlsplit(where).scheme not in ("http", "https"):
                raise UserError(f"{bare(url)}: the server points to {bare(where)}, which is not an address of the web")
            keys = self.edx.headers(where) if login == "edx" else {}
            response = self._send(where, {**headers, **keys}, self.earthdata.header(where) if login == "earthdata" else None)
            target = response.headers.get("Location")
            if response.status_code not in _MOVED or target is None:
                return response
            response.close()
            where = urljoin(where, target)
        raise Refused(f"{bare(url)}: redirected {_HOPS} times without an end{'; for Earthdata ' + HELP if login == 'earthdata' else ''}")

    def _send(self, url: str, headers: dict[str, str], credentials: str | None) -> requests.Response:
        try:
            return self._session().get(
                url,
                headers=headers,
                auth=_Credentials(credentials),
                stream=True,
                allow_redirects=False,
                timeout=(30, self.patience.timeout),
            )
        except requests.exceptions.SSLError:
            raise UserError(
                f"{bare(url)}: the server's certificate is not trusted; check the address and this machine's certificates"
            ) from None
        except requests.exceptions.Timeout:
            raise Transient("no answer in time") from None
        except requests.exceptions.ConnectionError:
            raise Transient("the server cannot be reached") from None
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, ValueError):
            raise UserError(f"{bare(url)} is not an address that can be asked; check it") from None

    def _judge(self, response: requests.Response, url: str, login: str | None) -> None:
        status, where = response.status_code, bare(url)
        if status in (200, 206, 416):
            return
        if status == 204:
            raise Absent(f"{where}: the service has no data for this request (204); widen the options of the fetch")
        if status == 413:
            raise TooLarge(
                f"{where}: the request is too large for the service (413); ask for less at once: shorter times, fewer stations or channels"
            )
        if status in _PASSING:
            raise Transient(f"the server answers {status} ({response.reason})", _retry_after(response))
        if status in (401, 403) and login == "edx":
            raise Refused(f"{where}: the Energy Data eXchange does not accept the key ({status}); check it, or {edx.HELP}")
        if status in (401, 403) and (login == "arm" or self.arm.asked(url)):
            raise Refused(f"{where}: ARM Live does not accept the account ({status}); check it, or {armlive.HELP}")
        if status == 401 and login == "earthdata":
            raise Refused(f"{where}: Earthdata does not accept the token or password (401); check it, or {HELP}")
        if status == 401:
            raise UserError(f"{where}: needs a login (401) that this source does not provide for; fetch the file by hand")
        if status == 403 and login == "earthdata":
            raise Refused(
                f"{where}: access is refused (403); accept the licence of these data and authorise their application at "
                "https://urs.earthdata.nasa.gov/profile, then run the same command again"
            )
        if status == 403:
            raise UserError(
                f"{where}: access is refused (403); a licence may have to be accepted on the provider's page, or it is not public"
            )
        if status in (404, 410):
            raise UserError(f"{where}: not found ({status}); check the options of the fetch, it may have been moved or not be published")
        raise UserError(f"{where}: the server answers {status} ({response.reason}); check the options of the fetch")


def _retry_after(response: requests.Response) -> float | None:
    """Seconds that the header `Retry-After` asks for, a number or a date."""
    asked = response.headers.get("Retry-After", "").strip()
    if asked.isdigit():
        return float(asked)
    try:
        return max(parsedate_to_datetime(asked).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError):
        return None
