"""Cluster profiles, the batch script, `scigpt submit|status|cancel` where there is no SLURM, and what becomes of a job that ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from runs import make_corpus, settings, write

from scigpt.errors import UserError
from scigpt.launch import preflight, slurm
from scigpt.launch.cli import main
from scigpt.launch.standing import standing

NAMES = sorted(p.stem for p in (slurm.TEMPLATES / "clusters").glob("*.yaml"))


def code_of(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    return left.value.code


def config(folder: Path, **more: Any) -> Path:
    return write(settings([folder / "toys"], folder / "run") | more, folder / "c.yaml")


def directives(script: str) -> list[str]:
    return [line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH ")]


@pytest.mark.parametrize("name", NAMES)
def test_every_profile_gives_a_script_that_bash_can_read(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--nodes", "2", "--account", "m1234_g", "--time", "1-00:00:00", "--qos", "debug", "--partition", "big", "--dry-run"]
    assert code_of("submit", str(config(tmp_path)), "--cluster", name, *options, "strategy=ddp") in (0, None)
    script = capsys.readouterr().out
    assert subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True).stderr == ""
    profile = slurm.profile(name, account="m1234_g")
    said = directives(script)
    asked = {"--nodes=2", "--account=m1234_g", "--time=1-00:00:00", "--qos=debug", "--partition=big"}
    assert asked | {"--requeue", "--open-mode=append"} <= set(said)
    assert f"--signal=USR1@{profile.warning}" in said
    assert f"--ntasks-per-node={profile.tasks}" in said
    assert f"--gpus-per-node={profile.gpus_per_node}" in said or profile.gpus_per_node == 0
    assert all(f'export {key}="{value}"' in script for key, value in profile.environment.items())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.yaml"]  # a dry run writes nothing


def test_an_array_has_a_run_for_each_value(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    array = ["--array", "optim.lr=1e-3,2e-3,4e-3", "--concurrent", "2", "--nodes", "1"]
    assert code_of("submit", str(config(tmp_path)), "--cluster", "test", *array, "--dry-run", "--json") in (0, None)
    found = json.loads(capsys.readouterr().out)
    assert found["runs"] == [str(tmp_path / "run" / f"optim.lr-{v}") for v in ("1e-3", "2e-3", "4e-3")]
    assert "--array=0-2%2" in directives(found["script"])
    for i, run in enumerate(found["runs"]):
        (line,) = [line for line in found["script"].splitlines() if line.startswith("runs=(")]
        chosen = subprocess.run(["bash", "-c", f'{line}; echo "${{runs[{i}]}}"'], text=True, capture_output=True).stdout.strip()
        assert chosen == run


def test_paths_and_values_are_quoted(tmp_path: Path) -> None:
    profile = slurm.Profile(srun=["--comment=two words"], environment={"GREETING": "hello world"})
    script = slurm.render("mine", profile, "name", [tmp_path / "a run"], f"{tmp_path}/a run/out", tmp_path)
    assert f"run='{tmp_path}/a run'" in script
    assert "'--comment=two words' \"$python\"" in script
    lines = [line for line in script.splitlines() if "GREETING" in line]
    assert subprocess.run(["bash", "-c", f"{lines[0]}; echo $GREETING"], text=True, capture_output=True).stdout == "hello world\n"


def test_mistakes_are_one_sentence_and_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, mine = str(config(tmp_path)), tmp_path / "mine.yaml"
    mine.write_text(yaml.safe_dump({"gpus_per_nod": 4}))
    (tmp_path / "late.yaml").write_text(yaml.safe_dump({"time": "00:05:00", "warning": 300}))
    (tmp_path / "many.yaml").write_text(yaml.safe_dump({"max_failures": 0}))
    (tmp_path / "torn.yaml").write_text("a: [")
    for arguments, sentence in (
        (("--cluster", "perlmuter"), "did you mean perlmutter?"),
        (("--cluster", "xyz"), "expected one of frontier, generic"),
        (("--cluster", str(mine)), "unknown key gpus_per_nod; did you mean gpus_per_node?"),
        (("--cluster", str(tmp_path / "late.yaml")), "a warning well before the limit"),
        (("--cluster", str(tmp_path / "many.yaml")), "max_failures is 0; expected 1 or more"),
        (("--cluster", str(tmp_path / "torn.yaml")), "is not valid YAML"),
        (("--cluster", "perlmutter"), "needs an account; give it with --account"),
        (("--cluster", "test"), "strategy single trains in one process"),
        (("--time", "soon"), "expected HH:MM:SS"),
        (("--time", "00:00:00"), "is zero"),
        (("--account", "two words"), "expected no spaces"),
        (("--array", "lr"), "expected as in --array optim.lr"),
        (("--array", "optim.lr=1e-3"), "several different values"),
        (("--array", "optim.lr=1e-3,1e-3"), "several different values"),
        (("--array", "optim.lrr=1e-3,2e-3"), "unknown key optim.lrr"),
        (("--concurrent", "2"), "give them with --array"),
        (("trian.steps=3",), "did you mean train?"),
        ((f"run={tmp_path}/what$ever",), "SLURM does not take '$'"),
    ):
        assert code_of("submit", file, *arguments) == 2, arguments
        err = capsys.readouterr().err
        assert sentence in err, (arguments, err)
        assert "Traceback" not in err
    assert not (tmp_path / "run").exists()


def test_a_machine_without_slurm_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert code_of("submit", str(config(tmp_path))) == 2
    assert "sbatch is not on this machine" in capsys.readouterr().err


def test_a_run_of_another_configuration_is_not_submitted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = config(tmp_path)
    make_corpus(tmp_path)
    assert code_of("pretrain", str(file), "train.steps=2") in (0, None)
    assert code_of("submit", str(file), "optim.lr=0.02", "--dry-run") == 2
    assert "optim.lr: 0.01 -> 0.02" in capsys.readouterr().err
    assert code_of("submit", str(file), "train.steps=4", "--dry-run") in (0, None)


def test_a_time_limit_is_read_as_sbatch_does() -> None:
    limits = {"90": 5400, "1:30": 90, "2:00:00": 7200, "1-12": 129600, "1-00:30": 88200, "7-00:00:00": 604800}
    assert {limit: slurm.seconds(limit) for limit in limits} == limits
    for wrong in ("", "1h", "1:2:3:4", "-1", "1-"):
        with pytest.raises(UserError):
            slurm.seconds(wrong)


class History:
    """The launches of a run's jobs, written as the batch script does."""

    def __init__(self, run: Path) -> None:
        self.run = run
        (run / "slurm").mkdir(parents=True)

    def begin(self, job: str = "7") -> History:
        os.environ |= {"SLURM_JOB_ID": job, "SLURM_JOB_NUM_NODES": "2", "SLURM_NTASKS": "8"}
        try:
            slurm.begin(self.run)
        finally:
            for name in ("SLURM_JOB_ID", "SLURM_JOB_NUM_NODES", "SLURM_NTASKS"):
                del os.environ[name]
        return self

    def end(self, code: int) -> History:
        with open(self.run / "slurm" / slurm.LAUNCHES, "a") as file:
            file.write(json.dumps({"end": time.time(), "code": code}) + "\n")
        return self

    def save(self, step: int, complete: bool = True) -> History:
        folder = self.run / "checkpoints" / f"step-{step:08d}"
        folder.mkdir(parents=True)
        if complete:
            (folder / "manifest.json").write_text("{}")
        return self

    def judge(self, code: int, job: str = "7", most: int = 3) -> slurm.Verdict:
        return slurm.judge(code, self.run, job, most)


