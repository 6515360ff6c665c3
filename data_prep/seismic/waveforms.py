"""Recorded waveforms: contiguous traces of miniSEED 2 and 3 and SAC, and what their headers say."""

from __future__ import annotations

import bisect
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from scigpt.data_prep.formats import mseed2, mseed3, sac
from scigpt.data_prep.formats.opening import one_sentence
from scigpt.errors import UserError

Form = Literal["miniSEED", "miniSEED 3", "SAC"]

EPOCH = 946684800 * 10**9
"""Nanoseconds from 1970 to 2000."""
WHOLE = 64 << 20
"""Bytes up to which a file of records is read as a whole to be kept; of a larger one only the spans that are asked for."""


def obspy() -> Any:
    """The package obspy, an extra."""
    try:
        import obspy
    except ImportError:
        raise UserError("reading seismograms needs obspy, which is not installed; run: pip install 'scigpt[seismic]'") from None
    return obspy


def form_of(path: Path) -> Form | None:
    """What the first bytes say."""
    if path.is_dir():
        return None
    with path.open("rb") as file:
        head = file.read(sac.HEADER)
    if mseed3.recognises(head):
        return "miniSEED 3"
    if head[:6].isdigit() and head[6:7] in (b"D", b"R", b"Q", b"M", b"V"):
        return "miniSEED"
    return "SAC" if sac.recognises(head) else None


def read_traces(path: Path, headonly: bool = False) -> Any:
    """The contiguous traces of a miniSEED or SEED file, in the order of the file.

    Raises:
        UserError: another format, or a file that ends within a record (obspy itself would only warn).
    """
    form = form_of(path)
    if form not in ("miniSEED", "miniSEED 3"):
        raise UserError(f"{path.name} is not miniSEED or SEED by its first bytes; expected records that begin with a sequence number")
    return traces_of(path, form, headonly)


def traces_of(path: Path, form: Form, headonly: bool, channel: str | None = None, span: tuple[int, int] | None = None) -> Any:
    """All traces, or those of a channel cut to a span of nanoseconds."""
    with one_sentence(path), warnings.catch_warnings():
        obspy()
        if form == "miniSEED 3":
            return mseed3.read(path, headonly, channel, span)
        if form == "SAC":
            return [sac.read(path, headonly)]
        warnings.simplefilter("error", category=_mseed_warning())
        traces = mseed2.read(path, headonly, channel, span)
    if channel is None:
        shortest = min(t.stats.mseed.record_length for t in traces)
        if path.stat().st_size % shortest:
            size = path.stat().st_size
            raise UserError(f"{path.name} ends within a record ({size} bytes, records of {shortest}); it is truncated, fetch it again")
    return traces


def _mseed_warning() -> type[Warning]:
    obspy()
    from obspy.io.mseed import InternalMSEEDWarning

    return InternalMSEEDWarning


@dataclass(frozen=True)
class Header:
    """What the header of a contiguous trace says.

    Args:
        start: instant of the first sample, nanoseconds since 1970.
        rate: samples per second.
        quality: the code D, R, Q or M of miniSEED 2, as it is; the publication version of miniSEED 3.
        sac: of a SAC file the fields that are set.
    """

    path: Path
    id: str
    start: int
    rate: float
    count: int
    quality: str = ""
    sac: Mapping[str, Any] = field(default_factory=dict)

    @property
    def stop(self) -> int:
        """Nanoseconds of the end of the last sample's interval."""
        return self.start + round(self.count * 1e9 / self.rate)

    def touches(self, low: int, high: int) -> bool:
        return self.start < high and self.stop > low


def headers_of(path: Path, notes: list[str]) -> list[Header]:
    """Headers of the traces with regular samples.

    Raises:
        UserError: no format of waveforms, truncated, or damaged.
    """
    form = form_of(path)
    if form is None:
        raise UserError(f"{path.name} is not miniSEED or SAC by its first bytes; `scigpt data inspect` says what it is")
    found = []
    for trace in traces_of(path, form, headonly=True):
        s = trace.stats
        if trace.id.count(".") != 3 or not s.channel:
            field = "kcmpnm, kstnm, knetwk and khole of its header" if form == "SAC" else "its record headers"
            raise UserError(
                f"{path.name}: {trace.id[:40]!r} names no channel; expected network, station, location and channel such as IU.ANMO.00.BHZ "
                f"without other dots ({field})"
            )
        if s.sampling_rate <= 0 or s.npts == 0:
            notes.append(f"{trace.id} in {path.name} is left out: it has no regular samples (a log)")
            continue
        if form == "SAC":  # its interval has seven digits
            rate, quality, fields = float(f"{s.sampling_rate:.6g}"), "", dict(s.sac)
        else:
            rate, quality, fields = float(s.sampling_rate), s.mseed.dataquality, {}
        found.append(Header(path, trace.id, s.starttime.ns, rate, int(s.npts), quality, fields))
    return found


class Timeline:
    """The traces of an instrument in the order of their starts.

    Args:
        headers: at least one.
    """

    def __init__(self, headers: Sequence[Header]) -> None:
        self.headers = sorted(headers, key=lambda h: (h.start, h.id, str(h.path)))
        self._starts = [h.start for h in self.headers]
        self._longest = max(h.stop - h.start for h in self.headers)

    def touching(self, low: int, high: int) -> list[Header]:
        """Those that hold a part of a span, nanoseconds since 1970."""
        first, last = bisect.bisect_left(self._starts, low - self._longest), bisect.bisect_right(self._starts, high)
        return [h for h in self.headers[first:last] if h.touches(low, high)]
