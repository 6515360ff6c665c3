"""Exports on the way: to another folder, to and from the Hugging Face hub.

Tokens are found by `huggingface_hub` itself (`hf auth login`, HF_TOKEN) and never seen here.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import scigpt
from scigpt.adapt.start import EXPORT
from scigpt.errors import UserError
from scigpt.export.folder import CARD, WEIGHTS, Exported, is_export, make, spelled
from scigpt.train.checkpoint import sealed

if TYPE_CHECKING:
    from huggingface_hub import HfApi

PROGRAMS = tuple(f"{kind}-*.{end}" for kind in ("step", "rollout") for end in ("pt2", "onnx"))
FILES = (EXPORT, WEIGHTS, CARD, *PROGRAMS)
"""What an export may consist of; nothing else is sent or fetched."""
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


def save_pretrained(exported: Exported, folder: Path | str) -> Path:
    """Copy an export. The copy appears when all of it is on the disk; an export that is there is replaced.

    Returns:
        `folder`.

    Raises:
        UserError: a folder that is something else or cannot be written; files that have changed since the export was opened.
    """

    def fill(copy: Path) -> None:
        for name in _names(exported):
            shutil.copyfile(exported.path / name, copy / name)
            if sealed(copy / name) != exported.facts["files"].get(name, sealed(copy / name)):
                raise UserError(f"{exported.path / name}: has changed since the export was opened; restore it or export the run again")
        (copy / EXPORT).write_bytes(spelled(exported.facts))
        sealed(copy / EXPORT)

    return make(Path(folder), fill)


def from_pretrained(name_or_path: str | Path, revision: str | None = None, cache_dir: Path | str | None = None) -> Path:
    """The folder of an export: one that is here, or the copy of a repository of the hub, fetched where the cache lacks it.

    Args:
        name_or_path: a folder, or OWNER/NAME of a repository.
        revision: branch, tag or commit of the repository.
        cache_dir: by default the cache of `huggingface_hub`.

    Returns:
        The folder, which `Exported.open` verifies.

    Raises:
        UserError: neither of the two, a repository that is no export, the extra `hub` is not installed, whatever the hub refuses.
    """
    path, repository = Path(name_or_path), str(name_or_path)
    if path.exists():
        if revision is not None:
            raise UserError(f"{path}: is here, and revision={revision} is of a repository of the hub; leave the revision out")
        return path
    if not REPOSITORY.fullmatch(repository):
        raise UserError(f"{repository}: there is no such folder; give the folder of an export, or OWNER/NAME of a repository of the hub")
    _api(f"{repository}: is no folder here, and to look for it on the hub")
    from huggingface_hub import snapshot_download

    options: dict[str, Any] = {"cache_dir": cache_dir, "library_name": scigpt.__name__, "library_version": scigpt.__version__}
    with _told(repository, "read"):
        # what it is first, so that gigabytes of something else stay where they are; then the rest of the very same commit
        found = Path(snapshot_download(repository, revision=revision, allow_patterns=[EXPORT], **options))
        if not is_export(found):
            raise UserError(f"{repository}: is no export of scigpt ({EXPORT} does not say so); check the name")
        return Path(snapshot_download(repository, revision=found.name, allow_patterns=list(FILES), **options))


def push_to_hub(exported: Exported, repository: str, private: bool = False, message: str | None = None) -> str:
    """Make an export the content of a repository of the hub, in one commit. The repository is made where there is none; programs of an
    earlier export go.

    Args:
        repository: OWNER/NAME.
        private: of a repository that is made.
        message: of the commit.

    Returns:
        Address of the commit.

    Raises:
        UserError: before anything is sent: data that may not be redistributed or of which nothing is known, files that have changed, no
            extra `hub`. After that: whatever the hub refuses.
    """
    facts = exported.facts
    if not REPOSITORY.fullmatch(repository):
        raise UserError(f"{repository}: is not the name of a repository; expected OWNER/NAME")
    if not facts["redistributable"]:
        withheld = ", ".join(sorted({c["name"] for c in facts["learned_from"] if not c["redistributable"]}))
        raise UserError(
            f"{exported.path}: learned from {withheld}, which may not be redistributed, so the hub gets nothing; train without that data"
        )
    if facts["unknown"]:
        raise UserError(
            f"{exported.path}: began with {', '.join(facts['unknown'])}, of whose data nothing is known, so the hub gets nothing; export "
            f"the run again where that can be found"
        )
    api = _api("push_to_hub")
    names = _names(Exported.open(exported.path))
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    with _told(repository, "write"):
        api.create_repo(repository, private=private, exist_ok=True)
        there = {f for f in api.list_repo_files(repository) if any(fnmatchcase(f, p) for p in PROGRAMS)}
        additions = [CommitOperationAdd(name, exported.path / name) for name in (EXPORT, *names)]
        deletions = [CommitOperationDelete(name) for name in sorted(there - set(names))]
        said = message or f"{facts['run']}, step {facts['step']}"
        return str(api.create_commit(repository, [*additions, *deletions], commit_message=said).commit_url)


def _names(exported: Exported) -> list[str]:
    """Files of an export besides its description."""
    for name in exported.facts["files"]:
        if "/" in name or not any(fnmatchcase(name, pattern) for pattern in FILES):
            raise UserError(f"{exported.path / EXPORT}: names the file {name}, which no export has; export the run again")
    return [*exported.facts["files"], *([CARD] if (exported.path / CARD).is_file() else [])]


def _api(what: str) -> HfApi:
    try:
        from huggingface_hub import HfApi
    except ImportError:
        raise UserError(f"{what} needs huggingface_hub: pip install 'scigpt[hub]'") from None
    return HfApi(library_name=scigpt.__name__, library_version=scigpt.__version__)


@contextmanager
def _told(repository: str, verb: str) -> Iterator[None]:
    """Errors of the hub as one sentence."""
    import httpx2

    try:
        yield
    except UserError:
        raise
    except (httpx2.HTTPError, OSError, ValueError) as error:
        raise UserError(f"{repository}: {_reason(error, verb)}") from None


def _reason(error: BaseException, verb: str) -> str:
    import httpx2
    from huggingface_hub import errors

    login = f"`hf auth login` with a token that may {verb} it"
    if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ is not None:  # the cache lacks it, and why that was asked
        return _reason(error.__cause__, verb)
    if isinstance(error, errors.GatedRepoError):
        return f"its owner gives access on request; ask for it on its page, then {login}"
    if isinstance(error, errors.RepositoryNotFoundError):
        here = "is no folder here and " if verb == "read" else ""
        return f"{here}cannot be found on the hub; check the name, and {login} if it is private"
    if isinstance(error, errors.RevisionNotFoundError):
        return "has no such revision; give a branch, a tag or a commit that its page shows"
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        if status in (401, 403):
            return f"the hub does not let you {verb} it ({status}); {login}"
        return f"the hub answers {status} ({_said(error)}); try again later"
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled | httpx2.HTTPError):
        cached = " and the cache lacks it" if verb == "read" else ""
        return f"the hub cannot be reached{cached} ({_said(error)}); try again with a connection"
    return f"cannot {verb} it ({_said(error)})"


def _said(error: Any) -> str:
    """What an error says, on one line."""
    text = getattr(error, "server_message", None) or getattr(error, "strerror", None) or str(error)
    return " ".join(text.split())[:200].strip(" .") or type(error).__name__
