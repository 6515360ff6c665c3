"""One file from an object store through fsspec: in ranges, so that it can be gone on with."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import fsspec

from scigpt.data_prep.fetch.errors import Stopped, Transient, bare
from scigpt.data_prep.fetch.network import Network
from scigpt.data_prep.fetch.part import Part, refuse_page
from scigpt.errors import UserError

_RANGE = 8 << 20
_LOCAL = ("", "file", "local", "reference")
_GOOGLE = ("gs", "gcs")


def scheme(url: str) -> str:
    return url.partition("://")[0].lower() if "://" in url else ""


def refuse_local(url: str) -> None:
    """A catalogue must not make us read this machine's own files, nor chain one file system onto another."""
    if scheme(url) in _LOCAL or "::" in url:
        raise UserError(f"{bare(url)[:150]!r} is not a remote address; expected https://, s3://, gs:// or another remote file system")
    if scheme(url) not in fsspec.available_protocols():
        raise UserError(
            f"{bare(url)[:150]!r}: no file system {scheme(url)}:// is known; expected https://, s3://, gs:// or another of fsspec's"
        )


def storage_options(url: str, login: str | None) -> dict[str, Any]:
    """Anonymous where no account is needed, else what the environment and the usual files hold."""
    if scheme(url) == "s3":
        return {"anon": login is None, "endpoint_url": os.environ.get("AWS_ENDPOINT_URL")}
    return {"token": "anon"} if scheme(url) in _GOOGLE and login is None else {}


@contextmanager
def told(url: str) -> Iterator[None]:
    """What a file system raises: a `Transient` where it may pass, else one sentence."""
    try:
        yield
    except (UserError, Transient, Stopped):
        raise
    except ImportError:
        raise UserError(f"fetching {scheme(url)}:// needs a library that is not installed; run: pip install 'scigpt[cloud]'") from None
    except FileNotFoundError:
        raise UserError(f"{bare(url)}: not found; check the options of the fetch, it may have been moved or not be published") from None
    except PermissionError:
        raise UserError(f"{bare(url)}: access is refused; it is not public, or the credentials of this machine are not accepted") from None
    except Exception as error:  # each file system has exceptions of its own, whose messages may hold keys
        raise Transient(f"reading failed ({type(error).__name__})") from None


def download(network: Network, part: Part, grown: Callable[[int], None]) -> dict[str, Any]:
    """All bytes of the remote into its part; as `http.download`."""
    grown(part.size)
    network.persist(lambda: _attempt(network, part, grown), part.remote.url, lambda: part.size)
    etag = part.note().get("etag")
    return {"etag": etag} if etag else {}


def _attempt(network: Network, part: Part, grown: Callable[[int], None]) -> None:
    url = part.remote.url
    with told(url):
        system, path = fsspec.core.url_to_fs(url, **storage_options(url, part.remote.login))
        system.invalidate_cache()
        about = system.info(path)
    total = about["size"]
    etag = next((str(about[key]) for key in ("ETag", "etag", "md5Hash", "mtime", "LastModified") if about.get(key)), None)
    note = part.note()
    if not note or note.get("etag") != etag or note.get("total") != total:
        grown(-part.size)
        part.begin(etag=etag, total=total)
    part.room(total - part.size)
    while (have := part.size) < total:
        network.sleep(0)
        with told(url):
            piece = system.cat_file(path, start=have, end=min(have + _RANGE, total))
        if not piece:
            raise Transient(f"the body ended after {have} of {total} bytes")
        if not have:
            refuse_page(part.remote, piece)
        part.append(piece)
        grown(len(piece))
