"""`scigpt bench data`: windows by index are far cheaper than whole members, a wrong reader is noticed, simulators are timed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from toy import ToySource

from scigpt.data_prep.convert import convert
from scigpt.data_prep.pde.advection_diffusion_3d import AdvectionDiffusion3D, AdvectionDiffusion3DOptions
from scigpt.data_prep.pde.poisson import Poisson, PoissonOptions
from scigpt.errors import UserError
from scigpt.launch import bench_data, timing
from scigpt.launch.cli import main
from scigpt.launch.made_up import WeatherOptions
from scigpt.launch.timing import Reading


@pytest.fixture(autouse=True)
def short_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_data, "ROUND", 0.01)


def test_windows_by_index_are_much_faster_than_whole_members() -> None:
    weather = WeatherOptions(frames=6, variables=3, rows=16)
    result = bench_data.synthetic(rounds=3, shape=(24, 4, 1, 180, 360), window=(2, 64, 64), weather=weather)
    assert result["window"] == [2, 4, 1, 64, 64]
    assert result["mb_stored"] > 24 * 4 * 180 * 360 * 4 / 1e6, "the record is stored as float32"
    assert result["ratio"] > 5
    mb_per_window = 2 * 4 * 64 * 64 * 4 / 1e6
    for reader in ("index", "member"):
        assert result[reader]["mb_per_second"] == pytest.approx(mb_per_window * result[reader]["windows_per_second"])
    loader = result["loader"]
    assert (loader["corpus"], loader["window"]) == ("weather", [5, 3, 1, 16, 32])
    assert [rate["readers"] for rate in loader["readers"]] == [1, 2, 4]
    mb_per_window = 5 * 3 * 16 * 32 * 4 / 1e6
    assert loader["mb_per_group"] == pytest.approx(mb_per_window * loader["windows_per_group"])
    for rate in loader["readers"]:
        for second in ("second", "cpu_second"):
            assert rate[f"mb_per_{second}"] == pytest.approx(mb_per_window * rate[f"windows_per_{second}"])
        assert rate["windows_per_second"] > 0
        assert rate["blocked_share"] is None or 0 <= rate["blocked_share"] < 1
    assert (loader["copies"] is None) is not torch.cuda.is_available()


def test_a_reader_is_timed_by_its_own_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    clocks = {"thread_time": iter([1.0, 3.0]), "perf_counter": iter([10.0, 17.0]), "queued": iter([0.5, 2.5])}
    monkeypatch.setattr(timing.time, "thread_time", lambda: next(clocks["thread_time"]))
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clocks["perf_counter"]))
    monkeypatch.setattr(timing, "_queued", lambda: next(clocks["queued"]))
    reading = Reading(lambda g: (g, []))  # type: ignore[arg-type, return-value]
    reading(0)
    assert (reading.cpu, reading.wall, reading.queued) == (2.0, 7.0, 2.0)


def test_the_command_measures_a_corpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = convert(ToySource((), ToySource.Options(samples=6, size=16)), tmp_path / "toy", progress=False)
    with pytest.raises(SystemExit) as end:
        main(["bench", "data", str(folder), "--rounds", "1", "--json"])
    assert end.value.code == 0
    result = json.loads(capsys.readouterr().out)
    assert result["window"] == [2, 1, 1, 16, 16]
    assert result["rounds"] == 1
    assert result["loader"]["window"] == [5, 1, 1, 16, 16]
    assert min(result["ratio"], result["index"]["windows_per_second"], result["member"]["windows_per_second"]) > 0
    with pytest.raises(SystemExit):
        main(["bench", "data", str(folder), "--rounds", "1"])
    text = capsys.readouterr().out
    assert "by index" in text
    assert "cores busy" in text


def test_a_corpus_of_single_frames_has_nothing_for_the_loader(tmp_path: Path) -> None:
    folder = convert(ToySource((), ToySource.Options(samples=3, frames=1)), tmp_path / "toy", progress=False)
    result = bench_data.of_corpus(folder, 1)
    assert result["loader"] is None
    assert "cores busy" not in bench_data.describe(result)


def test_a_damaged_shard_is_noticed_and_a_wrong_folder_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = convert(ToySource((), ToySource.Options(samples=1, size=16, frames=2)), tmp_path / "toy", progress=False)
    shard = next(folder.glob("*.tar"))
    index = json.loads(shard.with_suffix(".index.json").read_bytes())
    # the member is intact, the index points one row too far
    index["samples"][0]["members"]["values.npy"]["data_offset"] -= 64
    shard.with_suffix(".index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"index and member of sample .* differ"):
        bench_data.compare([shard], (1, 16, 16), 1, (2, 16, 16))
    with pytest.raises(SystemExit) as end:
        main(["bench", "data", str(tmp_path / "nothing")])
    assert end.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_simulators_are_timed_by_trajectory_and_window() -> None:
    cloud = AdvectionDiffusion3D((), AdvectionDiffusion3DOptions(train=4, grid=16, frames=17, peak=2))
    steady = Poisson((), PoissonOptions(train=4, grid=32))
    result = bench_data.of_simulators([cloud, steady], 2)
    assert result["window_frames"] == 8
    first, second = result["simulators"]
    assert (first["equation"], first["shape"], first["trajectories"]) == ("advection-diffusion-3d", [17, 1, 16, 16, 16], 2)
    assert first["trajectories_per_cpu_second"] > 0
    assert first["windows_per_cpu_second"] == pytest.approx(2 * first["trajectories_per_cpu_second"])
    assert first["mb_per_cpu_second"] == pytest.approx(17 * 16**3 * 4e-6 * first["trajectories_per_cpu_second"])
    assert second["windows_per_cpu_second"] == second["trajectories_per_cpu_second"]


def test_the_command_times_a_simulator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["bench", "data", "--equation", "poisson", "--rounds", "2", "--json"])
    assert end.value.code == 0
    (rate,) = json.loads(capsys.readouterr().out)["simulators"]
    assert (rate["equation"], rate["shape"]) == ("poisson", [2, 2, 1, 64, 64])
    with pytest.raises(SystemExit):
        main(["bench", "data", "--equation", "poisson", "--rounds", "1"])
    assert "poisson   2 x 2 x 1 x 64 x 64" in capsys.readouterr().out
    for words, part in ((["--equation", "poison"], "did you mean poisson"), ([str(tmp_path), "--equation", "all"], "give one of them")):
        with pytest.raises(SystemExit) as end:
            main(["bench", "data", *words])
        assert end.value.code == 2
        assert part in capsys.readouterr().err
