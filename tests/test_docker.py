"""The images: what they copy exists, versions are those that were tested, nothing is secret or floating. (No engine is needed.)"""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path

import pytest
import yaml
from sqlalchemy.engine import make_url

ROOT = Path(__file__).parents[1]
DOCKER = ROOT / "docker"
FILES = sorted(DOCKER.glob("Dockerfile.*"))


def instructions(file: Path) -> list[tuple[str, str]]:
    """(INSTRUCTION, rest) with continued lines joined."""
    text = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", file.read_text(encoding="ascii"), flags=re.M))
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in text.splitlines() if line.strip()]


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="ascii").splitlines()
    return dict(line.strip().split("==") for line in lines if "==" in line and not line.startswith("#"))


def let_in(path: str) -> bool:
    """Whether .dockerignore, which shuts out everything, lets a path of the top folder in again."""
    rules = (ROOT / ".dockerignore").read_text(encoding="ascii").splitlines()
    return any(rule.startswith("!") and fnmatch.fnmatch(path, rule[1:]) for rule in rules)


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.name)
def test_what_is_copied_exists_and_reaches_the_engine(file: Path) -> None:
    for name, rest in instructions(file):
        if name == "COPY" and "--from" not in rest:
            *sources, _ = rest.split()
            for source in sources:
                assert (ROOT / source).exists(), source
                assert let_in(source), f"{source} is shut out by .dockerignore"


def test_the_package_is_copied_whole() -> None:
    """`scigpt/launch` and its like are links to folders beside it, so an image needs these folders too."""
    links = {p.name for p in (ROOT / "scigpt").iterdir() if p.is_symlink()}
    for file in (DOCKER / "Dockerfile.cpu", DOCKER / "Dockerfile.gpu"):
        copied = {source for name, rest in instructions(file) if name == "COPY" and "--from" not in rest for source in rest.split()[:-1]}
        assert {"scigpt", "pyproject.toml", "constraints.txt", "LICENSE", "README.md"} | links <= copied
    definition = (DOCKER / "scigpt.def").read_text(encoding="ascii")
    section = definition.partition("%files")[2].partition("%post")[0]
    assert {line.split()[0] for line in section.splitlines() if line.strip()} == copied


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.name)
def test_an_image_floats_nowhere_and_is_run_by_nobody_special(file: Path) -> None:
    found = instructions(file)
    for base in (rest for name, rest in found if name == "FROM"):
        assert re.search(r":[\w.-]*\d", base), f"{base} has no tag with a version"
    assert [rest for name, rest in found if name == "USER"][-1].isdigit()
    for line in (rest for name, rest in found if name == "RUN" and "pip install" in rest):
        for command in re.findall(r"pip install ([^&;]*)", line):
            packages = [w for w in command.split() if not w.startswith("-") and w not in ("constraints.txt", '"$TORCH_INDEX"')]
            assert "--constraint constraints.txt" in command or all("==" in p for p in packages), command


def test_versions_are_the_tested_ones() -> None:
    assert f"mlflow=={constraints()['mlflow']} " in (DOCKER / "Dockerfile.mlflow").read_text(encoding="ascii")
    assert "deepspeed" in constraints()


def test_the_mlflow_image_has_the_driver_that_its_database_is_opened_with() -> None:
    """`postgresql://` alone means psycopg2 to SQLAlchemy 2.0 and psycopg to 2.1."""
    mlflow = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="ascii"))["services"]["mlflow"]
    driver = make_url(re.sub(r"\$\{.*?\}", "x", mlflow["environment"]["MLFLOW_BACKEND_STORE_URI"])).get_driver_name()
    dockerfile = DOCKER / mlflow["build"]["context"] / mlflow["build"]["dockerfile"]
    assert re.search(rf" {driver}(-binary)?==", dockerfile.read_text(encoding="ascii"))


def test_no_password_has_a_default_and_only_mlflow_listens() -> None:
    compose = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="ascii"))
    assert compose["services"].keys() == {"database", "store", "bucket", "mlflow"}
    assert [name for name, service in compose["services"].items() if "ports" in service] == ["mlflow"]
    assert compose["services"]["mlflow"]["ports"] == ["${MLFLOW_BIND:-127.0.0.1}:5000:5000"]
    for service in compose["services"].values():
        assert "image" not in service or re.search(r":[\w.-]*\d", service["image"])
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|KEY|USER|MC_HOST|STORE_URI", name) and name != "POSTGRES_USER":
                assert re.search(r"\$\{\w+:\?", value), f"{name} has a value in the file"
    assert compose["volumes"].keys() == {"database", "store"}
    for line in (DOCKER / "env.example").read_text(encoding="ascii").splitlines():
        assert not re.match(r"(POSTGRES_PASSWORD|S3_USER|S3_PASSWORD)=.+", line)
    assert "docker/.env" in (ROOT / ".gitignore").read_text(encoding="ascii").splitlines()
