"""A thousand damaged files: each is refused in one sentence or becomes a whole corpus, and no damage that can be seen is passed over.

The program runs in processes of its own, because a library that trusts a file may end the process; such an end is a failure.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from damage import GROUND, LONGEST, REAL, Case, contents, copy, protected, real, spoken

MUTATIONS = int(os.environ.get("SCIGPT_MUTATIONS", "1000"))
KINDS = ("truncate", "flip", "flips", "zero", "swap", "append", "duplicate")
SECONDS = 180.0
"""After which a file counts as one that hangs the program."""
MEMORY = 8 << 30
"""Address space of a process: a header that promises a million times the bytes of its file must not be believed."""
HEAVY = {"HLS.L30.T06WVS.2024120T211159.v2.0.Fmask.tif": 0.2}
"""Share of the usual number of mutations of a sample of which a whole one takes long."""

WORKER = """
import json, os, resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]), int(sys.argv[2])))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
from damage import contents
from scigpt.data.verify import verify
from scigpt.launch.cli import main
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
for line in sys.stdin:
    words, out = json.loads(line)
    os.ftruncate(2, 0)
    os.lseek(2, 0, os.SEEK_SET)
    try:
        main(words)
        code = 0
    except SystemExit as left:
        code = left.code or 0
    except BaseException:
        import traceback
        traceback.print_exc()
        code = 1
    sys.stderr.flush()
    problems, found = ([], []) if code else (verify(out), contents(Path(out)))
    answers.write(json.dumps([code, problems, found]) + "\\n")
    answers.flush()
"""


@dataclass(frozen=True)
class Mutation:
    """What is done to a sample; everything follows from the number."""

    number: int
    case: Case
    kind: str

    def apply(self, data: bytes) -> tuple[bytes, list[tuple[int, int]]]:
        """The damaged bytes, and the ranges of the old ones that were changed (those that were cut off or moved reach to the end)."""
        generator = np.random.default_rng([7, self.number])
        size = len(data)
        at, other = (int(generator.integers(size)) for _ in range(2))
        width = max(1, int(min(size // 4, 2 ** generator.uniform(0, 14))))
        if self.kind == "truncate":
            return data[:at], [(at, size)]
        if self.kind in ("flip", "flips"):
            places = sorted({int(p) for p in generator.integers(0, size, 1 if self.kind == "flip" else 16)})
            flipped = bytearray(data)
            for place in places:
                flipped[place] ^= 1 << int(generator.integers(8))
            return bytes(flipped), [(p, p + 1) for p in places]
        if self.kind == "zero":
            return data[:at] + bytes(len(data[at : at + width])) + data[at + width :], [(at, at + width)]
        if self.kind == "append":
            return data + generator.bytes(width), []
        if self.kind == "duplicate":
            return data[:at] + data[at : at + width] + data[at:], [(at, size)]
        first, second = sorted((at // width * width, other // width * width))
        a, b = data[first : first + width], data[second : second + width]
        swapped = data if first == second else data[:first] + b + data[first + width : second] + a + data[second + width :]
        return swapped, [(first, first + width), (second, second + width)]


EVERY = (*REAL, *GROUND)


def mutations() -> list[Mutation]:
    weights = np.array([HEAVY.get(case.path.rpartition("/")[2], 1.0) for case in EVERY])
    which = np.random.default_rng(11).choice(len(EVERY), MUTATIONS, p=weights / weights.sum())
    return [Mutation(i, EVERY[c], KINDS[i % len(KINDS)]) for i, c in enumerate(which.tolist())]


class Program:
    """A process that runs one command after another; another one takes its place when it dies or hangs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said = folder / "stderr"
        self.process: subprocess.Popen[str] | None = None

    def run(self, words: list[str], out: Path) -> tuple[Any, str]:
        """Exit code, problems and contents, or the word `crash` or `hang`; and all that was written to standard error."""
        if self.process is None or self.process.poll() is not None:
            command = [sys.executable, "-c", WORKER, str(Path(__file__).parents[1]), str(MEMORY)]
            environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
            with self.said.open("w") as said:
                pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": said}
                self.process = subprocess.Popen(command, text=True, env=environment, **pipes)
        process = self.process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps([words, str(out)]) + "\n")
        process.stdin.flush()
        answer = _line(process.stdout, SECONDS)
        if answer is None:
            process.kill()
        if not answer:
            code = process.wait()
            what = "hang" if answer is None else f"crash ({signal.Signals(-code).name if code < 0 else code})"
            return what, self.said.read_text(errors="replace")
        return json.loads(answer), self.said.read_text(errors="replace")

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