def test_a_job_goes_back_into_the_queue_until_it_gets_nowhere(tmp_path: Path) -> None:
    run = History(tmp_path)
    assert run.begin().end(0).judge(0) == slurm.Verdict(False, 0, "finished")
    assert run.begin().save(10).end(75).judge(75).requeue
    for code, requeue in ((137, True), (1, True), (75, False)):  # none of them has a newer checkpoint
        assert run.begin().end(code).judge(code).requeue == requeue
    assert run.judge(75).sentence.startswith("stopped and saved; 3 ends in a row")
    assert run.judge(137).sentence.startswith("ended by SIGKILL; 3")
    assert run.begin().save(20).end(137).judge(137).requeue  # a new checkpoint forgives
    run.begin().end(1).begin().end(1)
    assert run.begin().save(30, complete=False).end(1).judge(1).requeue is False  # a torn one does not
    assert run.begin("8").end(1).judge(1, "8").requeue  # nor do failures of an earlier job count


def test_what_slurm_requeued_itself_is_no_failure(tmp_path: Path) -> None:
    run = History(tmp_path)
    for _ in range(5):
        run.begin()
    assert run.end(1).judge(1).sentence.endswith("(1 of at most 3 ends in a row without a new checkpoint)")


def test_a_mistake_of_the_user_stops_the_job(tmp_path: Path) -> None:
    run = History(tmp_path).begin().end(143)
    (tmp_path / "slurm" / slurm.MISTAKE).write_text("corpora/x: there is no such folder\n")
    assert run.judge(143) == slurm.Verdict(False, 2, "corpora/x: there is no such folder")
    assert run.begin().judge(143).requeue  # the note was of an earlier launch
    assert run.judge(2) == slurm.Verdict(False, 2, "what was asked for is at fault; look above for the reason")


