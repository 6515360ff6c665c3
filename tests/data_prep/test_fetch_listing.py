"""What is refused before anything is fetched: places outside the folder, addresses of this machine, terms, a small disk, two at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
from servers import Page, Web, fetch, receipts

from scigpt.data_prep.fetch.receipts import exclusive
from scigpt.data_prep.source import Description, Remote
from scigpt.errors import UserError

BODY = b"0123456789" * 1000


@pytest.mark.parametrize(
    "file", ["../x.bin", "/etc/x.bin", "a/../../x", "a\\..\\x", "", "a//b", "./x", "x\n", ".fetched.json", "x.bin.part"]
)
def test_places_outside_the_folder_are_refused(server: Web, tmp_path: Path, file: str) -> None:
    with pytest.raises(UserError, match="the catalogue names a file"):
        fetch([Remote(server.url("/x"), file)], tmp_path / "out")
    assert not server.asked
    assert not (tmp_path / "out").exists()


def test_a_link_out_of_the_folder_is_refused(server: Web, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/sub").symlink_to(tmp_path)
    with pytest.raises(UserError, match="by a symbolic link"):
        fetch([Remote(server.url("/x"), "sub/x.bin")], tmp_path / "out")


@pytest.mark.parametrize("url", ["file:///etc/passwd", "/etc/passwd", "reference://x", "simplecache::s3://b/k", "local:///etc/passwd"])
def test_addresses_of_this_machine_are_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(UserError, match="is not a remote address"):
        fetch([Remote(url, "x.bin")], tmp_path / "out")


def test_a_file_of_ones_own_is_never_replaced(server: Web, tmp_path: Path) -> None:
    server.pages["/x.bin"] = Page(BODY)
    (tmp_path / "x.bin").write_bytes(b"mine")
    with pytest.raises(UserError, match="was not fetched by this command"):
        fetch([Remote(server.url("/x.bin"), "x.bin")], tmp_path)
    assert (tmp_path / "x.bin").read_bytes() == b"mine"


def test_the_disk_is_looked_at_before(server: Web, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"are to be fetched and the disk has .* free"):
        fetch([Remote(server.url("/x.bin"), "x.bin", bytes=10**18)], tmp_path)
    assert not server.asked


def test_terms_must_be_accepted_where_there_are_some(server: Web, tmp_path: Path) -> None:
    server.pages["/x.bin"] = Page(BODY)
    terms = Description("toy", "test", "any", "their terms", redistributable=False)
    remote = Remote(server.url("/x.bin"), "x.bin")
    with pytest.raises(UserError, match="add --accept-licence 'their terms'"):
        fetch([remote], tmp_path, about=terms)
    with pytest.raises(UserError, match="the licence of toy is 'their terms'; name that one"):
        fetch([remote], tmp_path, about=terms, accepted_licence="CC0")
    assert not server.asked
    fetch([remote], tmp_path, about=terms, accepted_licence="their terms")
    assert receipts(tmp_path)["x.bin"]["accepted_licence"] == "their terms"


def test_an_empty_list_and_two_things_in_one_place_are_refused(server: Web, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing was found"):
        fetch([], tmp_path)
    with pytest.raises(UserError, match="two different things 'x'"):
        fetch([Remote(server.url("/a"), "x"), Remote(server.url("/b"), "x")], tmp_path)


def test_two_fetches_do_not_share_a_folder(server: Web, tmp_path: Path) -> None:
    with exclusive(tmp_path), pytest.raises(UserError, match="another fetch is writing there"):
        fetch([Remote(server.url("/x.bin"), "x.bin")], tmp_path)
