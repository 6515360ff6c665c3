from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from toy import ToySource

from scigpt.data.corpus import Corpus
from scigpt.data.files import DiskFull
from scigpt.data.sample import Sample, SourceFile
from scigpt.data.verify import verify
from scigpt.data_prep.convert import convert
from scigpt.data_prep.source import Plan, SampleRef, Split
from scigpt.errors import UserError

SHARD = 6000
TESTS = Path(__file__).parents[1]
PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from toy import ToySource
from scigpt.data_prep.pde import EQUATIONS
from scigpt.data_prep import convert
from scigpt.launch.cli import main
EQUATIONS["toy"] = ToySource
convert.convert.__defaults__ = (None, 1, {shard}, False, None, None)
main(["data", "make", "toy", *sys.argv[1:]])
"""


def toy(**options: object) -> ToySource:
    return ToySource((), ToySource.Options(**options))  # type: ignore[arg-type]


def make(source: ToySource, out: Path, workers: int = 1) -> Path:
    return convert(source, out, workers=workers, shard_bytes=SHARD, progress=False)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def start(out: Path, *words: str, workers: int = 1, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM.format(tests=str(TESTS), shard=SHARD), "--out", str(out), "--workers", str(workers), *words]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload]


def wait_for_a_shard(partial: Path) -> None:
    while not list(partial.glob("*.result.json")):
        time.sleep(0.01)


def test_the_number_of_workers_does_not_change_a_byte(tmp_path: Path) -> None:
    one, three = make(toy(samples=25), tmp_path / "1" / "toy"), make(toy(samples=25), tmp_path / "3" / "toy", workers=3)
    assert contents(one) == contents(three)
    assert len(Corpus.open(one).manifest["shards"]) == 9
    assert verify(three) == []
    assert [p.name for p in (tmp_path / "3").iterdir()] == ["toy"]


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_and_started_again_gives_the_bytes_of_one_never_killed(tmp_path: Path, workers: int) -> None:
    out, partial = tmp_path / "killed" / "toy", tmp_path / "killed" / ".toy.partial"
    process = start(out, "seconds=0.05", workers=workers)
    wait_for_a_shard(partial)
    process.kill()
    process.communicate()  # returns when the workers, which share the pipes, are gone too
    assert not out.exists()
    kept = {file: file.stat().st_mtime_ns for file in partial.glob("*.result.json")}
    shards = {file.with_name(file.name.replace(".result.json", ".tar")) for file in kept}
    times = {file.name: file.stat().st_mtime_ns for file in shards}
    again = make(toy(seconds=0.05), out, workers)
    assert contents(again) == contents(make(toy(seconds=0.05), tmp_path / "whole" / "toy"))
    assert {name: (again / name).stat().st_mtime_ns for name in times} == times  # finished shards were not made twice
    assert not partial.exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_is_one_sentence_and_the_same_command_goes_on(tmp_path: Path, workers: int) -> None:
    out = tmp_path / "toy"
    process = start(out, "seconds=0.05", workers=workers, start_new_session=True)
    wait_for_a_shard(tmp_path / ".toy.partial")
    os.killpg(process.pid, signal.SIGINT)
    _, told = process.communicate()
    assert process.returncode == 130
    assert told == "scigpt: interrupted; what is finished is kept, and the same command goes on from there\n"
    assert not list((tmp_path / ".toy.partial").glob("*.tmp"))
    assert start(out, "seconds=0.05").wait() == 0
    assert verify(out) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_one_sentence_and_loses_nothing(tmp_path: Path, workers: int) -> None:
    """A limit on the size of files stands in for the disk: sample 3 is twenty times as long as the others."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))

    out, partial = tmp_path / "toy", tmp_path / ".toy.partial"
    process = start(out, "flaw=long", "size=40", workers=workers, preexec_fn=limit)
    _, told = process.communicate()
    assert process.returncode == 2
    assert told.startswith(f"scigpt: {partial / 'train-000003.tar'}: File too large while writing; make room")
    assert told.count("\n") == 1
    assert not out.exists()
    assert not list(partial.glob("*.tmp"))
    assert (partial / "train-000000.result.json").exists()
    assert not (partial / "train-000003.tar").exists()
    whole = make(toy(flaw="long", size=40), tmp_path / "whole" / "toy")
    assert contents(make(toy(flaw="long", size=40), out)) == contents(whole)


