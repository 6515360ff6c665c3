"""An installed package adds a source; one that is broken is told in a sentence and stops nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = """
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scigpt.data.sample import Origin, Sample, Time, Variable
from scigpt.data_prep.source import Description, Plan, SampleRef, Source, Split


@dataclass(frozen=True)
class BuoysOptions:
    samples: int = 2


class Buoys(Source):
    name = "buoys"
    Options = BuoysOptions

    @classmethod
    def describe(cls):
        return Description("buoys", "waves at sea", "none", "CC0-1.0")

    @classmethod
    def recognises(cls, path):
        return path.suffix == ".buoy"

    def plan(self):
        return Plan(tuple(SampleRef(f"b{i}", "train", {"i": i}) for i in range(self.options.samples)), (Split("train"),))

    def samples(self, refs):
        for ref in refs:
            values = np.full((4, 1, 1, 1, 1), ref.spec["i"], np.float32) + np.arange(4, dtype=np.float32)[:, None, None, None, None]
            yield Sample(values, np.ones(values.shape, bool), (Variable("wave_height", "m"),), Time.regular(0, 60, 4),
                         Origin("buoys", "CC0-1.0"))


class Nameless(Buoys):
    name = "somebody"


NUMBER = 7
"""
ENTRIES = """
[scigpt.sources]
buoys = tiny_buoys:Buoys
buoys-missing = tiny_buoys:Bouys
buoys-number = tiny_buoys:NUMBER
buoys-nameless = tiny_buoys:Nameless
buoys-broken = tiny_broken:Buoys
era5 = tiny_buoys:Buoys
generic = tiny_buoys:Buoys
"""
BROKEN = {
    "buoys-missing": "it cannot be imported: AttributeError: module 'tiny_buoys' has no attribute 'Bouys'",
    "buoys-number": "tiny_buoys:NUMBER is no subclass of scigpt.data_prep.source.Source",
    "buoys-nameless": "tiny_buoys:Nameless must have name = 'buoys-nameless' and a dataclass Options",
    "buoys-broken": "it cannot be imported: RuntimeError: out of order",
    "era5": "tiny_buoys:Buoys must have name = 'era5' and a dataclass Options",
    "generic": "tiny_buoys:Buoys must have name = 'generic' and a dataclass Options",
}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder that holds an installed package, as pip leaves it."""
    folder = tmp_path / "site"
    about = folder / "tiny_buoys-1.0.dist-info"
    about.mkdir(parents=True)
    (folder / "tiny_buoys.py").write_text(SOURCE)
    (folder / "tiny_broken.py").write_text("raise RuntimeError('out of order')\n")
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-buoys\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(ENTRIES)
    return folder


def scigpt(package: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A fresh process, because entry points are read when the registry is imported."""
    program = "from scigpt.launch.cli import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-c", program, *words], cwd=package.parent, env=environment, capture_output=True, text=True)


def test_a_package_adds_a_source_and_broken_ones_are_told(package: Path) -> None:
    listed = scigpt(package, "data", "sources", "--json")
    assert listed.returncode == 0, listed.stderr
    names = {r["name"] for r in json.loads(listed.stdout)["sources"]}
    assert {"buoys", "era5", "generic"} <= names
    assert not names & (BROKEN.keys() - {"era5", "generic"})
    assert sorted(listed.stderr.splitlines()) == sorted(
        f"the source {name} of the package tiny-buoys is left out: {why}" for name, why in BROKEN.items()
    )


def test_the_added_source_makes_a_corpus_in_worker_processes(package: Path) -> None:
    made = scigpt(package, "data", "prepare", "buoys", "--out", "made", "--workers", "2", "samples=3", "--json")
    assert made.returncode == 0, made.stderr
    summary = json.loads(made.stdout)
    assert (summary["recipe"]["source"], summary["splits"]["train"]["samples"]) == ("buoys", 3)
    assert scigpt(package, "data", "verify", "made").returncode == 0
    refused = scigpt(package, "data", "prepare", "buoys-broken", "--out", "x")
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].startswith("scigpt: there is no source 'buoys-broken'")
