"""Print the licence of every package that SciGPT needs, and fail on GPL or AGPL code.

The closure is walked from the package's own metadata (not from all that happens to be installed): its base requirements, and those
of all its extras. LGPL is accepted through an extra only. A package whose metadata names no licence that is known here must be
looked at by a person and written into REVIEWED.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REVIEWED = {
    "eccodeslib": "Apache-2.0",  # licence file of the wheel
    "eckitlib": "Apache-2.0",  # the same; it carries copies of libidn2, libunistring, libssh, keyutils-libs under the LGPL
    "hjson": "MIT OR AFL-2.1",  # licence file of the wheel: dual, where the metadata lists both
    "huey": "MIT",  # licence file of the wheel
    "iris-sample-data": "data: Open Government Licence",  # project page
    "python-dateutil": "Apache-2.0 OR BSD-3-Clause",  # "Dual License"
    "shapely": "BSD-3-Clause AND LGPL-2.1-only",  # its wheel carries a copy of GEOS
    "skops": "MIT",  # licence file of the wheel
    "torchao": "BSD-3-Clause",  # the same
}
ACCEPTED = re.compile(  # NVIDIA: the CUDA libraries a GPU build of torch brings
    r"\b(MIT|0?BSD|Apache|ISC|PSF|Python Software Foundation|CNRI-Python|MPL|Mozilla Public|Zlib|CC0|Unlicense|BSL-1\.0|HPND|"
    r"Open Government|NVIDIA)\b",
    re.I,
)
LGPL = re.compile(r"\bLGPL|lesser general public|library general public", re.I)
GPL = re.compile(r"GPL|general public license|affero", re.I)
RUNTIME_EXCEPTION = re.compile(r"WITH (GCC|LLVM|Classpath)-exception", re.I)

FREE, WEAK, STRONG, UNKNOWN = "free", "LGPL", "GPL", "unknown"
ORDER = (FREE, WEAK, UNKNOWN, STRONG)


def stated(package: Distribution) -> str:
    """The licence as an SPDX expression where there is one, else the trove classifiers, else the first line of the free text."""
    name = canonicalize_name(package.name)
    if name in REVIEWED:
        return REVIEWED[name]
    metadata = package.metadata
    if "License-Expression" in metadata:
        return metadata["License-Expression"]
    classifiers = [c.rpartition(" :: ")[2] for c in metadata.get_all("Classifier") or [] if c.startswith("License ::")]
    named = [c for c in classifiers if c not in ("OSI Approved", "DFSG approved")]
    text = " ".join(" ".join(metadata.get_all("License") or []).split())
    return " AND ".join(named) or text[:60] or "none stated"


def kind(licence: str) -> str:
    """The strictest part of a licence; of alternatives (OR) the freest. Nested expressions go to REVIEWED."""
    if "(" in licence and " OR " in licence:
        return UNKNOWN
    alternatives = [max(map(_kind_of_one, choice.split(" AND ")), key=ORDER.index) for choice in licence.split(" OR ")]
    return min(alternatives, key=ORDER.index)


def _kind_of_one(licence: str) -> str:
    if RUNTIME_EXCEPTION.search(licence):
        return FREE
    for pattern, found in ((LGPL, WEAK), (GPL, STRONG), (ACCEPTED, FREE)):
        if pattern.search(licence):
            return found
    return UNKNOWN


def closure(root: str, extras: frozenset[str]) -> tuple[dict[str, Distribution], set[str]]:
    """The installed distributions that `root[extras]` needs, by name, and the names of those that are not installed."""
    found: dict[str, Distribution] = {}
    missing: set[str] = set()
    seen: set[tuple[str, str]] = set()
    todo = [(root, extra) for extra in ("", *extras)]
    while todo:
        name, extra = todo.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            missing.add(name)
            continue
        for requirement in map(Requirement, found[name].requires or []):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                needed = canonicalize_name(requirement.name)
                todo += [(needed, e) for e in ("", *requirement.extras)]
    del found[root]
    return found, missing


def main(root: str) -> int:
    base, missing = closure(root, frozenset())
    extras = frozenset(distribution(root).metadata.get_all("Provides-Extra") or [])
    everything, absent = closure(root, extras)

    problems = [f"{name}: needed but not installed" for name in sorted(missing)]
    for name, package in sorted(everything.items()):
        licence = stated(package)
        found = kind(licence)
        print(f"{name} {package.version}: {licence}" + ("" if name in base else "  (extra)"))
        if found == UNKNOWN:
            problems.append(f"{name}: the licence {licence!r} is not known; read it and write it into REVIEWED in .ci/licences.py")
        elif found == STRONG or (found == WEAK and name in base):
            problems.append(f"{name}: {licence} is not allowed in {'the base' if name in base else 'an extra'}")
    if unchecked := sorted(absent - missing):
        print(f"not installed, so not checked: {', '.join(unchecked)}")
    for problem in problems:
        print(problem, file=sys.stderr)
    if not problems:
        print(f"{len(everything)} packages, no GPL or AGPL; {len(base)} of them without any extra, no LGPL among these")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(*(sys.argv[1:] or ["scigpt"])))
