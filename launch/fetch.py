"""`scigpt data fetch`: download what a source's public route offers, resumable and polite."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from scigpt.errors import UserError
from scigpt.launch.output import Json, show, si, table
from scigpt.launch.recipes import is_recipe, load_recipe


def fetch(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A name that `scigpt data sources` lists, or a recipe such as configs/data/era5.yaml.")
    ],
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="What to fetch; see the source in docs/data.md.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the files; downloads/SOURCE by default.")] = None,
    connections: Annotated[int, typer.Option("--connections", min=1, max=16, help="At most so many at a time.")] = 4,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be fetched: files, size, licence, login, room on the disk.")
    ] = False,
    accept_licence: Annotated[str | None, typer.Option(metavar="ID", help="Accept the licence of the data; recorded.")] = None,
    json: Json = False,
) -> None:
    """Download public data. Interrupted, the same command goes on where it was; what is there is not fetched again."""
    from scigpt.data_prep import fetch as engine
    from scigpt.data_prep.source import parse_options
    from scigpt.data_prep.sources import SOURCES
    from scigpt.launch.data import choose

    words = words or []
    if is_recipe(source):
        recipe = load_recipe(source)
        source, words = recipe.source, [*recipe.fetch, *words]
    chosen = choose(SOURCES, source, "source")
    if chosen.Fetch is None:
        raise UserError(
            f"the source {source} has no public route; fetch its files by hand and give them as --input of `scigpt data prepare`"
        )
    network = engine.Network()
    listing = engine.look(
        chosen.remotes(parse_options(chosen.Fetch, words), network.get), out or Path("downloads") / source, chosen.describe(), network
    )
    if dry_run:
        show(listing.summary(), json, _plan)
        return
    report = engine.fetch(listing, network, connections, accept_licence)
    done = {
        "source": source,
        "out": str(listing.out),
        "licence": listing.about.licence,
        "attribution": listing.about.attribution,
        "fetched": list(report.fetched),
        "already_there": list(report.kept),
        "bytes": report.bytes,
    }
    show(done, json, _told)


def _plan(summary: dict[str, Any]) -> str:
    rows = [
        [e["file"], f"{si(e['bytes'])}B" if e["bytes"] is not None else "unknown", "there" if e["there"] else e["login"] or "-"]
        for e in summary["list"]
    ]
    unknown = f" and {summary['files_of_unknown_size']} of unknown size" if summary["files_of_unknown_size"] else ""
    lines = [
        table(("file", "size", "login"), rows),
        "",
        f"{summary['files']} files, {summary['already_there']} there already; to fetch: {si(summary['bytes_to_fetch'])}B{unknown}; "
        f"free in {summary['out']}: {si(summary['disk_free'])}B",
        f"licence: {summary['licence']}" + (" (to be accepted with --accept-licence)" if summary["licence_must_be_accepted"] else ""),
    ]
    lines += [f"login: {name}, {'found' if found else 'not found'}" for name, found in summary["logins"].items()]
    return "\n".join(lines)


def _told(done: dict[str, Any]) -> str:
    return (
        f"{done['out']}: {len(done['fetched'])} fetched ({si(done['bytes'])}B), {len(done['already_there'])} were there; "
        f"licence {done['licence']}; next: scigpt data inspect {done['out']}/*"
    )
