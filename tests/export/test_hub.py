"""The real client of the Hugging Face hub against a server that speaks the hub's routes: what is pushed comes back byte for byte."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from runs import make_corpus, settings, write

from scigpt.adapt.start import EXPORT
from scigpt.errors import UserError
from scigpt.export import hub, weights
from scigpt.export.folder import CARD, WEIGHTS, Exported
from scigpt.train.config import load
from scigpt.train.engine import train

TOKEN = "hf_" + "secret" * 6


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    path = tmp_path_factory.mktemp("hub")
    train(load(write(settings([make_corpus(path)], path / "run", steps=5), path / "run.yaml")))
    return Exported.open(weights.write(path / "run", path / "out"))


class Repository:
    """Commits of one branch, each a whole folder."""

    def __init__(self, **files: bytes) -> None:
        self.commits: list[tuple[str, dict[str, bytes]]] = []
        self.commit(files)

    def commit(self, files: dict[str, bytes]) -> str:
        text = json.dumps([len(self.commits), sorted((n, hashlib.sha256(c).hexdigest()) for n, c in files.items())])
        self.commits.append((hashlib.sha1(text.encode()).hexdigest(), files))
        return self.commits[-1][0]

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        return self.commits[-1] if revision == "main" else next((c for c in self.commits if c[0] == revision), None)


class Hub(ThreadingHTTPServer):
    """What `huggingface_hub` asks of the hub, in memory. `gated` lists its files and gives none of them, `broken` is out of order."""

    daemon_threads = True

    def __init__(self) -> None:
        self.repositories = {"tester/gated": Repository(**{EXPORT: b"{}"}), "tester/broken": Repository()}
        self.seen: list[str] = []
        super().__init__(("127.0.0.1", 0), Answer)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def reply(self, status: int, content: Any = b"", **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), "Content-Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, code: str) -> None:
        self.reply(status, {"error": code}, X_Error_Code=code)

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.seen.append(f"{self.command} {path}")
        asked = re.fullmatch(r"/api/models/([^/]+/[^/]+?)(?:/(revision|tree)/([^/]+))?", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        found = asked or file
        assert found is not None, path
        name = found[1]
        if name == "tester/broken":
            return self.reply(500, {"error": "out of order"})
        if name not in self.server.repositories:
            return self.refuse(404, "RepoNotFound")
        there = self.server.repositories[name].at((asked[3] or "main") if asked else found[2])
        if there is None:
            return self.refuse(404, "RevisionNotFound")
        sha, files = there
        if asked is None:
            if name == "tester/gated":
                return self.refuse(403, "GatedRepo")
            if found[3] not in files:
                return self.refuse(404, "EntryNotFound")
            return self.reply(200, files[found[3]], ETag=f'"{blob(files[found[3]])}"', X_Repo_Commit=sha)
        if asked[2] == "tree":
            return self.reply(200, [{"type": "file", "path": n, "size": len(c), "oid": blob(c)} for n, c in files.items()])
        return self.reply(200, {"id": name, "sha": sha, "private": False, "siblings": [{"rfilename": n} for n in files]})

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self.server.seen.append(f"POST {self.path}")
        content, allowed = self.body(), self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if self.path == "/api/validate-yaml":
            front = re.match(r"---\n(.*?\n)---\n", json.loads(content)["content"], re.DOTALL)
            good = front is not None and isinstance(yaml.safe_load(front[1]).get("license"), str)
            errors = [] if good else [{"message": '"license" must be a string'}]
            return self.reply(200 if good else 400, {"warnings": [], "errors": errors})
        if self.path == "/api/repos/create":
            asked = json.loads(content)
            name = f"{asked['organization']}/{asked['name']}"
            if not allowed or asked["organization"] != "tester":
                return self.reply(403 if allowed else 401, {"error": "not yours"})
            known = name in self.server.repositories
            self.server.repositories.setdefault(name, Repository())
            return self.reply(409 if known else 200, {"url": f"{self.server.address}/{name}"})
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/main", self.path)
        assert found is not None, self.path
        assert allowed
        if found[2] == "preupload":
            files = json.loads(content)["files"]
            return self.reply(200, {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]})
        repository = self.server.repositories[found[1]]
        tree = dict(repository.commits[-1][1])
        for line in map(json.loads, content.splitlines()):
            if line["key"] == "file":
                tree[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "deletedFile":
                del tree[line["value"]["path"]]
        sha = repository.commit(tree)
        address = f"{self.server.address}/{found[1]}/commit/{sha}"
        return self.reply(200, {"success": True, "commitOid": sha, "commitUrl": address})


def blob(content: bytes) -> str:
    """The name that git gives it."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@pytest.fixture
