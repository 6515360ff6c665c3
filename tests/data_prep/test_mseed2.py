"""miniSEED 2 in blocks: the same traces as obspy's own reading of the whole file, and no more bytes than a window needs."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("obspy")
import obspy

from scigpt.data_prep.formats import mseed2
from scigpt.data_prep.seismic import waveforms
from scigpt.data_prep.sources.miniseed import Miniseed
from scigpt.errors import UserError

BEGIN = obspy.UTCDateTime(2024, 3, 1)
SIZE = 30000


def data_of(number: int) -> np.ndarray:
    return np.cumsum(np.random.default_rng(number).integers(-900, 900, SIZE)).astype(np.int32)


def trace(data: np.ndarray, channel: str, first: int = 0) -> Any:
    header = {"network": "XA", "station": "AA", "location": "00", "channel": channel, "sampling_rate": 20.0}
    return obspy.Trace(data, {**header, "starttime": BEGIN + first / 20})


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three channels one after the other in parts, one with a gap, one of floats, in records of 512 and of 4096 bytes; blocks of 16 KiB."""
    monkeypatch.setattr(mseed2, "BLOCK", 1 << 14)
    body = io.BytesIO()
    for a in range(0, SIZE, 5000):
        for number, channel in enumerate(("BHZ", "BHN")):
            part = trace(data_of(number)[a : a + 5000], channel, a + (300 if channel == "BHN" and a >= 15000 else 0))
            part.write(body, format="MSEED", reclen=512 if a % 10000 else 4096)
    trace(data_of(2)[:9000].astype(np.float32) / 3, "BHE").write(body, format="MSEED", reclen=4096)
    (tmp_path / "a.mseed").write_bytes(body.getvalue())
    return tmp_path / "a.mseed"


def test_blocks_give_the_traces_of_the_whole(path: Path) -> None:
    whole = obspy.read(str(path))
    assert path.stat().st_size > 8 * mseed2.BLOCK
    for headonly in (True, False):
        found = waveforms.read_traces(path, headonly)
        assert [(t.id, t.stats.starttime, t.stats.npts) for t in found] == [(t.id, t.stats.starttime, t.stats.npts) for t in whole]
        assert all(len(t.data) == (0 if headonly else t.stats.npts) for t in found)
    for ours, theirs in zip(found, whole, strict=True):
        assert ours.data.dtype == theirs.data.dtype
        np.testing.assert_array_equal(ours.data, theirs.data)
    state = path.stat()
    blocks = mseed2._blocks(path, state.st_size, state.st_mtime_ns)
    assert [b.begin for b in blocks[1:]] == [b.end for b in blocks[:-1]]
    assert max(b.end - b.begin for b in blocks) <= mseed2.BLOCK


def test_a_window_reads_only_the_blocks_that_hold_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waveforms.read_traces(path, headonly=True)
    asked: list[int] = []
    read = mseed2._read

    def counted(path: Path, begin: int, end: int, *rest: Any) -> list[Any]:
        asked.append(end - begin)
        return read(path, begin, end, *rest)

    monkeypatch.setattr(mseed2, "_read", counted)
    for first in (0, 4900, 12345, 24000):
        asked.clear()
        span = ((BEGIN + first / 20).ns, (BEGIN + (first + 199) / 20).ns)
        (found,) = waveforms.traces_of(path, "miniSEED", False, "XA.AA.00.BHZ", span)
        assert found.stats.starttime.ns == span[0]
        np.testing.assert_array_equal(found.data, data_of(0)[first : first + 200])
        assert sum(asked) <= 3 * mseed2.BLOCK
    span = ((BEGIN + 15050 / 20).ns, (BEGIN + 15100 / 20).ns)
    assert not waveforms.traces_of(path, "miniSEED", False, "XA.AA.00.BHN", span)  # within its gap


def test_a_large_file_becomes_the_same_samples(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for words in ({}, {"decimate": 4}):
        source = Miniseed([path], Miniseed.Options(frames_per_sample=700, channels="*.BH[ZN]", **words))  # type: ignore[arg-type]
        refs = source.plan().refs[::9]
        whole = list(source.samples(refs))
        monkeypatch.setattr(waveforms, "WHOLE", 0)
        for one, two in zip(whole, source.samples(refs), strict=True):
            np.testing.assert_array_equal(one.values, two.values)
            np.testing.assert_array_equal(one.valid, two.valid)
        monkeypatch.setattr(waveforms, "WHOLE", 1 << 26)


def test_a_large_file_that_is_cut_is_refused(path: Path) -> None:
    body = path.read_bytes()
    for cut in (100, 700):
        path.write_bytes(body[:-cut])
        with pytest.raises(UserError, match=r"a\.mseed"):
            waveforms.read_traces(path, headonly=True)
