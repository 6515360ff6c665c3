"""The project as a whole: what is installed, which floor imports which, what no file may contain."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
FLOORS = {"launch": "scigpt.launch", "data_prep": "scigpt.data_prep", "scigpt": "scigpt"}
FOLDERS = (*FLOORS, "configs", "slurm", "docker", "tests", "docs", ".ci")


def files(*folders: str) -> Iterator[Path]:
    """Files of these folders, each once: the links inside `scigpt` are not followed."""
    for folder in folders:
        for directory, names, found in os.walk(ROOT / folder):
            names[:] = [n for n in names if n != "__pycache__" and not n.endswith(".egg-info")]
            yield from (Path(directory) / n for n in found)


def modules() -> dict[str, Path]:
    """Import name -> file of every module of the library."""
    named = {}
    for folder, package in FLOORS.items():
        for path in files(folder):
            if path.suffix == ".py":
                parts = path.relative_to(ROOT / folder).with_suffix("").parts
                named[".".join((package, *parts)).removesuffix(".__init__")] = path
    return named


def imports(source: str, module: str, is_package: bool) -> set[str]:
    """Every name that an import statement names, wherever it stands: `from a.b import c` gives `a.b.c`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = module.split(".")[: None if is_package and node.level == 1 else -max(node.level - is_package, 1)]
            base = ".".join([*(parents if node.level else []), *([node.module] if node.module else [])])
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


def floor(name: str) -> str:
    """`scigpt.data.sample.Sample` -> `data`; `errors` and other single files of the library are the ground."""
    second = name.split(".")[1:2]
    return second[0] if second and (ROOT / "scigpt" / second[0]).is_dir() else "ground"


def may_import(importer: str) -> set[str]:
    library = {path.name for path in (ROOT / "scigpt").iterdir() if path.is_dir() and not path.is_symlink()}
    below: dict[str, set[str]] = {"ground": set(), "data": set(), "model": {"data"}, "data_prep": {"data"}}
    below["launch"] = library | {"data_prep"}
    return {importer, "ground"} | below.get(importer, library)


def forbidden(source: str, module: str, is_package: bool = False) -> list[str]:
    """Imports of a floor above or beside, and of our folders by their bare names."""
    names = imports(source, module, is_package)
    own = "front door" if module == "scigpt" else floor(module)  # `scigpt.load` leads to everything above the ground
    above = [n for n in names if n.split(".")[0] == "scigpt" and floor(n) not in may_import(own)]
    return sorted(above + [n for n in names if n.split(".")[0] in {"launch", "data_prep", "configs", "tests", "slurm"}])


def test_a_floor_imports_only_floors_below_it() -> None:
    wrong = {
        name: found
        for name, path in modules().items()
        if (found := forbidden(path.read_text(encoding="utf-8"), name, path.name == "__init__.py"))
    }
    assert not wrong


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("scigpt.data.shard", "from scigpt.model.backbone import SciGPT"),
        ("scigpt.data.shard", "from scigpt import train"),
        ("scigpt.data.shard", "from .. import model"),
        ("scigpt.data.shard", "def f():\n    import scigpt.train.engine"),
        ("scigpt.model.backbone", "import scigpt.train"),
        ("scigpt.train.engine", "from scigpt.data_prep.convert import convert"),
        ("scigpt.train.engine", "from ..launch import cli"),
        ("scigpt.data_prep.convert", "from scigpt.model import backbone"),
        ("scigpt.errors", "import scigpt.data"),
        ("scigpt.data.shard", "import data_prep"),
    ],
)
def test_an_import_of_a_higher_floor_is_found(module: str, source: str) -> None:
    assert forbidden(source, module)


def test_imports_of_lower_floors_are_allowed() -> None:
    assert not forbidden("from scigpt.data.sample import Sample\nfrom ..errors import UserError\nimport torch", "scigpt.train.engine")
    assert not forbidden("from .sample import Sample\nfrom . import shard", "scigpt.data", is_package=True)


def declared() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = project["dependencies"] + [line for extra, needs in extras.items() if extra != "dev" for line in needs]
    return {canonicalize_name(Requirement(line).name) for line in lines}


def test_every_library_that_is_imported_is_declared() -> None:
    owners = packages_distributions()
    undeclared = {}
    for name, path in modules().items():
        for top in {n.split(".")[0] for n in imports(path.read_text(encoding="utf-8"), name, path.name == "__init__.py")}:
            if top not in sys.stdlib_module_names and not {canonicalize_name(o) for o in owners.get(top, [top])} & declared():
                undeclared[name] = top
    assert not undeclared


def test_ruff_refuses_what_could_run_code_from_a_file() -> None:
    bad = "import pickle\nimport torch\nimport yaml\n\nprint(torch.load('x'), yaml.load('x'), eval('1'), pickle)\n"
    command = [sys.executable, "-m", "ruff", "check", "--output-format", "concise", "--stdin-filename", "scigpt/data/bad.py", "-"]
    output = subprocess.run(command, input=bad, cwd=ROOT, capture_output=True, text=True).stdout
    for expected in ("`pickle` is banned", "`torch.load` is banned", "`yaml.load` is banned", "T201", "S307"):
        assert expected in output


