"""Leases: whoever comes, one has it; a lost one is taken over, by one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

from scigpt.launch.sweep import lease
from scigpt.launch.sweep.lease import EXPIRY, Lease, Owner, held

CONTEND = """
import sys, time
from pathlib import Path
from scigpt.launch.sweep.lease import Lease
path, gate, rounds = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
(gate / f"here-{sys.argv[4]}").touch()
for i in range(rounds):
    while not (gate / f"go-{i}").exists():
        pass
    found = Lease.take(path / str(i) / "lease.json")
    print(int(found is not None and found.touch()), flush=True)
time.sleep(60)
"""


def lost(path: Path, **more: object) -> Owner:
    """Leave the lease of a machine that was not heard of for long."""
    owner = replace(Owner("elsewhere", 12, "another boot", "7", "feed"), **more)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(owner)))
    old = path.stat().st_mtime - EXPIRY - 1
    os.utime(path, (old, old))
    return owner


def test_one_has_it_until_it_is_given_back(tmp_path: Path) -> None:
    path = tmp_path / "row" / "lease.json"
    mine = Lease.take(path)
    assert mine is not None
    assert (mine.before, mine.touch(), Lease.take(path)) == (None, True, None)
    found = held(path)
    assert found is not None
    assert (found.owner, found.owner.pid) == (mine.owner, os.getpid())
    mine.release()
    assert held(path) is None
    again = Lease.take(path)
    assert again is not None
    mine.release()  # is no longer its own
    assert again.touch()


def test_a_live_owner_elsewhere_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "lease.json"
    lost(path)
    os.utime(path)
    assert Lease.take(path) is None


def test_many_see_a_lost_owner_and_one_follows(tmp_path: Path) -> None:
    """Six processes, twenty leases; some of them empty, as of a machine that was lost while it made one."""
    rounds, contenders = 20, 6
    for i in range(rounds):
        lost(tmp_path / str(i) / "lease.json", token=f"old-{i}")
        if i % 5 == 4:
            path = tmp_path / str(i) / "lease.json"
            path.write_bytes(b"")
            os.utime(path, (0, 0))
    command = [sys.executable, "-c", CONTEND, str(tmp_path), str(tmp_path), str(rounds)]
    jobs = [subprocess.Popen([*command, str(n)], stdout=subprocess.PIPE, text=True) for n in range(contenders)]
    try:
        while len(list(tmp_path.glob("here-*"))) < contenders:
            assert all(j.poll() is None for j in jobs)
        for i in range(rounds):
            (tmp_path / f"go-{i}").touch()
            assert sum(int(j.stdout.readline()) for j in jobs if j.stdout) == 1
        assert not list(tmp_path.glob("*/lease.json.*"))
        kept = held(tmp_path / "0" / "lease.json")
        assert kept is not None
        assert not kept.stale(lease.now(tmp_path))
    finally:
        for job in jobs:
            job.kill()
            job.communicate()
    assert kept.stale(lease.now(tmp_path))  # known to be dead at once, without waiting


def test_who_was_silent_too_long_has_lost_it(tmp_path: Path) -> None:
    path = tmp_path / "lease.json"
    slow = Lease.take(path)
    assert slow is not None
    path.unlink()
    other = lost(path)
    next_one = Lease.take(path)
    assert next_one is not None
    assert next_one.before is not None
    assert next_one.before.owner == other
    assert not slow.touch()
    slow.release()
    assert next_one.touch()


def test_a_claim_whose_maker_died_does_not_block(tmp_path: Path) -> None:
    path = tmp_path / "lease.json"
    lost(path)
    lost(tmp_path / "lease.json.feed", token="cafe")
    assert Lease.take(path) is None  # clears the way
    assert Lease.take(path) is not None
