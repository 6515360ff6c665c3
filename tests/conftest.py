"""Settings of the whole test run: a skipped test must have a reason we accepted, and property tests are repeatable in CI."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("scigpt", deadline=None, max_examples=50, derandomize="CI" in os.environ)
settings.load_profile("scigpt")

# what the exporters of torch write for their own developers, megabytes a program, which pytest would keep for its report
logging.getLogger("torch.__trace").propagate = False

ALLOWED_SKIPS = {
    line.partition("|")[0].strip()
    for line in (Path(__file__).parent / "allowed_skips.txt").read_text(encoding="ascii").splitlines()
    if line and not line.startswith("#")
}


LONG = (
    "test_strategies",
    "test_processes",
    "test_mlflow_server",
    "test_zero",
    "test_slurm",
    "test_predicted_memory",
    "test_faults",
    "test_frozen",
    "test_plan",
    "test_sweep_run",
    "test_local",
    "test_kill",
    "test_programs",
    "test_same_bytes",
)
"""Files of few and long tests. They go first, so that no worker is left alone with one of them at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


def _refused_skips(config: pytest.Config) -> list[str]:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    reasons = ((report.nodeid, str(report.longrepr[2]).removeprefix("Skipped: ")) for report in skipped)
    return [f"{test}: {reason}" for test, reason in reasons if reason not in ALLOWED_SKIPS]


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if exitstatus == pytest.ExitCode.OK and _refused_skips(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if refused := _refused_skips(config):
        terminalreporter.section("skipped for a reason that is not in tests/allowed_skips.txt", red=True)
        for line in refused:
            terminalreporter.line(line, red=True)
