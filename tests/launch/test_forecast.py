"""`scigpt forecast` as a command: files and corpora in, CF files out, and every mistake one sentence and code 2."""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from runs import make_corpus, settings, write
from toy import ToySource

from scigpt.data.corpus import Corpus
from scigpt.data.files import dump_json
from scigpt.data.sample import Boundary, Coordinate, Sample, Time, Variable
from scigpt.data_prep.convert import convert
from scigpt.data_prep.source import SampleRef
from scigpt.export.datasets import to_dataset
from scigpt.export.folder import spelled
from scigpt.launch.cli import main
from scigpt.launch.forecast import merged

STEPS, CONTEXT = 4, 3


class Weather(ToySource):
    """Air over a small region every six hours of a noleap year, lit by a sun that is known in advance."""

    def samples(self, refs: Sequence[SampleRef]) -> Iterator[Sample]:
        for sample in super().samples(refs):
            seed = int(sample.coefficients["viscosity"] * 10)
            hours = 6.0 * np.arange(len(sample.time))
            sun = np.broadcast_to(200 + 200 * np.sin(2 * np.pi * hours / 24)[:, None, None, None, None], sample.values.shape)
            yield replace(
                sample,
                values=np.concatenate([280 + sample.values, sun], 1).astype(np.float32),
                valid=np.concatenate([sample.valid, np.ones_like(sample.valid)], 1),
                variables=(Variable("air_temperature", "K"), Variable("toa_incoming_shortwave_flux", "W m**-2", "forcing")),
                time=Time.regular(seed * 30 * 86400.0, 21600.0, len(hours), "noleap"),
                geometry="sphere",
                boundary=Boundary(),
                coordinates={
                    "latitude": Coordinate(("y",), np.linspace(50, 43, 8), "degrees_north"),
                    "longitude": Coordinate(("x",), np.linspace(5, 12, 8), "degrees_east"),
                },
                coefficients={},
            )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`toys` and `weather`, a run that learned of both, its export `out`, and files of a validation record of each."""
    path = tmp_path_factory.mktemp("forecast")
    corpora = [make_corpus(path), convert(Weather(options=Weather.Options(samples=20, frames=8)), path / "weather", progress=False)]
    data = settings(corpora, path / "run", steps=2, validate_every=2)
    data["model"]["head"] = "gaussian"
    assert command("pretrain", write(data, path / "c.yaml"))[0] == 0
    assert command("export", path / "run", "--out", path / "out")[0] == 0
    for name in ("toys", "weather"):
        to_dataset(Corpus.open(path / name).read("valid", 0)).to_netcdf(path / f"{name}.nc", engine="netcdf4")
    return path


def command(*words: object) -> tuple[int, str, str]:
    """Run a command in this process: exit code, standard output, standard error."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as left:
        main([str(w) for w in words])
    return int(left.value.code or 0), out.getvalue(), err.getvalue()


def forecast(run: Path, source: Path, out: Path, *words: object, steps: int = STEPS) -> xr.Dataset:
    code, _, told = command("forecast", run, "--input", source, "--steps", steps, "--out", out, *words)
    assert code == 0, told
    return read(out)


def read(out: Path) -> xr.Dataset:
    with xr.open_dataset(out, engine="netcdf4" if out.suffix == ".nc" else "zarr") as found:
        return found.load()


def test_a_corpus_from_an_export_as_text_and_json(folder: Path, tmp_path: Path) -> None:
    words = ("forecast", folder / "out", "--input", folder / "weather", "--split", "valid", "--steps", STEPS, "--out", tmp_path / "w.nc")
    code, said, told = command(*words)
    assert code == 0, told
    assert said.startswith(f"{tmp_path / 'w.nc'}: weather (air_temperature): 4 steps, 1 member, 2 initial conditions, from ")
    assert said.rstrip().endswith("; method cache, seed 0")
    assert "w.nc: 100%" in told
    code, said, _ = command(*words, "--json", "--records", 1)
    about = json.loads(said)
    record = Corpus.open(folder / "weather").read("valid", 0)
    assert about == {
        "out": str(tmp_path / "w.nc"),
        "domain": "weather",
        "variables": ["air_temperature"],
        "steps": STEPS,
        "members": 1,
        "initial_conditions": 1,
        "first": record.time.labels()[CONTEXT],
        "last": record.time.labels()[CONTEXT + STEPS - 1],
        "seed": 0,
        "method": "cache",
        "jitter": False,
    }
    found = read(tmp_path / "w.nc")
    assert list(found.record_name.values) == [Corpus.open(folder / "weather").entries("valid")[0].key]
    assert [t.isoformat() for t in found.time.values.ravel()] == record.time.labels()[CONTEXT : CONTEXT + STEPS]
    assert found.air_temperature.attrs["units"] == "K"
    np.testing.assert_allclose(found.air_temperature, 280, atol=30)


