"""What every source and every simulator is: a class that describes itself, plans its samples, and yields them."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from scigpt.data.gaps import HOLE
from scigpt.data.sample import Sample, Variable
from scigpt.data.variables import QUANTITIES, convert
from scigpt.errors import UserError


@dataclass(frozen=True, slots=True)
class Description:
    """One row of `scigpt data sources`."""

    name: str
    domain: str
    formats: str
    licence: str
    attribution: str = ""
    use: Literal["train", "validate"] = "train"
    extra: str | None = None
    redistributable: bool = True


@dataclass(frozen=True, slots=True)
class Split:
    """One split of a corpus: what it holds and whether it comes from the training distribution."""

    name: str
    distribution: Literal["in", "out"] = "in"
    description: str = ""


@dataclass(frozen=True, slots=True)
class SampleRef:
    """A sample still to be made. `spec` is JSON: it alone, with the source's inputs and options, decides the bytes."""

    key: str
    split: str
    spec: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """All samples of a corpus in their final order (grouped by split), and the splits they fall into.

    Args:
        inputs: the files read, `(name, sha256)`.
        bytes_per_sample: estimate, for the size of shards and the check of free disk space.
    """

    refs: tuple[SampleRef, ...]
    splits: tuple[Split, ...]
    inputs: tuple[tuple[str, str], ...] = ()
    bytes_per_sample: int = 1 << 20
    notes: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Remote:
    """One thing to fetch from a public route.

    Args:
        url: `https://`, `s3://`, `gs://` (or any other scheme of fsspec); for `cds` the name of the dataset.
        file: where it goes, a POSIX path below the target folder.
        kind: a `file` as it is; a `zarr` store of which `select` says the part; a request to the climate data store (`cds`).
        bytes: size, where the catalogue says it.
        checksum: `sha256:...` or `md5:...`, where the catalogue says it.
        login: whose account is needed (`earthdata`, `cds`, `edx`, `arm`); None for anonymous access.
        select: of a store `variables`, `start`, `stop` (ISO dates), `levels`, `latitude`, `longitude` (low, high); of `cds` the request.
    """

    url: str
    file: str
    kind: Literal["file", "zarr", "cds"] = "file"
    bytes: int | None = None
    checksum: str | None = None
    login: Literal["earthdata", "cds", "edx", "arm"] | None = None
    select: Mapping[str, Any] = field(default_factory=dict)


class Source(ABC):
    """A public data source or a simulator.

    A subclass states `name`, `Options` (a frozen dataclass of typed options, each with a default) and the methods below. It must
    be cheap to construct and picklable by `(class, inputs, options)`: worker processes build their own.
    """

    name: ClassVar[str]
    Options: ClassVar[type]
    Fetch: ClassVar[type | None] = None
    """Options of `scigpt data fetch`, a frozen dataclass; None for a source that has no public route."""
    also: ClassVar[tuple[str, ...]] = ()
    """Sources whose files are as much this one's: nobody is warned that they look like theirs."""
    hole: ClassVar[float] = HOLE
    """In usual steps; gridded sources cut samples there."""
    max_out_of_bounds: ClassVar[float] = 1e-3
    """Share of values outside their plausible bounds above which the input is refused."""

    def __init__(self, inputs: Sequence[Path] = (), options: Any = None) -> None:
        self.inputs = tuple(Path(p) for p in inputs)
        self.options = self.Options() if options is None else options

    @classmethod
    @abstractmethod
    def describe(cls) -> Description: ...

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Whether this source can read the file or store; used by `scigpt data inspect`."""
        return False

    @classmethod
    def remotes(cls, options: Any, get: Callable[[str], bytes]) -> Iterator[Remote]:
        """What the public route offers under these options (an instance of `Fetch`).

        Args:
            get: the body behind an address, for catalogues; retried and polite.

        Raises:
            UserError: options that cannot be, or a search that finds nothing.
        """
        raise UserError(f"the source {cls.name} has no public route; fetch its files by hand and give them as --input")

    @property
    def redistributable(self) -> bool:
        """Whether what is made from these inputs may be passed on."""
        return self.describe().redistributable

    def bounds(self, variable: Variable) -> tuple[float, float]:
        """Plausible low and high in the variable's unit: those of the registry; none for a name that is not in it."""
        quantity = QUANTITIES.find(variable.name)
        if quantity is None or quantity.name != variable.name:
            return -np.inf, np.inf
        low, high = convert(np.array([quantity.low, quantity.high]), quantity.unit, variable.unit, variable.key)
        return float(low), float(high)

    @abstractmethod
    def plan(self) -> Plan:
        """Look at the inputs (not the values) and list every sample."""

    @contextmanager
    def kept_open(self) -> Iterator[None]:
        """In here `samples` may be called many times, and inputs stay open between the calls."""
        yield

    @abstractmethod
    def samples(self, refs: Sequence[SampleRef]) -> Iterator[Sample | None]:
        """Make these samples, in this order; None for one that turns out to hold no value. The same refs give the same bytes anywhere."""


def parse_options(options_type: type, assignments: Sequence[str]) -> Any:
    """`key=value` words into the options dataclass; unknown keys are refused with the nearest name.

    Types: int, float, str, bool, tuples of these (`a,b,c`), and `X | None`.
    """
    hints = typing.get_type_hints(options_type)
    names = [f.name for f in dataclasses.fields(options_type)]
    values: dict[str, Any] = {}
    for word in assignments:
        key, separator, text = word.partition("=")
        if not separator:
            raise UserError(f"option {word!r} is not of the form key=value")
        key = key.replace("-", "_")
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known options: {', '.join(names) or 'none'}"
            raise UserError(f"unknown option {key!r}; {hint}")
        values[key] = _parse(text, hints[key], key)
    return options_type(**values)


def _parse(text: str, hint: Any, key: str) -> Any:
    arguments = typing.get_args(hint)
    if type(None) in arguments:
        if text.lower() in ("", "none", "null"):
            return None
        hint = next(a for a in arguments if a is not type(None))
        arguments = typing.get_args(hint)
    if typing.get_origin(hint) is tuple:
        return tuple(_parse(part, arguments[0], key) for part in text.split(",") if part)
    if typing.get_origin(hint) is Literal:
        if text not in arguments:
            raise UserError(f"option {key}={text!r} is not one of {', '.join(map(str, arguments))}")
        return text
    if hint is bool:
        if text.lower() not in ("true", "false", "1", "0", "yes", "no"):
            raise UserError(f"option {key}={text!r} is not true or false")
        return text.lower() in ("true", "1", "yes")
    try:
        return hint(text)
    except ValueError:
        raise UserError(f"option {key}={text!r} is not a valid {hint.__name__}") from None