def _line(stream: IO[str], seconds: float) -> str | None:
    """The next line; empty at the end; None when it does not come in time."""
    got: queue.Queue[str] = queue.Queue()
    threading.Thread(target=lambda: got.put(stream.readline()), daemon=True).start()
    try:
        return got.get(timeout=seconds)
    except queue.Empty:
        return None


class Drill:
    """The outcome of each mutation, and what is wrong with some."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.counts: Counter[tuple[str, str]] = Counter()
        self.wrong: list[str] = []
        self.whole: dict[Case, list[list[str]]] = {}
        self.ranges: dict[Path, list[tuple[int, int]]] = {}
        self.lock = threading.Lock()

    def __call__(self, program: Program, mutation: Mutation) -> None:
        case, place = mutation.case, program.folder / f"{mutation.number}"
        path = copy(case, place / "input")
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
        target = files[mutation.number % len(files)]
        data = target.read_bytes()
        damaged, changed = mutation.apply(data)
        target.write_bytes(damaged)
        out = place / "out"
        answer, said = program.run(["data", "prepare", case.source, "--input", str(path), "--out", str(out), *case.words], out)
        left = sorted(p.name for p in place.iterdir() if p.name != "input")
        same = isinstance(answer, list) and answer[0] == 0 and answer[2] == self.whole[case]
        outcome, fault = _judge(case, answer, said, left)
        if outcome == "accepted" and not same and damaged != data:
            if mutation.kind in ("truncate", "append") and not case.open_end:
                fault = f"a file of {len(data)} bytes that was changed to {len(damaged)} gives other values"
            elif changed and all(self._protected(real(case), target, path, c) for c in changed):
                fault = f"bytes under a checksum were changed ({changed[:3]}) and other values read"
        shutil.rmtree(place)
        with self.lock:
            self.counts[outcome if outcome != "accepted" else ("the same values" if same else "other values"), mutation.kind] += 1
            if fault:
                self.wrong.append(f"{mutation.number} {mutation.kind} of {target.name} of {case}: {fault}")

    def _protected(self, original: Path, target: Path, path: Path, changed: tuple[int, int]) -> bool:
        if path.is_dir():
            return False
        with self.lock:
            ranges = self.ranges.setdefault(original, protected(original))
        return any(a <= changed[0] and changed[1] <= b for a, b in ranges)


def _judge(case: Case, answer: Any, said: str, left: list[str]) -> tuple[str, str]:
    """The outcome in a word, and what is wrong with it."""
    if isinstance(answer, str):
        return answer.partition(" ")[0], f"{answer}: {said[-400:]}"
    code, problems, _ = answer
    if code == 0:
        return "accepted", "" if left == ["out"] and not problems else f"left {left}, {problems}"
    sentence = spoken(case.source, said)
    if code != 2 or left:
        return "wrong", f"exit code {code}, left {left}: {sentence[-400:]}"
    if sentence.count("\n") or not sentence.startswith("scigpt: ") or len(sentence) > LONGEST:
        return "wrong", f"not one sentence: {sentence[-600:]}"
    return "refused", ""


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[list[Program]]:
    made = []
    for number in range(2):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        made.append(Program(folder))
    yield made
    for program in made:
        program.end()


@pytest.mark.drill
def test_damage_is_refused_or_harmless(tmp_path: Path, programs: list[Program], capsys: pytest.CaptureFixture[str]) -> None:
    drill = Drill(tmp_path)
    for case in EVERY:
        out = tmp_path / "whole"
        path = copy(case, tmp_path / "whole input")
        answer, said = programs[0].run(["data", "prepare", case.source, "--input", str(path), "--out", str(out), *case.words], out)
        assert answer[:2] == [0, []], said
        drill.whole[case] = contents(out)
        shutil.rmtree(out)
        shutil.rmtree(path.parent)
    todo: queue.SimpleQueue[Mutation] = queue.SimpleQueue()
    for mutation in mutations():
        todo.put(mutation)

    def work(program: Program) -> None:
        while not todo.empty():
            drill(program, todo.get())

    threads = [threading.Thread(target=work, args=(p,)) for p in programs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = [f"{outcome} ({kind}): {number}" for (outcome, kind), number in sorted(drill.counts.items())]
    with capsys.disabled():
        sys.stdout.write("\n" + "\n".join(told) + "\n")
    assert sum(drill.counts.values()) == MUTATIONS
    assert not drill.wrong, f"{len(drill.wrong)} of {MUTATIONS}:\n" + "\n".join(drill.wrong)
