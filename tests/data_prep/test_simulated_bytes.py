"""Bytes of simulated corpora: they depend on the sample alone, not on order, split sizes, process or number of workers."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scigpt.data.sample import Sample
from scigpt.data_prep.convert import convert
from scigpt.data_prep.pde import EQUATIONS
from scigpt.data_prep.pde.acoustic_waves import AcousticWavesOptions
from scigpt.data_prep.pde.advection_diffusion_3d import AdvectionDiffusion3DOptions
from scigpt.data_prep.pde.euler import EulerOptions
from scigpt.data_prep.pde.gray_scott import GrayScottOptions
from scigpt.data_prep.pde.passive_scalar import PassiveScalarOptions
from scigpt.data_prep.pde.shallow_water import ShallowWaterOptions
from scigpt.data_prep.pde.taylor_green import TaylorGreenOptions

FEW: dict[str, Any] = {"train": 3, "valid": 1, "test": 1, "ood": 2, "frames": 3, "grid": 16}
SMALL: dict[str, Any] = {
    "acoustic-waves": AcousticWavesOptions(**FEW, width_low=0.1, width_high=0.2),
    "advection-diffusion-3d": AdvectionDiffusion3DOptions(**FEW, peak=2),
    "euler": EulerOptions(**FEW),
    "gray-scott": GrayScottOptions(**FEW),
    "passive-scalar": PassiveScalarOptions(**FEW, peak=2.0, resolution=0.5),
    "shallow-water": ShallowWaterOptions(**FEW, peak=1.0, boundary="wall"),
    "taylor-green": TaylorGreenOptions(**FEW, resolution=0.5),
}


def digest(samples: list[Sample]) -> list[str]:
    parts = [(s.values.tobytes(), s.valid.tobytes(), json.dumps(s.meta(), sort_keys=True).encode()) for s in samples]
    return [hashlib.sha256(b"".join(p)).hexdigest() for p in parts]


def all_digests() -> list[str]:
    sources = [EQUATIONS[name]((), options) for name, options in SMALL.items()]
    return [d for source in sources for d in digest(list(source.samples(source.plan().refs)))]


@pytest.mark.parametrize("name", SMALL)
def test_bytes_depend_on_the_sample_alone(name: str) -> None:
    source = EQUATIONS[name]((), SMALL[name])
    refs = source.plan().refs
    together = digest(list(source.samples(refs)))
    assert len(set(together)) == len(refs)
    assert digest([s for r in reversed(refs) for s in source.samples([r])]) == together[::-1]
    larger = EQUATIONS[name]((), replace(SMALL[name], train=5, valid=2))
    wanted = {r.key: r for r in larger.plan().refs}
    assert digest(list(larger.samples([wanted[r.key] for r in refs]))) == together
    reseeded = EQUATIONS[name]((), replace(SMALL[name], seed=1))
    assert digest(list(reseeded.samples(reseeded.plan().refs[:1]))) != together[:1]


def test_bytes_are_those_of_another_process() -> None:
    program = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_simulated_bytes as t; print(*t.all_digests())"
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert other.stdout.split() == all_digests()


@pytest.mark.parametrize("name", [n if n in ("gray-scott", "shallow-water") else pytest.param(n, marks=pytest.mark.drill) for n in SMALL])
def test_the_same_corpus_from_one_process_and_from_two(name: str, tmp_path: Path) -> None:
    source = EQUATIONS[name]((), SMALL[name])
    out = [tmp_path / str(workers) / "corpus" for workers in (1, 2)]
    folders = [convert(source, o, workers=w, shard_bytes=1 << 16, progress=False) for w, o in enumerate(out, 1)]
    one, two = ({p.name: p.read_bytes() for p in sorted(f.glob("*")) if p.suffix in (".tar", ".json")} for f in folders)
    assert len(one) > 6
    assert one == two
