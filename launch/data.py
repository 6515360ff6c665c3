"""`scigpt data ...`: list sources, look into files, make, check and describe corpora."""

from __future__ import annotations

import difflib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from scigpt.errors import UserError
from scigpt.launch.fetch import fetch
from scigpt.launch.output import Json, show, si, table
from scigpt.launch.recipes import is_recipe, load_recipe

if TYPE_CHECKING:
    from scigpt.data_prep.source import Source

_log = logging.getLogger(__name__)
app = typer.Typer(help="Make, check and describe corpora.", no_args_is_help=True, rich_markup_mode=None)

Out = Annotated[Path, typer.Option("--out", help="The corpus to make: a folder that does not exist yet.")]
Name = Annotated[str | None, typer.Option("--name", help="Name of the corpus; the folder's name by default.")]
Workers = Annotated[int, typer.Option("--workers", min=1, help="Processes; the bytes are the same for any number.")]
Words = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Options of the source; `scigpt data sources --json` lists them.")
]
Inputs = Annotated[list[Path] | None, typer.Option("--input", metavar="PATH...", help="Files or stores to read.")]
Dask = Annotated[
    str | None, typer.Option("--dask", metavar="ADDRESS", help="Write shards on a Dask cluster: tcp://HOST:PORT or its scheduler file.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be made: windows, shards, size, time, licence, disk.")]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A corpus.")]


@app.command(epilog="Example: scigpt data sources")
def sources(json: Json = False) -> None:
    """List every source and every equation: domain, format, licence, use."""
    from scigpt.data_prep.pde import EQUATIONS
    from scigpt.data_prep.sources import SOURCES

    rows = []
    for kind, registry in (("source", SOURCES), ("equation", EQUATIONS)):
        for name, source in sorted(registry.items()):
            about = source.describe()
            rows.append(
                {
                    "name": name,
                    "kind": kind,
                    "domain": about.domain,
                    "formats": about.formats,
                    "licence": about.licence,
                    "attribution": about.attribution,
                    "redistributable": about.redistributable,
                    "use": about.use,
                    "extra": about.extra,
                    "options": _defaults(source),
                }
            )
    columns = ("name", "kind", "domain", "formats", "licence", "use", "extra")
    show({"sources": rows}, json, lambda d: table(columns, [[r[c] or "-" for c in columns] for r in d["sources"]]))


@app.command(epilog="Example: scigpt data inspect era5.grib tas_day.nc")
def inspect(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...")],
    draft: Annotated[
        str | None, typer.Option("--draft", metavar="MAP", help="Write the draft of a map for your own data here (`-`: print it).")
    ] = None,
    json: Json = False,
) -> None:
    """Say what files hold: format, variables, units, calendar, gaps, and which source reads them."""
    from scigpt.data_prep.inspect import format_report
    from scigpt.data_prep.inspect import inspect as look

    if draft is not None:
        _draft(files, draft, json)
        return
    found = [look(_existing(file)) for file in files]
    show({"files": found}, json, lambda d: "\n\n".join(format_report(f) for f in d["files"]))


