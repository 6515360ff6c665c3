"""Recordings along optical fibres in HDF5: what the array is, which axis is time, when and where its frames and channels are.

Laid out as FORGE's strain and temperature (`data`, `depth`, `stamps_unix`), Neubrex (`Acoustic`), the standard of the Geothermal Data
Repository (`DasRawData`), ProdML (`Acquisition/Raw[0]`), PoroTomo (`das`, `t`, `channel`), or plain arrays that are named by what they are.
Values are read by window. What they measure is taken from a stated unit; optical phase is never called a strain rate.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from scigpt.data_prep.formats.hdf5 import contents, is_hdf5, open_hdf5, texts
from scigpt.data_prep.formats.opening import one_sentence
from scigpt.errors import UserError

EPOCH = 946684800.0
"""2000-01-01 in seconds since 1970."""
UNITS = {
    **dict.fromkeys(("strain", "m/m"), ("strain", "1")),
    **dict.fromkeys(("microstrain", "ustrain", "ue"), ("strain", "1e-6")),
    **dict.fromkeys(("nanostrain", "nstrain", "ne"), ("strain", "1e-9")),
    **dict.fromkeys(("strain/s", "1/s", "strainrate", "m/m/s", "(m/m)/s"), ("strain_rate", "1/s")),
    **dict.fromkeys(("microstrain/s", "ustrain/s", "ue/s"), ("strain_rate", "1e-6/s")),
    **dict.fromkeys(("nanostrain/s", "nstrain/s", "nm/m/s", "(nm/m)/s"), ("strain_rate", "1e-9/s")),
    **dict.fromkeys(("f", "degf", "fahrenheit"), ("borehole_temperature", "degF")),
    **dict.fromkeys(("c", "degc", "celsius"), ("borehole_temperature", "degC")),
    **dict.fromkeys(("k", "kelvin"), ("borehole_temperature", "K")),
    **dict.fromkeys(("rad", "radian", "radians"), ("optical_phase", "radian")),
    **dict.fromkeys(("rad/s", "radian/s", "radians/s"), ("optical_phase_rate", "radian/s")),
}
"""Stated units in lower case without blanks and hyphens: quantity, and the unit as pint reads it."""
_TIMES = ("time", "t", "timestamp", "timestamps", "stamps_unix")
_PLACES = ("depth", "distance", "channel", "channels", "locus")
_ARRAYS = ("data", "raw", "das", "strain", "strain_rate", "strainrate", "phase")


@dataclass(frozen=True, eq=False)
class Fibre:
    """An open recording.

    Args:
        array: the values; `time_axis` is the axis of time, the other one that of the channels.
        seconds: float64 `(T,)`, since 2000-01-01 UTC, or since whatever the file counts from where `dated` is false.
        distance: float64 `(X,)` in m, or the numbers of the channels where `placed` is false.
        quantity, unit: empty where the file does not say.
        coordinates: `x`, `y`, `z` of each channel in m, where the file has them.
    """

    path: Path
    layout: str
    array: h5py.Dataset
    time_axis: int
    seconds: np.ndarray
    dated: bool
    distance: np.ndarray
    placed: bool
    quantity: str
    unit: str
    about: Mapping[str, Any] = field(default_factory=dict)
    coordinates: Mapping[str, np.ndarray] = field(default_factory=dict)

    def read(self, frames: slice, channels: slice) -> np.ndarray:
        """`(T, X)`, float64, as stored."""
        with one_sentence(self.path):
            part = self.array[(frames, channels) if self.time_axis == 0 else (channels, frames)]
        return np.asarray(part if self.time_axis == 0 else part.T, np.float64)

    @property
    def name(self) -> str:
        return f"{self.path.name}, {self.array.name}"


@contextmanager
def open_fibre(path: Path, time_axis: int | None = None) -> Iterator[Fibre]:
    """The recording of a file.

    Args:
        time_axis: of an array whose axes the file does not tell apart.

    Raises:
        UserError: not HDF5, no known layout, arrays that do not fit each other, damaged.
    """
    with open_hdf5(path) as file:
        with one_sentence(path):
            layout = _layout(file)
            if layout is None:
                held = ", ".join(contents(file)) or "no array"
                raise UserError(f"{path.name} is laid out as no fibre recording that is known: it holds {held[:200]}")
            fibre = _LAYOUTS[layout][1](path, file, time_axis)
        yield fibre


def is_fibre(path: Path) -> bool:
    """Whether the file is HDF5 in a known layout."""
    try:
        if not is_hdf5(path):
            return False
        with open_hdf5(path) as file:
            return _layout(file) is not None
    except (UserError, OSError, RuntimeError, KeyError):
        return False


def _layout(file: h5py.File) -> str | None:
    return next((name for name, (fits, _) in _LAYOUTS.items() if fits(file)), None)


# layouts


def _forge(path: Path, file: h5py.File, time_axis: int | None) -> Fibre:
    data = _array(file["data"], path)
    seconds, distance = _since_1970(np.asarray(file["stamps_unix"], np.float64), path), np.asarray(file["depth"], np.float64)
    axis = _axis(data, len(seconds), len(distance), path, 0 if time_axis is None else time_axis)
    label = _text(data.attrs, "DataUnitLabel")
    quantity, unit = _measured(label)
    names = {"FieldName": "field", "WellName": "well", "WellID": "well_id", "API": "api", "TimeZoneFormat": "clock_of_the_site"}
    about = {ours: _text(data.attrs, theirs) for theirs, ours in names.items() if _text(data.attrs, theirs) not in ("", "NA")}
    return Fibre(path, "forge", data, axis, seconds, True, distance, True, quantity, unit, about | {"stated_unit": label})


def _neubrex(path: Path, file: h5py.File, time_axis: int | None) -> Fibre:
    data = _array(file["Acoustic"], path)
    attrs = data.attrs
    begin = _text(attrs, "GPSTimeStamp(UTC)") or _text(attrs, "CPUTimeStamp(UTC)")
    step, spacing = _number(attrs, "TimeSamplingInterval(seconds)"), _number(attrs, "SpatialSamplingInterval")
    axis = 0 if time_axis is None else time_axis
    if step is None or step <= 0 or spacing is None:
        raise UserError(f"{path.name}: Acoustic states no TimeSamplingInterval(seconds) or SpatialSamplingInterval; the file is incomplete")
    seconds = (0.0 if not begin else _instant(begin, path)) + step * np.arange(data.shape[axis])
    distance = (_number(attrs, "StartPosition") or 0.0) + spacing * np.arange(data.shape[1 - axis])
    if re.match(r"(?i)f", _text(attrs, "StartStopPositionUnit")):
        distance = distance * 0.3048
    label = _text(attrs, "DataPhysicalUnit")
    about = {"gauge_length_m": _number(attrs, "GaugeLength"), "instrument": _text(attrs, "NEUBRESCOPE.DAS.Model"), "stated_unit": label}
    return Fibre(path, "neubrex", data, axis, seconds, bool(begin), distance, True, *_measured(label), _known(about))


def _standard(path: Path, file: h5py.File, time_axis: int | None) -> Fibre:
    data = _array(file["DasRawData/RawData"], path)
    seconds = _since_1970(np.asarray(file["DasRawData/DasTimeArray"]), path)
    attrs = file["DasMetadata/Interrogator/Acquisition"].attrs
    dims = [d.lower() for d in texts(data.attrs.get("DasDimensions", []))]
    axis = next((i for i, d in enumerate(dims) if d.startswith("time")), time_axis)
    count = data.shape[1 - axis] if axis is not None else data.size // max(1, len(seconds))
    axis = _axis(data, len(seconds), count, path, axis)
    spacing = _number(attrs, "SpatialSamplingInterval")
    distance = np.arange(count) * (1.0 if spacing is None else spacing)
    label = _text(attrs, "UnitOfMeasure")
    about = _known({"gauge_length_m": _number(attrs, "GaugeLength"), "stated_unit": label})
    return Fibre(path, "gdr", data, axis, seconds, True, distance, spacing is not None, *_measured(label), about)


def _prodml(path: Path, file: h5py.File, time_axis: int | None) -> Fibre:
    own = file["Acquisition"].attrs
    raw = next(g for n, g in file["Acquisition"].items() if n.lower().startswith("raw") and "RawData" in g)
    data = _array(raw["RawData"], path)
    seconds = _since_1970(np.asarray(raw["RawDataTime"]), path)
    dims = [d.lower() for d in texts(data.attrs.get("Dimensions", []))]
    axis = next((i for i, d in enumerate(dims) if d.startswith("time")), time_axis)
    count = int(_number(own, "NumberOfLoci") or 0) or data.size // max(1, len(seconds))
    axis = _axis(data, len(seconds), count, path, axis)
    spacing = _number(own, "SpatialSamplingInterval")
    distance = ((_number(own, "StartLocusIndex") or 0.0) + np.arange(count)) * (1.0 if spacing is None else spacing)
    label = _text(raw.attrs, "RawDataUnit")
    about = _known({"gauge_length_m": _number(own, "GaugeLength"), "stated_unit": label})
    return Fibre(path, "prodml", data, axis, seconds, True, distance, spacing is not None, *_measured(label), about)


def _porotomo(path: Path, file: h5py.File, time_axis: int | None) -> Fibre:
    data = _array(file["das"], path)
    clock = np.asarray(file["t"], np.float64).ravel() * 1e-6
    channel = np.asarray(file["channel"], np.float64).ravel()
    axis = _axis(data, len(clock), len(channel), path, time_axis)
    places = {n: np.asarray(file[n], np.float64).ravel() for n in "xyz" if n in file and file[n].size == len(channel)}
    frame = texts(file["crs"][()])[0][:200] if isinstance(file.get("crs"), h5py.Dataset) and file["crs"].size else ""
    about = _known({"stated_unit": _text(data.attrs, "units"), "crs": frame})
    # radians of optical phase change for each sample of time, as the archive's description says
    quantity, unit = _measured(_text(data.attrs, "units")) if _text(data.attrs, "units") else ("optical_phase", "radian")
    return Fibre(path, "porotomo", data, axis, clock, False, channel, False, quantity, unit, about, places)


def _plain(path: Path, file: h5py.File, time_axis: int | None) -> Fibre:
    data = _array(_among(file, _ARRAYS, 2), path)
    clock, place = _among(file, _TIMES, 1), _among(file, _PLACES, 1)
    assert clock is not None
    assert place is not None
    numbers = np.asarray(clock, np.float64)
    stated = _text(clock.attrs, "units")
    dated = numbers[0] > 3e8 or "1970" in stated
    if dated:
        seconds = _since_1970(numbers, path)
    else:
        seconds = numbers * {"us": 1e-6, "ms": 1e-3, "ns": 1e-9}.get(stated.lower(), 1.0)
    axis = _axis(data, len(seconds), len(place), path, time_axis)
    distance = np.asarray(place, np.float64)
    placed = place.name.rsplit("/", 1)[1].lower() in ("depth", "distance")
    if placed and re.match(r"(?i)f(ee|oo)?t", _text(place.attrs, "units")):
        distance = distance * 0.3048
    label = _text(data.attrs, "units") or _text(data.attrs, "DataUnitLabel") or _text(data.attrs, "unit")
    gauge = _number(data.attrs, "gauge_length") or _number(file.attrs, "gauge_length")
    about = _known({"gauge_length_m": gauge, "stated_unit": label})
    return Fibre(path, "plain", data, axis, seconds, dated, distance, placed, *_measured(label), about)


def _has(file: h5py.File, *names: str) -> bool:
    return all(name in file for name in names)


_LAYOUTS: Mapping[str, tuple[Callable[[h5py.File], bool], Callable[[Path, h5py.File, int | None], Fibre]]] = {
    "forge": (lambda f: _has(f, "data", "depth", "stamps_unix"), _forge),
    "neubrex": (lambda f: "Acoustic" in f and "TimeSamplingInterval(seconds)" in f["Acoustic"].attrs, _neubrex),
    "gdr": (lambda f: _has(f, "DasRawData/RawData", "DasRawData/DasTimeArray", "DasMetadata/Interrogator/Acquisition"), _standard),
    "prodml": (lambda f: "Acquisition" in f and any("RawDataTime" in g for g in _groups(f["Acquisition"]) if "RawData" in g), _prodml),
    "porotomo": (lambda f: _has(f, "das", "t", "channel"), _porotomo),
    "plain": (lambda f: all(_among(f, n, d) is not None for n, d in ((_ARRAYS, 2), (_TIMES, 1), (_PLACES, 1))), _plain),
}


# their parts


def _groups(group: Any) -> list[Any]:
    return [g for g in group.values() if isinstance(g, h5py.Group)] if isinstance(group, h5py.Group) else []


def _among(file: h5py.File, names: tuple[str, ...], ndim: int) -> h5py.Dataset | None:
    """The first dataset of numbers of one of these names (in any case) and so many axes."""
    there = {n.lower(): n for n in file}
    found = (file[there[n]] for n in names if n in there)
    return next((d for d in found if isinstance(d, h5py.Dataset) and d.ndim == ndim and d.dtype.kind in "iuf"), None)


def _array(data: Any, path: Path) -> h5py.Dataset:
    if not isinstance(data, h5py.Dataset) or data.ndim != 2 or data.dtype.kind not in "iuf" or 0 in data.shape:
        raise UserError(f"{path.name}: the recording is no array of numbers with two axes, time and channel; the file is incomplete")
    return data


def _axis(data: h5py.Dataset, times: int, channels: int, path: Path, stated: int | None) -> int:
    """Which axis is time."""
    fitting = [axis for axis in (0, 1) if (data.shape[axis], data.shape[1 - axis]) == (times, channels)]
    if stated in fitting:
        return int(stated) if stated is not None else 0
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise UserError(
            f"{path.name}: {data.name} is square, {data.shape}, and the file does not say which axis is time; give time_axis=0 or 1"
        )
    raise UserError(
        f"{path.name}: {data.name} has the shape {data.shape} for {times} times and {channels} channels; the file is incomplete"
    )


def _since_1970(stamps: np.ndarray, path: Path) -> np.ndarray:
    """Counts since 1970 in ns, us, ms or s, told apart by their size, as seconds since 2000."""
    numbers = np.ravel(stamps)
    if not numbers.size or numbers.dtype.kind not in "iuf" or not np.isfinite(numbers.astype(np.float64)).all():
        raise UserError(f"{path.name}: its times are no finite numbers since 1970; the file may be damaged, fetch it again")
    size = float(np.median(np.abs(numbers.astype(np.float64))))
    scale = next((s for limit, s in ((1e17, 10**9), (1e14, 10**6), (1e11, 10**3)) if size >= limit), 1)
    if numbers.dtype.kind in "iu":  # no digit is lost
        return (numbers.astype(np.int64) - int(EPOCH) * scale) / scale
    return numbers.astype(np.float64) / scale - EPOCH


def _instant(text: str, path: Path) -> float:
    """ISO text in UTC as seconds since 2000."""
    try:
        instant = datetime.datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text.strip().replace("/", "-").rstrip("Z")))
    except ValueError:
        raise UserError(
            f"{path.name}: its first instant {text[:40]!r} cannot be read; expected ISO 8601, the file may be damaged"
        ) from None
    instant = instant if instant.tzinfo else instant.replace(tzinfo=datetime.UTC)
    return (instant - datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)).total_seconds()


def _measured(label: str) -> tuple[str, str]:
    """Quantity and unit of a stated unit; empty where it says nothing that is known."""
    plain = re.sub(r"[\s\-_*]", "", label).lower().replace("\u03bc", "u").replace("\u00b5", "u")
    return UNITS.get(re.sub(r"/(sec|second)$", "/s", plain), ("", ""))


def _text(attrs: Any, name: str) -> str:
    return texts(attrs[name])[0].strip() if name in attrs and np.size(attrs[name]) else ""


def _number(attrs: Any, name: str) -> float | None:
    try:
        value = float(_text(attrs, name))
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def _known(about: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in about.items() if v not in (None, "")}
