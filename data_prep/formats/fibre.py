"""Recordings along optical fibres in HDF5: what the array is, which axis is time, when and where its frames and channels are.

Laid out as FORGE's strain and temperature (`data`, `depth`, `stamps_unix`), Neubrex (`Acoustic`), the standard of the Geothermal Data
Repository (`DasRawData`), ProdML (`Acquisition/Raw[0]`), PoroTomo (`das`, `t`, `channel`), or plain arrays that are named by what they are.
Values are read by window. What they measure is taken from a stated unit; optical phase is never called a strain rate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from scigpt.data_prep.formats.fibre_units import clock, instant, length, lengths, measured, number, since_1970, text
from scigpt.data_prep.formats.hdf5 import contents, is_hdf5, open_hdf5, texts
from scigpt.data_prep.formats.opening import one_sentence
from scigpt.errors import UserError

FORGE_DEPTH = "ft"
"""FORGE's files state no unit of depth: light ends at 10110 of them, and their well 16B(78)-32 is some 11000 feet long."""
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
        depth_assumed: the file states no unit of its depths or distances.
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
    depth_assumed: bool = False

    def read(self, frames: slice, channels: slice) -> np.ndarray:
        """`(T, X)`, float64, as stored."""
        with one_sentence(self.path):
            part = self.array[(frames, channels) if self.time_axis == 0 else (channels, frames)]
        return np.asarray(part if self.time_axis == 0 else part.T, np.float64)

    @property
    def name(self) -> str:
        return f"{self.path.name}, {self.array.name}"


@contextmanager
def open_fibre(path: Path, time_axis: int | None = None, depth_unit: str | None = None) -> Iterator[Fibre]:
    """The recording of a file.

    Args:
        time_axis: of an array whose axes the file does not tell apart.
        depth_unit: of depths or distances whose unit the file does not state.

    Raises:
        UserError: not HDF5, no known layout, arrays that do not fit each other, units that are none, damaged.
    """
    with open_hdf5(path) as file:
        with one_sentence(path):
            layout = _layout(file)
            if layout is None:
                held = ", ".join(contents(file)) or "no array"
                raise UserError(f"{path.name} is laid out as no fibre recording that is known: it holds {held[:200]}")
            fibre = _LAYOUTS[layout][1](path, file, _Asked(time_axis, depth_unit))
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


@dataclass(frozen=True)
class _Asked:
    """What the user states of a file that does not say it itself."""

    time_axis: int | None
    depth_unit: str | None


def _layout(file: h5py.File) -> str | None:
    return next((name for name, (fits, _) in _LAYOUTS.items() if fits(file)), None)


# layouts


def _forge(path: Path, file: h5py.File, asked: _Asked) -> Fibre:
    data = _array(file["data"], path)
    seconds = since_1970(np.asarray(file["stamps_unix"], np.float64), path.name)
    stated = text(file["depth"].attrs, "units")
    distance = lengths(file["depth"], stated or asked.depth_unit or FORGE_DEPTH, f"{path.name}, depth")
    axis = _axis(data, len(seconds), len(distance), path, 0 if asked.time_axis is None else asked.time_axis)
    label = text(data.attrs, "DataUnitLabel")
    quantity, unit = measured(label)
    names = {"FieldName": "field", "WellName": "well", "WellID": "well_id", "API": "api", "TimeZoneFormat": "clock_of_the_site"}
    about = {ours: text(data.attrs, theirs) for theirs, ours in names.items() if text(data.attrs, theirs) not in ("", "NA")}
    about |= {"stated_unit": label}
    return Fibre(path, "forge", data, axis, seconds, True, distance, True, quantity, unit, about, depth_assumed=not stated)


def _neubrex(path: Path, file: h5py.File, asked: _Asked) -> Fibre:
    data = _array(file["Acoustic"], path)
    attrs = data.attrs
    begin = text(attrs, "GPSTimeStamp(UTC)") or text(attrs, "CPUTimeStamp(UTC)")
    unit = text(attrs, "StartStopPositionUnit") or "m"
    step, spacing = number(attrs, "TimeSamplingInterval(seconds)"), length(attrs, "SpatialSamplingInterval", path.name, unit)
    axis = 0 if asked.time_axis is None else asked.time_axis
    if step is None or step <= 0 or spacing is None:
        raise UserError(f"{path.name}: Acoustic states no TimeSamplingInterval(seconds) or SpatialSamplingInterval; the file is incomplete")
    seconds = (0.0 if not begin else instant(begin, path.name)) + step * np.arange(data.shape[axis])
    distance = (length(attrs, "StartPosition", path.name, unit) or 0.0) + spacing * np.arange(data.shape[1 - axis])
    label = text(attrs, "DataPhysicalUnit")
    about = {
        "gauge_length_m": length(attrs, "GaugeLength", path.name),
        "instrument": text(attrs, "NEUBRESCOPE.DAS.Model"),
        "stated_unit": label,
    }
    return Fibre(path, "neubrex", data, axis, seconds, bool(begin), distance, True, *measured(label), _known(about))


