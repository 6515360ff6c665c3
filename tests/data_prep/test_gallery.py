"""The page of a corpus: all that the card says, and a picture of everything, for every geometry."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy import ORIGIN, smooth_sample

from scigpt.data.corpus import CARD, Corpus
from scigpt.data.sample import Coordinate, Level, Sample, Time, Variable
from scigpt.data.verify import verify
from scigpt.data_prep.convert import convert
from scigpt.data_prep.gallery import page
from scigpt.data_prep.portraits import portrait, timeline
from scigpt.data_prep.source import Description, Plan, SampleRef, Source, Split

HOUR = 3600.0


def sphere(sample: Sample, curvilinear: bool = False) -> Sample:
    y, x = sample.values.shape[-2:]
    grid = (("y",), np.linspace(40, 60, y)), (("x",), np.linspace(170, 190, x))
    if curvilinear:
        lat, lon = np.meshgrid(np.linspace(40, 60, y), np.linspace(170, 190, x) % 360, indexing="ij")
        lat[0, 0] = lon[0, 0] = np.nan
        lon = np.where(lon > 180, lon - 360, lon)
        grid = (("y", "x"), lat), (("y", "x"), lon)
    units = ("degrees_north", "degrees_east")
    coordinates = {n: Coordinate(a, v, u) for n, (a, v), u in zip(("latitude", "longitude"), grid, units, strict=True)}
    return replace(sample, geometry="sphere", coordinates=coordinates)


def points(sample: Sample) -> Sample:
    places = {n: Coordinate(("x",), np.arange(sample.values.shape[-1]) * 2.0 + s, "1") for n, s in (("latitude", 10), ("longitude", -5))}
    return replace(sample, geometry="points", coordinates=places)


def sample_of(kind: str, start: float = 0.0) -> Sample:
    grid = {
        "map": (1, 12, 16),
        "curvilinear": (1, 12, 16),
        "points": (1, 1, 9),
        "series": (1, 1, 1),
        "line": (1, 1, 30),
        "volume": (4, 6, 5),
    }
    names = tuple(f"v{i}" for i in range(8))
    sample = smooth_sample(3, 12, grid[kind], names, gaps=0.05)
    sample.valid[4] = False
    sample.valid[:, 7] = False
    levels = [Level("pressure", p) for p in (1000, 850, 700, 500, 250, 100)]
    variables = (*(Variable("air_temperature", "K", level=lv) for lv in levels), Variable("precipitation_flux", "kg m**-2 s**-1"))
    values = np.where(sample.valid, sample.values, 0) + np.float32(280)
    values[:, 6:] = np.abs(sample.values[:, 6:]) * np.float32(1e-5)
    sample = replace(
        sample,
        values=np.where(sample.valid, values, 0).astype(np.float32),
        variables=(*variables, Variable("surface_altitude", "m", "static")),
        time=Time.regular(start, HOUR, 12, "noleap"),
        origin=replace(ORIGIN, place="the moor <&>"),
        coefficients={},
    )
    return {"map": sphere, "curvilinear": lambda s: sphere(s, True), "points": points}.get(kind, lambda s: s)(sample)


class Kinds(Source):
    """Four samples of a kind with a hole between them."""

    name = "kinds"

    @dataclass(frozen=True)
    class Options:
        kind: str = "map"

    options: Options

    @classmethod
    def describe(cls) -> Description:
        return Description("kinds", "tests", "none", "CC0-1.0", "somebody & others")

    def plan(self) -> Plan:
        starts = {"train": (0, 12, 40), "test": (60,)}
        refs = [SampleRef(f"{s}-{i}", s, {"start": i}) for s, hours in starts.items() for i in hours]
        return Plan(tuple(refs), (Split("train"), Split("test")), (("a.nc", "0" * 64),))

    def samples(self, refs: Sequence[SampleRef]) -> Iterator[Sample]:
        for ref in refs:
            yield sample_of(self.options.kind, ref.spec["start"] * HOUR)


def pictures(text: str) -> dict[str, np.ndarray]:
    found = re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="([^"]+)"', text)
    return {caption: np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")) for data, caption in found}


@pytest.mark.parametrize("kind", ["map", "points"])
def test_the_page_has_the_tables_of_the_card_and_a_picture_of_each_variable(tmp_path: Path, kind: str) -> None:
    corpus = Corpus.open(convert(Kinds((), Kinds.Options(kind)), tmp_path / "corpus", progress=False))
    text = page(corpus, tmp_path / "pages" / "corpus.html").read_text(encoding="utf-8")
    assert "http" not in re.sub(r"base64,[^\"]*", "", text).replace("https://scigpt", "")  # nothing is loaded from elsewhere
    for told in (corpus.fingerprint, "CC0-1.0", "somebody &amp; others", "scigpt data prepare kinds --input a.nc", "0" * 64, "noleap"):
        assert told in text
    found = pictures(text)
    levels = {c.split(" hPa")[0].split(" at ")[1] for c in found if c.startswith("air temperature")}
    assert levels == {"1000", "700", "500", "100"} or levels == {"1000", "850", "500", "100"}
    assert sum(c.startswith("precipitation flux") for c in found) == 1
    assert sum("values of the training split" in c for c in found) == 5
    assert not any("surface" in c for c in found), "a variable without a value has no picture"
    assert all(p.std() > 5 for p in found.values()), "no picture is empty"
    assert any("the moor &lt;&amp;&gt;" in c for c in found)
    assert verify(corpus.path) == []


def test_card_and_page_tell_when_samples_are_missing(tmp_path: Path) -> None:
    corpus = Corpus.open(convert(Kinds(), tmp_path / "corpus", progress=False))
    rows = {line.split(" | ")[0].strip("| "): line for line in (corpus.path / CARD).read_text(encoding="utf-8").splitlines()}
    assert "| train | 2000-01-01T00:00:00 | 2000-01-03T03:00:00 | 1 | 2000-01-01T23:00:00 to 2000-01-02T16:00:00" in "\n".join(
        rows.values()
    )
    assert "100.00%, 36 frames | 100.00%, 12 frames" in rows["surface_altitude"]
    assert corpus.manifest["splits"]["train"]["missing_frames"]["precipitation_flux"] == 3
    figure = timeline({s: corpus.manifest["splits"][s] for s in corpus.splits})
    bars = list(figure.axes[0].patches)
    assert [round(b.get_width(), 6) for b in bars] == [51.0, 17.0, 11.0]
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["train", "test"]


def test_the_colour_bar_has_the_unit_and_the_title_time_and_place() -> None:
    figure, caption = portrait(sample_of("curvilinear"), 1)
    axes, bar = figure.axes
    assert caption == axes.get_title(loc="left")
    assert re.fullmatch(r"air temperature at 850 hPa, 2000-01-01T\d\d:00:00, the moor <&>", caption)
    assert bar.get_ylabel() == "air temperature (K)"
    _, flux = portrait(sample_of("map"), 6)[0].axes
    assert flux.get_ylabel() == "precipitation flux (kg m⁻² s⁻¹)"
    (mesh,) = axes.collections
    assert mesh.get_array().mask.ravel()[0], "a point without coordinates is not drawn"
    assert mesh.get_array().count() > 100
    low, high = axes.get_xlim()
    assert high - low < 40, "a grid across the date line is one piece"


@pytest.mark.parametrize(
    ("kind", "labels"),
    [
        ("map", ("longitude (°)", "latitude (°)")),
        ("line", ("x (grid point)", "air temperature (K)")),
        ("series", ("hours since 2000-01-01T00:00:00", "air temperature (K)")),
        ("volume", ("x (grid point)", "y (grid point)")),
    ],
)
def test_axes_are_named(kind: str, labels: tuple[str, str]) -> None:
    figure, caption = portrait(sample_of(kind), 0)
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == labels
    assert ("slice at z = 3 of 4" in caption) == (kind == "volume")


def test_a_point_of_a_map_lies_in_the_middle_of_its_cell() -> None:
    sample = sample_of("map")
    (mesh,) = portrait(sample, 0)[0].axes[0].collections
    corners = mesh.get_coordinates()
    middle = (corners[:-1, :-1] + corners[1:, 1:]) / 2
    np.testing.assert_allclose(middle[0, :, 0], sample.coordinates["longitude"].values)
    np.testing.assert_allclose(middle[:, 0, 1], sample.coordinates["latitude"].values)


def test_gaps_of_a_series_are_broken_and_shaded() -> None:
    figure, _ = portrait(sample_of("series"), 0)
    (line,) = figure.axes[0].lines
    sample = sample_of("series")
    np.testing.assert_array_equal(np.isnan(line.get_ydata()), ~sample.valid[:, 0, 0, 0, 0])
    assert len(figure.axes[0].patches) >= 1
