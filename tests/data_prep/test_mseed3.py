"""miniSEED 3 against a writer of the test's own, made from the specification of the FDSN, with the checksum of another library."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("obspy")
import google_crc32c
import obspy
from tests.readings import refusal_of, samples_of

from scigpt.data_prep.formats import mseed3
from scigpt.data_prep.seismic import waveforms
from scigpt.data_prep.sources.miniseed import Miniseed
from scigpt.data_prep.sources.seismic_experiments import SeismicExperiments

UTC = obspy.UTCDateTime
BEGIN = UTC(2024, 2, 29, 12, 30, 1, 250000)


def record(source: str, start: Any, rate: float, count: int, encoding: int, payload: bytes, extra: bytes = b"", version: int = 1) -> bytes:
    """One record: fixed header of 40 bytes, identifier, extra headers, data."""
    fields = (3, 4, start.ns % 10**9, start.year, start.julday, start.hour, start.minute, start.second, encoding, rate, count)
    tail = struct.pack("<BBHI", version, len(source), len(extra), len(payload)) + source.encode() + extra + payload
    head = b"MS" + struct.pack("<BBIHHBBBBdI", *fields)
    crc = google_crc32c.value(head + bytes(4) + tail)
    return head + struct.pack("<I", crc) + tail


def steim1(data: np.ndarray) -> bytes:
    """One difference of 32 bits a word, 16 bits where two fit: plain, not dense."""
    steps = [0, *np.diff(data.astype(np.int64)).tolist()]
    words: list[tuple[int, int]] = []
    i = 0
    while i < len(steps):
        pair = steps[i : i + 2]
        if len(pair) == 2 and all(-(2**15) <= d < 2**15 for d in pair):
            words.append((2, (pair[0] & 0xFFFF) << 16 | pair[1] & 0xFFFF))
            i += 2
        else:
            words.append((3, steps[i] & 0xFFFFFFFF))
            i += 1
    ends = [(0, int(data[0]) & 0xFFFFFFFF), (0, int(data[-1]) & 0xFFFFFFFF)]
    words = ends + words
    words += [(0, 0)] * (-len(words) % 15)
    frames = b""
    for at in range(0, len(words), 15):
        part = words[at : at + 15]
        code = sum(c << (28 - 2 * k) for k, (c, _) in enumerate(part))
        frames += struct.pack(">16I", code, *(w for _, w in part))
    return frames


def payload_of_obspy(data: np.ndarray, encoding: str, tmp_path: Path) -> tuple[int, bytes]:
    """Frames of a miniSEED 2 record that obspy wrote: the compression is the same in both versions."""
    obspy.Trace(data, {"sampling_rate": 20.0}).write(
        str(tmp_path / "two.mseed"), format="MSEED", encoding=encoding, reclen=4096, byteorder=">"
    )
    raw = (tmp_path / "two.mseed").read_bytes()[:4096]
    return struct.unpack_from(">H", raw, 30)[0], raw[struct.unpack_from(">H", raw, 44)[0] :]


def counts(size: int, seed: int = 0, scale: int = 5000) -> np.ndarray:
    return np.random.default_rng(seed).integers(-scale, scale, size).astype(np.int32)


def write(path: Path, data: np.ndarray, encoding: int, pack: Callable[[np.ndarray], bytes], size: int = 300, **how: Any) -> Path:
    parts = []
    for at in range(0, len(data), size):
        some = data[at : at + size]
        parts.append(record("FDSN:XA_AA_00_B_H_Z", BEGIN + at / 20, 20.0, len(some), encoding, pack(some), **how))
    path.write_bytes(b"".join(parts))
    return path


@pytest.mark.parametrize(
    ("encoding", "pack", "kind"),
    [
        (1, lambda d: d.astype("<i2").tobytes(), np.int32),
        (3, lambda d: d.astype("<i4").tobytes(), np.int32),
        (4, lambda d: d.astype("<f4").tobytes(), np.float32),
        (5, lambda d: d.astype("<f8").tobytes(), np.float64),
        (10, steim1, np.int32),
    ],
)
def test_every_encoding_through_the_source(tmp_path: Path, encoding: int, pack: Any, kind: Any) -> None:
    data = counts(1000).astype(kind)
    path = write(tmp_path / "a.mseed", data, encoding, pack, extra=b'{"FDSN":{"Time":{"Quality":100}}}')
    assert Miniseed.recognises(path)
    (sample,) = samples_of(Miniseed, path, split="train")
    np.testing.assert_array_equal(sample.values.ravel(), data.astype(np.float32))
    assert [v.name for v in sample.variables] == ["seismic_counts_up"]
    assert sample.time.labels()[0] == "2024-02-29T12:30:01.250000000"[: len(sample.time.labels()[0])]
    np.testing.assert_allclose(np.diff(sample.time.seconds), 0.05, atol=1e-7)


@pytest.mark.parametrize(
    ("encoding", "number", "scale"), [("STEIM1", 10, 10**8), ("STEIM2", 11, 10**6), ("STEIM2", 11, 60), ("STEIM1", 10, 90)]
)
def test_steim_frames_decode_as_in_libmseed(tmp_path: Path, encoding: str, number: int, scale: int) -> None:
    data = np.cumsum(counts(400, scale=scale) // 3).astype(np.int32)
    count, frames = payload_of_obspy(data, encoding, tmp_path)
    (tmp_path / "a.mseed").write_bytes(record("FDSN:XA_AA_00_B_H_Z", BEGIN, 20.0, count, number, frames))
    (trace,) = mseed3.read(tmp_path / "a.mseed")
    np.testing.assert_array_equal(trace.data, data[:count])
    assert count > 100


def test_gaps_periods_versions_and_order(tmp_path: Path) -> None:
    data = counts(900)
    pack = lambda d: d.astype("<i4").tobytes()  # noqa: E731
    name = "FDSN:XA_AA__L_H_N"
    parts = [
        record(name, BEGIN, -2.0, 300, 3, pack(data[:300])),
        record("FDSN:XA_AA__L_H_E", BEGIN, 0.5, 300, 3, pack(data[300:600]), version=4),
        record(name, BEGIN + 600, -2.0, 300, 3, pack(data[300:600])),
        record(name, BEGIN + 1400, -2.0, 300, 3, pack(data[600:])),
        record("FDSN:XA_AA__L_O_G", BEGIN, 0.0, 5, 0, b"hello"),
    ]
    (tmp_path / "a.mseed").write_bytes(b"".join(parts))
    (sample,) = samples_of(Miniseed, tmp_path / "a.mseed", split="train")
    expected = np.full(1000, np.nan)
    expected[:600], expected[700:] = data[:600], data[600:]
    known = np.isfinite(expected)
    np.testing.assert_array_equal(sample.valid[:, 1, 0, 0, 0], known)
    np.testing.assert_array_equal(sample.values[known, 1, 0, 0, 0], expected[known].astype(np.float32))
    np.testing.assert_array_equal(sample.valid[:, 0, 0, 0, 0], np.arange(1000) < 300)
    traces = mseed3.read(tmp_path / "a.mseed", headonly=True)
    assert [(t.id, t.stats.npts, t.stats.mseed.dataquality) for t in traces] == [
        ("XA.AA..LHN", 600, "1"),
        ("XA.AA..LHE", 300, "4"),
        ("XA.AA..LHN", 300, "1"),
    ]


def test_checksums_equal_those_of_another_library() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.bytes(n) for n in (0, 1, 63, 64, 65, 1000, 5000)]
    assert mseed3.crc32c(parts) == [google_crc32c.value(p) for p in parts]
    assert mseed3.crc32c([b"123456789"]) == [0xE3069283]


def test_damage_is_one_sentence(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mseed", counts(900), 10, steim1)
    whole = path.read_bytes()
    for cut in (10, 39, 300, len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert "a.mseed" in refusal_of(Miniseed, path, split="train")
    rng = np.random.default_rng(1)
    for at in rng.integers(0, len(whole), 25).tolist():  # every byte is under the checksum
        damaged = bytearray(whole)
        damaged[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        assert "a.mseed" in refusal_of(Miniseed, path, split="train"), at
    damaged = bytearray(whole)
    damaged[15] = 0  # the encoding: text, which holds no samples
    path.write_bytes(damaged)
    assert "does not have the checksum it states" in refusal_of(Miniseed, path, split="train")
    path.write_bytes(record("XFDSN:A", BEGIN, 20.0, 1, 3, bytes(4)))
    assert "'XFDSN:A' is not of the form FDSN:NET_STA_LOC_B_S_s" in refusal_of(Miniseed, path)
    path.write_bytes(record("FDSN:XA_AA_00_B_H_Z", BEGIN, 20.0, 9, 19, bytes(64)))
    assert "has the encoding 19; expected integers, floats, Steim-1 or Steim-2" in refusal_of(Miniseed, path, split="train")
    path.write_bytes(record("FDSN:XA_AA_00_B_H_Z", BEGIN, 20.0, 9, 3, bytes(8)))
    assert "is shorter than its 9 samples" in refusal_of(Miniseed, path, split="train")
    wrong = bytearray(steim1(counts(100)))
    wrong[8:12] = struct.pack(">i", 7)
    path.write_bytes(record("FDSN:XA_AA_00_B_H_Z", BEGIN, 20.0, 100, 10, bytes(wrong)))
    assert "do not add up" in refusal_of(Miniseed, path, split="train")


def test_impossible_headers_are_seen_before_they_are_believed(tmp_path: Path) -> None:
    """A flipped bit in a count asks for gigabytes, one in a rate for years of frames; checksums are only looked at with the samples."""
    path, name = tmp_path / "a.mseed", "FDSN:XA_AA_00_B_H_Z"
    pack = lambda d: d.astype("<i4").tobytes()  # noqa: E731
    steps = steim1(counts(100))
    for count, encoding, payload, told in (
        (100 + 2**31, 3, pack(counts(100)), "is shorter than its 2147483748 samples"),
        (36, 3, pack(counts(100)), "is longer than its 36 samples"),
        (100 + 2**26, 10, steps, "states 67108964 samples and its"),
        (100 + 2**26, 11, steps, "hold fewer"),
        (100, 19, steps, "has the encoding 19"),
    ):
        path.write_bytes(record(name, BEGIN, 20.0, count, encoding, payload))
        assert told in refusal_of(Miniseed, path)
        assert told in refusal_of(SeismicExperiments, path, layout="series")
    for rate in (float("nan"), float("inf"), 1e300, 1e-9, -1e-320, -1e9):
        path.write_bytes(record(name, BEGIN, rate, 100, 3, pack(counts(100))))
        assert "samples per second; the file is damaged" in refusal_of(SeismicExperiments, path, layout="series")


def test_many_records_in_a_row_take_no_longer_each(tmp_path: Path) -> None:
    one = bytearray(record("FDSN:XA_AA_00_B_H_Z", UTC(2024, 1, 1), 1.0, 1, 3, bytes(4)))
    parts = []
    for i in range(12000):
        one[8:15] = struct.pack("<HHBBB", 2024, 1, i // 3600, i // 60 % 60, i % 60)
        parts.append(bytes(one))
    (tmp_path / "a.mseed").write_bytes(b"".join(parts))
    began = time.process_time()
    (trace,) = mseed3.read(tmp_path / "a.mseed", headonly=True)
    assert trace.stats.npts == 12000
    assert time.process_time() - began < 1.0


def test_the_headers_of_a_large_file_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.mseed", counts(3000), 10, steim1)
    passes: list[Path] = []
    headers = mseed3._headers

    def counted(path: Path, numbers: dict[str, int]) -> Any:
        passes.append(path)
        return headers(path, numbers)

    monkeypatch.setattr(mseed3, "_headers", counted)
    monkeypatch.setattr(mseed3, "SMALL", 0)
    monkeypatch.setattr(waveforms, "WHOLE", 0)
    samples = samples_of(Miniseed, path, split="train", frames_per_sample=500)
    np.testing.assert_array_equal(np.concatenate([s.values.ravel() for s in samples]), counts(3000).astype(np.float32))
    assert passes == [path]
