"""A node for `test_submit.py`: the check before a job under several conditions, one after the other; codes and what it says as JSON."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import time
from collections.abc import Iterator
from unittest.mock import patch

from scigpt.launch.preflight import main


@contextlib.contextmanager
def ahead(seconds: float) -> Iterator[None]:
    """With a clock that is wrong."""
    real = time.time
    with patch.object(time, "time", lambda: real() + seconds):
        yield


if __name__ == "__main__":
    found = []
    for flight in json.loads(sys.argv[1]):
        os.environ["MASTER_PORT"] = str(flight["port"])
        said = io.StringIO()
        with ahead(flight["ahead"]), contextlib.redirect_stderr(said):
            code = main(flight["words"])
        found.append([code, said.getvalue()])
    sys.stdout.write(json.dumps(found))