@pytest.mark.parametrize("name", ["toys", "weather"])
def test_a_file_a_store_and_a_corpus_agree(folder: Path, tmp_path: Path, name: str) -> None:
    """The file holds a whole record; its forecast begins where that of the corpus does."""
    record = Corpus.open(folder / name).read("valid", 0)
    start = record.time.labels()[CONTEXT - 1].removeprefix("t=")
    variable = record.variables[0].name
    of_file = forecast(folder / "out", folder / f"{name}.nc", tmp_path / "file.nc", "--start", start)
    of_store = forecast(folder / "run", folder / f"{name}.nc", tmp_path / "file.zarr", "--start", start)
    of_corpus = forecast(folder / "out", folder / name, tmp_path / "corpus.zarr", "--split", "valid", "--records", 1)
    assert of_file.sizes["time"] == STEPS
    xr.testing.assert_equal(of_file, of_store)
    np.testing.assert_allclose(of_file[variable].values.ravel(), of_corpus[variable].values.ravel(), rtol=1e-5, atol=1e-6)


def test_starts_members_and_models_are_dimensions(folder: Path, tmp_path: Path) -> None:
    times = Corpus.open(folder / "weather").read("valid", 0).time.labels()
    words = ("--start", times[2], "--start", times[3], "--ensemble", "head", "--members", 3, "--also", folder / "run", "--seed", 5)
    run, source = folder / "out", folder / "weather.nc"
    first = forecast(run, source, tmp_path / "a.nc", *words)
    assert dict(first.air_temperature.sizes) == {
        "forecast_reference_time": 2, "realization": 6, "forecast_period": STEPS, "latitude": 8, "longitude": 8,
    }  # fmt: skip
    again = forecast(run, source, tmp_path / "b.zarr", *words, "--batch", 1)
    np.testing.assert_allclose(first.air_temperature, again.air_temperature, rtol=1e-6)
    same = forecast(run, source, tmp_path / "c.nc", *words)
    assert first.air_temperature.values.tobytes() == same.air_temperature.values.tobytes()
    other = forecast(run, source, tmp_path / "d.nc", *words[:-1], 6)
    assert not np.allclose(first.air_temperature, other.air_temperature, rtol=1e-6)
    perturbed = forecast(run, source, tmp_path / "e.nc", "--ensemble", "perturbed", "--members", 2, "--spread", 0.5, "--start", times[3])
    assert perturbed.air_temperature.sizes["realization"] == 2
    assert float(perturbed.air_temperature.std("realization").max()) > 0


def test_packed_degrees_celsius_are_kelvin_to_the_model(folder: Path, tmp_path: Path) -> None:
    given = xr.open_dataset(folder / "weather.nc", engine="netcdf4").load()
    celsius = given.copy()
    celsius["air_temperature"] = (given.air_temperature - 273.15).assign_attrs(given.air_temperature.attrs, units="degC")
    celsius["air_temperature"].encoding = {"dtype": "int16", "scale_factor": 0.001, "add_offset": 7.0, "_FillValue": np.int16(-32768)}
    celsius.to_netcdf(tmp_path / "celsius.nc", engine="netcdf4")
    times = Corpus.open(folder / "weather").read("valid", 0).time.labels()
    start = ("--start", times[3])
    first = forecast(folder / "out", folder / "weather.nc", tmp_path / "kelvin.nc", *start)
    second = forecast(folder / "out", tmp_path / "celsius.nc", tmp_path / "out.nc", *start)
    assert second.air_temperature.attrs["units"] == "K"
    np.testing.assert_allclose(first.air_temperature, second.air_temperature, atol=0.01)


def changed(folder: Path, out: Path, change: Callable[[xr.Dataset], xr.Dataset], name: str = "weather") -> Path:
    coder = xr.coders.CFDatetimeCoder(use_cftime=True)
    with xr.open_dataset(folder / f"{name}.nc", engine="netcdf4", decode_times=coder, decode_timedelta=False) as given:
        change(given.load()).to_netcdf(out, engine="netcdf4")
    return out


