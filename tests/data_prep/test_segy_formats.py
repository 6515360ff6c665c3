"""SEG-Y files: every sample format in both byte orders, headers of all revisions, windows; equal to segyio's and obspy's reading."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from readings import real
from segy_files import line, write_segy

from scigpt.data_prep.formats.segy import is_segy, open_segy
from scigpt.data_prep.formats.segy_samples import FORMATS, ibm_float
from scigpt.errors import UserError

segyio = pytest.importorskip("segyio")
WHOLE = slice(None)
EBCDIC = "C 1 CLIENT: NOBODY    LINE: 7".encode("cp037")
REAL = ("small.sgy", "shot-gather.sgy", "viking_small.segy")


def refusal(path: Path, **options: object) -> str:
    with pytest.raises(UserError) as caught:
        open_segy(path, **options).require_alike()  # type: ignore[arg-type]
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert len(sentence) < 400
    return sentence


@pytest.mark.parametrize("name", REAL)
def test_a_real_file_equals_segyio(name: str) -> None:
    file = open_segy(real(f"segy/{name}"))
    with segyio.open(file.path, strict=False) as other:
        assert (file.traces, file.samples, file.format) == (other.tracecount, other.samples.size, int(other.format))
        assert file.interval == segyio.tools.dt(other) / 1e6
        np.testing.assert_array_equal(file.read(WHOLE), other.trace.raw[:])
        for byte in (1, 9, 13, 21, 29, 37, 71, 73, 81, 89, 109, 115, 117, 181, 189, 193):
            np.testing.assert_array_equal(file.header(byte), other.attributes(byte)[:])
    assert is_segy(file.path)


@pytest.mark.parametrize("endian", ["big", "little"])
@pytest.mark.parametrize("code", sorted(FORMATS))
def test_every_sample_format_in_both_byte_orders(code: int, endian: str, tmp_path: Path) -> None:
    values = np.round(line(5, 30)).astype(np.float64)
    values[0, :4] = 0, 1, 127, 100
    if code in (10, 11, 12, 15, 16):
        values = np.abs(values)
    if code in (8, 16):
        values = np.clip(values, -128, 127)
    if code in (1, 5, 6):
        values = values / 7 * 10.0 ** np.arange(-3, 2)[:, None]
    path = write_segy(tmp_path / "a.sgy", values, code=code, endian=endian)
    file = open_segy(path)
    assert (file.format, file.endian, file.traces, file.samples) == (code, ">" if endian == "big" else "<", 5, 30)
    found = file.read(WHOLE)
    np.testing.assert_allclose(found, values, rtol=1e-6)
    if code not in (7, 15):  # which segyio takes for IBM floats
        with segyio.open(path, ignore_geometry=True, endian=endian) as other:
            np.testing.assert_array_equal(found, other.trace.raw[:].astype(np.float32))


def test_negative_integers_of_three_bytes(tmp_path: Path) -> None:
    values = np.array([[-(2**23), -1, 0, 1, 2**23 - 1]])
    np.testing.assert_array_equal(open_segy(write_segy(tmp_path / "a.sgy", values, code=7)).read(WHOLE), values)


def test_ibm_floats_of_the_book() -> None:
    words = np.array([0xC276A000, 0x42640000, 0x00000000, 0x80000000, 0x7FFFFFFF, 0x41100000, 0x00000001], np.uint32)
    np.testing.assert_array_equal(ibm_float(words), np.array([-118.625, 100, 0, 0, np.inf, 1, 0], np.float32))


@pytest.mark.filterwarnings("ignore:CREATING TRACE HEADER")
@pytest.mark.parametrize(("order", "code"), [("<", 1), (">", 1), ("<", 5), (">", 2), ("<", 3)])
def test_files_that_obspy_writes(order: str, code: int, tmp_path: Path) -> None:
    obspy = pytest.importorskip("obspy")
    data = np.round(line(4, 25)).astype({1: np.float32, 5: np.float32, 2: np.int32, 3: np.int16}[code])
    stream = obspy.Stream([obspy.Trace(row, {"delta": 0.002}) for row in data])
    stream.write(str(tmp_path / "a.segy"), format="SEGY", data_encoding=code, byteorder=order)
    file = open_segy(tmp_path / "a.segy")
    assert (file.endian, file.format, file.interval) == (order, code, 0.002)
    again = obspy.read(str(tmp_path / "a.segy"), format="SEGY", unpack_trace_headers=True)
    np.testing.assert_array_equal(file.read(WHOLE), np.array([t.data for t in again], np.float32))


def test_windows_are_parts_of_the_whole(tmp_path: Path) -> None:
    values = line(40, 60)
    file = open_segy(write_segy(tmp_path / "a.sgy", values, {193: np.arange(40) - 20}))
    np.testing.assert_array_equal(file.read(slice(3, 30, 4), slice(11, 29)), values[3:30:4, 11:29])
    some = np.array([39, 0, 17, 17])
    np.testing.assert_array_equal(file.read(some, slice(59, 60)), values[some, 59:])
    np.testing.assert_array_equal(file.read(7), values[7:8])
    assert file.read(slice(5, 5)).shape == (0, 60)
    np.testing.assert_array_equal(file.header(193, some), some - 20)
    np.testing.assert_array_equal(file.header(193, kind="f4"), (np.arange(40) - 20).astype(">i4").view(">f4"))


def test_nan_and_infinity_stay_what_they_are(tmp_path: Path) -> None:
    values = line(2, 8)
    values[0, 2], values[1, 3] = np.nan, -np.inf
    np.testing.assert_array_equal(open_segy(write_segy(tmp_path / "a.sgy", values)).read(WHOLE), values)


# --- textual and binary headers


def test_text_in_ebcdic_and_in_ascii_is_told_apart_by_content(tmp_path: Path) -> None:
    ebcdic = write_segy(tmp_path / "a.sgy", line(), text=EBCDIC)
    ascii_ = write_segy(tmp_path / "b.sgy", line(), text=EBCDIC.decode("cp037").encode("ascii").ljust(3200))
    assert open_segy(ebcdic).text == open_segy(ascii_).text == "C 1 CLIENT: NOBODY    LINE: 7"


def test_extended_textual_headers_are_counted_or_end_with_a_stanza(tmp_path: Path) -> None:
    values = line()
    extended = (b"((SEG: Location Data))", b"((SEG: EndText))")
    file = open_segy(write_segy(tmp_path / "a.sgy", values, text=EBCDIC, extended=extended))
    assert file.text.splitlines()[1:] == ["((SEG: Location Data))", "((SEG: EndText))"]
    np.testing.assert_array_equal(file.read(WHOLE), values)
    file = open_segy(write_segy(tmp_path / "b.sgy", values, extended=extended, binary={3505: (-1, 2)}))
    np.testing.assert_array_equal(file.read(WHOLE), values)
    never = write_segy(tmp_path / "c.sgy", values, binary={3505: (-1, 2)})
    assert "has no end of its extended textual headers" in refusal(never)
    old = write_segy(tmp_path / "d.sgy", values, revision=(0, 0), binary={3505: (3, 2)})  # unassigned bytes of revision 0
    np.testing.assert_array_equal(open_segy(old).read(WHOLE), values)


def test_revision_2_little_endian_with_everything(tmp_path: Path) -> None:
    values = line(3, 70000)
    binary = {3269: (70000, 4), 3297: (0x01020304, 4), 3507: (1, 4), 3513: (3, 8), 3521: (3600 + 64, 8), 3529: (1, 4)}
    path = write_segy(
        tmp_path / "a.sgy", values, endian="little", interval=0, revision=(2, 0), more_trace_headers=1, binary=binary, before=b"x" * 64,
        after=b"y" * 3200,
    )  # fmt: skip
    whole = bytearray(path.read_bytes())
    whole[3272:3280] = np.array([62.5], "<f8").tobytes()  # microseconds
    path.write_bytes(whole)
    file = open_segy(path)
    assert (file.endian, file.revision, file.samples, file.traces, file.interval) == ("<", (2, 0), 70000, 3, 62.5e-6)
    np.testing.assert_array_equal(file.read(WHOLE), values)


def test_revision_2_says_how_many_traces_there_are(tmp_path: Path) -> None:
    path = write_segy(tmp_path / "a.sgy", line(5, 20), revision=(2, 0), binary={3513: (6, 8)})
    assert "has 5 traces and its header promises 6; it is truncated" in refusal(path)


def test_samples_and_interval_above_the_range_of_signed_words(tmp_path: Path) -> None:
    file = open_segy(write_segy(tmp_path / "a.sgy", line(2, 40000), interval=50000))
    assert (file.samples, file.interval) == (40000, 0.05)
    assert file.header(115)[0] == 40000


def test_an_interval_of_zero_is_looked_up_in_the_trace_header(tmp_path: Path) -> None:
    assert open_segy(write_segy(tmp_path / "a.sgy", line(), {117: 2000}, interval=0)).interval == 0.002
    assert open_segy(write_segy(tmp_path / "b.sgy", line(), {117: 0}, interval=0)).interval is None


def test_intervals_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    path = write_segy(tmp_path / "a.sgy", line(), {117: 2000}, interval=4000)
    assert "has the sample interval 0.004 s by its first header and 0.002 s by a trace header" in refusal(path)
    path = write_segy(tmp_path / "b.sgy", line(), {117: [4000, 4000, 4000, 4000, 4000, 1000]})
    assert "0.001 s by a trace header; expected one, say which with dt=" in refusal(path)


# --- lengths


@pytest.mark.parametrize("lost", [1, 2, 3, 4, 40, 319, 321, 1000])
def test_a_file_truncated_within_a_trace_is_refused(lost: int, tmp_path: Path) -> None:
    path = write_segy(tmp_path / "a.sgy", line())  # 320 bytes a trace
    path.write_bytes(path.read_bytes()[:-lost])
    assert "which is no whole number of traces of 20 samples (IEEE float, 4 bytes: 320 bytes a trace); it is truncated" in refusal(path)


@pytest.mark.parametrize("size", [1, 3199, 3600, 3839])
def test_a_file_without_a_trace_is_refused(size: int, tmp_path: Path) -> None:
    path = write_segy(tmp_path / "a.sgy", line())
    path.write_bytes(path.read_bytes()[:size])
    assert "too few for the headers of SEG-Y (3840); it may be truncated" in refusal(path)


def test_traces_of_unequal_length_are_refused(tmp_path: Path) -> None:
    path = write_segy(tmp_path / "a.sgy", line(6, 20), {115: [20, 20, 10, 20, 20, 20]})
    assert "has traces of unequal length (from 10 to 20 samples by their headers)" in refusal(path)


def test_a_file_cut_from_a_longer_one_is_told_by_its_length(tmp_path: Path) -> None:
    values = line(6, 20)
    kept_in_traces = open_segy(write_segy(tmp_path / "a.sgy", values, {115: 1500}))
    kept_in_head = open_segy(write_segy(tmp_path / "b.sgy", values, samples=1500))
    nowhere_but_traces = open_segy(write_segy(tmp_path / "c.sgy", values, samples=0))
    for file in (kept_in_traces, kept_in_head, nowhere_but_traces):
        np.testing.assert_array_equal(file.read(WHOLE), values)
    none = write_segy(tmp_path / "d.sgy", values, {115: 0}, samples=0)
    assert "has no number of samples in its headers; say it with samples=" in refusal(none)
    np.testing.assert_array_equal(open_segy(none, samples=20).read(WHOLE), values)


def test_wrong_format_codes_are_refused_or_overridden(tmp_path: Path) -> None:
    values = line()
    path = write_segy(tmp_path / "a.sgy", values, binary={3225: (0, 2)})
    assert "is no SEG-Y: byte 3225 has the sample format 0, expected 1 to 16" in refusal(path)
    np.testing.assert_array_equal(open_segy(path, format=5, endian="big").read(WHOLE), values)
    assert "has samples of format 4; expected one of 1, 2, 3, 5" in refusal(write_segy(tmp_path / "b.sgy", values, binary={3225: (4, 2)}))


def test_compressed_files_and_other_files_are_refused(tmp_path: Path) -> None:
    for start, words in (
        (b"\x1f\x8b", "is compressed; unpack it first"),
        (b"PK\x03\x04", "is compressed"),
        (b"\x89HDF\r\n", "is no SEG-Y"),
    ):
        path = tmp_path / "a.sgy"
        path.write_bytes(start + bytes(5000))
        assert words in refusal(path)
        assert not is_segy(path)
    assert not is_segy(tmp_path / "nowhere.sgy")


@pytest.mark.drill
def test_a_large_file_is_read_by_window(tmp_path: Path) -> None:
    """6 GB, of which the trace headers and windows are read by another process: its memory stays far below it."""
    path = write_segy(tmp_path / "a.sgy", line(1, 15000))
    os.truncate(path, 3600 + 100_000 * 60240)
    told = subprocess.run([sys.executable, "-c", LARGE, str(path)], check=True, capture_output=True, text=True).stdout
    traces, known, most = map(int, told.split())
    assert (traces, known) == (100_000, 1)
    assert most < 600 << 10  # KiB


LARGE = """
import resource, sys
from pathlib import Path
import numpy as np
from scigpt.data_prep.formats.segy import open_segy
file = open_segy(Path(sys.argv[1]))
with file.kept((115, 117, 189)):
    known = np.count_nonzero(file.header(115))
file.header(189, np.arange(0, file.traces, 20))
assert not file.read(np.arange(1, 100_000, 25), slice(100, 200)).any()
print(file.traces, known, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_a_first_trace_before_the_file_is_damage(tmp_path: Path) -> None:
    path = write_segy(tmp_path / "a.sgy", line(), revision=(2, 0))
    data = bytearray(path.read_bytes())
    data[3520:3528] = (-5).to_bytes(8, "big", signed=True)
    path.write_bytes(data)
    assert "a.sgy says that its first trace begins at byte -5; it is damaged" in refusal(path)
    assert not is_segy(path)
