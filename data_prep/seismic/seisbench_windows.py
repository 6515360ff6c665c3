"""Datasets in the format of SeisBench among the inputs of earthquakes, and their rows as windows."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from scigpt.data_prep.seismic import orientation, seisbench
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
    for row, trace in enumerate(dataset.traces()):
        if options.channels is not None and not fnmatch.fnmatchcase(trace.station, options.channels):
            continue
        letters = {**orientation.LETTERS, **{d: f"horizontal_{d}" for d in "123"}}
        components = {f"{dataset.prefix}_{letters[c]}": c for c in trace.order}
        event = trace.event
        about: dict[str, Any] = {"station": {"id": trace.station, **(trace.place or {})}, "trace": trace.name, "sampling_rate": trace.rate}
        if event is not None:
            about["event"] = event.about()
            if trace.place is not None:
                kilometres, degrees, back = distance_to(event, trace.place)
                about |= {"distance_km": round(kilometres, 3), "distance_degrees": round(degrees, 5), "back_azimuth": round(back, 3)}
        frames = trace.shape[0 if str(dataset.format.get("dimension_order", "CW")).replace("N", "") == "WC" else -1]
        spec = {
            "table": table,
            "arrays": arrays,
            "bucket": trace.bucket,
            "row": trace.row,
            "shape": list(trace.shape),
            "order": trace.order,
            "components": components,
            "frames": frames,
            "first": trace.start,
            "step": 1 / trace.rate,
        }
        station = ".".join(trace.station.split(".")[:2])
        yield Window(
            f"{table:03d}-{row:08d}",
            trace.station,
            station,
            event.id if event is not None else f"trace {row}",
            event.time if event is not None else trace.start,
            trace.split,
            tuple(components),
            trace.place,
            trace.arrivals,
            about,
            (table, arrays),
            frames,
            spec,
        )