def _unit(unit: str) -> Callable[[xr.Dataset], xr.Dataset]:
    def change(given: xr.Dataset) -> xr.Dataset:
        given.air_temperature.attrs["units"] = unit
        return given

    return change


def _every_second(given: xr.Dataset) -> xr.Dataset:
    return given.isel(time=slice(None, None, 2))


def _calendar(given: xr.Dataset) -> xr.Dataset:
    return given.convert_calendar("360_day", align_on="date")


BAD_FILES: dict[str, tuple[Callable[[xr.Dataset], xr.Dataset], str]] = {
    "missing": (lambda d: d.drop_vars("air_temperature"), "air_temperature"),
    "unit": (_unit("kg"), "kg"),
    "calendar": (_calendar, "360_day"),
    "step": (_every_second, "step"),
    "spacing": (lambda d: d.isel(longitude=slice(None, None, 2)), "longitude"),
    "forcing": (lambda d: d.drop_vars("toa_incoming_shortwave_flux"), "toa_incoming_shortwave_flux"),
}


@pytest.mark.parametrize("what", BAD_FILES)
def test_a_file_that_does_not_fit_is_refused_in_one_sentence(folder: Path, tmp_path: Path, what: str) -> None:
    change, word = BAD_FILES[what]
    source = changed(folder, tmp_path / "in.nc", change)
    times = Corpus.open(folder / "weather").read("valid", 0).time.labels()
    start = () if what in ("step", "calendar") else ("--start", times[3])
    told = refused(tmp_path, folder / "out", "--input", source, *start, "--domain", "weather")
    assert told.startswith(f"{source}: ")
    assert word in told


def refused(place: Path, *words: object, out: str = "refused.nc", steps: int = 2) -> str:
    """The sentence with which the command ends; nothing is left behind."""
    before = sorted(place.rglob("*"))
    code, said, told = command("forecast", *words, "--steps", steps, "--out", place / out)
    assert code == 2, (said, told)
    lines = [line for line in told.replace("\r", "\n").splitlines() if line.strip() and "%|" not in line and "it/s]" not in line]
    assert (said, len(lines)) == ("", 1), told
    assert lines[0].startswith("scigpt: ")
    assert sorted(place.rglob("*")) == before
    return lines[0].removeprefix("scigpt: ")


def test_parts_of_a_grib_file_are_merged_where_their_axes_agree() -> None:
    def part(name: str, height: float, count: int = 3, pressure: float | None = None) -> xr.Dataset:
        field = xr.Variable(("time", "x"), np.full((count, 2), height))
        scalar = xr.Variable((), height, {"units": "m", "positive": "up"})
        level = {} if pressure is None else {"isobaricInhPa": xr.Variable((), pressure, {"units": "hPa", "standard_name": "air_pressure"})}
        return xr.Dataset({name: field}, {"time": np.arange(count), "heightAboveGround": scalar, **level})

    (whole,) = merged([part("t2m", 2.0), part("u10", 10.0)])
    assert set(whole.variables) == {"t2m", "u10", "time"}
    assert len(merged([part("t2m", 2.0), part("u10", 10.0, count=4)])) == 2
    assert len(merged([part("t", 2.0, pressure=500.0), part("u", 2.0, pressure=850.0)])) == 2


