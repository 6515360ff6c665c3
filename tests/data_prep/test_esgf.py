"""Catalogues of CMIP6: answers in the form of the ESGF search and of Pangeo's tables become things to fetch."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from readings import real

from scigpt.data_prep.source import Remote
from scigpt.data_prep.sources import esgf
from scigpt.data_prep.sources.cmip6 import Cmip6
from scigpt.errors import UserError


def found(get: Callable[[str], bytes], **options: Any) -> list[Remote]:
    return list(Cmip6.remotes(Cmip6.Fetch(**{"source_id": ("MRI-ESM2-0",), **options}), get))


# ESGF


def document(dates: str = "185001-201412", version: str = "v20190222", node: str = "esgf.ceda.ac.uk", **changes: Any) -> dict[str, Any]:
    """A file as the search answers it."""
    title = f"tas_Amon_MRI-ESM2-0_historical_r1i1p1f1_gn_{dates}.nc" if dates else "orog_fx_MRI-ESM2-0_historical_r1i1p1f1_gn.nc"
    variable, table = ("tas", "Amon") if dates else ("orog", "fx")
    dataset = f"CMIP6.CMIP.MRI.MRI-ESM2-0.historical.r1i1p1f1.{table}.{variable}.gn.{version}"
    path = f"{node}/thredds/fileServer/{dataset.replace('.', '/')}/{title}"
    return {
        "id": f"{dataset}.{title}|{node}",
        "dataset_id": f"{dataset}|{node}",
        "instance_id": f"{dataset}.{title}",
        "title": title,
        "data_node": node,
        "size": 64531000,
        "checksum": ["9A7EE94E8F24" + "0" * 52],
        "checksum_type": ["SHA256"],
        "url": [
            f"https://{path}|application/netcdf|HTTPServer",
            f"https://{path.replace('fileServer', 'dodsC')}.html|application/opendap-html|OPENDAP",
            f"globus:2058c9cc-83c0/{path}|Globus|Globus",
        ],
        "latest": True,
        "retracted": False,
        "replica": False,
        **changes,
    }


def search(documents: list[dict[str, Any]], asked: list[str] | None = None) -> Callable[[str], bytes]:
    def get(url: str) -> bytes:
        if asked is not None:
            asked.append(url)
        query = parse_qs(urlsplit(url).query)
        # the bridge answers 422 to any other parameter ("Extra inputs are not permitted")
        if extra := query.keys() - {"project", "type", "latest", "format", "limit", "offset", *esgf.FACETS.values()}:
            raise UserError(f"{url} answers 422: extra inputs {', '.join(sorted(extra))}")
        offset, limit = int(query["offset"][0]), int(query["limit"][0])
        response = {"numFound": len(documents), "start": offset, "docs": documents[offset : offset + limit]}
        return json.dumps({"responseHeader": {"status": 0}, "response": response}).encode()

    return get


def test_errors_of_the_network_are_told_as_they_are() -> None:
    def get(url: str) -> bytes:
        raise UserError("the server asks for a login")

    for catalogue in ("esgf", "pangeo"):
        with pytest.raises(UserError, match=r"^the server asks for a login$"):
            found(get, catalogue=catalogue)


def test_a_file_of_the_search_with_its_size_and_checksum() -> None:
    asked: list[str] = []
    (remote,) = found(search([document()], asked), experiment=("historical", "ssp585"), grid=("gn",))
    folder = "CMIP6/CMIP/MRI/MRI-ESM2-0/historical/r1i1p1f1/Amon/tas/gn/v20190222"
    name = "tas_Amon_MRI-ESM2-0_historical_r1i1p1f1_gn_185001-201412.nc"
    assert remote == Remote(
        f"https://esgf.ceda.ac.uk/thredds/fileServer/{folder}/{name}",
        f"{folder}/{name}",
        bytes=64531000,
        checksum="sha256:9a7ee94e8f24" + "0" * 52,
    )
    (url,) = asked
    assert url.startswith("https://esgf-node.ornl.gov/esgf-1-5-bridge?")
    query = {k: v[0] for k, v in parse_qs(urlsplit(url).query).items()}
    assert query | {"limit": "", "offset": ""} == {
        "project": "CMIP6",
        "type": "File",
        "latest": "true",
        "format": "application/solr+json",
        "variable_id": "tas",
        "table_id": "Amon",
        "source_id": "MRI-ESM2-0",
        "experiment_id": "historical,ssp585",
        "member_id": "r1i1p1f1",
        "grid_label": "gn",
        "limit": "",
        "offset": "",
    }


def test_retracted_and_superseded_files_and_copies_are_left_out() -> None:
    documents = [
        document("185001-194912", "v20180101"),  # an older version of the first file
        document("185001-194912", "v20190222", node="aims3.llnl.gov", replica=True),
        document("185001-194912", "v20190222"),
        document("195001-201412", retracted=True),
        document("195001-201412", latest=False),
        document("190001-190012", retracted=["true"]),
        document("201501-201512", url=["globus:2058c9cc-83c0/x.nc|Globus|Globus"]),
    ]
    for order in (documents, documents[::-1]):
        (remote,) = found(search(order))
        assert remote.url.startswith("https://esgf.ceda.ac.uk/")
        assert "/v20190222/" in remote.file


def test_pages_are_followed_and_files_come_in_the_order_of_their_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(esgf, "PAGE", 3)
    documents = [document(f"{y}01-{y + 9}12") for y in range(1990, 1850, -10)]
    asked: list[str] = []
    remotes = found(search(documents, asked), server="http://127.0.0.1:9/search/")
    assert [r.file for r in remotes] == sorted(r.file for r in remotes)
    assert len(remotes) == 14
    assert len(asked) == 5
    assert all(url.startswith("http://127.0.0.1:9/search?") for url in asked)


def test_a_period_leaves_out_files_that_lie_outside() -> None:
    documents = [document(f"{y}01-{y + 9}12") for y in range(1850, 2010, 10)] + [document("")]
    remotes = found(search(documents), period="1985-1995", table=("Amon", "fx"))
    assert [r.file.rsplit("_", 1)[1] for r in remotes] == ["198001-198912.nc", "199001-199912.nc", "gn.nc"]
    days = found(search([document("19850101-19941231"), document("19950101-20041231")]), period="1990")
    assert [r.file.rsplit("_", 1)[1] for r in days] == ["19850101-19941231.nc"]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"<html>503 Service Unavailable</html>", "did not answer with a JSON object"),
        (b'{"error": "no index"}', "did not answer as an ESGF search does"),
        (b'{"response": {"numFound": 0, "docs": []}}', "offers no file of variable_id=tas table_id=Amon source_id=MRI-ESM2-0"),
        (json.dumps({"response": {"numFound": 1, "docs": [document(title="../../.bashrc")]}}).encode(), "which is no plain file name"),
        (json.dumps({"response": {"numFound": 1, "docs": [document(title="a/b.nc")]}}).encode(), "which is no plain file name"),
    ],
)
def test_answers_that_are_not_those_of_a_search(body: bytes, sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        found(lambda url: body)
    assert sentence in str(caught.value)
    assert len(str(caught.value)) < 400


def test_options_that_cannot_be() -> None:
    with pytest.raises(UserError, match="say of which model with source_id="):
        found(search([]), source_id=())
    with pytest.raises(UserError, match="is not of the form 1980-2010"):
        found(search([]), period="2010-1980")


# Pangeo

HEADER = "activity_id,institution_id,source_id,experiment_id,member_id,table_id,variable_id,grid_label,zstore,dcpp_init_year,version"
LINE = "CMIP,MRI,MRI-ESM2-0,{experiment},r1i1p1f1,{table},{variable},gn,gs://cmip6/CMIP6/CMIP/MRI/{experiment}/{table}/{variable}/{v}/,,{v}"


def table(*lines: str, catalogue: str = "gs://cmip6/pangeo-cmip6.csv", column: str = "zstore") -> Callable[[str], bytes]:
    described = {"catalog_file": catalogue, "assets": {"column_name": column, "format": "zarr"}}

    def get(url: str) -> bytes:
        if url.endswith(".json"):
            return json.dumps(described).encode()
        assert url in ("https://storage.googleapis.com/cmip6/pangeo-cmip6.csv", "https://cmip6-pds.s3.amazonaws.com/pangeo-cmip6.csv")
        return "\n".join(lines).encode()

    return get


def test_stores_of_pangeo_of_the_newest_version() -> None:
    lines = [
        LINE.format(experiment=e, table=t, variable=v, v=version)
        for e, t, v, version in (
            ("historical", "Amon", "tas", "20190222"),
            ("historical", "Amon", "tas", "20180101"),
            ("historical", "Amon", "pr", "20190222"),
            ("ssp585", "Amon", "tas", "20190301"),
            ("historical", "day", "tas", "20190222"),
        )
    ]
    remotes = found(table(HEADER, *lines), catalogue="pangeo", variable=("tas", "pr"), period="1980-2010")
    folder = "CMIP6/CMIP/MRI/MRI-ESM2-0/historical/r1i1p1f1/Amon"
    assert [r.file for r in remotes] == [f"{folder}/pr/gn/v20190222/pr.zarr", f"{folder}/tas/gn/v20190222/tas.zarr"]
    assert [r.kind for r in remotes] == ["zarr", "zarr"]
    assert remotes[1].url == "gs://cmip6/CMIP6/CMIP/MRI/historical/Amon/tas/20190222"
    assert dict(remotes[1].select) == {"variables": ["tas"], "start": "1980-01", "stop": "2010-12"}
    s3 = table(HEADER, *lines, catalogue="s3://cmip6-pds/pangeo-cmip6.csv")
    assert len(found(s3, catalogue="pangeo", server="https://cmip6-pds.s3.amazonaws.com/pangeo-cmip6.json")) == 1


def test_fixed_fields_of_pangeo_have_no_period() -> None:
    lines = LINE.format(experiment="historical", table="fx", variable="orog", v="20190222")
    (remote,) = found(table(HEADER, lines), catalogue="pangeo", variable=("orog",), table=("fx",), period="1980-2010")
    assert dict(remote.select) == {"variables": ["orog"]}


def test_retracted_stores_are_left_out() -> None:
    lines = [
        LINE.format(experiment="historical", table="Amon", variable="tas", v=v) + f",{retracted}"
        for v, retracted in (("20190222", "True"), ("20180101", "False"))
    ]
    (remote,) = found(table(HEADER + ",retracted", *lines), catalogue="pangeo")
    assert "/v20180101/" in remote.file


def test_what_a_table_does_not_hold_is_told() -> None:
    line = LINE.format(experiment="historical", table="Amon", variable="tas", v="20190222")
    with pytest.raises(UserError, match=r"source_id has no MRI-ESM2: did you mean MRI-ESM2-0\?"):
        found(table(HEADER, line), catalogue="pangeo", source_id=("MRI-ESM2",))
    with pytest.raises(UserError, match="has no column variable_id, grid_label, zstore"):
        found(table("source_id,experiment_id,member_id,table_id,url", "a,b,c,d,e"), catalogue="pangeo")
    with pytest.raises(UserError, match="names no catalog_file"):
        found(table(HEADER, line, catalogue=""), catalogue="pangeo")


def test_real_table_and_its_description() -> None:
    description = real("cmip6/pangeo-cmip6-zarr.json").read_bytes()
    stores = real("cmip6/cmip6-zarr-consolidated-stores.csv").read_bytes()
    asked = []

    def get(url: str) -> bytes:
        asked.append(url)
        return description if url.endswith(".json") else stores

    address = "https://storage.googleapis.com/cmip6/pangeo-cmip6-zarr.json"
    options = {"catalogue": "pangeo", "server": address, "source_id": ("BCC-ESM1",), "experiment": ("ssp370",)}
    remotes = found(get, **options, variable=("tas", "ua", "ts"))
    assert asked == [address, "https://storage.googleapis.com/cmip6/cmip6-zarr-consolidated-stores.csv"]
    assert [r.url for r in remotes] == [f"gs://cmip6/AerChemMIP/BCC/BCC-ESM1/ssp370/r1i1p1f1/Amon/{v}/gn" for v in ("tas", "ts", "ua")]
    assert remotes[0].file == "CMIP6/AerChemMIP/BCC/BCC-ESM1/ssp370/r1i1p1f1/Amon/tas/gn/tas.zarr"
    both = found(get, **{**options, "source_id": ("all",), "experiment": ()}, variable=("tas",))
    assert [r.url.split("/")[5] for r in both] == ["BCC-ESM1"]
    hindcasts = found(
        get, **{**options, "source_id": ("CanESM5",), "experiment": ("dcppA-hindcast",)}, member=("s2001-r2i1p2f1", "s2002-r1i1p2f1")
    )
    assert len(hindcasts) == 2
