"""The public routes of ESS-DIVE: the package service (JSON-LD) and the search of fields of Deep Dive; neither needs an account."""

from __future__ import annotations

import fnmatch
import json
import re
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from scigpt.data_prep.source import Remote
from scigpt.errors import UserError

PAGE = 100
"""Packages or fields that one answer lists, the most the services give."""


@dataclass(frozen=True)
class EssDiveFetch:
    """What to fetch.

    Args:
        package: DOIs or ids of packages.
        text, creator: words to search packages for.
        begin, end: years or dates that packages must cover some of.
        field: name of a column, which the Deep Dive service knows from data dictionaries.
        pattern: names, or patterns of them, of the files wanted.
        limit: most packages of a search.
        server, deepdive: the two services.
    """

    package: tuple[str, ...] = ()
    text: str | None = None
    creator: str | None = None
    begin: str | None = None
    end: str | None = None
    field: str | None = None
    pattern: tuple[str, ...] = ("*",)
    limit: int = 5
    server: str = "https://api.ess-dive.lbl.gov"
    deepdive: str = "https://fusion.ess-dive.lbl.gov/api/v1/deepdive"


def package_remotes(options: EssDiveFetch, get: Callable[[str], bytes]) -> Iterator[Remote]:
    """The files of packages, and beside them the JSON-LD that states licence, authors and sizes.

    Raises:
        UserError: nothing asked for, or an answer that is not the service's.
    """
    o = options
    if o.limit < 1:
        raise UserError(f"limit={o.limit} must be 1 or more")
    if not (o.package or o.text or o.creator or o.field):
        raise UserError("a fetch from ess-dive needs package=DOI, or words to search for: text=, creator= or field=")
    for id_ in dict.fromkeys([*map(_identifier, o.package), *_searched(o, get)]):
        url = f"{o.server.rstrip('/')}/packages/{urllib.parse.quote(id_, safe=':/')}"
        answer = _json(url, get)
        dataset = answer.get("dataset", {})
        folder = re.sub(r"[^\w.-]+", "_", str(answer.get("id") or id_)).strip("._")
        files = dataset.get("distribution", [])
        seen: set[str] = set()
        yield Remote(url, f"{folder}/package.jsonld")
        for file in files if isinstance(files, list) else [files]:
            try:
                name, address = str(file["name"]), str(file["contentUrl"])
            except (KeyError, TypeError):
                raise UserError(
                    f"the answer of {url} lists a file without name or contentUrl; look at the package on ess-dive.lbl.gov"
                ) from None
            name = re.sub(r"[\\/:]+", "_", name).lstrip(".") or "file"
            if any(fnmatch.fnmatch(name, p) for p in o.pattern):
                name = f"{len(seen)}_{name}" if name.lower() in seen else name
                seen.add(name.lower())
                yield Remote(address, f"{folder}/{name}", bytes=stated_bytes(dataset, str(file["name"])))


def _searched(o: EssDiveFetch, get: Callable[[str], bytes]) -> Iterator[str]:
    words = {"text": o.text, "creator": o.creator, "beginDate": o.begin, "endDate": o.end}
    given = {k: v for k, v in words.items() if v}
    found = 0
    if o.text or o.creator:
        row, total = 1, 1
        while row <= total and found < o.limit:
            query = {**given, "isPublic": "true", "rowStart": str(row), "pageSize": str(min(PAGE, o.limit))}
            url = f"{o.server.rstrip('/')}/packages?{urllib.parse.urlencode(query)}"
            answer = _json(url, get)
            results = answer.get("result", [])
            total = int(answer.get("total", 0)) if results else 0
            for result in results[: o.limit - found]:
                yield str(result["id"])
                found += 1
            row += len(results)
    elif o.field:
        row, met = 1, set[str]()
        while found < o.limit:
            url = f"{o.deepdive}?{urllib.parse.urlencode({'fieldName': o.field, 'rowStart': str(row), 'pageSize': str(PAGE)})}"
            results = _json(url, get).get("results", [])
            for result in results:
                match = re.search(r"doi:10\.\d+/[^:/]+", urllib.parse.unquote(str(result.get("data_file_url", ""))))
                if match and match[0] not in met and found < o.limit:
                    met.add(match[0])
                    found += 1
                    yield match[0]
            if len(results) < PAGE:
                return
            row += len(results)


def _identifier(text: str) -> str:
    """`https://doi.org/10.15485/1`, `10.15485/1` as `doi:10.15485/1`; an id as it is."""
    match = re.search(r"10\.\d{4,}/\S+", text)
    return f"doi:{match[0]}" if match else text.strip()


def _json(url: str, get: Callable[[str], bytes]) -> dict[str, Any]:
    try:
        answer = json.loads(get(url))
        if not isinstance(answer, dict):
            raise TypeError(type(answer).__name__)
    except UserError:
        raise
    except (ValueError, TypeError) as error:
        raise UserError(
            f"the answer of {url} is not the JSON of ESS-DIVE ({type(error).__name__}); try again later or check server="
        ) from None
    return answer


def stated_bytes(dataset: Mapping[str, Any], name: str) -> int | None:
    """Size of a file by the JSON-LD, which counts in units of 1024 bytes; None where it is not said to the byte."""
    files = dataset.get("distribution", [])
    found = [f.get("contentSize") for f in files if isinstance(f, dict) and f.get("name") == name] if isinstance(files, list) else []
    if len(found) != 1 or not isinstance(found[0], float):
        return None
    size = found[0] * 1024
    return round(size) if abs(size - round(size)) < 1e-6 and not found[0].is_integer() else None


def licence_of(dataset: Mapping[str, Any]) -> str:
    """`CC-BY-4.0` and `CC0-1.0`, or what else the package states; empty where it states nothing."""
    text = str(dataset.get("license") or "")
    if re.search(r"publicdomain/zero/1\.0|CC0", text, re.IGNORECASE):
        return "CC0-1.0"
    return "CC-BY-4.0" if re.search(r"licenses/by/4\.0|CC.BY.4\.0", text, re.IGNORECASE) else text


def attribution_of(dataset: Mapping[str, Any]) -> str:
    """Authors, year, title and DOI."""
    if not dataset:
        return ""
    people = dataset.get("creator") or []
    names = [
        str(p.get("familyName") or p.get("name") or "") for p in (people if isinstance(people, list) else [people]) if isinstance(p, dict)
    ]
    by = ", ".join(n for n in names[:5] if n) + (" et al." if len(names) > 5 else "")
    return f"{by} ({str(dataset.get('datePublished', ''))[:4]}): {dataset.get('name', '')}. ESS-DIVE, {dataset.get('@id', '')}".strip()
