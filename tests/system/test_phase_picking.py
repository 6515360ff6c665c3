"""`configs/picking.yaml`: a small model learns where P and S arrive in simulated seismograms, and picks P within two samples in nine of ten
records that it has never seen, at signal-to-noise 10."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from scigpt.data.corpus import Corpus
from scigpt.data.mixture import CorpusConfig
from scigpt.data_prep.convert import convert
from scigpt.data_prep.pde.seismograms import SeismogramOptions, Seismograms
from scigpt.evaluate.evaluate import TrainedRun
from scigpt.evaluate.picking import PickScores, pick, score_picks
from scigpt.evaluate.plan import Options, Subject, plan, scored_windows
from scigpt.train.config import load
from scigpt.train.engine import train

CONFIG = Path(__file__).parents[2] / "configs" / "picking.yaml"
THRESHOLD, DISTANCE, TOLERANCE = 0.3, 50, 2
RECORDS = 512
ARRIVALS = re.compile(r"P at ([\d.]+) s, S at ([\d.]+) s")


def arrivals(corpus: Corpus, entries: list[int], rate: float = 100.0) -> np.ndarray:
    """Exact arrivals in samples `(N, 2)`, of P and S; NaN in records of noise."""
    found = (ARRIVALS.search(corpus.read("test", entry).origin.place) for entry in entries)
    return rate * np.array([[float(f) for f in each.groups()] if each else [np.nan, np.nan] for each in found])


def scores(run: Path, folder: Path) -> tuple[PickScores, PickScores, float]:
    """Of P and of S on the held-out records, and the share of the records of noise in which P is picked."""
    trained, corpus = TrainedRun.open(run), Corpus.open(folder)
    subject = Subject.of(corpus, CorpusConfig(str(folder)), trained.config.data, trained.config.task)
    items, batches = scored_windows(plan(subject, "test", Options()), trained.config.data.frames, RECORDS, "cpu", False, "picks")
    said = []
    with torch.no_grad():
        for _, batch in batches:
            labels = [v.predicted for v in batch.layout.variables]
            said.append(trained.model(batch).distribution.mean[:, -1, labels, 0, 0].numpy())
    probability, true = np.concatenate(said), arrivals(corpus, [item.entry for item in items])
    assert probability.shape == (RECORDS, 2, 1024)
    picks = [pick(probability[:, phase], THRESHOLD, DISTANCE) for phase in (0, 1)]
    p, s = (score_picks(found, true[:, phase, None], TOLERANCE) for phase, found in enumerate(picks))
    quiet = np.isnan(true[:, 0])
    false = float(np.mean([found.samples.size > 0 for found, none in zip(picks[0], quiet, strict=True) if none]))
    return p, s, false


@pytest.mark.drill
def test_p_is_picked_within_two_samples(tmp_path: Path, record_property: pytest.RecordProperty) -> None:
    taught = SeismogramOptions(train=4096, valid=64, test=0, ood=0, snr_low=5.0, snr_high=20.0)
    asked = SeismogramOptions(train=256, valid=0, test=RECORDS, ood=0, snr_low=10.0, snr_high=10.0, seed=5)
    for name, options in (("seismograms", taught), ("at10", asked)):
        convert(Seismograms((), options), tmp_path / name, progress=False)
    run = tmp_path / "run"
    train(load(CONFIG, [f"run={run}", f"data.corpora.0.path={tmp_path / 'seismograms'}", "report.mlflow=false"]))
    p, s, false = scores(run, tmp_path / "at10")
    record_property("P", p)
    record_property("S", s)
    record_property("P in noise", false)
    assert p.within >= 0.9
    assert s.within >= 0.9
    assert p.precision >= 0.9
    assert abs(p.residual_mean) < 0.5
    assert false <= 0.1
