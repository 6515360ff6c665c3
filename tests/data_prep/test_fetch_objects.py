"""Object stores and the climate data store; against moto's S3 and a stand-in for cdsapi."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from servers import fetch as run

from scigpt.data_prep.fetch import Report
from scigpt.data_prep.source import Remote
from scigpt.errors import UserError

BODY = np.random.default_rng(1).bytes(20_000_000)


def test_an_object_comes_anonymously_and_whole(s3: Any, tmp_path: Path) -> None:
    s3.put_object(Bucket="open", Key="a/x.bin", Body=BODY, ACL="public-read")
    assert run([Remote("s3://open/a/x.bin", "x.bin", bytes=len(BODY))], tmp_path) == Report(("x.bin",), (), len(BODY))
    assert (tmp_path / "x.bin").read_bytes() == BODY
    entry = json.loads((tmp_path / ".fetched.json").read_text())["files"]["x.bin"]
    assert entry["sha256"] == hashlib.sha256(BODY).hexdigest()
    assert entry["etag"].strip('"') == s3.head_object(Bucket="open", Key="a/x.bin")["ETag"].strip('"')


def test_an_object_is_gone_on_with_and_begun_anew_where_it_changed(s3: Any, tmp_path: Path) -> None:
    s3.put_object(Bucket="open", Key="y.bin", Body=BODY, ACL="public-read")
    etag = s3.head_object(Bucket="open", Key="y.bin")["ETag"]
    for said, wanted in ((etag, bytes(9_000_000) + BODY[9_000_000:]), ('"old"', BODY)):  # zeros: what was there is not fetched again
        out = tmp_path / said.strip('"')
        out.mkdir()
        (out / "y.bin.part").write_bytes(bytes(9_000_000))
        (out / "y.bin.part.json").write_text(json.dumps({"url": "s3://open/y.bin", "etag": said, "total": len(BODY)}))
        run([Remote("s3://open/y.bin", "y.bin")], out)
        assert (out / "y.bin").read_bytes() == wanted


def test_an_object_that_is_not_there(s3: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"s3://open/none\.bin: not found"):
        run([Remote("s3://open/none.bin", "none.bin")], tmp_path)
    with pytest.raises(UserError, match="there is no Zarr store"):
        run([Remote("s3://open/none.zarr", "none.zarr", kind="zarr")], tmp_path)


def _cdsapi(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, errors: list[str]) -> list[tuple[str, dict[str, Any]]]:
    asked: list[tuple[str, dict[str, Any]]] = []

    class Client:
        def __init__(self, **_: Any) -> None:
            pass

        def retrieve(self, name: str, request: dict[str, Any], target: str) -> None:
            asked.append((name, request))
            if errors:
                raise Exception(errors.pop(0))
            Path(target).write_bytes(b"GRIB" + bytes(100))

    monkeypatch.setitem(sys.modules, "cdsapi", SimpleNamespace(Client=Client))
    monkeypatch.setenv("CDSAPI_RC", str(tmp_path / "cdsapirc"))
    monkeypatch.delenv("CDSAPI_KEY", raising=False)
    (tmp_path / "cdsapirc").write_text("url: https://cds\nkey: s3cret\n")
    return asked


CDS = Remote("reanalysis-era5-single-levels", "x.grib", kind="cds", login="cds", select={"year": ["2020"], "data_format": "grib"})


def test_the_climate_data_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = _cdsapi(monkeypatch, tmp_path, ["502 Bad Gateway"])
    out = tmp_path / "out"
    assert run([CDS], out).fetched == ("x.grib",)
    assert asked == [(CDS.url, dict(CDS.select))] * 2
    assert (out / "x.grib").stat().st_size == 104
    assert json.loads((out / ".fetched.json").read_text())["files"]["x.grib"]["select"] == dict(CDS.select)
    assert run([CDS], out).kept == ("x.grib",)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            "403 Client Error: required licences not accepted",
            "accept it at https://cds.climate.copernicus.eu/datasets/reanalysis-era5-single-levels",
        ),
        ("401 Client Error: Authentication failed", "does not accept the key; register at"),
        ("400 Client Error: Bad Request", "refuses the request; check variables"),
    ],
)
def test_what_the_climate_data_store_refuses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: str, said: str) -> None:
    asked = _cdsapi(monkeypatch, tmp_path, [error] * 9)
    with pytest.raises(UserError, match=said) as caught:
        run([CDS], tmp_path / "out")
    assert len(asked) == 1
    assert "s3cret" not in str(caught.value)


def test_cdsapi_and_its_key_are_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _cdsapi(monkeypatch, tmp_path, [])
    monkeypatch.setitem(sys.modules, "cdsapi", None)
    with pytest.raises(UserError, match="pip install cdsapi, then register at"):
        run([CDS], tmp_path / "out")
    (tmp_path / "cdsapirc").unlink()
    with pytest.raises(UserError, match=r"need an account of the climate data store; register at .* into ~/\.cdsapirc"):
        run([CDS], tmp_path / "out")
