"""What every gridded source can do with a record: pieces of the grid, levels, coarser grids, splits by place, a bound on memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

from scigpt.data.corpus import Corpus
from scigpt.data.sample import Sample
from scigpt.data.verify import verify
from scigpt.data_prep.convert import convert, outline
from scigpt.data_prep.formats.lazy import lazy
from scigpt.data_prep.sources.era5 import Era5
from scigpt.errors import UserError

LEVELS = (1000.0, 850.0, 500.0)


def reanalysis(frames: int = 20, rows: int = 12, columns: int = 24, seed: int = 0) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    height = 180 / rows
    latitude = 90 - height / 2 - height * np.arange(rows)
    dims = ("time", "latitude", "longitude")
    return xr.Dataset(
        {
            "t2m": (dims, rng.normal(280, 10, (frames, rows, columns)).astype("f4"), {"units": "K"}),
            "t": (("time", "level", *dims[1:]), rng.normal(260, 10, (frames, 3, rows, columns)).astype("f4"), {"units": "K"}),
        },
        coords={
            "time": np.datetime64("2001-01-01", "ns") + np.arange(frames) * np.timedelta64(6, "h"),
            "level": ("level", np.array(LEVELS), {"units": "hPa"}),
            "latitude": ("latitude", latitude, {"units": "degrees_north"}),
            "longitude": ("longitude", np.arange(columns) * 360 / columns, {"units": "degrees_east"}),
        },
    )


@pytest.fixture
def store(tmp_path: Path) -> Path:
    reanalysis().to_zarr(tmp_path / "a.zarr", zarr_format=2)
    return tmp_path / "a.zarr"


def read(path: Path | list[Path], **options: Any) -> list[tuple[str, Sample | None]]:
    source = Era5(path if isinstance(path, list) else [path], Era5.Options(**options))
    refs = source.plan().refs
    return list(zip([r.split for r in refs], source.samples(refs), strict=True))


def test_levels_are_chosen_by_value(store: Path) -> None:
    whole = reanalysis()
    for _, sample in read(store, levels=(500.0, 1000.0), split="train"):
        assert sample is not None
        assert [v.key for v in sample.variables] == ["air_temperature@1000hPa", "air_temperature@500hPa", "air_temperature"]
        np.testing.assert_array_equal(sample.values[:, :2, 0], whole.t.sel(level=[1000, 500]))
    with pytest.raises(UserError, match=r"a\.zarr, variable t has no level 700; it has 1000, 850, 500"):
        read(store, levels=(700.0,))


def test_pieces_of_a_grid_put_together_are_the_grid(store: Path) -> None:
    whole, seen = reanalysis(), np.zeros((20, 12, 24))
    for _, sample in read(store, variables=("t2m",), tile="4x6", split="train"):
        assert sample is not None
        assert sample.values.shape[2:] == (1, 4, 6)
        assert sample.boundary.x == sample.boundary.y == ("open", "open")
        latitude, longitude = sample.coordinates["latitude"].values, sample.coordinates["longitude"].values
        times = np.searchsorted(whole.time.values, [np.datetime64(t) for t in sample.time.labels()])
        part = whole.t2m.sel(latitude=latitude, longitude=longitude).isel(time=times)
        np.testing.assert_array_equal(sample.values[:, 0, 0], part)
        row, column = np.flatnonzero(whole.latitude == latitude[0])[0], np.flatnonzero(whole.longitude == longitude[0])[0]
        seen[times[0] : times[-1] + 1, row : row + 4, column : column + 6] += 1
        assert sample.origin.place.endswith(f"row {row} column {column}")
    assert (seen == 1).all()


def test_pieces_that_do_not_fit_are_told(store: Path) -> None:
    plan = Era5([store], Era5.Options(tile="5")).plan()
    assert any("tile=5 leaves out 30.6% of the cells" in n and "tile=6x4 would fit better" in n for n in plan.notes)
    for bad in ("0", "13x4", "4x", "-3", "a"):
        with pytest.raises(UserError, match=f"tile={bad} must be rows and columns, such as 256 or 200x300, within the grid of 12 x 24"):
            Era5([store], Era5.Options(tile=bad)).plan()


def test_places_of_one_split_are_never_in_another(store: Path) -> None:
    rows: dict[str, set[float]] = {}
    for split, sample in read(store, variables=("t2m",), tile="1x24", split_by="tile", gap=1, splits=(0.5, 0.25, 0.25)):
        assert sample is not None
        assert len(sample.time) == 20
        rows.setdefault(split, set()).update(sample.coordinates["latitude"].values)
    assert {s: len(r) for s, r in rows.items()} == {"train": 6, "valid": 2, "test": 2}
    assert min(rows["train"]) - max(rows["valid"]) == 30  # a row of 15 degrees lies between
    with pytest.raises(UserError, match="gap=-1 must be"):
        read(store, tile="1x24", split_by="tile", gap=-1)
    with pytest.raises(UserError, match=r"split_by=tile: 3 places .* leave none for valid; give more tiles"):
        read(store, tile="4x24", split_by="tile")


def test_a_split_by_time_has_no_common_instant_and_a_gap(tmp_path: Path) -> None:
    reanalysis(40).to_zarr(tmp_path / "long.zarr", zarr_format=2)
    last: dict[str, float] = {}
    first: dict[str, float] = {}
    for split, sample in read(tmp_path / "long.zarr", tile="6", gap=2, splits=(0.6, 0.2, 0.2), frames_per_sample=5):
        assert sample is not None
        first[split] = min(first.get(split, np.inf), sample.time.seconds[0])
        last[split] = max(last.get(split, -np.inf), sample.time.seconds[-1])
    assert first["valid"] - last["train"] == 3 * 6 * 3600
    assert first["test"] - last["valid"] == 3 * 6 * 3600


def test_pieces_without_values_are_left_out_and_counted(tmp_path: Path) -> None:
    dataset = reanalysis().drop_vars("t")
    dataset.t2m[:, :4, :6] = np.nan  # a piece of sea
    dataset.t2m[:, :4, 6:9] = np.nan  # half a piece
    dataset.to_netcdf(tmp_path / "a.nc", engine="netcdf4")
    options = {"tile": "4x6", "splits": (0.5, 0.25, 0.25), "gap": 1}
    made = convert(Era5([tmp_path / "a.nc"], Era5.Options(**options)), tmp_path / "one", progress=False)
    corpus = Corpus.open(made)
    assert corpus.manifest["left_out"] == 3
    assert {n: s["samples"] for n, s in corpus.manifest["splits"].items()} == {"train": 11, "valid": 11, "test": 11}
    assert corpus.manifest["splits"]["test"]["invalid"]["air_temperature"] == pytest.approx(0.5 / 11)
    assert verify(made) == []
    stricter = Era5([tmp_path / "a.nc"], Era5.Options(**options, min_valid=0.6))
    assert Corpus.open(convert(stricter, tmp_path / "two", progress=False)).manifest["left_out"] == 6
    (dataset * np.nan).assign(t2m=lambda d: d.t2m.assign_attrs(units="K")).to_netcdf(tmp_path / "b.nc", engine="netcdf4")
    with pytest.raises(UserError, match=r"b\.nc: not one of the 36 samples holds enough valid values"):
        convert(Era5([tmp_path / "b.nc"], Era5.Options(**options)), tmp_path / "three", progress=False)
    assert not (tmp_path / ".three.partial").exists()


def test_regridding_keeps_area_means_and_gaps(tmp_path: Path) -> None:
    pytest.importorskip("xarray_regrid")
    dataset = reanalysis(frames=4).drop_vars("t")
    dataset.t2m[0, 0, 0] = np.nan
    dataset.t2m[1, :3, :6] = np.nan
    dataset.to_netcdf(tmp_path / "a.nc", engine="netcdf4")
    ((_, sample),) = read(tmp_path / "a.nc", regrid=30.0, split="train")
    assert sample is not None
    np.testing.assert_allclose(sample.coordinates["latitude"].values, [75, 45, 15, -15, -45, -75])
    np.testing.assert_allclose(sample.coordinates["longitude"].values, np.arange(12) * 30 + 15)
    assert sample.boundary.periodic("x")

    # by hand: cells of 15 degrees, whose longitudes 0, 15, .. are centres, so that a cell of 0..30 takes half of the first and third
    values = dataset.t2m.values.astype(np.float64)
    edges = np.deg2rad(90 - 15 * np.arange(13))
    area = np.sin(edges[:-1]) - np.sin(edges[1:])
    share = np.zeros((12, 24))
    for i in range(12):
        share[i, 2 * i], share[i, 2 * i + 1], share[i, (2 * i + 2) % 24] = 0.5, 1.0, 0.5
    weight = np.isfinite(values) * area[:, None]
    total = np.einsum("tyx,kx->tyk", np.nan_to_num(values) * weight, share).reshape(4, 6, 2, 12).sum(2)
    there = np.einsum("tyx,kx->tyk", weight, share).reshape(4, 6, 2, 12).sum(2)
    whole = np.einsum("yx,kx->yk", np.broadcast_to(area[:, None], (12, 24)), share).reshape(6, 2, 12).sum(1)
    valid = there / whole >= 0.5 - 1e-9
    np.testing.assert_array_equal(sample.valid[:, 0, 0], valid)
    np.testing.assert_allclose(sample.values[:, 0, 0][valid], (total / np.maximum(there, 1e-9))[valid], rtol=2e-6)
    made = Corpus.open(convert(Era5([tmp_path / "a.nc"], Era5.Options(regrid=30.0)), tmp_path / "made", progress=False))
    assert made.manifest["recipe"]["options"]["regrid"] == 30.0
    with pytest.raises(UserError, match="regrid=5 is finer than its grid of 15 x 15 degrees"):
        read(tmp_path / "a.nc", regrid=5.0)
    with pytest.raises(UserError, match="do not go together"):
        read(tmp_path / "a.nc", regrid=30.0, tile="2")


def test_of_a_huge_grid_only_what_a_piece_needs_is_read(tmp_path: Path) -> None:
    rows, columns, asked = 8075, 7814, []  # as Daymet: the coordinates alone take a gigabyte

    def read_part(window: tuple[slice, ...]) -> np.ndarray:
        shape = tuple(s.stop - s.start for s in window)
        asked.append(int(np.prod(shape)))
        j, i = np.mgrid[window[-2], window[-1]]
        return np.broadcast_to((20 + 5e-3 * j + 1e-3 * i).astype(np.float32), shape)

    class Wide(Era5):
        def open(self, path: Path) -> list[xr.Dataset]:
            degrees = {"latitude": "degrees_north", "longitude": "degrees_east"}
            places = {
                n: lazy(("y", "x"), (rows, columns), np.float64, read_part, {"standard_name": n, "units": u}) for n, u in degrees.items()
            }
            time = np.datetime64("2001-01-01", "ns") + np.arange(365) * np.timedelta64(1, "D")
            t2m = lazy(("time", "y", "x"), (365, rows, columns), np.float32, read_part, {"units": "degC"})
            return [xr.Dataset({"t2m": t2m}, {"time": xr.Variable("time", time, {"standard_name": "time"}), **places})]

    (tmp_path / "a.nc").write_bytes(b"x")
    source = Wide([tmp_path / "a.nc"], Era5.Options(tile="256", frames_per_sample=30))
    refs = source.plan().refs
    assert len(refs) == 31 * 30 * 14  # 10 of train, 2 of each other
    sample = next(iter(source.samples(refs[5000:5001])))
    assert sample is not None
    assert sample.values.shape[2:] == (1, 256, 256)
    assert max(asked) <= 30 * 256 * 256


def test_samples_too_large_for_a_worker_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    coordinates = {
        "time": np.arange(4),
        "level": np.arange(1, 38) * 25,
        "latitude": np.linspace(90, -90, 721),
        "longitude": np.arange(1440) / 4,
    }
    units = {"time": "hours since 2000-01-01", "level": "hPa", "latitude": "degrees_north", "longitude": "degrees_east"}
    for name, values in coordinates.items():
        group.create_array(name, data=values, dimension_names=(name,), attributes={"units": units[name]})
    shape = tuple(v.size for v in coordinates.values())
    group.create_array(  # no chunk is written
        "temperature", shape=shape, chunks=(1, *shape[1:]), dtype="f4", dimension_names=tuple(coordinates), attributes={"units": "K"}
    )
    with pytest.raises(UserError, match=r"4 frames of 37 channels on 721 x 1440 cells take 0\.61 GB"):
        Era5([tmp_path / "a.zarr"], Era5.Options()).plan()
    assert Era5([tmp_path / "a.zarr"], Era5.Options(levels=(500.0,))).plan().refs
    assert Era5([tmp_path / "a.zarr"], Era5.Options(tile="103x160")).plan().refs


@pytest.mark.parametrize("west", [-180.0, 60.0, 20.0])
def test_a_global_map_is_regridded_whole_wherever_it_begins(tmp_path: Path, west: float) -> None:
    pytest.importorskip("xarray_regrid")
    dataset = reanalysis(frames=3).drop_vars("t")
    dataset.to_netcdf(tmp_path / "a.nc", engine="netcdf4")
    longitude = (dataset.longitude.values - west) % 360 + west
    moved = dataset.assign_coords(longitude=("longitude", longitude, {"units": "degrees_east"})).sortby("longitude")
    moved.to_netcdf(tmp_path / "b.nc", engine="netcdf4")
    one, two = (read(tmp_path / name, regrid=30.0, split="train")[0][1] for name in ("a.nc", "b.nc"))
    assert one is not None
    assert two is not None
    assert two.valid.all()
    np.testing.assert_array_equal(two.values, one.values)


def test_a_region_across_greenwich_is_regridded(tmp_path: Path) -> None:
    pytest.importorskip("xarray_regrid")
    dataset = reanalysis(frames=3).drop_vars("t").isel(longitude=[*range(20, 24), *range(5)])
    dataset.to_netcdf(tmp_path / "a.nc", engine="netcdf4")
    ((_, sample),) = read(tmp_path / "a.nc", regrid=30.0, split="train")
    assert sample is not None
    np.testing.assert_allclose(sample.coordinates["longitude"].values % 360, [315, 345, 15, 45])
    assert sample.valid.all()


def test_what_cannot_be_takes_no_part_in_a_mean(tmp_path: Path) -> None:
    pytest.importorskip("xarray_regrid")
    dataset = reanalysis(frames=6).drop_vars("t")
    dataset.t2m[2, 5, 9] = -999.0  # a mark that nobody declared
    dataset.to_netcdf(tmp_path / "a.nc", engine="netcdf4")
    ((_, sample),) = read(tmp_path / "a.nc", regrid=30.0, split="train")
    assert sample is not None
    assert sample.valid.all()
    assert sample.values.min() > 250
    dataset.t2m[:] -= 273.15
    dataset.to_netcdf(tmp_path / "b.nc", engine="netcdf4")
    with pytest.raises(UserError, match=r"b\.nc: .*% of the values of air_temperature lie outside 150 to 350 K"):
        read(tmp_path / "b.nc", regrid=30.0, split="train")


def test_one_overpass_is_not_trained_on_at_one_place_and_tested_at_another(tmp_path: Path) -> None:
    class Tiles(Era5):
        one_grid = False

        def record_name(self, dataset: xr.Dataset) -> str:
            return f"tile {float(dataset.latitude[0]):g}"

    paths = []
    for n in range(10):  # each 15 seconds after the one before, once a day
        part = reanalysis(40).drop_vars("t").isel(latitude=slice(n, n + 2))
        days = np.datetime64("2001-01-01", "ns") + np.arange(40) * np.timedelta64(86400, "s") + n * np.timedelta64(15, "s")
        paths.append(tmp_path / f"{n}.nc")
        part.assign_coords(time=days).to_netcdf(paths[-1], engine="netcdf4")
    source = Tiles(paths, Era5.Options(gap=2, splits=(0.6, 0.2, 0.2)))
    spans: dict[str, list[float]] = {}
    refs = source.plan().refs
    for ref, sample in zip(refs, source.samples(refs), strict=True):
        assert sample is not None
        spans.setdefault(ref.split, []).extend(sample.time.seconds)
    assert min(spans["valid"]) - max(spans["train"]) > 2 * 86400
    assert min(spans["test"]) - max(spans["valid"]) > 2 * 86400


def test_a_time_that_one_file_of_a_variable_lacks_is_told(tmp_path: Path) -> None:
    for n, day in enumerate(("2001-01-01", "2001-01-11", "2001-01-21")):
        part = reanalysis(10).drop_vars("t").assign_coords(time=np.datetime64(day, "ns") + np.arange(10) * np.timedelta64(1, "D"))
        part["sp"] = part.t2m.isel(time=0, drop=True) if n == 1 else part.t2m
        part["sp"] = (part.sp * 0 + 1e5).assign_attrs(units="Pa")
        part.to_netcdf(tmp_path / f"{n}.nc", engine="netcdf4")
    with pytest.raises(UserError, match=r"1\.nc, variable sp has no time and 0\.nc, variable sp has"):
        Era5([tmp_path / f"{n}.nc" for n in range(3)]).plan()


def test_a_fill_that_the_type_cannot_hold_marks_nothing(tmp_path: Path) -> None:
    import netCDF4

    whole = reanalysis(6).drop_vars("t")
    whole.to_netcdf(tmp_path / "a.nc", engine="netcdf4", encoding={"t2m": {"dtype": "int16", "scale_factor": 0.01, "add_offset": 280.0}})
    with netCDF4.Dataset(tmp_path / "a.nc", "a") as file:
        file["t2m"].missing_value = np.float32(1e20)
        file["t2m"].set_auto_maskandscale(False)
        file["t2m"][0, 0, :5] = 0
    ((_, sample),) = read(tmp_path / "a.nc", split="train")
    assert sample is not None
    assert sample.valid.all()
    np.testing.assert_allclose(sample.values[0, 0, 0, 0, :5], 280.0)


def test_levels_choose_among_files_of_one_level_each(tmp_path: Path) -> None:
    paths = []
    for level in LEVELS:
        paths.append(tmp_path / f"{level:g}.nc")
        reanalysis(6).drop_vars("t2m").sel(level=level).to_netcdf(paths[-1], engine="netcdf4")
    ((_, sample),) = read(paths, levels=(500.0,), split="train")
    assert sample is not None
    assert [v.key for v in sample.variables] == ["air_temperature@500hPa"]


def test_bands_of_latitude_of_a_globe_are_alike(store: Path, tmp_path: Path) -> None:
    corpus = Corpus.open(convert(Era5([store], Era5.Options(variables=("t2m",), tile="4x24")), tmp_path / "made", progress=False))
    assert corpus.layout.boundary.x == ("periodic", "periodic")
    assert corpus.layout.boundary.y == ("open", "open")


def test_pieces_without_a_place_are_left_out(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:16, :16]
    places = {n: np.where((rows < 8) & (columns < 8), np.nan, v) for n, v in (("latitude", 10.0 + rows), ("longitude", 20.0 + columns))}
    times = np.datetime64("2001-01-01", "ns") + np.arange(5) * np.timedelta64(1, "D")
    xr.Dataset(
        {"t2m": (("time", "y", "x"), np.full((5, 16, 16), 280.0, "f4"), {"units": "K"})},
        {"time": times, **{n: (("y", "x"), v, {"units": f"degrees_{'north' if n == 'latitude' else 'east'}"}) for n, v in places.items()}},
    ).to_netcdf(tmp_path / "a.nc", engine="netcdf4")
    samples = [s for _, s in read(tmp_path / "a.nc", tile="8", split="train")]
    assert [s is None for s in samples] == [True, False, False, False]


def test_variables_may_come_in_any_order(tmp_path: Path) -> None:
    dataset = reanalysis(12).drop_vars("t")
    (tmp_path / "other").mkdir()
    for name, values in (("t2m", dataset.t2m), ("sp", (dataset.t2m * 0 + 1e5).assign_attrs(units="Pa"))):
        values.to_dataset(name=name).to_netcdf(tmp_path / f"{name}.nc", engine="netcdf4")
        values.to_dataset(name=name).to_netcdf(tmp_path / "other" / f"{name}.nc", engine="netcdf4")
    found = read([tmp_path / "t2m.nc", tmp_path / "sp.nc"], ood_input=str(tmp_path / "other"), split="train")
    assert {s for s, _ in found} == {"train", "ood"}
    for _, sample in found:
        assert sample is not None
        assert [v.name for v in sample.variables] == ["air_temperature", "surface_air_pressure"]
        np.testing.assert_array_equal(sample.values[:, 0, 0], dataset.t2m)


def test_a_source_that_is_asked_twice_answers_alike(tmp_path: Path) -> None:
    dataset = reanalysis(12).drop_vars("t")
    (tmp_path / "ood").mkdir()
    for folder in (tmp_path, tmp_path / "ood"):
        dataset.to_netcdf(folder / "a.nc", engine="netcdf4")
        ground = dataset.t2m.isel(time=0, drop=True).rename("orog").assign_attrs(units="m", standard_name="surface_altitude")
        ground.to_dataset().to_netcdf(folder / "orog.nc", engine="netcdf4")
    source = Era5([tmp_path / "a.nc", tmp_path / "orog.nc"], Era5.Options(ood_input=str(tmp_path / "ood")))
    assert source.plan() == source.plan()


def test_a_dry_run_tells_and_writes_nothing(store: Path, tmp_path: Path) -> None:
    source = Era5([store], Era5.Options(frames_per_sample=4))
    told = outline(source, tmp_path / "new" / "corpus", shard_bytes=1 << 17)
    assert told["splits"]["train"]["samples"] == 5  # 20 frames are too few to be split
    assert told["shards"] == sum(s["shards"] for s in told["splits"].values())
    assert not (tmp_path / "new").exists()
    made = Corpus.open(convert(source, tmp_path / "new" / "corpus", shard_bytes=1 << 17, progress=False))
    assert len(made.manifest["shards"]) == told["shards"]
    size = sum(s["bytes"] for s in made.manifest["shards"])
    assert size / 2 < told["bytes"] < 2 * size


def test_the_workers_of_a_dask_cluster_write_the_same_bytes(store: Path, tmp_path: Path) -> None:
    distributed, dask = pytest.importorskip("distributed"), pytest.importorskip("dask")

    def make(name: str, **how: Any) -> Callable[[], dict[str, bytes]]:
        folder = convert(Era5([store], Era5.Options(tile="6")), tmp_path / name / "corpus", shard_bytes=1 << 14, progress=False, **how)
        return lambda: {f.name: f.read_bytes() for f in folder.iterdir()}

    alone = make("alone")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=None, silence_logs=40) as cluster:
        together = make("together", cluster=cluster.scheduler_address)
    assert together() == alone()
    assert len(alone()) > 8
    with pytest.raises(UserError, match=r"^--dask 127\.0\.0\.1:1 is no scheduler file that is there; write tcp://HOST:PORT"):
        make("misspelt", cluster="127.0.0.1:1")
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(UserError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:1 "),
    ):
        make("nowhere", cluster="tcp://127.0.0.1:1")
