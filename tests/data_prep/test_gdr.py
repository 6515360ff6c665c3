"""Geothermal Data Repository: which reader a kind of file gets, whose licence its samples carry, and what its buckets list."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

import h5py
import numpy as np
import pytest
from readings import real, refusal_of, samples_of
from servers import Answer, Page, Web, web

from scigpt.data.corpus import Corpus
from scigpt.data_prep.convert import convert
from scigpt.data_prep.fetch import Network, Patience, fetch, look
from scigpt.data_prep.sources import SOURCES
from scigpt.data_prep.sources.gdr import Gdr
from scigpt.errors import UserError

segyio = pytest.importorskip("segyio")


def das(path: Path, frames: int = 120, channels: int = 8) -> Path:
    with h5py.File(path, "w") as file:
        file["das"] = np.random.default_rng(0).normal(0, 1, (frames, channels)).astype("f4")
        file["t"] = 1000.0 * np.arange(frames)
        file["channel"] = np.arange(channels)
    return path


def segy(path: Path, traces: int = 12, samples: int = 60) -> np.ndarray:
    spec = segyio.spec()
    spec.format, spec.samples, spec.tracecount = 5, np.arange(samples) * 1.0, traces
    data = np.random.default_rng(1).normal(0, 1, (traces, samples)).astype(np.float32)
    with segyio.create(str(path), spec) as file:
        file.bin[segyio.BinField.Interval] = 1000
        for i in range(traces):
            file.header[i] = {segyio.su.tracl: i + 1, segyio.su.cdp: i + 1, segyio.su.ns: samples, segyio.su.dt: 1000}
            file.trace[i] = data[i]
    return data


def log(path: Path) -> Path:
    rows = "\n".join(f"{100 + i / 2:.1f} {20 + i % 9}" for i in range(60))
    well = " STRT.M 100 :\n STOP.M 129.5 :\n STEP.M 0.5 :\n NULL. -999.25 :\n"
    text = f"~V\n VERS. 2.0 :\n WRAP. NO :\n~W\n{well}~C\n DEPT.M :\n GR.GAPI :\n~A\n"
    path.write_text(text + rows + "\n")
    return path


def test_each_kind_of_file_has_its_reader_and_the_licence_of_the_repository(tmp_path: Path) -> None:
    data = segy(tmp_path / "a.sgy")
    found = {}
    surveys = {"segy": "dims=line;quantity=optical_phase", "unit": "radian"}
    for path, own in ((das(tmp_path / "a.h5"), {"tile": 8}), (log(tmp_path / "a.las"), {}), (tmp_path / "a.sgy", surveys)):
        for sample in samples_of(Gdr, path, split="train", **own):
            assert sample.origin.source == "gdr"
            assert sample.origin.licence == "CC-BY-4.0"
            assert sample.origin.attribution.startswith("Geothermal Data Repository")
            found.setdefault(path.suffix, []).append(sample)
    assert {s: own[0].variables[0].name for s, own in found.items()} == {
        ".h5": "optical_phase",
        ".las": "gamma_ray_index",
        ".sgy": "optical_phase",
    }
    values = np.concatenate([s.values[:, 0, 0, 0, :] for s in found[".sgy"]], axis=1)
    np.testing.assert_allclose(np.sort(values.ravel()), np.sort(data.ravel()), rtol=1e-6)


def test_a_corpus_is_of_one_kind(tmp_path: Path) -> None:
    das(tmp_path / "a.h5")
    log(tmp_path / "b.las")
    told = refusal_of(Gdr, tmp_path)
    assert "1 of well logs (LAS) and 1 of fibre-optic recordings (HDF5); a corpus is of one kind, choose with form=las" in told
    (sample,) = samples_of(Gdr, tmp_path, form="fibre", tile=8, split="train")
    assert sample.variables[0].name == "optical_phase"
    assert "holds no file of form=segy" in refusal_of(Gdr, tmp_path, form="segy")
    assert "split_by=well is none of fibre-optic recordings" in refusal_of(Gdr, tmp_path / "a.h5", split_by="well")


def test_options_reach_the_reader_of_the_kind_or_are_refused(tmp_path: Path) -> None:
    segy(tmp_path / "a.sgy")
    shared = {"quantity": "strain", "unit": "1", "tile": 3, "frames_per_sample": 5, "gap": 1, "splits": (0.34, 0.33, 0.33)}
    source = Gdr([tmp_path / "a.sgy"], Gdr.Options(**shared))
    refs = source.plan().refs
    assert {tuple(r.spec["window"][2:]) for r in refs} == {(1, 3)}
    assert {r.spec["samples"][1] - r.spec["samples"][0] for r in refs} == {5}
    assert {r.split for r in refs} == {"train", "valid", "test"}
    assert next(iter(source.samples(refs))).variables[0].name == "strain"  # type: ignore[union-attr]
    wins = Gdr([tmp_path / "a.sgy"], Gdr.Options(tile=3, segy="tile=4;split=test"))
    assert {(r.split, r.spec["window"][3]) for r in wins.plan().refs} == {("test", 4)}
    assert {r.split for r in Gdr([tmp_path / "a.sgy"], Gdr.Options(split="ood")).plan().refs} == {"ood"}
    for kind, options in {
        "a.sgy": {"strain_rate": True},
        "a.las": {"tile": 8},
        "b.las": {"segy": "dims=line"},
        "a.h5": {"curves": ("GR",)},
        "b.h5": {"segy": "dims=line"},
    }.items():
        path = tmp_path / kind
        if path.suffix != ".sgy":
            (das if path.suffix == ".h5" else log)(path)
        (name,) = options
        assert f"option {name}= is none of " in refusal_of(Gdr, path, **options), kind
    assert "option split_by=well is none of seismic surveys" in refusal_of(Gdr, tmp_path / "a.sgy", split_by="well")


def test_the_form_asked_for_leaves_other_files_alone(tmp_path: Path) -> None:
    log(tmp_path / "a.las")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["foo"] = np.arange(3)
    assert "other.h5 is none of well logs" in refusal_of(Gdr, tmp_path)
    (sample,) = samples_of(Gdr, tmp_path, form="las", split="train")
    assert sample.variables[0].name == "gamma_ray_index"
    (sample,) = samples_of(Gdr, [tmp_path / "a.las", das(tmp_path / "b.h5")], form="las", split="train")
    assert sample.variables[0].name == "gamma_ray_index"
    (tmp_path / "bad.las").write_bytes(b"garbage")
    assert "bad.las" in refusal_of(Gdr, tmp_path, form="las")


def test_a_fibre_is_advised_to_be_of_this_repository(tmp_path: Path) -> None:
    das(tmp_path / "a.h5")
    log(tmp_path / "a.las")
    first = {n: next(s.name for s in SOURCES.values() if s.recognises(tmp_path / n)) for n in ("a.h5", "a.las")}
    assert first == {"a.h5": "gdr", "a.las": "edx"}


def test_what_is_no_data_of_the_repository_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello\n")
    assert "a.txt is none of well logs (LAS), fibre-optic recordings (HDF5), seismic surveys (SEG-Y)" in refusal_of(Gdr, tmp_path / "a.txt")
    assert "holds no file that is read" in refusal_of(Gdr, tmp_path)
    assert "give --input" in refusal_of(Gdr, [])
    (tmp_path / "b.h5").write_bytes(das(tmp_path / "c.h5").read_bytes()[:700])
    assert "b.h5" in refusal_of(Gdr, tmp_path / "b.h5")
    assert Gdr.recognises(tmp_path / "c.h5")
    assert not Gdr.recognises(tmp_path / "a.txt")


def test_a_licence_of_ones_own(tmp_path: Path) -> None:
    options = Gdr.Options(licence="proprietary", attribution="A. Author", tile=8, split="train")
    source = Gdr([das(tmp_path / "a.h5")], options)
    (sample,) = source.samples(source.plan().refs)
    assert sample is not None
    assert (sample.origin.licence, sample.origin.attribution) == ("proprietary", "A. Author")
    assert not source.redistributable
    assert Gdr([tmp_path / "a.h5"]).redistributable


def test_a_corpus_of_the_real_fibre(tmp_path: Path) -> None:
    path = real("edx_gdr/neubrex_dss_forge.h5")
    corpus = Corpus.open(
        convert(Gdr([path], Gdr.Options(tile=8192, channels=(57_344, 75_366), split="train")), tmp_path / "out", progress=False)
    )
    with h5py.File(path) as file:
        data = file["data"][:, 57_344:]
    outside = int((np.abs(data) > 1e5).sum())
    assert 0 < corpus.manifest["out_of_bounds"]["strain"] <= outside
    assert corpus.manifest["licences"] == ["CC-BY-4.0"]


# --- the buckets


def listing(keys: list[tuple[str, bytes]], following: str = "") -> bytes:
    rows = "".join(
        f"<Contents><Key>{escape(k)}</Key><Size>{len(b)}</Size><ETag>&quot;{hashlib.md5(b).hexdigest()}&quot;</ETag></Contents>"
        for k, b in keys
    )
    more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{following}</NextContinuationToken>" if following else ""
    space = "http://s3.amazonaws.com/doc/2006-03-01/"
    return f'<?xml version="1.0"?><ListBucketResult xmlns="{space}"><Name>b</Name>{more}{rows}</ListBucketResult>'.encode()


@pytest.fixture
def bucket() -> Iterator[Web]:
    pages = {
        "": ([("d/a.h5", b"\x89HDF one"), ("d/readme.txt", b"no"), ("d/", b"")], "next="),
        "next=": ([("d/b c.h5", b"\x89HDF two"), ("d/c.h5", b"\x89HDF three")], ""),
    }
    with web() as state:

        def answer(_: dict[str, str], query: dict[str, list[str]]) -> Answer:
            assert query["list-type"] == ["2"]
            assert query["prefix"] == ["d/"]
            return 200, {"Content-Type": "application/xml"}, listing(*pages[query.get("continuation-token", [""])[0]])

        state.pages["/"] = Page(answer=answer)
        for key, body in (*pages[""][0], *pages["next="][0]):
            state.pages["/" + key.replace(" ", "%20")] = Page(body, etag=None)
        yield state


def test_a_bucket_is_listed_page_by_page_and_fetched(bucket: Web, tmp_path: Path) -> None:
    network = Network(Patience(attempts=2, first=0.001))
    options = Gdr.Fetch(bucket="b", prefix="/d/", limit=9, server=bucket.url(""))
    remotes = list(Gdr.remotes(options, network.get))
    assert [r.file for r in remotes] == ["d/a.h5", "d/b c.h5", "d/c.h5"]
    assert [r.bytes for r in remotes] == [8, 8, 10]
    fetch(look(remotes, tmp_path / "out", Gdr.describe(), network), network)
    assert (tmp_path / "out/d/b c.h5").read_bytes() == b"\x89HDF two"
    assert len(list(Gdr.remotes(Gdr.Fetch(bucket="b", prefix="d/", limit=1, server=bucket.url("")), network.get))) == 1


def test_the_default_is_a_small_part_of_an_open_bucket() -> None:
    asked: list[str] = []

    def get(url: str) -> bytes:
        asked.append(url)
        return listing([("DAS/H5/DASV/20160318/PoroTomo_1.h5", b"x")])

    (remote,) = Gdr.remotes(Gdr.Fetch(), get)
    parts = urlsplit(asked[0])
    assert parts.netloc == "nrel-pds-porotomo.s3.amazonaws.com"
    assert parse_qs(parts.query)["prefix"] == ["DAS/H5/DASV/20160318/"]
    assert remote.url == "https://nrel-pds-porotomo.s3.amazonaws.com/DAS/H5/DASV/20160318/PoroTomo_1.h5"
    assert (remote.login, remote.checksum is not None) == (None, True)


def test_other_braces_in_the_address_are_told() -> None:
    with pytest.raises(UserError, match=r"server=https://x/\{foo\} has other words in braces"):
        list(Gdr.remotes(Gdr.Fetch(server="https://x/{foo}"), lambda url: b""))


@pytest.mark.parametrize("body", [b"<html>", b"", b"<Error><Code>NoSuchBucket</Code></Error>"])
def test_another_answer_is_told(body: bytes) -> None:
    with pytest.raises(UserError, match="is not the listing of a bucket"):
        list(Gdr.remotes(Gdr.Fetch(), lambda url: body))
