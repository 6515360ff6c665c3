"""Fetching over HTTP: faults of servers, resuming, receipts, places, licences, disk; against a server on this machine."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servers import ABOUT, QUICK, Page, Web, fetch, receipts

from scigpt import __version__
from scigpt.data.files import DiskFull
from scigpt.data_prep.fetch import Network, Patience, Report
from scigpt.data_prep.source import Remote
from scigpt.errors import UserError

BODY = np.random.default_rng(0).bytes(3_000_000)


def left(out: Path) -> list[str]:
    return sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file())


def test_a_file_comes_with_its_receipt_and_only_once(server: Web, tmp_path: Path) -> None:
    server.pages["/a/x.bin"] = Page(BODY)
    remote = Remote(server.url("/a/x.bin"), "sub/x.bin", bytes=len(BODY), checksum=f"md5:{hashlib.md5(BODY).hexdigest()}")
    out = tmp_path / "out"
    assert fetch([remote], out, accepted_licence="CC-BY-4.0") == Report(("sub/x.bin",), (), len(BODY))
    assert (out / "sub/x.bin").read_bytes() == BODY
    assert left(out) == [".fetched.json", "sub/x.bin"]
    (receipt,) = receipts(out).values()
    assert receipt["sha256"] == hashlib.sha256(BODY).hexdigest()
    told = {k: receipt[k] for k in ("url", "bytes", "etag", "licence", "attribution", "accepted_licence", "source")}
    assert told == {
        "url": remote.url,
        "bytes": len(BODY),
        "etag": '"v1"',
        "licence": "CC-BY-4.0",
        "attribution": ABOUT.attribution,
        "accepted_licence": "CC-BY-4.0",
        "source": "toy",
    }
    assert receipt["retrieved"].endswith("+00:00")
    assert server.asked[0].headers["user-agent"].startswith(f"scigpt/{__version__}")
    assert fetch([remote], out) == Report((), ("sub/x.bin",), 0)
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(server: Web, tmp_path: Path, status: int) -> None:
    server.pages["/x.bin"] = Page(BODY, faults=[(status, {})] * 3)
    fetch([Remote(server.url("/x.bin"), "x.bin")], tmp_path)
    assert (tmp_path / "x.bin").read_bytes() == BODY
    assert len(server.asked) == 4


def test_a_server_that_stays_busy_is_left_alone_after_the_limit(server: Web, tmp_path: Path) -> None:
    server.pages["/x.bin"] = Page(BODY, faults=[(503, {})] * 9)
    with pytest.raises(UserError, match=r"answers 503 .* 4 times in a row"):
        fetch([Remote(server.url("/x.bin"), "x.bin")], tmp_path)
    assert len(server.asked) == 4
    assert left(tmp_path) == []


@pytest.mark.parametrize("asked", ["1", "date"])
def test_retry_after_is_respected(server: Web, tmp_path: Path, asked: str) -> None:
    value = formatdate(time.time() + 2, usegmt=True) if asked == "date" else asked
    server.pages["/x.bin"] = Page(BODY, faults=[(429, {"Retry-After": value})])
    begun = time.monotonic()
    fetch([Remote(server.url("/x.bin"), "x.bin")], tmp_path)
    assert time.monotonic() - begun > 0.9


def test_all_connections_keep_still_when_one_is_told_to_wait(server: Web, tmp_path: Path) -> None:
    server.pages |= {f"/{n}.bin": Page(BODY[:1000]) for n in range(60)}
    server.pages["/5.bin"].faults = [(429, {"Retry-After": "1"})]
    fetch([Remote(server.url(f"/{n}.bin"), f"{n}.bin") for n in range(60)], tmp_path, connections=2)
    told = server.requests("/5.bin")[0].when
    assert not [a.path for a in server.asked if told + 0.3 < a.when < told + 0.9]
    assert len(server.asked) == 61


def test_a_server_that_asks_for_an_hour_ends_the_fetch(server: Web, tmp_path: Path) -> None:
    server.pages["/x.bin"] = Page(BODY, faults=[(503, {"Retry-After": "3600"})])
    with pytest.raises(UserError, match="asks to wait 3600 s; run the same command again after that"):
        fetch([Remote(server.url("/x.bin"), "x.bin")], tmp_path)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("status", "said"),
    [(401, r"needs a login \(401\)"), (403, r"access is refused \(403\); a licence"), (404, r"not found \(404\)"), (418, "answers 418")],
)
def test_what_will_not_pass_is_not_asked_again(server: Web, tmp_path: Path, status: int, said: str) -> None:
    server.pages["/x.bin"] = Page(faults=[(status, {})] * 9)
    with pytest.raises(UserError, match=said) as caught:
        fetch([Remote(server.url("/x.bin"), "x.bin")], tmp_path)
    assert len(server.asked) == 1
    assert len(str(caught.value)) < 400


def test_one_missing_file_does_not_keep_the_others_away(server: Web, tmp_path: Path) -> None:
    server.pages |= {f"/{n}.bin": Page(BODY[:1000]) for n in "abd"}
    remotes = [Remote(server.url(f"/{n}.bin"), f"{n}.bin") for n in "abcd"]
    with pytest.raises(UserError, match=r"/c\.bin: not found .*; 3 of 4 are fetched and kept"):
        fetch(remotes, tmp_path, connections=1)
    server.pages["/c.bin"] = Page(BODY[:10])
    assert fetch(remotes, tmp_path) == Report(("c.bin",), ("a.bin", "b.bin", "d.bin"), 10)


def test_a_body_that_breaks_off_is_gone_on_with(server: Web, tmp_path: Path) -> None:
    server.pages["/x.bin"] = Page(BODY, cuts=[1_200_000, 1_000_000])
    fetch([Remote(server.url("/x.bin"), "x.bin")], tmp_path)
    assert (tmp_path / "x.bin").read_bytes() == BODY
    starts = [int(a.headers["range"][6:-1]) for a in server.asked[1:]]
    assert 0 < starts[0] <= 1_200_000 < starts[1] <= 2_200_000
    assert {a.headers["if-range"] for a in server.asked[1:]} == {'"v1"'}


def test_a_body_that_always_breaks_off_is_refused(server: Web, tmp_path: Path) -> None:
    server.pages["/x.bin"] = Page(BODY[:500_000], cuts=[300_000] * 99, ranges=False)
    with pytest.raises(UserError, match="connection broke while the data were coming, 4 times in a row"):
        fetch([Remote(server.url("/x.bin"), "x.bin")], tmp_path)
    assert not (tmp_path / "x.bin").exists()


@pytest.mark.parametrize("how", ["if-range", "ignored"])
def test_a_file_that_changed_in_between_is_begun_anew(server: Web, tmp_path: Path, how: str) -> None:
    remote = Remote(server.url("/x.bin"), "x.bin")
    server.pages["/x.bin"] = Page(BODY, cuts=[1_000_000])
    with pytest.raises(UserError, match="1 times in a row"):
        fetch([remote], tmp_path, patience=Patience(attempts=1))
    assert (tmp_path / "x.bin.part").stat().st_size > 500_000
    newer = BODY[::-1]

    def careless(headers: dict[str, str], _: Any) -> tuple[int, dict[str, str], bytes]:
        start = int(headers["range"][6:-1]) if "range" in headers else 0
        place = {"Content-Range": f"bytes {start}-{len(newer) - 1}/{len(newer)}"} if start else {}
        return 206 if start else 200, {"ETag": '"v2"', **place}, newer[start:]

    server.pages["/x.bin"] = Page(newer, etag='"v2"', answer=None if how == "if-range" else careless)
    fetch([remote], tmp_path)
    assert (tmp_path / "x.bin").read_bytes() == newer
    assert server.asked[1].headers["if-range"] == '"v1"'
    assert left(tmp_path) == [".fetched.json", "x.bin"]


def test_without_a_validator_nothing_is_gone_on_with_unless_a_checksum_guards_it(server: Web, tmp_path: Path) -> None:
    for name, checksum in (("x", None), ("y", f"sha256:{hashlib.sha256(BODY).hexdigest()}")):
        server.pages[f"/{name}.bin"] = Page(BODY, etag=None, cuts=[2_000_000])
        fetch([Remote(server.url(f"/{name}.bin"), f"{name}.bin", checksum=checksum)], tmp_path)
        assert (tmp_path / f"{name}.bin").read_bytes() == BODY
        assert ("range" in server.asked[-1].headers) == (checksum is not None)


@pytest.mark.parametrize("kind", ["sha256", "sha1", "md5"])
def test_another_checksum_is_fetched_once_more_and_then_refused(server: Web, tmp_path: Path, kind: str) -> None:
    server.pages["/x.bin"] = Page(BODY)
    remote = Remote(server.url("/x.bin"), "x.bin", checksum=f"{kind}:{hashlib.new(kind, b'other').hexdigest()}")
    with pytest.raises(UserError, match=f"does not have the {kind}"):
        fetch([remote], tmp_path)
    assert len(server.asked) == 2
    assert left(tmp_path) == []


def test_another_size_than_the_catalogue_says_is_refused(server: Web, tmp_path: Path) -> None:
    server.pages["/x.bin"] = Page(BODY)
    with pytest.raises(UserError, match="3000000 bytes came and the catalogue says 7"):
        fetch([Remote(server.url("/x.bin"), "x.bin", bytes=7)], tmp_path)
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("page", "said"),
    [
        (Page(b"<p>log in</p>", kind="text/html; charset=utf-8"), "a web page came instead of the data"),
        (Page(b"\n <!DOCTYPE html><p>log in</p>"), "a web page came instead of the data"),
        (Page(b"\xef\xbb\xbf<HTML><p>log in</p>"), "a web page came instead of the data"),
        (Page(b"You have tried to download this more than twice in 24 hours.\n", kind="text/plain"), "a message came .*more than twice"),
        (Page(b""), "an empty file came"),
    ],
)
def test_a_page_or_a_message_is_not_data(server: Web, tmp_path: Path, page: Page, said: str) -> None:
    server.pages["/x"] = page
    with pytest.raises(UserError, match=said):
        fetch([Remote(server.url("/x"), "x.zip")], tmp_path)
    assert not (tmp_path / "x.zip").exists()


def test_a_redirection_to_a_file_is_refused(server: Web, tmp_path: Path) -> None:
    server.pages["/x.bin"] = Page(faults=[(302, {"Location": "file:///etc/passwd"})])
    with pytest.raises(UserError, match="not an address of the web"):
        fetch([Remote(server.url("/x.bin"), "x.bin")], tmp_path)


def test_what_is_damaged_or_changed_in_the_catalogue_is_fetched_again(server: Web, tmp_path: Path) -> None:
    server.pages["/x.bin"] = Page(BODY)
    remote = Remote(server.url("/x.bin"), "x.bin")
    fetch([remote], tmp_path)
    (tmp_path / "x.bin").write_bytes(BODY[:-1])
    assert fetch([remote], tmp_path).fetched == ("x.bin",)
    server.pages["/x.bin"] = Page(BODY[:50])
    assert fetch([Remote(remote.url, "x.bin", bytes=50)], tmp_path).fetched == ("x.bin",)
    assert (tmp_path / "x.bin").read_bytes() == BODY[:50]


def test_no_more_than_so_many_connections(server: Web, tmp_path: Path) -> None:
    server.pages |= {f"/{n}.bin": Page(BODY[:2000]) for n in range(24)}
    fetch([Remote(server.url(f"/{n}.bin"), f"{n}.bin") for n in range(24)], tmp_path, connections=3)
    assert server.open_most <= 3
    assert len(receipts(tmp_path)) == 24


def test_a_disk_that_fills_up_ends_the_fetch(server: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.pages["/x.bin"] = Page(BODY)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(DiskFull, match="3000000 bytes are to come and the disk has 1000 free"):
        fetch([Remote(server.url("/x.bin"), "x.bin")], tmp_path)


def test_catalogues_are_read_with_the_same_patience(server: Web) -> None:
    server.pages["/list"] = Page(b"[1, 2]", faults=[(503, {}), (302, {"Location": "/list"})], cuts=[3])
    assert Network(QUICK).get(server.url("/list")) == b"[1, 2]"
    with pytest.raises(UserError, match="not found"):
        Network(QUICK).get(server.url("/nothing"))
    with pytest.raises(UserError, match="cannot be reached, 4 times"):
        Network(QUICK).get("http://127.0.0.1:9/list")
    server.pages["/round"] = Page(faults=[(302, {"Location": "/round"})] * 99)
    with pytest.raises(UserError, match="redirected 12 times"):
        Network(QUICK).get(server.url("/round"))


PROGRAM = """
import signal, sys
from pathlib import Path
from scigpt.data_prep.fetch import Network, fetch, look
from scigpt.data_prep.source import Description, Remote
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may start the tests with it ignored
base, out = sys.argv[1], Path(sys.argv[2])
network = Network()
remotes = [Remote(f"{base}/{n}.bin", f"{n}.bin") for n in "abcd"]
fetch(look(remotes, out, Description("toy", "test", "any", "CC0"), network), network, connections=1)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_killed_in_the_middle_the_same_call_goes_on(server: Web, tmp_path: Path, how: signal.Signals) -> None:
    server.pages |= {f"/{n}.bin": Page(BODY) for n in "abcd"}
    server.pages["/c.bin"].hold = 2_000_000
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, server.url(""), str(tmp_path)], env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert server.holding.wait(60)
    part = tmp_path / "c.bin.part"
    while not part.exists() or part.stat().st_size < 1_500_000:
        time.sleep(0.01)
    process.send_signal(how)
    assert process.wait(20) != 0
    server.release.set()
    server.asked.clear()
    remotes = [Remote(server.url(f"/{n}.bin"), f"{n}.bin") for n in "abcd"]
    assert fetch(remotes, tmp_path, connections=1) == Report(("c.bin", "d.bin"), ("a.bin", "b.bin"), 2 * len(BODY))
    assert [(a.path, a.headers.get("range", "")[:7]) for a in server.asked] == [("/c.bin", "bytes=1"), ("/d.bin", "")]
    assert all((tmp_path / f"{n}.bin").read_bytes() == BODY for n in "abcd")
    assert left(tmp_path) == [".fetched.json", "a.bin", "b.bin", "c.bin", "d.bin"]