def server() -> Iterator[Hub]:
    with Hub() as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        yield hub
        hub.shutdown()


CLIENT = """
import json, os, sys
from dataclasses import replace
from pathlib import Path
from scigpt.errors import UserError
from scigpt.export import hub
from scigpt.export.folder import Exported

def push(path, name, **facts):
    exported = Exported.open(Path(path))
    return hub.push_to_hub(replace(exported, facts={**exported.facts, **facts}), name)

def pull(name, revision=None):
    return str(hub.from_pretrained(name, revision))

for environment, actions in json.loads(sys.argv[1]):
    child = os.fork()  # the client reads its settings when it is imported
    if child == 0:
        os.environ.update(environment)
        for kind, arguments, options in actions:
            try:
                said = {"push": push, "pull": pull}[kind](*arguments, **options)
            except UserError as error:
                said = f"UserError: {error}"
            print(json.dumps(said), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


def client(home: Path, *sessions: tuple[dict[str, str], list[tuple[Any, ...]]]) -> list[str]:
    """What each action of some sessions, each with settings of its own, gives."""
    told = [
        (environment, [(kind, rest[:-1], rest[-1]) if isinstance(rest[-1], dict) else (kind, rest, {}) for kind, *rest in actions])
        for environment, actions in sessions
    ]
    own = {"HF_HOME": str(home), "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    done = subprocess.run([sys.executable, "-c", CLIENT, json.dumps(told)], env={**os.environ, **own}, capture_output=True, text=True)
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(said) == sum(len(actions) for _, actions in sessions), done.stderr
    assert TOKEN not in done.stdout + done.stderr
    return said


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_what_is_pushed_comes_back(exported: Exported, server: Hub, tmp_path: Path) -> None:
    foreign = {"pytorch_model.bin": b"\x80\x04", "optimizer.pt": b"PK", "deep.pkl": b"\x80\x04", "notes.txt": b"!"}
    earlier = {"rollout-old.onnx": b"old", WEIGHTS: b"old", EXPORT: b"{}"}
    repository = server.repositories["tester/toys"] = Repository(**earlier, **foreign)
    address, old, home = str(exported.path), repository.commits[0][0], tmp_path / "home"
    with socket.socket() as closed:  # bound and not listening
        closed.bind(("127.0.0.1", 0))
        commit, found, missing, before, again, lacking, unsent = client(
            home,
            (
                {"HF_ENDPOINT": server.address},
                [
                    ("push", address, "tester/toys"),
                    ("pull", "tester/toys"),
                    ("pull", "tester/toys", "v9"),
                    ("pull", "tester/toys", old),
                ],
            ),
            (
                {"HF_ENDPOINT": f"http://127.0.0.1:{closed.getsockname()[1]}"},
                [("pull", "tester/toys"), ("pull", "tester/other"), ("push", address, "tester/toys")],
            ),
        )
    sha, pushed = repository.commits[-1]
    assert commit == f"{server.address}/tester/toys/commit/{sha}"
    assert len(repository.commits) == 2  # one commit: nobody sees a half of it
    assert pushed == contents(exported.path) | foreign
    assert contents(Path(found)) == contents(exported.path)
    assert Exported.open(Path(found)).facts == exported.facts
    assert again == found
    assert not [line for line in server.seen for name in foreign if line.endswith(name)]
    assert missing == "UserError: tester/toys: has no such revision; give a branch, a tag or a commit that its page shows"
    assert before == "UserError: tester/toys: is no export of scigpt (config.json does not say so); check the name"
    assert f"GET /tester/toys/resolve/{old}/{EXPORT}" in server.seen
    assert f"GET /tester/toys/resolve/{old}/{WEIGHTS}" not in server.seen  # what it is not is not fetched
    assert lacking.startswith("UserError: tester/other: the hub cannot be reached and the cache lacks it (")
    assert unsent.startswith("UserError: tester/toys: the hub cannot be reached (")
    kept = [p for p in home.rglob("*") if p.is_file() and not p.is_symlink()]
    assert kept
    assert not [p for p in kept if TOKEN.encode() in p.read_bytes()]


def test_what_the_hub_refuses_is_one_sentence(exported: Exported, server: Hub, tmp_path: Path) -> None:
    address = str(exported.path)
    survey = {"redistributable": False, "learned_from": [{"name": "survey", "redistributable": False}]}
    expected = [
        (
            ("push", address, "tester/toys", survey),
            f"{address}: learned from survey, which may not be redistributed, so the hub gets nothing",
        ),
        (
            ("push", address, "tester/toys", {"unknown": ["elder"]}),
            f"{address}: began with elder, of whose data nothing is known, so the hub",
        ),
        (("pull", "tester/none"), "tester/none: is no folder here and cannot be found on the hub; check the name, and `hf auth login`"),
        (("pull", "tester/gated"), "tester/gated: its owner gives access on request; ask for it on its page"),
        (("pull", "tester/broken"), "tester/broken: the hub answers 500 (out of order); try again later"),
        (("pull", "a/b/c"), "a/b/c: there is no such folder; give the folder of an export, or OWNER/NAME"),
        (
            ("push", address, "stranger/toys"),
            "stranger/toys: the hub does not let you write it (403); `hf auth login` with a token that may",
        ),
        (("push", address, "toys"), "toys: is not the name of a repository; expected OWNER/NAME"),
    ]
    *said, offline = client(
        tmp_path,
        ({"HF_ENDPOINT": server.address}, [action for action, _ in expected]),
        ({"HF_ENDPOINT": server.address, "HF_HUB_OFFLINE": "1"}, [("pull", "tester/none")]),
    )
    for sentence, (_, start) in zip(said, expected, strict=True):
        assert sentence.startswith(f"UserError: {start}")
        assert "\n" not in sentence
    assert [line for line in server.seen if line.startswith("POST")] == ["POST /api/repos/create"]  # that of the stranger
    assert set(server.repositories) == {"tester/gated", "tester/broken"}
    assert offline.startswith("UserError: tester/none: the hub cannot be reached and the cache lacks it (")


def test_nothing_is_sent_before_it_is_known_that_it_may(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # as if the extra were not installed
    learned = [{"name": "survey", "redistributable": False}, {"name": "toys", "redistributable": True}]
    with pytest.raises(UserError, match="learned from survey, which"):
        hub.push_to_hub(replace(exported, facts={**exported.facts, "redistributable": False, "learned_from": learned}), "tester/toys")
    with pytest.raises(UserError, match="began with elder, younger"):
        hub.push_to_hub(replace(exported, facts={**exported.facts, "unknown": ["elder", "younger"]}), "tester/toys")
    with pytest.raises(UserError, match=r"push_to_hub needs huggingface_hub: pip install 'scigpt\[hub\]'"):
        hub.push_to_hub(exported, "tester/toys")
    with pytest.raises(UserError, match=r"nobody/nothing: is no folder here, and .* needs huggingface_hub: pip install 'scigpt\[hub\]'"):
        hub.from_pretrained("nobody/nothing")
    assert hub.from_pretrained(exported.path) == exported.path
    with pytest.raises(UserError, match="leave the revision out"):
        hub.from_pretrained(exported.path, "main")


def test_a_copy_is_the_same_or_not_there(exported: Exported, tmp_path: Path) -> None:
    copy = hub.save_pretrained(exported, tmp_path / "copy")
    assert contents(copy) == contents(exported.path)
    (copy / "step-extra.onnx").write_bytes(b"of an export that was here")
    (copy / CARD).write_text("Better words.")
    hub.save_pretrained(exported, copy)
    assert contents(copy) == contents(exported.path)
    opened = Exported.open(copy)
    (copy / "thesis").mkdir()
    (copy / "thesis" / "chapter.tex").write_text("all of it")
    with pytest.raises(UserError, match="thesis: is there and is not an export"):
        hub.save_pretrained(exported, copy / "thesis")
    (copy / WEIGHTS).write_bytes((copy / WEIGHTS).read_bytes()[:-1] + b"?")
    with pytest.raises(UserError, match=r"model\.safetensors: has changed since the export was opened"):
        hub.save_pretrained(opened, tmp_path / "other")
    with pytest.raises(UserError, match=r"model\.safetensors: does not match its sha256"):
        hub.push_to_hub(opened, "tester/toys")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["copy"]
    files = {"../evil.onnx": exported.facts["files"][WEIGHTS]}
    with pytest.raises(UserError, match=r"names the file \.\./evil\.onnx, which no export has"):
        hub.save_pretrained(replace(exported, facts={**exported.facts, "files": files}), tmp_path / "other")