@app.command(epilog="Example: scigpt data make navier-stokes --out corpora/ns train=64 viscosity_low=0.02")
def make(
    equation: Annotated[str, typer.Argument(metavar="EQUATION")],
    out: Out,
    words: Words = None,
    name: Name = None,
    workers: Workers = 1,
    dask: Dask = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Simulate an equation into a corpus. Interrupted, the same command goes on where it was."""
    from scigpt.data_prep.pde import EQUATIONS
    from scigpt.data_prep.source import parse_options

    source = choose(EQUATIONS, equation, "equation")
    _convert(source((), parse_options(source.Options, words or [])), out, name, workers, dask, dry_run, None, json)


class _ManyInputs(TyperCommand):
    """`--input A B C` means `--input A --input B --input C`; a word `key=value` that is no file ends the list."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        expanded: list[str] = []
        listing = False
        for word in args:
            if listing and not word.startswith("-") and ("=" not in word or Path(word).exists()):
                if expanded[-1] != "--input":
                    expanded.append("--input")
            else:
                listing = word == "--input"
            expanded.append(word)
        return super().parse_args(ctx, expanded)


@app.command(cls=_ManyInputs, epilog="Example: scigpt data prepare cmip6 --input tas_2000.nc tas_2001.nc --out corpora/tas")
def prepare(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A name that `scigpt data sources` lists, or a recipe (YAML); it comes before --input.")
    ],
    out: Out,
    words: Words = None,
    inputs: Inputs = None,
    name: Name = None,
    workers: Workers = 1,
    dask: Dask = None,
    map_file: Annotated[str | None, typer.Option("--map", metavar="MAP", help="The map of your own data (source `generic`).")] = None,
    accept_licence: Annotated[str | None, typer.Option(metavar="ID", help="Accept the licence of the data; recorded.")] = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Convert public data into a corpus. Interrupted, the same command goes on where it was."""
    from scigpt.data_prep.source import parse_options
    from scigpt.data_prep.sources import SOURCES

    words = [*(words or []), *([] if map_file is None else [f"map={map_file}"])]
    if is_recipe(source):
        recipe = load_recipe(source)
        source, words = recipe.source, [*recipe.options, *words]
    chosen = choose(SOURCES, source, "source")
    if loose := [w for w in words if "=" not in w and Path(w).exists()]:
        raise UserError(f"{loose[0]} is a file and no option; give files with --input {loose[0]}")
    licence = chosen.describe().licence
    if accept_licence not in (None, licence):
        raise UserError(f"--accept-licence {accept_licence}: the licence of {source} is {licence!r}; name that one")
    made = chosen([_existing(p) for p in inputs or ()], parse_options(chosen.Options, words))
    _convert(made, out, name, workers, dask, dry_run, accept_licence, json)
    _warn_of_others(chosen, inputs or [])


app.command(epilog="Example: scigpt data fetch configs/data/era5.yaml --out raw/era5")(fetch)


@app.command(epilog="Example: scigpt data verify corpora/ns")
def verify(folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Corpora.")], json: Json = False) -> None:
    """Check every byte of corpora, and that none trains on what another is tested on; exit code 2 and a list if something is wrong."""
    from scigpt.data.corpus import Corpus
    from scigpt.data.duplicates import describe, duplicates
    from scigpt.data.verify import verify as check

    problems = [problem for folder in folders for problem in check(folder)]
    notes: list[str] = []
    if not problems:
        found = duplicates([Corpus.open(folder) for folder in folders])
        problems = [describe(d) for d in found if d.leak]
        notes = [describe(d) for d in found if not d.leak]
    if json:
        show(
            {
                "corpus": str(folders[0]) if len(folders) == 1 else [str(f) for f in folders],
                "ok": not problems,
                "problems": problems,
                "notes": notes,
            },
            True,
            str,
        )
    for problem in problems:
        typer.echo(f"scigpt: {problem}", err=True)
    if problems:
        raise typer.Exit(2)
    if not json:
        for note in notes:
            typer.echo(note)
        typer.echo(f"{', '.join(map(str, folders))}: every file is whole")


@app.command(cls=_ManyInputs, epilog="Example: scigpt data repair corpora/era5 --input raw/era5.zarr")
def repair(folder: Folder, inputs: Inputs = None, workers: Workers = 1, json: Json = False) -> None:
    """Make again what is broken in a corpus, from its recipe and its inputs; what is whole stays untouched."""
    from scigpt.data_prep.repair import repair as mend

    done = mend(folder, [_existing(p) for p in inputs or ()], workers, not json)
    show({"corpus": str(folder), "done": done}, json, lambda d: "\n".join(d["done"]) or f"{folder}: every file is whole")


@app.command(epilog="Example: scigpt data card corpora/ns --html ns.html")
def card(
    folder: Folder,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a page with histograms, gaps, pictures.")] = None,
    json: Json = False,
) -> None:
    """Print the card of a corpus; with --json a summary of its manifest."""
    from scigpt.data.corpus import CARD, Corpus

    corpus = Corpus.open(folder)
    if html is not None:
        from scigpt.data_prep.gallery import page

        page(corpus, html)
        show(_summary(corpus) | {"html": str(html)}, json, lambda _: f"{html}: written")
        return
    show(_summary(corpus), json, lambda _: (folder / CARD).read_text(encoding="utf-8").rstrip())


def _convert(
    source: Source, out: Path, name: str | None, workers: int, dask: str | None, dry_run: bool, licence: str | None, json: bool
) -> None:
    from scigpt.data_prep.convert import convert, outline

    if dry_run:
        show(outline(source, out, workers), json, _outline)
    else:
        _report(convert(source, out, name, workers, accepted_licence=licence, cluster=dask), json)


def _outline(d: dict[str, Any]) -> str:
    lines = [f"{d['source']}: {d['samples']} samples in {d['shards']} shards, about {si(d['bytes'])}B, about {d['seconds']:.0f} s"]
    lines += [f"  {name}: {s['samples']} samples in {s['shards']} shards" for name, s in d["splits"].items()]
    lines.append(f"  disk: {si(d['free_bytes'])}B are free")
    passed_on = "" if d["redistributable"] else ", not to be redistributed"
    lines.append(f"  licence: {d['licence']}{passed_on}; use: {d['use']}")
    lines += [f"  {note}" for note in d["notes"]]
    return "\n".join([*lines, "nothing was written"])


def _draft(files: list[Path], out: str, json: bool) -> None:
    from scigpt.data.files import write_bytes
    from scigpt.data_prep.draft import draft

    if len(files) != 1:
        raise UserError(f"--draft makes a map from one file and {len(files)} are given; files that are alike share the map of one")
    text = draft(_existing(files[0]))
    if out != "-":
        if Path(out).exists():
            raise UserError(f"{out} is already there; move it away or choose another --draft")
        write_bytes(Path(out), text.encode())
    checks = text.count("  # check")
    told = f"{out}: {checks} lines to check; then: scigpt data prepare generic --map {out} --input {files[0]} --out DIR"
    show({"map": None if out == "-" else out, "checks": checks, "draft": text}, json, lambda _: text.rstrip() if out == "-" else told)


def choose(registry: dict[str, type[Source]], name: str, what: str) -> type[Source]:
    """The class of that name, or one sentence with the nearest one."""
    if name not in registry:
        from scigpt.data_prep.pde import EQUATIONS

        if name in EQUATIONS:
            raise UserError(f"{name} is an equation and no {what}: scigpt data make {name} --out DIR")
        near = difflib.get_close_matches(name, registry, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(registry)) or 'none'}"
        raise UserError(f"there is no {what} {name!r}; {hint} (`scigpt data sources` lists all)")
    return registry[name]


def _warn_of_others(chosen: type[Source], inputs: list[Path]) -> None:
    """What a corpus says of its origin is what the source says: a file of another source would be told as something that it is not."""
    from scigpt.data_prep.embedded import resolve
    from scigpt.data_prep.inspect import reader

    of_any_origin = ("generic", "arrays")
    its_own = (*of_any_origin, *chosen.also)
    for path in [] if chosen.name in of_any_origin else inputs[:3]:
        found = None if chosen.recognises(resolve(path)) else reader(resolve(path))
        if found is not None and found.name not in its_own:
            _log.warning(
                "%s looks like a file of the source %s; as %s its licence and attribution are told as those of %s",
                path,
                found.name,
                chosen.name,
                chosen.name,
            )


def _existing(path: Path) -> Path:
    """The path itself (`embedded:NAME` too), once it is sure that there is something behind it."""
    from scigpt.data_prep.embedded import resolve

    if not resolve(path).exists():
        raise UserError(f"{path}: there is no such file or folder; check the path")
    return path


def _defaults(source: type[Source]) -> dict[str, Any]:
    import dataclasses

    return dataclasses.asdict(source.Options())


def _report(path: Path, json: bool) -> None:
    from scigpt.data.corpus import Corpus

    corpus = Corpus.open(path)
    splits = ", ".join(f"{n}: {s['samples']} samples, {s['frames']} frames" for n in corpus.splits for s in [corpus.manifest["splits"][n]])
    size = sum(s["bytes"] for s in corpus.manifest["shards"]) / 1e6
    show(_summary(corpus), json, lambda d: f"{path}: {splits}; {size:.1f} MB; see `scigpt data card {path}`")


def _summary(corpus: Any) -> dict[str, Any]:
    kept = {k: v for k, v in corpus.manifest.items() if k not in ("shards", "checksum")}
    shards = corpus.manifest["shards"]
    return {
        "corpus": str(corpus.path),
        "fingerprint": corpus.fingerprint,
        "shards": len(shards),
        "bytes": sum(s["bytes"] for s in shards),
        **kept,
    }
