"""Datasets in the format of SeisBench: a table with one row for each trace, and its samples in an HDF5 file. Read without that package.

The format's documentation: https://seisbench.readthedocs.io (pages on the data format). A component of nothing but zeros is how these
files say that there is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from scigpt.data_prep.files import kind
from scigpt.data_prep.formats.opening import one_sentence
from scigpt.data_prep.seismic.events import Event
from scigpt.data_prep.seismic.orientation import LETTERS
from scigpt.data_prep.seismic.seisbench_rows import Row, row_at, rows_of
from scigpt.errors import UserError

TERMS = (
    "as its dataset states",
    "a dataset in the format of SeisBench (Woollam et al. 2022, doi:10.1785/0220210324); cite its own publication",
)
"""Licence and attribution."""
SPLITS = {"train": "train", "dev": "valid", "valid": "valid", "test": "test"}
MOTION: Mapping[str, tuple[str, str]] = {
    "counts": ("seismic_counts", "count"),
    "count": ("seismic_counts", "count"),
    "m/s": ("ground_velocity", "m s**-1"),
    "mps": ("ground_velocity", "m s**-1"),
    "ms-1": ("ground_velocity", "m s**-1"),
    "m s-1": ("ground_velocity", "m s**-1"),
    "nm/s": ("ground_velocity", "nm/s"),
    "m/s^2": ("ground_acceleration", "m s**-2"),
    "m/s2": ("ground_acceleration", "m s**-2"),
    "m/s**2": ("ground_acceleration", "m s**-2"),
    "mps2": ("ground_acceleration", "m s**-2"),
    "ms-2": ("ground_acceleration", "m s**-2"),
    "cm/s^2": ("ground_acceleration", "cm/s**2"),
    "m": ("ground_displacement", "m"),
}
"""By the unit that a dataset states: what is measured, and its unit."""
_ARRIVAL = re.compile(r"trace_([PpSs])(n|g|b|diff?|1)?_arrival_sample")
_PLACE = re.compile(r"(\w+)\$(\d+)(?:,:(\d+))?(?:,:(\d+))?")


@dataclass(frozen=True)
class Trace:
    """One row of the table.

    Args:
        at: the byte of the table at which its line begins.
        bucket, row: where its samples lie: `data/BUCKET[row]`; row None where the array is the trace's own.
        shape: of the part that holds it, as the name states it, in the order of the file.
        start: nanoseconds since 1970.
        rate: samples per second.
        arrivals: sample of the first P and S; None where it is not known, False where it is known that there is none.
    """

    at: int
    name: str
    bucket: str
    row: int | None
    shape: tuple[int, ...]
    order: str
    start: int
    rate: float
    station: str
    event: Event | None
    split: str | None
    place: Mapping[str, float] | None
    arrivals: Mapping[str, float | bool | None] = field(default_factory=dict)


def is_table(path: Path) -> bool:
    """Whether this is the table of such a dataset, by its first line."""
    if path.is_dir() or path.suffix != ".csv":
        return False
    with path.open(encoding="utf-8", errors="replace") as file:
        columns = file.readline().strip().split(",")
    return "trace_name" in columns and "trace_start_time" in columns


def is_arrays(path: Path) -> bool:
    """Whether these are its samples: an HDF5 file of the groups data and data_format."""
    if path.is_dir() or kind(path) != "netcdf4":
        return False
    import h5py

    try:
        with h5py.File(path) as file:
            return "data" in file and "data_format" in file
    except OSError:
        return False


class Dataset:
    """A table and its array file."""

    def __init__(self, table: Path, arrays: Path) -> None:
        self.table, self.arrays = table, arrays
        self.format = self._format()
        unit = str(self.format.get("unit", "")).strip()
        if unit.lower() not in MOTION:
            raise UserError(
                f"{arrays.name} states the unit {unit!r} of its samples; expected one of {', '.join(MOTION)} (data_format/unit in the file)"
            )
        self.prefix, self.unit = MOTION[unit.lower()]
        self._known: dict[str, tuple[int, ...]] | None = None

    def _format(self) -> dict[str, Any]:
        import h5py

        with one_sentence(self.arrays), h5py.File(self.arrays) as file:
            if "data" not in file or "data_format" not in file:
                raise UserError(f"{self.arrays.name} lacks the groups data and data_format; expected the waveforms of a SeisBench dataset")
            found = {k: v[()] for k, v in file["data_format"].items()}
        return {k: v.decode() if isinstance(v, bytes) else v for k, v in found.items()}

    def traces(self) -> Iterator[Trace]:
        """All rows.

        Raises:
            UserError: a cell that cannot be read, no rate, or an order of components that is not stated.
        """
        shapes = self._shapes()
        for row in rows_of(self.table):
            yield self._trace(row, shapes)

    def trace(self, at: int) -> Trace:
        """The row whose line begins at a byte of the table."""
        if self._known is None:
            self._known = self._shapes()
        return self._trace(row_at(self.table, at), self._known)

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        import h5py

        with one_sentence(self.arrays), h5py.File(self.arrays) as file:
            return {name: data.shape for name, data in file["data"].items()}

    def _trace(self, row: Row, shapes: Mapping[str, Any]) -> Trace:
        where, name = row.where, row.text("trace_name")
        bucket, index, shape = _place(name, where, shapes)
        interval = row.number("trace_dt_s")
        rate = row.number("trace_sampling_rate_hz") or (1 / interval if interval else None) or float(self.format.get("sampling_rate", 0))
        if not 0 < rate < 1e6:
            raise UserError(f"{where}: no sampling rate; expected trace_sampling_rate_hz, trace_dt_s or data_format/sampling_rate")
        order = row.text("trace_component_order") or str(self.format.get("component_order", ""))
        if not order or not set(order) <= {*LETTERS, "1", "2", "3"}:
            raise UserError(
                f"{where}: the order of the components is {order!r}; expected letters such as ZNE (data_format/component_order)"
            )
        codes = ("station_network_code",), ("station_code",), ("station_location_code",), ("trace_channel", "station_type")
        found = [row.number(f"station_{n}") for n in ("latitude_deg", "longitude_deg", "elevation_m")]
        known = [f for f in found if f is not None]
        return Trace(
            row.at,
            name,
            bucket,
            index,
            shape,
            order,
            _instant(row.text("trace_start_time"), where),
            rate,
            ".".join(row.text(*c) for c in codes),
            _event(row),
            SPLITS.get(row.text("split")),
            dict(zip(("latitude", "longitude", "height"), known, strict=True)) if len(known) == 3 else None,
            _arrivals(row),
        )

    @property
    def axes(self) -> str:
        """The order of components (C) and samples (W)."""
        return str(self.format.get("dimension_order", "CW")).replace("N", "")

    def frames(self, trace: Trace) -> int:
        """How many samples a trace has."""
        return trace.shape[0 if self.axes == "WC" else -1]

    def directions(self, order: str) -> dict[str, str]:
        """Variables and their components, of an order of components."""
        letters = {**LETTERS, **{d: f"horizontal_{d}" for d in "123"}}
        return {f"{self.prefix}_{letters[c]}": c for c in order}

    def read(self, trace: Trace) -> dict[str, np.ndarray]:
        """The components of a trace, float64 by letter; NaN where the file has NaN, and a component of zeros is left out."""
        import h5py

        bucket, row, order, axes = trace.bucket, trace.row, trace.order, self.axes
        with one_sentence(self.arrays), h5py.File(self.arrays) as file:
            data = file["data"][bucket]
            part = data[tuple([] if row is None else [row])]
        part = np.asarray(part, np.float64)[tuple(slice(n) for n in trace.shape)]
        if axes == "WC":
            part = part.T
        elif axes != "CW":
            raise UserError(f"{self.arrays.name} states the order of dimensions {axes!r}; expected CW or WC (data_format/dimension_order)")
        if part.ndim != 2 or len(part) != len(order):
            raise UserError(f"{self.arrays.name}, {bucket}: {part.shape} samples do not fit the components {order}; the dataset is damaged")
        return {letter: values for letter, values in zip(order, part, strict=True) if np.any(values != 0)}


def _place(name: str, where: str, shapes: Mapping[str, Any]) -> tuple[str, int | None, tuple[int, ...]]:
    """Bucket, row in it and shape, of a name such as `bucket0$12,:3,:1200`."""
    match = _PLACE.fullmatch(name)
    bucket, row = (name, None) if match is None else (match[1], int(match[2]))
    if bucket not in shapes or (row is not None and row >= shapes[bucket][0]):
        raise UserError(f"{where}: the samples {name!r} are not in the array file; the two do not belong together, or one is truncated")
    own = tuple(shapes[bucket]) if row is None else tuple(shapes[bucket][1:])
    stated = () if match is None else tuple(int(n) for n in match.groups()[2:] if n is not None)
    shape = stated if len(stated) == len(own) else own
    if any(s > o or s < 1 for s, o in zip(shape, own, strict=True)):
        raise UserError(f"{where}: {name!r} asks for more than the {own} samples that are there; the array file is truncated or damaged")
    return bucket, row, shape


def _instant(text: str, where: str) -> int:
    """ISO 8601, with / in the place of - too, UTC."""
    try:
        return int(
            np.datetime64(text.strip().replace("/", "-").replace(" ", "T").removesuffix("Z").removesuffix("+00:00"), "ns").astype(np.int64)
        )
    except ValueError:
        raise UserError(f"{where}: trace_start_time is {text[:40]!r}; expected an instant such as 2007-01-01T01:42:45.08") from None


def _event(row: Row) -> Event | None:
    latitude, longitude = row.number("source_latitude_deg"), row.number("source_longitude_deg")
    if latitude is None or longitude is None:
        return None
    depth, magnitude, origin = row.number("source_depth_km"), row.number("source_magnitude"), row.text("source_origin_time")
    name = row.text("source_id", "source_event_id") or origin or f"{latitude:.5f} {longitude:.5f} {depth} {magnitude}"
    time = _instant(origin or row.text("trace_start_time"), row.where)
    kind = row.text("source_type", "source_event_category")
    return Event(name, time, latitude, longitude, depth, magnitude, row.text("source_magnitude_type"), kind)


def _arrivals(row: Row) -> dict[str, float | bool | None]:
    """The earliest branch of each phase."""
    if row.text("trace_category") == "noise":
        return {"p": False, "s": False}
    found: dict[str, float | bool | None] = {"p": None, "s": None}
    for column in row.cells:
        if (match := _ARRIVAL.fullmatch(column)) and (at := row.number(column)) is not None:
            phase = match[1].lower()
            before = found[phase]
            found[phase] = at if before is None else min(float(before), at)
    return found
