"""Real files as a scientist has them: ERA5, CMIP6 and a seismogram become corpora, hold what independent readers find, and train with
simulated turbulence in one model.

Two of the files are too short for windows of eight frames. `tasmax_Amon` has two monthly means: it takes part with `frames: 2`, and as all
of it goes to train it has no validation. `tos_Omon` has a single month, in which there is nothing to forecast: it becomes a corpus and is
refused for training in one sentence.
"""

from __future__ import annotations

import contextlib
import datetime
import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cftime
import netCDF4
import numpy as np
import pytest
from runs import lines, write

from scigpt.data.corpus import Corpus
from scigpt.data.sample import TIME_UNITS
from scigpt.launch.cli import main

FILES = {
    "era5": "era5/era5-2mt-2019-03-uk.grib",
    "daily": "cmip6/tas_day_CESM2-WACCM_historical_r1i1p1f1_gn_20000101-20091231.nc",
    "monthly": "cmip6/tasmax_Amon_MRI-ESM2-0_historical_r1i1p1f1_gn_185001-201412.nc",
    "regional": "cmip6/tasmax_day_HadGEM2-CC_rcp85_r1i1p1_na10kgrid_qm-moving-50bins-detrend_2095.nc",
    "ocean": "cmip6/tos_Omon_CESM2-FV2_historical_r1i1p1f1_gn_200001.nc",
    "seismogram": "earthscope/gaps.mseed",
}
SOURCES = {"era5": "era5", "seismogram": "miniseed"}
PRETRAIN: dict[str, dict[str, Any]] = {
    "era5": {},
    "daily": {},
    "monthly": {"frames": 2, "valid": [], "weight": 0.5},
    "regional": {},
    "seismogram": {"frames": 64},
    "turbulence": {},
}
"""The corpora of the mixture and what each needs."""
FEW = 40


def command(*words: object) -> tuple[int, str, str]:
    """Run a command in this process: exit code, standard output, standard error."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as left:
        main([str(w) for w in words])
    return int(left.value.code or 0), out.getvalue(), err.getvalue()


def real(name: str) -> Path:
    if "SCIGPT_REALDATA" not in os.environ:
        pytest.skip("SCIGPT_REALDATA is not set")
    return Path(os.environ["SCIGPT_REALDATA"]) / FILES[name]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All files as corpora, made by the command line."""
    folder = tmp_path_factory.mktemp("real")
    for name in FILES:
        words = ["data", "prepare", SOURCES.get(name, "cmip6"), "--input", str(real(name)), "--out", str(folder / name)]
        if name == "era5":  # a process that has read GRIB must also end well
            done = subprocess.run([sys.executable, "-m", "scigpt.launch.cli", *words], capture_output=True, text=True, check=False)
            code, told = done.returncode, done.stderr
        else:
            code, _, told = command(*words)
        assert code == 0, told
        assert ("too few to be split" in told) == (name in ("monthly", "ocean")), told
    return folder


def pretrain(folder: Path, corpora: dict[str, dict[str, Any]], run: str, *words: object) -> tuple[int, str, str]:
    data = {
        "run": str(folder / run),
        "data": {"corpora": [{"path": str(folder / n), **extra} for n, extra in corpora.items()], "frames": 8, "tokens": 256},
        "model": {"size": "nano"},
        # one group a step, so that a step's loss is that of one corpus
        "train": {"steps": 200, "groups": 1, "validate_every": 100, "validate_windows": 8, "checkpoint_every": 200, "threads": 1},
        "optim": {"lr": 2e-3, "warmup": 20},
        "report": {"mlflow": False},
    }
    return command("pretrain", write(data, folder / f"{run}.yaml"), "--json", *words)


@pytest.mark.parametrize("name", FILES)
def test_verify_accepts_the_corpus(folder: Path, name: str) -> None:
    assert command("data", "verify", folder / name) == (0, f"{folder / name}: every file is whole\n", "")


def grib(path: Path) -> tuple[np.ndarray, np.ndarray]:
    import eccodes

    seconds, fields = [], []
    with open(path, "rb") as file:
        while (message := eccodes.codes_grib_new_from_file(file)) is not None:
            date, hour = (eccodes.codes_get(message, k) for k in ("dataDate", "dataTime"))
            instant = datetime.datetime.strptime(f"{date}{hour:04d}", "%Y%m%d%H%M")
            seconds.append((instant - datetime.datetime(2000, 1, 1)).total_seconds())
            rows, columns = (eccodes.codes_get(message, k) for k in ("Nj", "Ni"))
            fields.append(eccodes.codes_get_values(message).reshape(rows, columns))
            eccodes.codes_release(message)
    return np.array(seconds), np.stack(fields)


