"""Leases: of many workers on many machines, one at a time has a row.

A lease is a file, made with O_EXCL and kept fresh by touching it; it needs no locks, so it holds on NFS too. Its owner may vanish in any
way: a lease that was not touched for `EXPIRY` seconds, or whose process is known to be dead, may be taken over, by one.

All times are those of the file server: a file is touched and its time read, so the clocks of the machines do not matter.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

HEARTBEAT = 10.0
"""Seconds between two touches of a lease."""
EXPIRY = 6 * HEARTBEAT
"""Seconds without a touch after which its owner counts as lost."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Who holds a lease.

    Args:
        host, pid: for people.
        place: the boot of the machine and the space of process ids; empty where the system does not tell.
        started: when the process began, in ticks of that boot: ids are used again.
        token: of this one lease.
        job: of SLURM, empty without.
    """

    host: str = ""
    pid: int = 0
    place: str = ""
    started: str = ""
    token: str = ""
    job: str = ""

    @classmethod
    def here(cls) -> Owner:
        job = os.environ.get("SLURM_JOB_ID", "")
        return cls(socket.gethostname(), os.getpid(), _place(), _started(os.getpid()), secrets.token_hex(8), job)

    @property
    def name(self) -> str:
        """Short, for tables."""
        return f"{self.host}:{self.pid}" + (f" (job {self.job})" if self.job else "")

    @property
    def dead(self) -> bool:
        """Whether it is known to be dead: it lived here, under this boot, and no such process is left."""
        return bool(self.place) and self.place == _place() and _started(self.pid) != self.started


@dataclass(frozen=True, slots=True)
class Held:
    """A lease as it is found on disk: whose, and when it was touched last (seconds since 1970)."""

    owner: Owner
    touched: float

    def stale(self, now: float) -> bool:
        """Whether it may be taken over."""
        return self.owner.dead or now - self.touched > EXPIRY


def held(path: Path) -> Held | None:
    """The lease that is there now; None when it is free. One that its maker had no time to fill has an owner without a name."""
    try:
        with open(path, "rb") as file:  # opening asks the server: the times of a file that is not opened may be a minute old
            touched, data = os.fstat(file.fileno()).st_mtime, file.read()
    except FileNotFoundError:
        return None
    try:
        return Held(Owner(**json.loads(data)), touched)
    except (ValueError, TypeError):
        return Held(Owner(), touched)


def now(folder: Path) -> float:
    """Time of the file server that has this folder; of this machine where nothing can be written."""
    mark = folder / f".clock-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        with open(mark, "xb") as file:
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return time.time()
    finally:
        with suppress(OSError):
            mark.unlink()


class Lease:
    """A lease of ours; use `take`.

    Args:
        before: the lost lease that was taken over, None for a row that was free.
    """

    def __init__(self, path: Path, owner: Owner, before: Held | None) -> None:
        self.path, self.owner, self.before = path, owner, before
        self._touched = time.monotonic()

    @classmethod
    def take(cls, path: Path) -> Lease | None:
        """Take a row that is free, or whose owner is lost; None when another has it, or was faster."""
        path.parent.mkdir(parents=True, exist_ok=True)
        owner = Owner.here()
        if _make(path, owner):
            return cls(path, owner, None)
        found = held(path)
        if found is None or not found.stale(now(path.parent)):
            return None
        return cls(path, owner, found) if _succeed(path, owner, found) else None

    def beat(self) -> bool:
        """Touch it when that is due; False when it is no longer ours, so that its row must be left alone at once."""
        if time.monotonic() - self._touched < HEARTBEAT:
            return True
        return self.touch()

    def touch(self) -> bool:
        """Touch it now; False when it is no longer ours."""
        found = held(self.path)
        if found is None or found.owner.token != self.owner.token:
            return False
        try:
            os.utime(self.path)
        except FileNotFoundError:
            return False
        self._touched = time.monotonic()
        return True

    def release(self) -> None:
        """Give it back. After a silence so long that another may have come, it is left to expire."""
        if time.monotonic() - self._touched < EXPIRY / 2 and self.touch():
            self.path.unlink(missing_ok=True)


def _make(path: Path, owner: Owner) -> bool:
    try:
        with open(path, "xb") as file:
            file.write(json.dumps(asdict(owner)).encode())
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        return False
    return True


def _succeed(path: Path, owner: Owner, lost: Held) -> bool:
    """Take over from a lost owner.

    The name of the claim holds the lost token: of all who saw this owner lost one makes the file. It looks again, because another may have
    taken over, finished and gone since, and puts its claim in the place of the lease by a rename. Who is named there then has it; that
    settles also what a claimant leaves that dies in between.
    """
    claim = path.with_name(f"{path.name}.{lost.owner.token or 'nameless'}")
    if not _make(claim, owner):
        other = held(claim)
        if other is not None and other.stale(now(path.parent)):
            claim.unlink(missing_ok=True)  # the next look at this row finds the way free
        return False
    found = held(path)
    if found is None or found.owner.token != lost.owner.token:
        claim.unlink(missing_ok=True)
        return False
    with suppress(FileNotFoundError):
        os.replace(claim, path)
    found = held(path)
    return found is not None and found.owner.token == owner.token


def _place() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + " " + os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When a process began; empty when there is none, or it has ended and nobody has asked for its code yet."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