def _standard(path: Path, file: h5py.File, asked: _Asked) -> Fibre:
    data = _array(file["DasRawData/RawData"], path)
    seconds = since_1970(np.asarray(file["DasRawData/DasTimeArray"]), path.name)
    attrs = file["DasMetadata/Interrogator/Acquisition"].attrs
    dims = [d.lower() for d in texts(data.attrs.get("DasDimensions", []))]
    axis = next((i for i, d in enumerate(dims) if d.startswith("time")), asked.time_axis)
    count = data.shape[1 - axis] if axis is not None else data.size // max(1, len(seconds))
    axis = _axis(data, len(seconds), count, path, axis)
    spacing = length(attrs, "SpatialSamplingInterval", path.name)
    distance = np.arange(count) * (1.0 if spacing is None else spacing)
    label = text(attrs, "UnitOfMeasure")
    about = _known({"gauge_length_m": length(attrs, "GaugeLength", path.name), "stated_unit": label})
    return Fibre(path, "gdr", data, axis, seconds, True, distance, spacing is not None, *measured(label), about)


def _prodml(path: Path, file: h5py.File, asked: _Asked) -> Fibre:
    own = file["Acquisition"].attrs
    raw = next(g for n, g in file["Acquisition"].items() if n.lower().startswith("raw") and "RawData" in g)
    data = _array(raw["RawData"], path)
    seconds = since_1970(np.asarray(raw["RawDataTime"]), path.name)
    dims = [d.lower() for d in texts(data.attrs.get("Dimensions", []))]
    axis = next((i for i, d in enumerate(dims) if d.startswith("time")), asked.time_axis)
    count = int(number(own, "NumberOfLoci") or 0) or data.size // max(1, len(seconds))
    axis = _axis(data, len(seconds), count, path, axis)
    spacing = length(own, "SpatialSamplingInterval", path.name)
    distance = ((number(own, "StartLocusIndex") or 0.0) + np.arange(count)) * (1.0 if spacing is None else spacing)
    label = text(raw.attrs, "RawDataUnit")
    about = _known({"gauge_length_m": length(own, "GaugeLength", path.name), "stated_unit": label})
    return Fibre(path, "prodml", data, axis, seconds, True, distance, spacing is not None, *measured(label), about)


def _porotomo(path: Path, file: h5py.File, asked: _Asked) -> Fibre:
    data = _array(file["das"], path)
    seconds = np.asarray(file["t"], np.float64).ravel() * 1e-6
    channel = np.asarray(file["channel"], np.float64).ravel()
    axis = _axis(data, len(seconds), len(channel), path, asked.time_axis)
    places = {n: np.asarray(file[n], np.float64).ravel() for n in "xyz" if n in file and file[n].size == len(channel)}
    frame = texts(file["crs"][()])[0][:200] if isinstance(file.get("crs"), h5py.Dataset) and file["crs"].size else ""
    about = _known({"stated_unit": text(data.attrs, "units"), "crs": frame})
    # radians of optical phase change for each sample of time, as the archive's description says
    quantity, unit = measured(text(data.attrs, "units")) if text(data.attrs, "units") else ("optical_phase", "radian")
    return Fibre(path, "porotomo", data, axis, seconds, False, channel, False, quantity, unit, about, places)


def _plain(path: Path, file: h5py.File, asked: _Asked) -> Fibre:
    data = _array(_among(file, _ARRAYS, 2), path)
    times, place = _among(file, _TIMES, 1), _among(file, _PLACES, 1)
    assert times is not None
    assert place is not None
    seconds, dated = clock(np.asarray(times), text(times.attrs, "units") or text(times.attrs, "unit"), path.name)
    axis = _axis(data, len(seconds), len(place), path, asked.time_axis)
    distance = np.asarray(place, np.float64)
    placed = place.name.rsplit("/", 1)[1].lower() in ("depth", "distance")
    stated = text(place.attrs, "units") or text(place.attrs, "unit")
    if placed:
        distance = lengths(distance, stated or asked.depth_unit or "m", f"{path.name}, {place.name[1:]}")
    label = text(data.attrs, "units") or text(data.attrs, "DataUnitLabel") or text(data.attrs, "unit")
    gauge = length(data.attrs, "gauge_length", path.name) or length(file.attrs, "gauge_length", path.name)
    about = _known({"gauge_length_m": gauge, "stated_unit": label})
    assumed = placed and not stated
    return Fibre(path, "plain", data, axis, seconds, dated, distance, placed, *measured(label), about, depth_assumed=assumed)


def _has(file: h5py.File, *names: str) -> bool:
    return all(name in file for name in names)


_LAYOUTS: Mapping[str, tuple[Callable[[h5py.File], bool], Callable[[Path, h5py.File, _Asked], Fibre]]] = {
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


def _known(about: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in about.items() if v not in (None, "")}