def test_no_array_is_unpickled() -> None:
    allowed = re.compile(r"allow_pickle\s*=\s*False")
    wrong = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in modules().values()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if "allow_pickle" in allowed.sub("", line)
    ]
    assert not wrong


def test_file_names_are_ascii_and_no_file_names_a_place_on_one_machine() -> None:
    place = re.compile(rb"(?<![\w.~-])/(?:work|root|home|Users)/")
    paths = [*files(*FOLDERS), *(p for p in ROOT.iterdir() if p.is_file())]
    assert not [str(p) for p in paths if not str(p.relative_to(ROOT)).isascii()]
    assert not [str(p.relative_to(ROOT)) for p in paths if place.search(p.read_bytes())]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy, so that neither old builds nor the checkout take part."""
    copy = tmp_path_factory.mktemp("copy")
    for name in (*FLOORS, "configs", "slurm"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    command = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", "dist"]
    built = subprocess.run(command, cwd=copy, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    (path,) = (copy / "dist").glob("*.whl")
    return path


def test_the_wheel_holds_everything_and_claims_one_name(wheel: Path) -> None:
    names = {n for n in zipfile.ZipFile(wheel).namelist() if not n.endswith("/")}
    assert {n.split("/")[0] for n in names} == {"scigpt", wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info"}
    shipped = {
        "/".join(["scigpt", *([] if folder == "scigpt" else [folder]), *path.relative_to(ROOT / folder).parts])
        for folder in (*FLOORS, "configs", "slurm")
        for path in files(folder)
        if path.suffix in {".py", ".typed", ".yaml", ".sbatch", ".html"}
    }
    assert shipped <= names
    assert {"scigpt/py.typed", "scigpt/data_prep/source.py", "scigpt/launch/cli.py"} <= names


def test_the_wheel_works_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    script = "import scigpt, scigpt.data.sample, scigpt.data_prep.source, scigpt.launch.cli; print(scigpt.launch.cli.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == tmp_path / "site" / "scigpt" / "launch" / "cli.py"


def licences(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / ".ci" / "licences.py"), *arguments]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)


def test_no_dependency_is_gpl() -> None:
    done = licences()
    assert done.returncode == 0, done.stderr
    assert "torch " in done.stdout
    assert re.search(r"^obspy .*LGPLv3.*\(extra\)$", done.stdout, re.M)


@pytest.mark.parametrize(
    ("stated", "extra", "accepted"),
    [
        ("License-Expression: MIT", "", True),
        ("License-Expression: GPL-3.0-or-later OR MIT", "", True),
        ("License-Expression: BSD-3-Clause AND GPL-3.0-or-later WITH GCC-exception-3.1", "", True),
        ("License-Expression: LGPL-3.0-only", "; extra == 'more'", True),
        ("License-Expression: LGPL-3.0-only", "", False),
        ("License-Expression: GPL-3.0-only", "; extra == 'more'", False),
        ("License-Expression: MIT AND AGPL-3.0-only", "", False),
        ("Classifier: License :: OSI Approved :: GNU General Public License v3 (GPLv3)", "", False),
        ("License: whatever we like", "", False),
    ],
)
def test_licences_are_told_apart(tmp_path: Path, stated: str, extra: str, accepted: bool) -> None:
    for name, lines in {"house": f"Provides-Extra: more\nRequires-Dist: brick{extra}", "brick": stated}.items():
        folder = tmp_path / f"{name}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.0\n{lines}\n", encoding="ascii")
    done = licences("house", PYTHONPATH=str(tmp_path))
    assert (done.returncode == 0) == accepted, done.stdout + done.stderr


WHOLE_FILE = "import pytest\n\npytest.skip({!r}, allow_module_level=True)\n"
ONE_TEST = "import pytest\n\n@pytest.mark.skip({!r})\ndef test_skipped(): ...\n"


@pytest.mark.parametrize(
    ("form", "reason", "workers", "code"),
    [
        (ONE_TEST, "SCIGPT_REALDATA is not set", 1, 0),
        (ONE_TEST, "did not feel like it", 0, 1),
        (WHOLE_FILE, "did not feel like it", 1, 1),
    ],
)
def test_a_skip_needs_an_accepted_reason(tmp_path: Path, form: str, reason: str, workers: int, code: int) -> None:
    for name in ("conftest.py", "allowed_skips.txt"):
        shutil.copy(Path(__file__).parent / name, tmp_path)
    (tmp_path / "test_it.py").write_text(form.format(reason), encoding="ascii")
    (tmp_path / "test_other.py").write_text("def test_other(): ...\n", encoding="ascii")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", str(workers), "--rootdir", str(tmp_path), str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == code, done.stdout