def test_options_that_do_not_fit(folder: Path, tmp_path: Path) -> None:
    run, file, corpus = folder / "out", folder / "weather.nc", folder / "weather"
    (tmp_path / "folder").mkdir()
    for words, sentence in (
        ((run, "--input", tmp_path / "no.nc"), f"{tmp_path / 'no.nc'} does not exist; check the path given as --input"),
        (
            (run, "--input", tmp_path / "folder"),
            "folder: is neither a corpus (it has no manifest.json) nor a Zarr store; check the path given as --input",
        ),
        ((tmp_path / "nowhere", "--input", file), "nowhere"),
        ((corpus, "--input", file), "weather: is no export and has no complete checkpoint"),
        ((run, "--input", file, "--split", "valid"), f"--split is for a corpus, and {file} is a file; leave it out"),
        ((run, "--input", file, "--records", 1), "--records is for a corpus"),
        ((run, "--input", corpus, "--start", "2000-01-01"), f"--start is for a file, and {corpus} is a corpus; leave it out"),
        ((run, "--input", corpus), f"{corpus}: has no split 'test'; it has train, valid"),
        ((run, "--input", file, "--domain", "wether"), "wether"),
        ((run, "--input", file, "--start", "1850-01-01"), "1850-01-01"),
        ((run, "--input", file, "--members", 2), "2 members would be equal"),
        ((run, "--input", file, "--ensemble", "tails"), "ensemble is 'tails'; expected none, head or perturbed"),
        ((run, "--input", file, "--method", "guess"), "method is 'guess'"),
        ((run, "--input", file, "--context", 0), "context is 0; expected 1 frame or more"),
    ):
        assert sentence in refused(tmp_path, *words)
    assert "steps is 0; expected 1 or more" in refused(tmp_path, run, "--input", file, steps=0)
    assert "name that ends in .nc or .zarr" in refused(tmp_path, run, "--input", file, out="x.grib")
    assert "there is no folder" in refused(tmp_path, run, "--input", file, out="deep/x.nc")
    assert "folder.zarr: is there and is not a Zarr store" in refused(_folder(tmp_path / "f"), run, "--input", file, out="folder.zarr")
    shutil.copy(file, tmp_path / "in.nc")
    assert "which it is made from" in refused(tmp_path, run, "--input", tmp_path / "in.nc", out="in.nc")


def _folder(place: Path) -> Path:
    (place / "folder.zarr").mkdir(parents=True)
    (place / "folder.zarr" / "notes.txt").write_text("mine")
    return place


def _tamper(export: Path) -> None:
    data = bytearray((export / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (export / "model.safetensors").write_bytes(data)


def _pickle(export: Path) -> None:
    (export / "model.pkl").write_bytes(b"\x80\x04.")


def _facts(**others: Any) -> Callable[[Path], None]:
    def change(export: Path) -> None:
        facts = json.loads((export / "config.json").read_text()) | others
        (export / "config.json").write_bytes(spelled(facts))

    return change


def _edit(export: Path) -> None:
    facts = json.loads((export / "config.json").read_text())
    (export / "config.json").write_bytes(dump_json(facts | {"step": 99}, indent=1))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_tamper, "model.safetensors: does not match its sha256 in config.json; it was changed or damaged"),
        (_pickle, "model.pkl: does not belong to the export and may hold a pickle"),
        (_facts(schema_version=99), "config.json: has schema version 99 and this scigpt knows up to 2; update scigpt to read it"),
        (_edit, "config.json: does not match its own checksum"),
    ],
)
def test_an_export_that_is_not_as_it_was_written_is_refused(
    folder: Path, tmp_path: Path, change: Callable[[Path], None], sentence: str
) -> None:
    export = Path(shutil.copytree(folder / "out", tmp_path / "out"))
    change(export)
    assert sentence in refused(tmp_path, export, "--input", folder / "weather.nc")


def test_damage_inside_the_input_is_told(folder: Path, tmp_path: Path) -> None:
    """HDF5 finds it when the chunk is read."""
    given = xr.open_dataset(folder / "weather.nc", engine="netcdf4", decode_times=False).load()
    given.to_netcdf(tmp_path / "in.nc", engine="netcdf4", encoding={"air_temperature": {"zlib": True, "fletcher32": True}})
    data = bytearray((tmp_path / "in.nc").read_bytes())
    place = data.rindex(b"\x78\x5e", 0) if b"\x78\x5e" in data else len(data) // 2
    data[place + 20 : place + 60] = bytes(40)
    (tmp_path / "in.nc").write_bytes(data)
    assert "in.nc" in refused(tmp_path, folder / "out", "--input", tmp_path / "in.nc", "--domain", "weather")


def test_a_full_disk_ends_in_one_sentence_and_leaves_the_older_forecast(folder: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk."""
    out = tmp_path / "w.nc"
    forecast(folder / "out", folder / "weather", out, "--split", "valid", "--records", 1, steps=1)
    before = out.read_bytes()

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))

    words = ("forecast", folder / "out", "--input", folder / "weather", "--split", "valid", "--steps", STEPS, "--out", out)
    done = subprocess.run(
        [sys.executable, "-m", "scigpt.launch.cli", *map(str, words)], capture_output=True, text=True, check=False, preexec_fn=limit
    )
    assert done.returncode == 2, done.stderr
    told = done.stderr.replace("\r", "\n").splitlines()
    assert told[-1] == f"scigpt: {out}: no room left to write the forecast; make room, or choose another place"
    assert out.read_bytes() == before
    assert os.listdir(tmp_path) == ["w.nc"]
