"""Earthdata login: the redirections with cookies, and that credentials reach NASA's login and nothing else, nor any file or text."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import Answer, Page, Web, web

from scigpt.data_prep.fetch import Earthdata, Network, Patience, Report, fetch, look
from scigpt.data_prep.fetch.errors import public
from scigpt.data_prep.source import Description, Remote
from scigpt.errors import UserError

ABOUT = Description("toy", "test", "HDF", "CC0")
QUICK = Patience(attempts=3, first=0.001, longest=1.0, timeout=10.0)
DATA = b"\x0e\x03\x13\x01" + b"granule" * 1000
USER, WORD, TOKEN = "einstein", "e=mc2secret", "tok3nsecret"
BASIC = "Basic " + base64.b64encode(f"{USER}:{WORD}".encode()).decode()


@pytest.fixture
def nasa(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Web]:
    """Data on 127.0.0.1, the login on localhost, the bytes at last in a store on 127.0.0.2 that wants no credentials."""
    monkeypatch.delenv("EARTHDATA_TOKEN", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with web() as state:

        def granule(headers: dict[str, str], _: object) -> Answer:
            if "session=in" in headers.get("cookie", "") or headers.get("authorization") == f"Bearer {TOKEN}":
                return 303, {"Location": state.url("/store/x.hdf?X-Amz-Signature=abc", "127.0.0.2")}, b""
            return 302, {"Location": state.url("/oauth/authorize?client_id=1&state=x", "localhost")}, b""

        def login(headers: dict[str, str], _: object) -> Answer:
            if headers.get("authorization") == BASIC:
                return 302, {"Location": state.url("/login?code=c0de"), "Set-Cookie": "urs=1; Path=/"}, b""
            if "authorization" in headers:
                return 401, {}, b""
            return 200, {"Content-Type": "text/html"}, b"<html>please log in</html>"

        def back(_: dict[str, str], query: dict[str, list[str]]) -> Answer:
            assert query == {"code": ["c0de"]}
            return 302, {"Location": state.url("/data/x.hdf"), "Set-Cookie": "session=in; Path=/"}, b""

        def store(headers: dict[str, str], _: object) -> Answer:
            return (400, {}, b"two ways to authenticate") if "authorization" in headers else (200, {}, DATA)

        for path, answer in (("/data/x.hdf", granule), ("/oauth/authorize", login), ("/login", back), ("/store/x.hdf", store)):
            state.pages[path] = Page(answer=answer)
        yield state


def run(nasa: Web, out: Path, domains: tuple[str, ...] = (".127.0.0.1",)) -> Report:
    network = Network(QUICK, Earthdata(nasa.url("", "localhost"), domains))
    listing = look([Remote(nasa.url("/data/x.hdf"), "x.hdf", login="earthdata")], out, ABOUT, network)
    return fetch(listing, network)


def told_to(nasa: Web) -> set[tuple[str, str]]:
    return {(a.host, a.headers["authorization"]) for a in nasa.asked if "authorization" in a.headers}


def password(tmp_path: Path, text: str = f"machine localhost login {USER} password {WORD}\n") -> None:
    (tmp_path / "netrc").write_text(text)


def nothing_leaked(out: Path, *texts: str) -> None:
    everything = [*texts, *(p.read_text(errors="replace") for p in out.rglob("*") if p.is_file())]
    for secret in (WORD, TOKEN, BASIC, "X-Amz-Signature", "c0de", "session=in"):
        assert not any(secret in text for text in everything)


def test_name_and_password_go_to_the_login_host_only(nasa: Web, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    others = "".join(f"machine 127.0.0.{n} login {USER} password {WORD}\n" for n in (1, 2))
    password(tmp_path, f"default login {USER} password {WORD}\n{others}machine localhost login {USER} password {WORD}\n")
    out = tmp_path / "out"
    run(nasa, out)
    assert (out / "x.hdf").read_bytes() == DATA
    assert told_to(nasa) == {("localhost", BASIC)}
    nothing_leaked(out, *capfd.readouterr())
    assert json.loads((out / ".fetched.json").read_text())["files"]["x.hdf"]["url"] == nasa.url("/data/x.hdf")


def test_a_token_goes_to_hosts_of_nasa_only(
    nasa: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EARTHDATA_TOKEN", TOKEN)
    out = tmp_path / "out"
    run(nasa, out)
    assert (out / "x.hdf").read_bytes() == DATA
    assert told_to(nasa) == {("127.0.0.1", f"Bearer {TOKEN}")}
    assert [a.path for a in nasa.asked] == ["/data/x.hdf", "/store/x.hdf"]
    nothing_leaked(out, *capfd.readouterr())


def test_the_real_hosts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EARTHDATA_TOKEN", TOKEN)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    real = Earthdata()
    given = f"Bearer {TOKEN}"
    for host in ("urs.earthdata.nasa.gov", "data.lpdaac.earthdatacloud.nasa.gov", "data.ornldaac.earthdata.nasa.gov"):
        assert real.header(f"https://{host}/x") == given
        assert real.header(f"http://{host}/x") is None
    for host in ("nasa.gov.evil.org", "evilnasa.gov", "d1.cloudfront.net", "s3.us-west-2.amazonaws.com", "nasa.gov@evil.org"):
        assert real.header(f"https://{host}/x") is None
    password(tmp_path, f"machine urs.earthdata.nasa.gov login {USER} password {WORD}\n")
    assert real.header("https://urs.earthdata.nasa.gov/oauth/authorize") == BASIC
    monkeypatch.delenv("EARTHDATA_TOKEN")
    assert real.header("https://data.ornldaac.earthdata.nasa.gov/x") is None


def test_missing_credentials_are_told_before_anything_is_asked(nasa: Web, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"register at https://urs\.earthdata\.nasa\.gov, then set EARTHDATA_TOKEN or write the line"):
        run(nasa, tmp_path / "out")
    assert not nasa.asked


def test_a_wrong_password_ends_the_fetch_at_once(nasa: Web, tmp_path: Path) -> None:
    password(tmp_path, f"machine localhost login {USER} password wrong\n")
    with pytest.raises(UserError, match=r"Earthdata does not accept the token or password \(401\)") as caught:
        run(nasa, tmp_path / "out")
    assert len(nasa.requests("/oauth/authorize")) == 1
    assert len(str(caught.value)) < 400


def test_an_expired_token_that_leads_to_a_login_page_is_not_data(nasa: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EARTHDATA_TOKEN", "old")
    nasa.pages["/oauth/authorize"] = Page(b"<html>please log in</html>", kind="text/html")
    with pytest.raises(UserError, match="a web page came instead of the data; the login may not be accepted"):
        run(nasa, tmp_path / "out")
    assert not (tmp_path / "out/x.hdf").exists()


def test_terms_of_a_collection_are_told(nasa: Web, tmp_path: Path) -> None:
    password(tmp_path)
    nasa.pages["/store/x.hdf"] = Page(faults=[(403, {})] * 9)
    with pytest.raises(UserError, match="accept the licence of these data and authorise their application at"):
        run(nasa, tmp_path / "out")
    assert len(nasa.requests("/store/x.hdf")) == 1


@pytest.mark.parametrize("text", [f"machine localhost login {USER} passwort {WORD}\n", "\xff\xfe" + WORD, f"{WORD}"])
def test_a_broken_netrc_file_is_told_without_what_it_holds(nasa: Web, tmp_path: Path, text: str) -> None:
    (tmp_path / "netrc").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"netrc cannot be read as a netrc file") as caught:
        run(nasa, tmp_path / "out")
    assert WORD not in str(caught.value)


def test_catalogues_and_anonymous_files_get_no_credentials(nasa: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EARTHDATA_TOKEN", TOKEN)
    password(tmp_path)
    nasa.pages["/list"] = Page(b"[]", faults=[(302, {"Location": nasa.url("/list", "localhost")})])
    nasa.pages["/open.bin"] = Page(b"abc")
    network = Network(QUICK, Earthdata(nasa.url("", "localhost"), (".127.0.0.1",)))
    assert network.get(nasa.url("/list")) == b"[]"
    fetch(look([Remote(nasa.url("/open.bin"), "open.bin")], tmp_path / "out", ABOUT, network), network)
    assert told_to(nasa) == set()


def test_signed_addresses_are_told_without_their_signatures() -> None:
    assert public("https://me:word@host/a?b=1&sig=x#frag") == "https://host/a"
    assert public("https://host/a?X-Amz-Signature=x&X-Amz-Date=1") == "https://host/a"
    assert public("https://host/a?format=bil") == "https://host/a?format=bil"
    assert public("s3://bucket/key.nc") == "s3://bucket/key.nc"


def test_a_signature_does_not_reach_messages_or_receipts(nasa: Web, tmp_path: Path) -> None:
    nasa.pages["/blob"] = Page(b"abc")
    url = nasa.url("/blob?se=2030&sig=s3cret")
    network = Network(QUICK)
    fetch(look([Remote(url, "blob")], tmp_path / "out", ABOUT, network), network)
    assert "s3cret" not in (tmp_path / "out/.fetched.json").read_text()
    renewed = look([Remote(url.replace("s3cret", "other"), "blob")], tmp_path / "out", ABOUT, network)
    assert not renewed.pending
    with pytest.raises(UserError, match=r"/gone: not found") as caught:
        fetch(look([Remote(nasa.url("/gone?sig=s3cret"), "gone")], tmp_path / "out", ABOUT, network), network)
    assert "s3cret" not in str(caught.value)
