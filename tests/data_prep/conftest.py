"""Servers for the tests of `scigpt data fetch`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """A web server, and nobody's credentials."""
    from servers import web

    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.delenv("EARTHDATA_TOKEN", raising=False)
    with web() as state:
        yield state


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    """A client of an S3 server."""
    from servers import s3_server

    with s3_server() as client:
        yield client