def test_too_little_space_is_told_before_anything_is_written(tmp_path: Path) -> None:
    class Vast(ToySource):
        def plan(self) -> Plan:
            plan = super().plan()
            return Plan(plan.refs, plan.splits, bytes_per_sample=1 << 60)

    with pytest.raises(DiskFull, match=r"GB are needed and .* GB are free"):
        convert(Vast(), tmp_path / "toy", progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("flaw", "sentence"),
    [
        ("nan", r"sample 000003 \(toy.bin\): variable concentration has 1 valid values that are NaN"),
        ("layout", r"sample 000003 \(toy.bin\) and sample 000004 \(toy.bin\) differ in grid: \[1, 9, 9\] and \[1, 8, 8\]"),
        ("place", r"sample 000003 \(toy.bin\) and sample 000004 \(toy.bin\) differ in coordinates: \['x'\] and \[\]"),
        ("bounds", r"0\.521% of the values of air_temperature lie outside 150 to 350 K, most of them in sample 000003 \(toy.bin\)"),
    ],
)
def test_bad_data_is_refused_in_one_sentence(tmp_path: Path, flaw: str, sentence: str, workers: int) -> None:
    with pytest.raises(UserError, match=sentence):
        make(toy(flaw=flaw), tmp_path / "toy", workers)
    assert not (tmp_path / "toy").exists()
    assert not list(tmp_path.glob("**/*.tmp"))


def test_a_few_implausible_values_become_invalid_and_are_counted(tmp_path: Path) -> None:
    class Tolerant(ToySource):
        max_out_of_bounds = 0.01

    corpus = Corpus.open(convert(Tolerant((), ToySource.Options(flaw="bounds")), tmp_path / "toy", progress=False))
    assert corpus.manifest["out_of_bounds"] == {"air_temperature": 24}
    sample = corpus.read("train", 3)
    assert not sample.valid[0, 0, 0, :3].any()
    assert sample.valid.sum() == sample.valid.size - 24
    assert corpus.stats.channels["air_temperature"].values.high < 350


def test_one_bad_file_among_many_good_ones_is_refused(tmp_path: Path) -> None:
    """The share is that of each file: a good file does not hide a bad one."""

    class ManyFiles(ToySource):
        max_out_of_bounds = 0.01  # 24 values are 0.5 % of the whole input, and more of the file they are in

        def samples(self, refs: Sequence[SampleRef]) -> Iterator[Sample]:
            for ref, sample in zip(refs, super().samples(refs), strict=True):
                file = SourceFile("bad.bin" if ref.key == "000003" else "good.bin", "0" * 64)
                yield replace(sample, origin=replace(sample.origin, files=(file,)))

    with pytest.raises(UserError, match=r"of the values of air_temperature lie outside .* in sample 000003 \(bad.bin\)"):
        convert(ManyFiles((), ToySource.Options(flaw="bounds")), tmp_path / "toy", progress=False)


def test_the_same_recipe_is_already_there_and_another_is_refused(tmp_path: Path) -> None:
    out = make(toy(), tmp_path / "toy")
    before, times = contents(out), {f.name: f.stat().st_mtime_ns for f in out.iterdir()}
    assert make(toy(), out) == out
    with pytest.raises(UserError, match="holds a corpus made by another recipe"):
        make(toy(seed=1), out)
    assert contents(out) == before
    assert {f.name: f.stat().st_mtime_ns for f in out.iterdir()} == times
    (out / "train-000000.tar").write_bytes(b"")
    with pytest.raises(UserError, match="in the way and is not a whole corpus"):
        make(toy(), out)


