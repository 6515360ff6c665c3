"""What reanalyses and climate models share: static fields in files of their own, and the computed solar forcing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import cftime
import xarray as xr

from scigpt.data_prep import solar
from scigpt.data_prep.fields import Field
from scigpt.data_prep.formats.opening import one_sentence
from scigpt.data_prep.gridded import GriddedOptions, GriddedSource
from scigpt.data_prep.records import STATIC, Record


@dataclass(frozen=True)
class ModelledOptions(GriddedOptions):
    """As every gridded source, and

    Args:
        solar: add the forcing `toa_incident_solar_radiation`, computed at each frame and grid point.
    """

    solar: bool = False


class ModelledSource(GriddedSource):
    """A gridded source among whose inputs there may be files of static fields: they belong to the fields of the other inputs."""

    Options: ClassVar[type] = ModelledOptions
    options: ModelledOptions

    def __init__(self, inputs: Sequence[Path] = (), options: Any = None) -> None:
        super().__init__(inputs, options)
        self._static: dict[Path, list[xr.Dataset]] = {}
        self._moving: set[Path] = set()

    # what a source may adapt

    def adapted(self, path: Path, dataset: xr.Dataset) -> xr.Dataset:
        """The dataset with what its producer means said in CF attributes."""
        return dataset

    def is_static(self, dataset: xr.Dataset) -> bool:
        """Whether it holds nothing but fields that do not change; of several instants the first is taken."""
        known = [self.quantity(str(n), v.attrs) for n, v in dataset.data_vars.items() if v.ndim >= 2]
        return any(known) and all(q is None or q.name in STATIC for q in known)

    def belongs(self, static: Field, field: Field, beside: xr.Dataset, dataset: xr.Dataset) -> bool:
        """Whether a static field (of the dataset `beside`) describes the model that a field (of `dataset`) comes from."""
        return True

    @property
    def solar_hours(self) -> float:
        """Length of the interval before a frame over which the solar forcing is averaged where a file states none; 0 for its instant."""
        return 0.0

    # GriddedSource

    @contextmanager
    def records(self, notes: list[str]) -> Iterator[tuple[list[Record], list[Record]]]:
        self._static.clear()
        self._moving.clear()
        with super().records(notes) as found:
            yield found

    def open(self, path: Path) -> list[xr.Dataset]:
        result = []
        self._static[path] = []
        for opened in super().open(path):
            with one_sentence(path):  # dates and versions are read here
                dataset = self.adapted(path, opened)
                if static := self.is_static(dataset):
                    dataset = timeless(dataset)
            if static:
                self._static[path].append(dataset)
            else:
                self._moving.add(path)
            if dataset is not opened:
                dataset.set_close(opened.close)
            result.append(dataset)
        return result

    def fields(self, path: Path, dataset: xr.Dataset, skipped: dict[str, str], wanted: set[str] | None = None) -> list[Field]:
        if self._moving and any(dataset is d for d in self._static.get(path, ())):
            return []  # taken up beside the others
        found = super().fields(path, dataset, skipped, wanted)
        for other, datasets in self._static.items():
            for static in datasets if found else ():
                beside = self.usable(other, static, skipped, wanted)
                found += [f for f in beside if self.belongs(f, found[0], static, dataset)]
        return found

    def finished(self, record: Record) -> Record:
        return solar.beside(record, self.solar_hours) if self.options.solar else record


def dated(dataset: xr.Dataset) -> list[str]:
    """Names of the variables that hold dates."""
    return [
        str(name)
        for name, v in dataset.variables.items()
        if v.dtype.kind == "M" or (v.dtype.kind == "O" and v.size and isinstance(v.to_numpy().flat[0], cftime.datetime))
    ]


def timeless(dataset: xr.Dataset) -> xr.Dataset:
    """The first instant of a dataset, without its date."""
    names = dated(dataset)
    edges = {v.attrs.get("bounds") for v in dataset.variables.values()}
    dims = {d for name in names if name not in edges for d in dataset.variables[name].dims}
    return dataset.isel(dict.fromkeys(dims, 0)).drop_vars(names) if names else dataset
