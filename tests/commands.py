"""The command line in this process: what it prints, and how it ends."""

from __future__ import annotations

import contextlib
import io

import pytest

from scigpt.launch.cli import main


def command(*words: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `scigpt WORDS`."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as left:
        main([str(w) for w in words])
    return int(left.value.code or 0), out.getvalue(), err.getvalue()


def done(*words: object) -> str:
    """Standard output of a command that must succeed."""
    code, out, err = command(*words)
    assert code == 0, err
    return out
