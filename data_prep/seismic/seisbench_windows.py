"""Datasets in the format of SeisBench among the inputs of earthquakes, and their rows as windows."""

from __future__ import annotations

import fnmatch
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from scigpt.data_prep.seismic import seisbench
from scigpt.data_prep.seismic.earthquakes import Window
from scigpt.data_prep.seismic.events import distance_to
from scigpt.errors import UserError


def datasets_of(files: Sequence[Path]) -> list[tuple[int, int, seisbench.Dataset]]:
    """Tables of SeisBench datasets with their array files beside them, by the files' numbers.

    Raises:
        UserError: one without the other.
    """
    tables = [i for i, p in enumerate(files) if seisbench.is_table(p)]
    arrays = [i for i, p in enumerate(files) if seisbench.is_arrays(p) or (tables and p.suffix in (".hdf5", ".h5"))]
    found = []
    for table in tables:
        chunk = files[table].stem.removeprefix("metadata")
        fitting = [i for i in arrays if files[i].stem.removeprefix("waveforms") == chunk]
        same = [i for i in fitting if files[i].parent == files[table].parent] or fitting
        if not same:
            raise UserError(
                f"{files[table].name} is the table of a SeisBench dataset and waveforms{chunk}.hdf5 is not among the inputs; give both"
            )
        found.append((table, same[0], seisbench.Dataset(files[table], files[same[0]])))
    if arrays and not tables:
        raise UserError(f"{files[arrays[0]].name} holds the samples of a SeisBench dataset; give its metadata.csv too")
    return found


def windows_of_datasets(found: tuple[int, int, seisbench.Dataset], options: Any) -> Iterator[Window]:
    """The rows of a SeisBench dataset; each is a window already."""
    table, arrays, dataset = found
    if options.response or options.rate is not None:
        raise UserError(f"{dataset.table.name}: response= and rate= are for miniSEED; a SeisBench dataset is taken as it is")
    if options.rotate == "zrt":
        raise UserError(f"{dataset.table.name}: rotate=zrt is for miniSEED; a SeisBench dataset is taken as it is")
    files = table, arrays
    shared: dict[tuple[str, ...], tuple[str, ...]] = {}  # rows are many and say the same
    for row, trace in enumerate(dataset.traces()):
        if options.channels is not None and not fnmatch.fnmatchcase(trace.station, options.channels):
            continue
        event, measured = trace.event, tuple(dataset.directions(trace.order))
        picked = tuple(phase for phase, at in trace.arrivals.items() if at is not None and at is not False)
        yield Window(
            f"{table:03d}-{row:08d}",
            sys.intern(trace.station),
            sys.intern(".".join(trace.station.split(".")[:2])),
            sys.intern(event.id if event is not None else f"trace {row}"),
            event.time if event is not None else trace.start,
            trace.split,
            shared.setdefault(measured, measured),
            trace.place is not None,
            shared.setdefault(picked, picked),
            files,
            trace.start,
            1 / trace.rate,
            dataset.frames(trace),
            {"table": table, "arrays": arrays, "row": trace.at},
        )


def about_of(trace: seisbench.Trace) -> dict[str, Any]:
    """What is known of a row's event and station, JSON."""
    about: dict[str, Any] = {"station": {"id": trace.station, **(trace.place or {})}, "trace": trace.name, "sampling_rate": trace.rate}
    if trace.event is not None:
        about["event"] = trace.event.about()
        if trace.place is not None:
            kilometres, degrees, back = distance_to(trace.event, trace.place)
            about |= {"distance_km": round(kilometres, 3), "distance_degrees": round(degrees, 5), "back_azimuth": round(back, 3)}
    return about


def labels_of(trace: seisbench.Trace) -> dict[str, list[float] | None]:
    """As of a window: where each phase arrives, in samples."""
    return {p: None if at is None else [] if at is False else [float(at)] for p, at in trace.arrivals.items()}