def test_a_folder_in_the_way_is_kept(tmp_path: Path) -> None:
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "thesis.txt").write_text("good")
    with pytest.raises(UserError, match="in the way"):
        make(toy(), tmp_path / "toy")
    assert (tmp_path / "toy" / "thesis.txt").read_text() == "good"
    (tmp_path / "empty").mkdir()
    make(toy(), tmp_path / "empty")


class Interrupted(ToySource):
    """Ctrl-C at the sixth sample."""

    def samples(self, refs: Sequence[SampleRef]) -> Iterator[Sample]:
        for sample, ref in zip(super().samples(refs), refs, strict=True):
            if ref.key == "000005":
                raise KeyboardInterrupt
            yield sample


def test_what_another_recipe_left_behind_is_not_used(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        make(Interrupted(), tmp_path / "toy")
    assert (tmp_path / ".toy.partial" / "train-000000.tar").exists()
    assert contents(make(toy(seed=9), tmp_path / "toy")) == contents(make(toy(seed=9), tmp_path / "whole" / "toy"))


def test_a_refused_input_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="NaN"):
        make(toy(samples=30, flaw="nan"), tmp_path / "new" / "folder" / "toy")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_lacks_only_its_name_gets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = contents(make(toy(), tmp_path / "whole" / "toy"))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", lambda a, b: killed() if Path(b).name == "toy" else os.rename(a, b))
        with pytest.raises(KeyboardInterrupt):
            make(toy(), tmp_path / "toy")
    written = {f.name: f.stat().st_mtime_ns for f in (tmp_path / ".toy.partial").glob("*.tar")}
    assert contents(make(toy(), tmp_path / "toy")) == whole
    assert {f.name: f.stat().st_mtime_ns for f in (tmp_path / "toy").glob("*.tar")} == written


def test_a_torn_result_is_made_again(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        make(Interrupted(), tmp_path / "toy")
    (tmp_path / ".toy.partial" / "train-000000.result.json").write_text('{"fingerp')
    assert contents(make(toy(), tmp_path / "toy")) == contents(make(toy(), tmp_path / "whole" / "toy"))


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    process = start(tmp_path / "toy", "seconds=0.2")
    wait_for_a_shard(tmp_path / ".toy.partial")
    with pytest.raises(UserError, match="another process is making this corpus"):
        make(toy(seconds=0.2), tmp_path / "toy")
    process.send_signal(signal.SIGINT)
    process.communicate()


class Planned(ToySource):
    refs: Sequence[SampleRef] = ()

    def plan(self) -> Plan:
        return Plan(tuple(self.refs), (Split("train"),))


@pytest.mark.parametrize(
    ("refs", "sentence"),
    [
        ([], "finds no sample in its input"),
        ([SampleRef("a", "train", {"seed": 0})] * 2, "plans the sample a twice"),
        ([SampleRef("a", "test", {"seed": 0})], "into the split 'test'; expected one of train"),
    ],
)
def test_a_bad_plan_is_refused(tmp_path: Path, refs: list[SampleRef], sentence: str) -> None:
    source = Planned()
    source.refs = refs
    with pytest.raises(UserError, match=sentence):
        convert(source, tmp_path / "toy", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_corpus_without_a_training_split_has_empty_statistics(tmp_path: Path) -> None:
    class Held(ToySource):
        def plan(self) -> Plan:
            return Plan(tuple(SampleRef(str(i), "test", {"seed": i}) for i in range(2)), (Split("train"), Split("test", "out")))

    corpus = Corpus.open(convert(Held(), tmp_path / "toy", progress=False))
    assert corpus.splits == ("test",)
    assert corpus.stats.samples == 0
    assert np.isfinite(corpus.read("test", 1).values).all()