def netcdf(path: Path) -> tuple[np.ndarray, np.ndarray]:
    name = path.name.partition("_")[0]
    with netCDF4.Dataset(path) as file:
        time, values = file["time"], np.ma.filled(file[name][:].astype(np.float64), np.nan)
        dates = cftime.num2date(time[:], time.units, time.calendar)
        return np.asarray(cftime.date2num(dates, TIME_UNITS, time.calendar)), values + (273.15 if name == "tos" else 0.0)


def mseed(path: Path) -> tuple[np.ndarray, np.ndarray]:
    import obspy

    start, seconds, counts = obspy.UTCDateTime(2000, 1, 1), [], []
    for trace in obspy.read(str(path)):
        seconds.append((trace.stats.starttime - start) + np.arange(trace.stats.npts) / trace.stats.sampling_rate)
        counts.append(trace.data.astype(np.float64))
    return np.concatenate(seconds), np.concatenate(counts)[:, None, None]


@pytest.mark.parametrize("name", FILES)
def test_values_are_those_of_an_independent_reader(folder: Path, name: str) -> None:
    path = real(name)
    seconds, values = {".grib": grib, ".mseed": mseed, ".nc": netcdf}[path.suffix](path)
    places = {round(s * 1000): i for i, s in enumerate(seconds)}
    assert len(places) == len(seconds)
    corpus, seen = Corpus.open(folder / name), 0
    for split in corpus.splits:
        for i in range(len(corpus.entries(split))):
            sample = corpus.read(split, i)
            index = np.array([places.get(round(s * 1000), -1) for s in sample.time.seconds])
            truth = np.where((index >= 0)[:, None, None], values[index], np.nan)
            stored, valid = sample.values[:, 0, 0].astype(np.float64), sample.valid[:, 0, 0]
            np.testing.assert_array_equal(valid, np.isfinite(truth))
            steps = np.diff(truth, axis=0)
            steps = steps[np.isfinite(steps)]
            allowed = 1e-3 * float(np.sqrt((steps**2).mean())) if steps.size else 0.0
            np.testing.assert_allclose(stored[valid], truth[valid], rtol=1e-7, atol=allowed)
            seen += int((index >= 0).sum())
    assert seen >= 0.9 * len(seconds), "only the gaps between the splits are left out"


@pytest.mark.drill
def test_a_mixture_with_turbulence_learns(folder: Path) -> None:
    words = ("train=12", "valid=2", "test=0", "ood=0", "grid=32", "frames=16", "viscosity_low=2e-2")
    code, _, told = command("data", "make", "navier-stokes", "--out", folder / "turbulence", *words)
    assert code == 0, told
    code, out, told = pretrain(folder, PRETRAIN, "run")
    assert code == 0, told
    summary = json.loads(out)
    assert (summary["status"], summary["step"], summary["skipped_steps"]) == ("finished", 200, 0)
    assert set(summary["validation"]) == set(PRETRAIN) - {"monthly"}
    seen = lines(folder / "run")
    mean_of_ends([line["loss"] for line in seen], "all")
    for name in PRETRAIN:
        losses = [line["loss"] for line in seen if line["corpora"] == [name]]
        assert len(losses) >= 10, name
        mean_of_ends(losses, name)


def mean_of_ends(losses: Sequence[float], name: str) -> None:
    """The loss falls: the mean of the last ones is below that of the first ones."""
    few = min(FEW, len(losses) // 2)
    assert np.isfinite(losses).all()
    assert np.mean(losses[-few:]) < np.mean(losses[:few]), (name, np.mean(losses[:few]), np.mean(losses[-few:]))


def test_a_record_of_one_frame_is_refused_for_training_in_one_sentence(folder: Path) -> None:
    code, out, told = pretrain(folder, {"era5": {}, "ocean": {"frames": 2, "valid": []}}, "refused")
    assert (code, out) == (2, "")
    assert told.count("\n") == 1
    assert told.startswith(f"scigpt: corpus ocean ({folder / 'ocean'}): no record of split 'train' has more than 1 frame")
    assert "there is nothing to forecast" in told
    assert not (folder / "refused").exists()
