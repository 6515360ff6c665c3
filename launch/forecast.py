"""`scigpt forecast`: what a model says comes next, from a file or the records of a corpus, as CF NetCDF or Zarr."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scigpt.errors import UserError
from scigpt.launch.output import Json, show

if TYPE_CHECKING:
    import xarray as xr

    from scigpt.data.corpus import Corpus
    from scigpt.data.domain import Domain
    from scigpt.data.sample import Sample


def forecast(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The folder of an export, of a run or of a checkpoint.")],
    source: Annotated[
        str, typer.Option("--input", metavar="PATH", help="A NetCDF or GRIB file, a Zarr store, or a corpus: states that are known.")
    ],
    steps: Annotated[int, typer.Option("--steps", help="Frames to forecast.")],
    out: Annotated[Path, typer.Option("--out", metavar="PATH", help="FILE.nc or DIR.zarr; an older one is replaced.")],
    domain: Annotated[
        str | None, typer.Option("--domain", metavar="NAME", help="What the input is, where it fits several corpora of training.")
    ] = None,
    start: Annotated[
        list[str] | None,
        typer.Option("--start", metavar="TIME", help="The last known frame, such as 2020-01-01T06; may be repeated. By default the last."),
    ] = None,
    split: Annotated[str | None, typer.Option("--split", metavar="NAME", help="Of a corpus.", show_default="test")] = None,
    records: Annotated[int | None, typer.Option("--records", min=1, help="Of a corpus, the first ones; by default all.")] = None,
    context: Annotated[int | None, typer.Option("--context", help="Frames that the model is shown; by default as in training.")] = None,
    members: Annotated[int, typer.Option("--members", help="Of an ensemble, by each model.")] = 1,
    ensemble: Annotated[
        str, typer.Option("--ensemble", help="head: samples of the distribution that the model predicts; perturbed: initial states differ.")
    ] = "none",
    spread: Annotated[float, typer.Option("--spread", help="Of perturbed states, in typical increments of one frame.")] = 0.1,
    also: Annotated[
        list[str] | None, typer.Option("--also", metavar="RUN", help="Another model, whose members follow; may be repeated.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the ensemble.")] = 0,
    method: Annotated[str, typer.Option("--method", help="cache, or recompute: every step from a whole window.")] = "cache",
    jitter: Annotated[
        bool, typer.Option("--jitter", help="On periodic planes, move the field by parts of a patch: better in the first steps.")
    ] = False,
    batch: Annotated[int, typer.Option("--batch", help="Forecasts computed at once; changes no value.")] = 8,
    any_spacing: Annotated[
        bool, typer.Option("--any-spacing", help="Accept another time step or grid spacing than in training, with a warning.")
    ] = False,
    json: Json = False,
) -> None:
    """Forecast from the last state of a file (or from several, with --start), or from the first frames of every record of a corpus.

    Variables are found by CF standard name or name and converted to the units of training; what does not fit is refused. The forecast has
    units, calendar and coordinates, and the dimensions time, forecast_reference_time (several --start), record (a corpus) and realization
    (an ensemble) where there is more than one. It is written block by block and appears when it is whole."""
    from tqdm import tqdm

    from scigpt.data.corpus import MANIFEST, Corpus
    from scigpt.data_prep.files import locate
    from scigpt.export.forecaster import Forecaster
    from scigpt.export.writing import check, write

    path = locate(source)
    corpus = Corpus.open(path) if (path / MANIFEST).is_file() else None
    check(out, [path])
    _suits(source, corpus is not None, {"--start": start}, {"--split": split, "--records": records})
    forecaster, others = Forecaster.open(run), [Forecaster.open(other) for other in also or ()]
    given: Any
    labels = None
    bar: tqdm[Any]
    with _of(path):
        if corpus is None:
            given = _dataset(path, forecaster.domains, domain)
        else:
            split = split or "test"
            found = _domain(corpus, split, forecaster.domains, domain)
            given = _Records(corpus, split, records, found, context, steps, not any_spacing)
            domain, labels = found.name, given.labels
        blocks = forecaster.stream(
            given,
            steps,
            domain=domain,
            starts=start,
            labels=labels,
            context=context,
            members=members,
            ensemble=ensemble,  # type: ignore[arg-type]  # a user's word, which `stream` checks
            spread=spread,
            also=others,
            seed=seed,
            method=method,  # type: ignore[arg-type]
            jitter=jitter,
            batch=batch,
            strict=not any_spacing,
            progress=lambda n: bar.update(n) and None,
        )
        with tqdm(total=blocks.total, desc=out.name, unit="step", mininterval=1.0, dynamic_ncols=True) as bar:
            write(blocks, blocks.dim, out)
    many = members * (1 + len(others))
    first, last = _span(out)
    told = {
        "out": str(out),
        "domain": blocks.domain.name,
        "variables": [v.key for v in blocks.domain.layout.variables if v.predicted],
        "steps": steps,
        "members": many,
        "initial_conditions": blocks.total // (steps * many),
        "first": first,
        "last": last,
        "seed": seed,
        "method": method,
        "jitter": jitter,
    }
    show(told, json, _summary)


def _summary(found: dict[str, Any]) -> str:
    counts = (("steps", "step"), ("members", "member"), ("initial_conditions", "initial condition"))
    told = ", ".join(f"{found[key]} {name}{'s' * (found[key] != 1)}" for key, name in counts)
    span = "" if found["first"] is None else f", from {found['first']} to {found['last']}"
    return (
        f"{found['out']}: {found['domain']} ({', '.join(found['variables'])}): {told}{span}; method {found['method']}, seed {found['seed']}"
    )


def _suits(source: str, is_corpus: bool, of_files: dict[str, Any], of_corpora: dict[str, Any]) -> None:
    for option, value in (of_files if is_corpus else of_corpora).items():
        if value is not None:
            asked, given = ("a file", "a corpus") if is_corpus else ("a corpus", "a file")
            raise UserError(f"{option} is for {asked}, and {source} is {given}; leave it out")


def _dataset(path: Path, domains: Sequence[Domain], domain: str | None) -> xr.Dataset:
    """A file or store, values decoded. Of GRIB, whose parts cannot always be one dataset, a part that a domain can use."""
    import xarray as xr

    from scigpt.data_prep.files import kind
    from scigpt.data_prep.formats.opening import one_sentence, open_datasets
    from scigpt.export.datasets import choose

    if path.is_dir() and kind(path) == "other":
        raise UserError(f"{path}: is neither a corpus (it has no manifest.json) nor a Zarr store; check the path given as --input")
    parts = open_datasets(path)
    with one_sentence(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # several fill values for a variable: all of them are gaps
        parts = merged([xr.decode_cf(part, decode_times=False, decode_timedelta=False) for part in parts])
    if len(parts) == 1:
        return parts[0]
    reasons = []
    for part in parts:
        try:
            choose(part, domains, domain)
        except UserError as error:
            reasons.append(f"{', '.join(map(str, part.data_vars))}: {error}")
        else:
            return part
    raise UserError(f"{path}: holds {len(parts)} datasets that cannot be merged, and none can be used ({'; '.join(reasons)})")


def merged(parts: list[xr.Dataset]) -> list[xr.Dataset]:
    """One dataset of several, where their axes agree. A single height, such as 2 m of a temperature and 10 m of a wind, is no obstacle."""
    import xarray as xr

    from scigpt.data.conventions import level_kind

    scalars = {n: v for part in parts for n, v in part.coords.items() if v.ndim == 0}
    differing = {
        n
        for n, v in scalars.items()
        if level_kind(str(n), v.attrs) not in ("pressure", "depth") and any(n not in p.coords or not v.equals(p.coords[n]) for p in parts)
    }
    try:
        return [xr.merge([p.drop_vars(differing, errors="ignore") for p in parts], compat="no_conflicts", join="exact")]
    except ValueError:  # MergeError and AlignmentError
        return parts


class _Records(Sequence["Sample"]):
    """Records of a corpus as a domain sees them: the first frames known, then those to forecast; read when they are asked for.

    A model that was trained with a stride is shown every so many frames.
    """

    def __init__(
        self, corpus: Corpus, split: str, count: int | None, domain: Domain, context: int | None, steps: int, strict: bool
    ) -> None:
        self.corpus, self.split, self.domain, self.steps, self.strict = corpus, split, domain, steps, strict
        self.labels = [entry.key for entry in corpus.entries(split)[:count]]
        self.context = context or (1 if domain.layout.steady else domain.frames - 1)
        self.stride = max(1, round(domain.step / corpus.stats.step)) if domain.step and corpus.stats.step else 1

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: Any) -> Any:
        from scigpt.export.datasets import Given, to_dataset

        record = self.corpus.read(self.split, i).window(slice(None, None, self.stride))
        start = min(self.context, len(record.time)) - 1
        return Given.of(to_dataset(record), self.domain, self.strict).sample(start, self.context, self.steps)


def _domain(corpus: Corpus, split: str, domains: Sequence[Domain], name: str | None) -> Domain:
    """The domain of a corpus: the one named, or its own, or the one that it fits."""
    from scigpt.export.datasets import choose, to_dataset

    if not corpus.entries(split):
        raise UserError(f"{corpus.path}: its split {split} has no records; choose another with --split")
    own = corpus.name if any(d.name == corpus.name for d in domains) else None
    return choose(to_dataset(corpus.read(split, 0)), domains, name or own)


@contextmanager
def _of(path: Path) -> Iterator[None]:
    """Names the input in what is told of it, and tells damage inside a file, which shows when a chunk of it is needed."""
    try:
        yield
    except UserError as error:
        if "the dataset" not in str(error):
            raise
        raise UserError(f"{path}: {error}") from None
    except RuntimeError as error:
        if not str(error).startswith("NetCDF: "):
            raise
        raise UserError(f"{path}: cannot be read ({error}); it may be damaged, fetch it again") from None


def _span(out: Path) -> tuple[Any, Any]:
    """First and last instant of a written forecast; a number in simulated time, None where no time passes."""
    import xarray as xr

    coder = xr.coders.CFDatetimeCoder(use_cftime=True)
    engine: Any = "netcdf4" if out.suffix == ".nc" else "zarr"
    with xr.open_dataset(out, engine=engine, decode_times=coder, decode_timedelta=False) as written:
        if "time" not in written.variables:
            return None, None
        times = written["time"].to_numpy().ravel()
        ends = times.min(), times.max()
        return tuple(t.isoformat() if hasattr(t, "isoformat") else float(f"{t:.9g}") for t in ends)  # type: ignore[return-value]
