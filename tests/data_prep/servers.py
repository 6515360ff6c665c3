"""Servers of the test's own: a web server with faults to switch on, which remembers what it was asked; and S3."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
from moto.server import ThreadedMotoServer

from scigpt.data_prep.fetch import Network, Patience, Report, look
from scigpt.data_prep.fetch import fetch as run
from scigpt.data_prep.source import Description, Remote

ABOUT = Description("toy", "test", "any", "CC-BY-4.0", "Those who made it (doi:10.0/toy)")
QUICK = Patience(attempts=4, first=0.001, longest=5.0, timeout=10.0)

Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Page:
    """What lies behind a path.

    Args:
        faults: answers `(status, headers)` given one after the other before the page is well.
        cuts: lengths after which the body breaks off, one for each request until they are used up.
        hold: the body stops after so many bytes until the server's `release` is set.
        answer: decides everything by itself, from the request's headers and query.
    """

    body: bytes = b""
    etag: str | None = '"v1"'
    kind: str = "application/octet-stream"
    ranges: bool = True
    faults: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    hold: int | None = None
    answer: Callable[[dict[str, str], dict[str, list[str]]], Answer] | None = None


@dataclass(frozen=True)
class Asked:
    """One request that came."""

    host: str
    path: str
    headers: dict[str, str]
    when: float


class Web:
    """The pages by path, and the requests so far."""

    def __init__(self) -> None:
        self.pages: dict[str, Page] = {}
        self.asked: list[Asked] = []
        self.holding, self.release = threading.Event(), threading.Event()
        self.open_now = self.open_most = 0
        self.lock = threading.Lock()
        self.port = 0

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def requests(self, path: str) -> list[Asked]:
        return [a for a in self.asked if a.path == path]


@contextmanager
def web() -> Iterator[Web]:
    """A server on a free port."""
    state = Web()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            with state.lock:
                state.open_now += 1
                state.open_most = max(state.open_most, state.open_now)
            try:
                self._answer()
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True
            finally:
                with state.lock:
                    state.open_now -= 1

        do_HEAD = do_GET

        def _answer(self) -> None:
            parts = urlsplit(self.path)
            headers = {k.lower(): v for k, v in self.headers.items()}
            state.asked.append(Asked(headers.get("host", "").partition(":")[0], parts.path, headers, time.monotonic()))
            page = state.pages.get(parts.path)
            if page is None:
                return self._send(404, {}, b"no such thing")
            if page.faults:
                status, extra = page.faults.pop(0)
                return self._send(status, extra, b"<html>busy</html>")
            if page.answer is not None:
                return self._send(*page.answer(headers, parse_qs(parts.query)))
            status, start, body = 200, 0, page.body
            said = {"Content-Type": page.kind} | ({"ETag": page.etag} if page.etag else {})
            wanted = headers.get("range", "")
            if page.ranges and wanted and headers.get("if-range", page.etag) == page.etag:
                low, _, high = wanted.removeprefix("bytes=").partition("-")
                start = int(low) if low else len(body) - int(high)
                if start >= len(body):
                    return self._send(416, {"Content-Range": f"bytes */{len(body)}"}, b"")
                stop = min(int(high) + 1, len(body)) if low and high else len(body)
                said["Content-Range"] = f"bytes {start}-{stop - 1}/{len(body)}"
                status, body = 206, body[start:stop]
            return self._send(status, said, body, page)

        def _send(self, status: int, headers: dict[str, str], body: bytes, page: Page | None = None) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "HEAD":
                return
            if page is not None and page.cuts:
                body, self.close_connection = body[: page.cuts.pop(0)], True
            if page is not None and page.hold is not None and len(body) > page.hold:
                self.wfile.write(body[: page.hold])
                self.wfile.flush()
                state.holding.set()
                state.release.wait(30)
                body = body[page.hold :]
            self.wfile.write(body)

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:  # a client that was killed
            pass

    server = Server(("", 0), Handler)
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        state.release.set()
        server.shutdown()
        server.server_close()


@contextmanager
def s3_server() -> Iterator[Any]:
    """A client of S3 on this machine; everyone may list the bucket `open` and read what is put there as `public-read`."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
            patch.delenv(name, raising=False)
        client = boto3.client("s3", aws_access_key_id="x", aws_secret_access_key="x")
        client.create_bucket(Bucket="open", ACL="public-read")
        yield client
    server.stop()


def fetch(remotes: list[Remote], out: Path, about: Description = ABOUT, patience: Patience = QUICK, **how: Any) -> Report:
    network = Network(patience)
    return run(look(remotes, out, about, network), network, **how)


def receipts(out: Path) -> dict[str, dict[str, Any]]:
    return json.loads((out / ".fetched.json").read_text())["files"]
