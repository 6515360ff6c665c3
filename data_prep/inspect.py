"""`scigpt data inspect`: what a file is, before any job runs: variables, units, shape, calendar, times, gaps, and which source reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from scigpt.data.sample import Origin, Time
from scigpt.data_prep.draft import header_parts
from scigpt.data_prep.fields import Field
from scigpt.data_prep.files import kind, locate, members, sha256
from scigpt.data_prep.formats.opening import open_datasets
from scigpt.data_prep.generic import Generic
from scigpt.data_prep.gridded import GriddedSource
from scigpt.data_prep.records import Record
from scigpt.data_prep.seismic.stationxml import is_stationxml
from scigpt.data_prep.sniff import is_numeric, sniff
from scigpt.data_prep.source import Source
from scigpt.data_prep.sources import SOURCES
from scigpt.data_prep.sources.arrays import Arrays
from scigpt.data_prep.sources.miniseed import Miniseed, read_traces
from scigpt.data_prep.tables import read_table
from scigpt.data_prep.trajectories import STEADY_FRAMES, TrajectorySource
from scigpt.errors import UserError

FORMATS = {"netcdf3": "NetCDF (classic)", "netcdf4": "NetCDF-4/HDF5", "grib": "GRIB", "zarr": "Zarr"}
STATIONS = "StationXML"
MARKS = {b"\x0e\x03\x13\x01": "HDF4", b"II*\0": "TIFF", b"MM\0*": "TIFF", b"II+\0": "BigTIFF", b"MM\0+": "BigTIFF", b"PK\3\4": "zip"}
LOOKED_AT = 16
"""Samples that are made at most until one holds a value."""
MAX_VALUES = 1 << 24
"""The invalid share is measured on frames spread over the record, up to about this many values."""


def inspect(path: Path | str) -> dict[str, Any]:
    """A JSON-able description of a file or store (or `embedded:NAME`).

    Keys: `path`, `format`, `bytes`, `sha256`, `source` (the name to give to `scigpt data prepare`, or None), `problem` (why no source reads
    it, or None), `variables` (each with `name`, `file_name`, `unit`, `file_unit`, `levels`, `invalid_share`), `left_out` (reasons), `grid`,
    `calendar`, `frames`, `first`, `last`, `step_seconds` (`min`, `median`, `max`), `holes`, `members`; of a table `rows`; of simulations
    `simulated` (`trajectories`, `frames`, `steady`, `grid`, `first`, `last`, `boundary` and `coefficients` of the first, and the `splits`
    that the file says); of stations, waveforms and surveys `samples` (by split) and `first_sample`.

    Raises:
        UserError: nothing at the path, an empty or damaged file.
    """
    found = locate(path)
    report: dict[str, Any] = {"path": str(path), "format": FORMATS.get(kind(found)), "bytes": _bytes(found), "sha256": sha256(found)}
    source = reader(found)
    if source is not None and issubclass(source, Miniseed):
        return report | _seismic(found)
    if source is not None and issubclass(source, TrajectorySource):
        return report | _simulated(found, source)
    if source is Generic:
        return report | _table(found)
    if source is not None and not issubclass(source, GriddedSource):
        return report | {"format": report["format"] or source.describe().formats} | _recorded(found, source)
    if kind(found) == "other":
        report["format"] = _format(found)
        if report["format"] == STATIONS:
            told = "it says where stations stand, how they point and respond, and goes beside their waveforms: give both as --input"
            return report | {"source": None, "problem": f"{told} to earthscope or seismic-experiments, or stationxml=PATH to miniseed"}
        if source is None and found.is_dir():
            count = len(members(found))  # an empty folder is told
            return report | {"source": None, "problem": f"it holds {count} files; scigpt data inspect {path}/* says what they are"}
        if source is None:
            told = f"this {report['format']} is of no product that is known" if report["format"] else "it is of no known format"
            return report | {"source": None, "problem": told}
    return report | _gridded(found, source)


def reader(path: Path) -> type[Source] | None:
    """The first source that recognises the file."""
    return next((s for s in SOURCES.values() if s.recognises(path)), None)


def _format(path: Path) -> str | None:
    """By the first bytes, of what xarray does not read."""
    if path.is_dir():
        return "folder"
    with path.open("rb") as file:
        head = file.read(4096)
    if is_stationxml(head):
        return STATIONS
    head = head[:512]
    printable = all(byte in b"\t\n\r\f" or 32 <= byte < 127 for byte in head)
    return next((name for mark, name in MARKS.items() if head.startswith(mark)), "text" if printable else None)


def _bytes(path: Path) -> int:
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) if path.is_dir() else path.stat().st_size


def _gridded(path: Path, source: type[Source] | None) -> dict[str, Any]:
    cls = source if source is not None and issubclass(source, GriddedSource) else SOURCES["cmip6"]
    reading = cls((path,))
    assert isinstance(reading, GriddedSource)
    notes: list[str] = []
    try:
        with reading.records(notes) as (records, _):
            return {"source": cls.name, "problem": None, "left_out": notes, **_record(records[0], cls.hole)}
    except UserError as error:
        datasets = open_datasets(path)
        variables = [
            {"file_name": str(n), "file_unit": v.attrs.get("units"), "dims": {str(d): int(s) for d, s in v.sizes.items()}}
            for d in datasets
            for n, v in d.data_vars.items()
        ]
        return {"source": None, "problem": str(error), "variables": variables}


def _table(path: Path) -> dict[str, Any]:
    table = read_table(path, sniff(path))
    columns = [
        {"file_name": c, "file_unit": header_parts(c)[1], "numbers": is_numeric(table, c), "missing_share": float(table.missing(t).mean())}
        for c, t in table.frame.items()
    ]
    return {"format": "table of text (CSV)", "source": Generic.name, "problem": None, "variables": columns, "rows": len(table.frame)}


def _record(record: Record, hole: float) -> dict[str, Any]:
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
            "shape": list(record.shape),
            "kind": "curvilinear" if record.grid.latitude.ndim == 2 else "regular",
            "latitude": [float(record.grid.latitude.min()), float(record.grid.latitude.max())],
            "longitude": [float(record.grid.longitude.min()), float(record.grid.longitude.max())],
            "periodic_x": record.grid.boundary.periodic("x"),
        },
        "members": [m for m in record.members if m is not None],
        "holes": len(record.segments(hole)) - 1,
        **_times(record.time),
    }


def _recorded(path: Path, source: type[Source]) -> dict[str, Any]:
    """Of stations, waveforms and surveys: what `prepare` would plan, and the first sample that holds a value."""
    try:
        made = source((path,))
        plan = made.plan()
        with made.kept_open():
            sample = next((s for s in made.samples(plan.refs[:LOOKED_AT]) if s is not None), None)
    except UserError as error:
        return {"source": source.name, "problem": str(error)}
    splits = {split.name: sum(r.split == split.name for r in plan.refs) for split in plan.splits}
    report: dict[str, Any] = {"source": source.name, "problem": None, "left_out": list(plan.notes), "samples": splits}
    if sample is None:
        return report
    shares = 1 - sample.valid.mean((0, 2, 3, 4))
    variables = [
        {"name": v.name, "unit": v.unit, "role": v.role, "level": str(v.level) if v.level else None, "invalid_share": float(share)}
        for v, share in zip(sample.variables, shares, strict=True)
    ]
    first = {"geometry": sample.geometry, "grid": list(sample.layout.grid), "place": sample.origin.place, "variables": variables}
    return report | {"variables": variables, "first_sample": first | _times(sample.time)}


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


def _simulated(path: Path, source: type[TrajectorySource]) -> dict[str, Any]:
    """Of the first trajectory; a file of plain arrays may leave open what is what, which options say."""
    try:
        with source((path,)).open(path) as recordings:
            first = recordings[0]
            sample = first.read(0, 0, STEADY_FRAMES if first.steady else 1, Origin(source.name, ""))
            labels = ["", ""] if first.steady else Time(first.seconds(0)[: first.frames]).labels()
    except UserError as error:
        if not issubclass(source, Arrays):
            raise
        return {"source": source.name, "problem": str(error)}
    return {
        "format": {".npz": "NPZ", ".mat": "MATLAB", ".pt": "PyTorch tensors", ".pth": "PyTorch tensors"}.get(path.suffix.lower(), "HDF5"),
        "source": source.name,
        "problem": None,
        "calendar": "none",
        "variables": [
            {"name": v.name, "file_name": c.name, "unit": v.unit, "file_unit": c.unit or None, "role": v.role}
            for c, v in zip(first.channels, sample.variables, strict=True)
        ],
        "simulated": {
            "trajectories": sum(r.count for r in recordings),
            "frames": first.frames,
            "steady": first.steady,
            "grid": list(sample.layout.grid),
            "first": labels[0],
            "last": labels[-1],
            "boundary": sample.layout.to_json()["boundary"],
            "coefficients": dict(sample.coefficients),
            "splits": sorted({r.split for r in recordings if r.split}),
        },
    }


def format_report(report: dict[str, Any]) -> str:
    """The report for people, a few lines."""
    lines = [f"{report['path']}: {report['format'] or 'unknown format'}, {report['bytes']:,} bytes"]
    for v in report.get("variables", ()):
        unit = v.get("unit") or v.get("file_unit") or "no unit"
        text = f"  {v.get('name') or v['file_name']} [{unit}]"
        if v.get("file_name") and v.get("name"):
            text += f" from {v['file_name']} [{v['file_unit'] or 'no unit'}]"
        if v.get("level"):
            text += f" at {v['level']}"
        if v.get("levels"):
            text += f" at {', '.join(v['levels'])}"
        if "dims" in v:
            text += f" {v['dims']}"
        if "sampling_rate" in v:
            text += f" {v['samples']:,} samples at {v['sampling_rate']:g} Hz, {v['gaps']} gaps, {v['first']} to {v['last']}"
        if "numbers" in v:
            text += f", {'numbers' if v['numbers'] else 'text'}, {100 * v['missing_share']:.2f} % missing"
        if "invalid_share" in v:
            text += f", {100 * v['invalid_share']:.2f} % missing"
        lines.append(text)
    if "grid" in report:
        g = report["grid"]
        wrap = ", periodic in longitude" if g["periodic_x"] else ""
        latitude, longitude = ("{:g} to {:g}".format(*g[axis]) for axis in ("latitude", "longitude"))
        lines.append(f"  {g['kind']} grid {g['shape'][0]} x {g['shape'][1]}, latitude {latitude}, longitude {longitude}{wrap}")
    if "first_sample" in report:
        f = report["first_sample"]
        lines.append("  samples as planned by default: " + ", ".join(f"{count} {split}" for split, count in report["samples"].items()))
        calendar = "" if f["calendar"] == "none" else f", calendar {f['calendar']}"
        grid = " x ".join(map(str, f["grid"]))
        lines.append(f"  the first: {f['place']}, {f['frames']} frames of {f['geometry']} {grid} (z, y, x)")
        lines.append(f"    from {f['first']} to {f['last']}{calendar}")
    if "simulated" in report:
        s = report["simulated"]
        span = "steady" if s["steady"] else f"{s['frames']} frames, {s['first']} to {s['last']}"
        sides = ", ".join(f"{a} {'/'.join(dict.fromkeys(s['boundary'][a]))}" for a, n in zip("zyx", s["grid"], strict=True) if n > 1)
        lines.append(f"  {s['trajectories']} trajectories on {' x '.join(map(str, s['grid']))} (z, y, x), {span}, boundary {sides}")
        if s["coefficients"]:
            lines.append("  coefficients of the first: " + ", ".join(f"{n}={v:g}" for n, v in s["coefficients"].items()))
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
    if "rows" in report:
        lines.append(f"  {report['rows']} rows")
        command = f"scigpt data inspect {report['path']} --draft map.yaml, then {command} --map map.yaml"
    if name and report["problem"]:
        lines.append(f"  options are needed: {report['problem']}")
    lines.append(f"  read it with: {command}" if name else f"  no source reads it: {report['problem']}")
    if name is None and report["format"] in FORMATS.values():
        lines.append(f"  as your own data: scigpt data inspect {report['path']} --draft map.yaml")
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= length:
            return f"{seconds / length:g} {unit}"
    return f"{seconds:g} seconds"