def test_the_command_line_leaves_a_note_of_a_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCIGPT_MISTAKE", str(tmp_path / "note"))
    assert code_of("pretrain", str(tmp_path / "none.yaml")) == 2
    assert "none.yaml cannot be read" in (tmp_path / "note").read_text()


def test_a_run_started_by_hand_has_a_standing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_corpus(tmp_path)
    file, run = config(tmp_path), tmp_path / "run"
    assert code_of("pretrain", str(file), "train.steps=6", "train.checkpoint_every=3") in (0, None)
    assert code_of("pretrain", str(file), "train.steps=9") in (0, None)
    capsys.readouterr()
    assert code_of("status", str(run), "--json") in (0, None)
    found = json.loads(capsys.readouterr().out)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert (found["state"], found["step"], found["steps"], found["job"], found["restarts"]) == ("finished", 9, 9, None, 1)
    assert (found["checkpoint"], found["loss"], found["devices"]) == ("step-00000009", lines[-1]["loss"], 1)
    seconds = sum(line["seconds"] for line in lines)
    assert found["device_hours"] == pytest.approx(seconds / 3600) == found["device_hours_expected"]
    assert found["tokens_per_second"] == pytest.approx(sum(line["tokens"] for line in lines) / seconds)
    assert code_of("status", str(run)) in (0, None)
    assert f"{run}: finished\n  step 9 of 9, loss" in capsys.readouterr().out
    (run / "metrics.jsonl").write_bytes((run / "metrics.jsonl").read_bytes()[:-20])  # while a line is being written
    assert standing(run)["step"] == 8
    assert code_of("cancel", str(run)) in (0, None)
    assert "no job of it is in the queue" in capsys.readouterr().out
    for command in ("status", "cancel"):
        assert code_of(command, str(tmp_path / "nothing")) == 2


def test_device_hours_count_every_launch(tmp_path: Path) -> None:
    """Also one that ended without a word, up to its last step."""
    records = [
        {"job": "1", "nodes": 2, "tasks": 8, "begin": 1000.0, "checkpoint": None, "last_step": None},
        {"job": "1", "nodes": 2, "tasks": 8, "begin": 9000.0, "checkpoint": None, "last_step": 4600.0},
        {"end": 16200.0, "code": 0},
    ]
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm" / slurm.LAUNCHES).write_text("".join(json.dumps(r) + "\n" for r in records))
    config(tmp_path).rename(tmp_path / "slurm" / slurm.CONFIG)
    found = standing(tmp_path)
    assert (found["devices"], found["restarts"], found["device_hours"]) == (8, 1, 8 * (1 + 2))


