"""What tests of the whole program share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import slurm


@pytest.fixture(scope="module")
def cluster() -> Iterator[slurm.Cluster]:
    """A running SLURM of two nodes."""
    with slurm.cluster() as running:
        yield running
