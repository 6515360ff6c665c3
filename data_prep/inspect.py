"""`scigpt data inspect`: what a file is, before any job runs: variables, units, shape, calendar, times, gaps, and which source reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from scigpt.data.sample import Time
from scigpt.data_prep.fields import Field
from scigpt.data_prep.files import kind, locate, sha256
from scigpt.data_prep.gridded import GriddedSource
from scigpt.data_prep.opening import open_datasets
from scigpt.data_prep.records import Record
from scigpt.data_prep.source import Source
from scigpt.data_prep.sources import SOURCES
from scigpt.data_prep.sources.miniseed import Miniseed, read_traces
from scigpt.errors import UserError

FORMATS = {"netcdf3": "NetCDF (classic)", "netcdf4": "NetCDF-4/HDF5", "grib": "GRIB", "zarr": "Zarr"}
MAX_VALUES = 1 << 24
"""The invalid share is measured on frames spread over the record, up to about this many values."""


def inspect(path: Path | str) -> dict[str, Any]:
    """A JSON-able description of a file or store (or `embedded:NAME`).

    Keys: `path`, `format`, `bytes`, `sha256`, `source` (the name to give to `scigpt data prepare`, or None), `problem` (why no source reads
    it, or None), `variables` (each with `name`, `file_name`, `unit`, `file_unit`, `levels`, `invalid_share`), `left_out` (reasons), `grid`,
    `calendar`, `frames`, `first`, `last`, `step_seconds` (`min`, `median`, `max`), `holes`, `members`.

    Raises:
        UserError: nothing at the path, an empty or damaged file.
    """
    found = locate(path)
    report: dict[str, Any] = {"path": str(path), "format": FORMATS.get(kind(found)), "bytes": _bytes(found), "sha256": sha256(found)}
    source = reader(found)
    if source is not None and issubclass(source, Miniseed):
        return report | _seismic(found)
    if kind(found) == "other":
        return report | {"source": None, "problem": "neither NetCDF, GRIB, Zarr nor miniSEED by its first bytes"}
    return report | _gridded(found, source)


def reader(path: Path) -> type[Source] | None:
    """The first source that recognises the file."""
    return next((s for s in SOURCES.values() if s.recognises(path)), None)


def _bytes(path: Path) -> int:
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) if path.is_dir() else path.stat().st_size


def _gridded(path: Path, source: type[Source] | None) -> dict[str, Any]:
    cls = source if source is not None and issubclass(source, GriddedSource) else SOURCES["cmip6"]
    reading = cls((path,))
    assert isinstance(reading, GriddedSource)
    notes: list[str] = []
    try:
        with reading.records(notes) as (records, _):
            return {"source": cls.name, "problem": None, "left_out": notes, **_record(records[0])}
    except UserError as error:
        datasets = open_datasets(path)
        variables = [
            {"file_name": str(n), "file_unit": v.attrs.get("units"), "dims": {str(d): int(s) for d, s in v.sizes.items()}}
            for d in datasets
            for n, v in d.data_vars.items()
        ]
        return {"source": None, "problem": str(error), "variables": variables}


def _record(record: Record) -> dict[str, Any]:
    return {
        "variables": [
            {
                "name": s.channels[0].name,
                "file_name": s.fields[0].name,
                "unit": s.channels[0].unit,
                "file_unit": s.fields[0].variable.attrs["units"],
                "role": s.channels[0].role,
                "levels": [str(v.level) for v in s.channels if v.level is not None],
                "invalid_share": _invalid(s.fields[0], record),
            }
            for s in record.series
        ],
        "grid": {
            "shape": list(record.grid.shape),
            "kind": "curvilinear" if record.grid.latitude.ndim == 2 else "regular",
            "latitude": [float(record.grid.latitude.min()), float(record.grid.latitude.max())],
            "longitude": [float(record.grid.longitude.min()), float(record.grid.longitude.max())],
            "periodic_x": record.grid.boundary.periodic("x"),
        },
        "members": [m for m in record.members if m is not None],
        "holes": len(record.segments()) - 1,
        **_times(record.time),
    }


def _times(time: Time) -> dict[str, Any]:
    steps = np.diff(time.seconds)
    step = {"min": float(steps.min()), "median": float(np.median(steps)), "max": float(steps.max())} if steps.size else None
    labels = time[:1].labels() + time[-1:].labels()
    return {"calendar": time.calendar, "frames": len(time), "first": labels[0], "last": labels[1], "step_seconds": step}


def _invalid(field: Field, record: Record) -> float:
    count = 1 if field.time is None else len(field.time)
    per_frame = len(field.levels) * record.grid.known.size
    frames = np.unique(np.linspace(0, count - 1, max(1, min(count, MAX_VALUES // per_frame))).astype(int))
    bad = sum(int((~np.isfinite(field.read(frames[i : i + 1], record.members[0]))).sum()) for i in range(frames.size))
    return bad / (frames.size * per_frame)


def _seismic(path: Path) -> dict[str, Any]:
    traces = read_traces(path, headonly=True)
    channels: list[dict[str, Any]] = []
    for name in dict.fromkeys(t.id for t in traces):
        own = sorted((t.stats for t in traces if t.id == name), key=lambda s: s.starttime)
        rate, first, last = own[0].sampling_rate, own[0].starttime, max(s.endtime for s in own)
        expected = round((last - first) * rate) + 1 if rate else 0
        samples = sum(s.npts for s in own)
        channels.append(
            {
                "name": name,
                "unit": "count",
                "sampling_rate": rate,
                "samples": samples,
                "gaps": len(own) - 1,
                "invalid_share": max(0.0, 1.0 - samples / expected) if expected else 0.0,
                "first": str(first),
                "last": str(last),
            }
        )
    return {
        "format": "miniSEED",
        "source": Miniseed.name,
        "problem": None,
        "calendar": "standard",
        "variables": channels,
        "first": min(c["first"] for c in channels),
        "last": max(c["last"] for c in channels),
    }


def format_report(report: dict[str, Any]) -> str:
    """The report for people, a few lines."""
    lines = [f"{report['path']}: {report['format'] or 'unknown format'}, {report['bytes']:,} bytes"]
    for v in report.get("variables", ()):
        unit = v.get("unit") or v.get("file_unit") or "no unit"
        text = f"  {v.get('name') or v['file_name']} [{unit}]"
        if v.get("file_name") and v.get("name"):
            text += f" from {v['file_name']} [{v['file_unit']}]"
        if v.get("levels"):
            text += f" at {', '.join(v['levels'])}"
        if "dims" in v:
            text += f" {v['dims']}"
        if "sampling_rate" in v:
            text += f" {v['samples']:,} samples at {v['sampling_rate']:g} Hz, {v['gaps']} gaps, {v['first']} to {v['last']}"
        if "invalid_share" in v:
            text += f", {100 * v['invalid_share']:.2f} % missing"
        lines.append(text)
    if "grid" in report:
        g = report["grid"]
        wrap = ", periodic in longitude" if g["periodic_x"] else ""
        latitude, longitude = ("{:g} to {:g}".format(*g[axis]) for axis in ("latitude", "longitude"))
        lines.append(f"  {g['kind']} grid {g['shape'][0]} x {g['shape'][1]}, latitude {latitude}, longitude {longitude}{wrap}")
    if report.get("frames"):
        step = report["step_seconds"]
        every = f", every {_duration(step['median'])}" if step else ""
        varying = " (varying)" if step and step["max"] - step["min"] > 1e-3 * step["median"] else ""
        span = f"{report['first']} to {report['last']}{every}{varying}"
        lines.append(f"  {report['frames']} frames, {span}, calendar {report['calendar']}, {report['holes']} holes")
    if report.get("members"):
        lines.append(f"  {len(report['members'])} ensemble members")
    lines.extend(f"  {note}" for note in report.get("left_out", ()))
    name = report["source"]
    command = f"scigpt data prepare {name} --input {report['path']} --out DIR"
    lines.append(f"  read it with: {command}" if name else f"  no source reads it: {report['problem']}")
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= length:
            return f"{seconds / length:g} {unit}"
    return f"{seconds:g} seconds"
