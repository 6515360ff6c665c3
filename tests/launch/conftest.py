"""What tests of several commands share."""

from __future__ import annotations

import pytest
from known_sweep import planned

from scigpt.launch.sweep.table import Table


@pytest.fixture(scope="session")
def known_sweep(tmp_path_factory: pytest.TempPathFactory) -> Table:
    """A sweep with results, see `known_sweep.planned`; its base configuration logs to MLflow."""
    return planned(tmp_path_factory.mktemp("known"))
