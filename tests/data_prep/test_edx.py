"""Energy Data eXchange: its search page by page, its key to its host alone, and a corpus of a real well log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from readings import real, refusal_of, samples_of
from servers import Answer, Page, Web, web

from scigpt.data.corpus import Corpus
from scigpt.data_prep.convert import convert
from scigpt.data_prep.fetch import Network, Patience, fetch, look
from scigpt.data_prep.fetch.edx import Edx as Key
from scigpt.data_prep.sources.edx import PAGE, Edx
from scigpt.errors import UserError

WORD = "s3cretkey"
QUICK = Patience(attempts=2, first=0.001)


def answer(result: Any, success: bool = True) -> bytes:
    return json.dumps({"help": "https://edx.netl.doe.gov/api/3/action/help_show", "success": success, "result": result}).encode()


def package(number: int, server: str = "https://edx.netl.doe.gov") -> dict[str, Any]:
    resources = [
        {"id": f"r{number}-1", "name": f"Well {number}.las", "format": "LAS", "size": 9, "url": f"{server}/resource/{number}/download"},
        {"id": f"r{number}-2", "name": "report", "format": "PDF", "size": 10, "url": f"{server}/resource/report{number}"},
        {"id": f"r{number}-3", "name": "Well 2", "format": ".las", "size": None, "url": f"{server}/resource/{number}-2/download"},
    ]
    return {"id": f"p{number}", "name": f"wells-{number}", "license_title": "CC-BY", "resources": resources}


def test_the_search_goes_on_page_by_page() -> None:
    asked: list[dict[str, list[str]]] = []

    def get(url: str) -> bytes:
        parts = urlsplit(url)
        assert f"{parts.scheme}://{parts.netloc}{parts.path}" == "https://edx.netl.doe.gov/api/3/action/package_search"
        asked.append(parse_qs(parts.query))
        start, rows = (int(asked[-1][n][0]) for n in ("start", "rows"))
        return answer({"count": 300, "results": [package(n) for n in range(start, min(start + rows, 300))]})

    remotes = list(Edx.remotes(Edx.Fetch(query="well log", limit=10_000), get))
    assert len(remotes) == 600
    assert [(a["q"][0], a["rows"][0], a["start"][0]) for a in asked] == [("well log", str(PAGE), "0"), ("well log", str(PAGE), str(PAGE))]
    assert (remotes[0].file, remotes[0].bytes, remotes[0].login) == ("wells-0/Well_0.las", 9, "edx")
    assert (remotes[1].file, remotes[1].bytes) == ("wells-0/Well_2.las", None)
    assert len({r.file for r in remotes}) == 600
    assert len(list(Edx.remotes(Edx.Fetch(query="x", limit=3), get))) == 3


def test_one_dataset_by_name() -> None:
    remotes = list(
        Edx.remotes(
            Edx.Fetch(package="wells-7", formats=("pdf",)), lambda url: answer(package(7)) if "package_show?id=wells-7" in url else b""
        )
    )
    assert [r.file for r in remotes] == ["wells-7/report.pdf"]


def test_what_cannot_be_asked_is_told() -> None:
    with pytest.raises(UserError, match="needs query=WORDS for its search, or package=NAME"):
        list(Edx.remotes(Edx.Fetch(), lambda url: b""))
    for body in (b"<html>", answer({}, success=False), b"[]", answer([])):
        with pytest.raises(UserError, match="is not one of CKAN's search"):
            list(Edx.remotes(Edx.Fetch(query="x"), lambda url, body=body: body))


def test_answers_with_nothing_where_something_belongs() -> None:
    found = {"count": 1, "results": [{"name": "n", "resources": None}]}
    assert not list(Edx.remotes(Edx.Fetch(query="x"), lambda url: answer(found)))
    wrong = ({"count": None, "results": []}, {"count": 1, "results": [None]}, {"count": 1, "results": [{"resources": [None]}]})
    for body in map(answer, wrong):
        with pytest.raises(UserError, match="is not one of CKAN's search"):
            list(Edx.remotes(Edx.Fetch(query="x"), lambda url, body=body: body))
    for limit in (0, -1):
        with pytest.raises(UserError, match=f"limit={limit} must be a number of files, 1 or more"):
            list(Edx.remotes(Edx.Fetch(query="x", limit=limit), lambda url: answer(found)))


@pytest.fixture
def exchange(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    """Downloads that want the key and lead to a store elsewhere that must not get it."""
    monkeypatch.setenv("EDX_API_KEY", WORD)
    with web() as state:

        def download(headers: dict[str, str], _: object) -> Answer:
            if headers.get("edx-api-key") != WORD:
                return 403, {}, b"no key"
            return 302, {"Location": state.url("/store", "127.0.0.2")}, b""

        state.pages["/api/3/action/package_show"] = Page(answer({**package(1, state.url("", "localhost"))}))
        state.pages["/resource/1/download"] = Page(answer=download)
        state.pages["/resource/1-2/download"] = Page(answer=download)
        state.pages["/store"] = Page(b"~V\n data\n")
        yield state


def listed(exchange: Web, out: Path, server: str | None = None) -> tuple[Any, Network]:
    network = Network(QUICK, edx=Key(server or exchange.url("", "localhost")))
    remotes = Edx.remotes(Edx.Fetch(package="wells-1", limit=1, server=exchange.url("", "localhost")), network.get)
    return look(remotes, out, Edx.describe(), network), network


def test_the_key_goes_to_its_host_alone(exchange: Web, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    listing, network = listed(exchange, tmp_path / "out")
    fetch(listing, network, accepted_licence=Edx.describe().licence)
    assert (tmp_path / "out/wells-1/Well_1.las").read_bytes() == b"~V\n data\n"
    assert {(a.host, a.path) for a in exchange.asked if "edx-api-key" in a.headers} == {("localhost", "/resource/1/download")}
    texts = [*capfd.readouterr(), *(p.read_text() for p in (tmp_path / "out").rglob("*") if p.is_file())]
    assert not any(WORD in text for text in texts)


def test_a_missing_or_wrong_key_ends_the_fetch(exchange: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    licence = Edx.describe().licence
    monkeypatch.setenv("EDX_API_KEY", "wrong")
    listing, network = listed(exchange, tmp_path / "out")
    with pytest.raises(UserError, match=r"does not accept the key \(403\); check it, or register at https://edx\.netl\.doe\.gov") as caught:
        fetch(listing, network, accepted_licence=licence)
    assert "wrong" not in str(caught.value)
    monkeypatch.delenv("EDX_API_KEY")
    listing, network = listed(exchange, tmp_path / "out")
    assert listing.logins == {"edx": False}
    with pytest.raises(UserError, match="every download of the Energy Data eXchange needs a key; register"):
        fetch(listing, network, accepted_licence=licence)


def test_the_real_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDX_API_KEY", WORD)
    assert Key().headers("https://edx.netl.doe.gov/dataset/x") == {"EDX-API-Key": WORD}
    for url in (
        "http://edx.netl.doe.gov/x",
        "https://edx.netl.doe.gov.evil.org/x",
        "https://evil.org/edx.netl.doe.gov",
        "https://x@edx.netl.doe.gov/",
    ):
        assert Key().headers(url) == {}


def test_a_corpus_of_a_real_well_log(tmp_path: Path) -> None:
    path = real("edx_gdr/6038187_v1.2.las")
    assert Edx.recognises(path)
    source = Edx([path], Edx.Options(licence="MIT", attribution="kinverarity1/lasio"))
    corpus = Corpus.open(convert(source, tmp_path / "out", progress=False))
    assert corpus.manifest["licences"] == ["MIT"]
    assert set(corpus.manifest["splits"]) == {"train", "valid", "test"}
    assert corpus.manifest["out_of_bounds"] == {"gamma_ray_index": 200, "spontaneous_potential": 0, "borehole_diameter": 1}
    assert corpus.manifest["redistributable"] is False
    assert {s.origin.source for s in samples_of(Edx, path)} == {"edx"}
    assert "curves=XYZ: no file has this curve" in refusal_of(Edx, path, curves=("XYZ",))