@pytest.fixture(scope="module")
def flown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[tuple[int, str]]]]:
    """The check of two nodes under four conditions: the folder, and by condition the exit code of each node and what it says. Two processes
    check all of them, one after the other: torch takes longer to import than a check."""
    folder = tmp_path_factory.mktemp("flown")
    first = 29600 + os.getpid() % 1000
    conditions: dict[str, dict[str, Any]] = {
        "sound": {},
        "nowhere": {"folder": {1: folder / "nowhere"}},
        "clock": {"ahead": {1: 60.0}},
        "devices": {"options": ["--devices", "4"]},
    }
    flying = []
    for rank in (0, 1):
        flights = [
            {
                "port": first + 1000 * i,
                "ahead": c.get("ahead", {}).get(rank, 0.0),
                "words": [str(c.get("folder", {}).get(rank, folder)), "--patience", "5", *c.get("options", ())],
            }
            for i, c in enumerate(conditions.values())
        ]
        about = {"SLURM_PROCID": str(rank), "SLURM_NTASKS": "2", "SLURM_JOB_ID": "5", "OMP_NUM_THREADS": "1"}
        environment = {**os.environ, **about, "MASTER_ADDR": "127.0.0.1", "CUDA_VISIBLE_DEVICES": ""}
        command = [sys.executable, str(Path(__file__).with_name("flying.py")), json.dumps(flights)]
        flying.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment))
    out = [process.communicate() for process in flying]
    assert [said for _, said in out] == ["", ""]
    zero, one = (json.loads(told) for told, _ in out)
    return folder, {name: [tuple(zero[i]), tuple(one[i])] for i, name in enumerate(conditions)}


Flown = tuple[Path, dict[str, list[tuple[int, str]]]]


def test_preflight_of_sound_nodes_says_nothing(flown: Flown) -> None:
    folder, found = flown
    assert found["sound"] == [(0, ""), (0, "")]
    assert list(folder.iterdir()) == []


def test_preflight_names_the_bad_node(flown: Flown) -> None:
    folder, found = flown
    (zero, first), (one, other) = found["nowhere"]
    assert (zero, one, other) == (1, 1, "")
    assert first == f"scigpt: node 1 cannot write in {folder}/nowhere (No such file or directory)\n"


def test_preflight_compares_the_clocks(flown: Flown) -> None:
    (zero, first), (one, _) = flown[1]["clock"]
    assert (zero, one) == (1, 1)
    assert first.startswith("scigpt: node 1 has a clock that is +60.")


def test_preflight_blames_the_request_when_all_nodes_have_the_same_fault(flown: Flown) -> None:
    (zero, first), (one, _) = flown[1]["devices"]
    assert (zero, one) == (2, 2)
    assert first.splitlines() == [f"scigpt: node {i} has 0 of the 4 GPUs asked for" for i in (0, 1)]


def test_preflight_does_not_wait_for_ever(tmp_path: Path) -> None:
    about = {"SLURM_PROCID": "0", "SLURM_NTASKS": "2", "MASTER_PORT": str(28600 + os.getpid() % 1000), "TORCH_CPP_LOG_LEVEL": "FATAL"}
    command = [sys.executable, "-m", "scigpt.launch.preflight", str(tmp_path), "--patience", "1"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **about})
    assert done.returncode == 1
    assert "scigpt: node 1 does not answer\n" in done.stderr


def test_verdict_of_a_preflight() -> None:
    assert preflight.verdict([None, None]) == 0
    assert preflight.verdict([None, "x"]) == 1
    assert preflight.verdict(["x", "y"]) == 1
    assert preflight.verdict(["x", "x"]) == 2
    assert preflight.verdict(["x"]) == 1  # one node: it may be the node
