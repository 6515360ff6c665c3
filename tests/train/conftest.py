from __future__ import annotations

import logging
from pathlib import Path

import pytest
from runs import make_corpus


@pytest.fixture(scope="session")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two corpora of different grids."""
    folder = tmp_path_factory.mktemp("corpora")
    return [make_corpus(folder), make_corpus(folder, "wide", size=12, seed=100)]


@pytest.fixture(autouse=True)
def _heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line keeps what the library logs to itself; `caplog` listens at the root."""
    monkeypatch.setattr(logging.getLogger("scigpt"), "propagate", True)
    # what an earlier test of the command line has left there writes to a stream that is closed by now
    monkeypatch.setattr(logging.getLogger("scigpt"), "handlers", [])
