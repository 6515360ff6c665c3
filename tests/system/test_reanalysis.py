"""A reanalysis of 20 GB becomes a corpus: how fast beside plain copying, in how much memory, and whatever kills it on the way."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scigpt.data.corpus import Corpus
from scigpt.data.verify import verify

pytestmark = pytest.mark.drill

BYTES = 20e9
ROWS, COLUMNS, LEVELS = 361, 720, 6
FRAME = 4 * ROWS * COLUMNS * (2 + 2 * LEVELS)
FRAMES = int(BYTES / FRAME)
BLOCK = 8
HALVES = [(0, FRAMES // 2), (FRAMES // 2, FRAMES)]

MAKE = f"""
import sys
import numpy as np, zarr
out, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rows, columns, levels = {ROWS}, {COLUMNS}, {LEVELS}
spec = {{"2m_temperature": (0, "K", 280, 12), "total_precipitation": (0, "m", 0, 1e-3),
        "geopotential": (levels, "m2 s-2", 50000, 2000), "temperature": (levels, "K", 260, 10)}}
if last == 0:
    group = zarr.open_group(out, mode="w")
    for name, (count, unit, _, _) in spec.items():
        shape = ({FRAMES}, *([count] if count else []), rows, columns)
        dims = ("time", *(["level"] if count else []), "latitude", "longitude")
        group.create_array(name, shape=shape, chunks=(1, *shape[1:]), dtype="f4", dimension_names=dims, attributes={{"units": unit}})
    for name, values, about in (
        ("latitude", np.linspace(90, -90, rows), {{"units": "degrees_north"}}),
        ("longitude", np.arange(columns) * 360 / columns, {{"units": "degrees_east"}}),
        ("level", np.array([1000, 925, 850, 700, 500, 250]), {{"units": "hPa"}}),
        ("time", np.arange({FRAMES}) * 6, {{"units": "hours since 1990-01-01", "calendar": "standard"}}),
    ):
        group.create_array(name, data=values, dimension_names=(name,), attributes=about)
    zarr.consolidate_metadata(out)
    raise SystemExit
rng = np.random.default_rng(0)
k = np.hypot(np.fft.fftfreq(rows)[:, None] * rows, np.fft.rfftfreq(columns)[None] * columns)
k[0, 0] = 1
fields = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((16, rows, columns))) * k**-1.5, s=(rows, columns))
fields = (fields / fields.std((1, 2), keepdims=True)).astype(np.float32)
group = zarr.open_group(out, mode="r+")
for t in range(first, last):
    for name, (count, _, middle, spread) in spec.items():
        one = [np.roll(fields[3 * n % 16], 3 * t, 1) * np.cos(0.01 * t + n) for n in range(count or 1)]
        two = [np.roll(fields[(5 * n + 7) % 16], -t, 1) * np.sin(0.013 * t + n) for n in range(count or 1)]
        x = np.stack(one) + np.stack(two)
        x = np.maximum(x, 0) if name == "total_precipitation" else x
        group[name][t] = (x if count else x[0]) * np.float32(spread) + np.float32(middle)
"""

PLAIN = f"""
import os, sys
import numpy as np, xarray as xr
store, out, first, last = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
data = xr.open_dataset(store, engine="zarr", mask_and_scale=False)
for t in range(first, last, {BLOCK}):
    with open(f"{{out}}-{{t}}.bin", "wb") as file:
        for name in data.data_vars:
            values = data[name].isel(time=slice(t, min(t + {BLOCK}, last))).to_numpy().astype(np.float32)
            file.write(np.ascontiguousarray(values).data)
        file.flush()
        os.fsync(file.fileno())
    os.unlink(f"{{out}}-{{t}}.bin")
"""


def side_by_side(program: str, *arguments: tuple[object, ...]) -> float:
    """Processes of one thread, all at once; seconds until the last has ended."""
    began = time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = [subprocess.Popen([sys.executable, "-c", program, *map(str, words)], env=environment) for words in arguments]
    assert [process.wait() for process in started] == [0] * len(started)
    return time.perf_counter() - began


def conversion(store: Path, out: Path) -> list[str]:
    return [
        sys.executable,
        "-m",
        "scigpt.launch.cli",
        "data",
        "prepare",
        "era5",
        "--input",
        str(store),
        "--out",
        str(out),
        "--workers",
        "2",
    ]


def test_twenty_gigabytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if shutil.disk_usage(tmp_path).free < 2.5 * BYTES:
        pytest.fail(f"this drill needs {2.5 * BYTES / 1e9:.0f} GB of free disk")
    store, environment = tmp_path / "store.zarr", {**os.environ, "OMP_NUM_THREADS": "1"}
    side_by_side(MAKE, (store, 0, 0))
    side_by_side(MAKE, *((store, a, b) for a, b in HALVES))

    # plain copying of one half before and of the other after, because the machine is not always equally fast
    middle = FRAMES // 2
    plain = side_by_side(PLAIN, *((store, tmp_path / f"plain{a}", a, b) for a, b in ((0, middle // 2), (middle // 2, middle))))
    began, cpu = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(conversion(store, tmp_path / "corpus"), env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    ours = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - cpu.ru_utime - cpu.ru_stime
    most = after.ru_maxrss * 1024
    quarter = middle + (FRAMES - middle) // 2
    plain += side_by_side(PLAIN, *((store, tmp_path / f"plain{a}", a, b) for a, b in ((middle, quarter), (quarter, FRAMES))))
    with capsys.disabled():
        sys.stdout.write(
            f"\n{FRAMES * FRAME / 1e9:.1f} GB: plain {plain:.0f} s, conversion {ours:.0f} s ({plain / ours:.0%}; {spent:.0f} CPU s), "
            f"at most {most / 2**30:.2f} GiB in a process\n"
        )
    assert most < 2 * 2**30
    assert plain / ours > 0.6
    assert Corpus.open(tmp_path / "corpus").manifest["splits"].keys() == {"train", "valid", "test"}
    whole = (tmp_path / "corpus" / "manifest.json").read_bytes()
    shards = len(Corpus.open(tmp_path / "corpus").manifest["shards"])
    shutil.rmtree(tmp_path / "corpus")

    # the name of a corpus is part of it
    partial = tmp_path / ".corpus.partial"
    for kept in (shards // 4, shards // 2):
        process = subprocess.Popen(
            conversion(store, tmp_path / "corpus"), env=environment, start_new_session=True, stderr=subprocess.DEVNULL
        )
        while len(list(partial.glob("*.result.json"))) < kept:
            assert process.poll() is None
            time.sleep(0.2)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    finished = {f.name: f.stat().st_mtime_ns for f in partial.glob("*.tar")}
    assert len(finished) >= shards // 2
    done = subprocess.run(conversion(store, tmp_path / "corpus"), env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "corpus" / "manifest.json").read_bytes() == whole
    now = {f.name: f.stat().st_mtime_ns for f in (tmp_path / "corpus").glob("*.tar")}
    assert all(now[name] == at for name, at in finished.items())
    assert verify(tmp_path / "corpus") == []
