"""The study of every kind of world, from shards on disk to numbers, pictures and a page."""

from __future__ import annotations

import math
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from worlds import KINDS, Answer, Mover, make, subject, world

from scigpt.data.batches import Batch
from scigpt.data.sample import Sample
from scigpt.errors import UserError
from scigpt.evaluate.card import conclusion, figure, interval, render, verdict
from scigpt.evaluate.drawing import elapsed_time, label, pretty_unit
from scigpt.evaluate.gallery import draw
from scigpt.evaluate.plan import Options, Plan, plan
from scigpt.evaluate.study import MODEL, Example, Study, study

OPTIONS = Options(windows=4, rollouts=2)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("worlds")
    for kind in KINDS:
        make(folder, kind, 24 if kind in ("points", "series") else 12)
    return folder


def pictures_of(done: Study, folder: Path, stem: str) -> dict[str, np.ndarray]:
    """By the name of their files; of an animation the last frame."""
    images = {}
    for picture in draw(done, folder, stem):
        with Image.open(folder / picture.file) as image:
            image.seek(getattr(image, "n_frames", 1) - 1)
            images[picture.file] = np.asarray(image.convert("RGB")) / 255
    return images


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_world(worlds: Path, tmp_path: Path, kind: str) -> None:
    work = plan(subject(worlds / kind), "ood", OPTIONS)
    done = study(Mover(), work)
    numbers = done.numbers
    assert (numbers["distribution"], numbers["description"], numbers["records"]) == ("out", "later <years>", 2)
    (row,) = numbers["one_step"].values()
    assert set(row["methods"]) == {MODEL, "mean"} | (set() if kind == "steady" else {"persistence", "linear", "trailing mean"})
    assert all(math.isfinite(m["vrmse"]) and m["diverged"] == 0 for m in row["methods"].values())
    if kind in ("line", "volume", "steady"):  # nothing is hidden from a model that knows the rule
        assert set(row["methods"][MODEL]) == {"vrmse", "vrmse_median", "nrmse", "relative_l2", "rmse", "maximum", "diverged"}
        assert set(row["methods"][MODEL].values()) == {0}
        assert numbers["summary"]["verdict"] == "better"
        assert numbers["summary"]["difference"]["high"] < 0
        assert numbers["summary"]["ratio"] == 0
    if kind == "steady":
        assert numbers["rollout"] is None
        assert numbers["windows"] == 2
    else:
        rollout = numbers["rollout"]
        assert (rollout["context"], rollout["steps"]) == (4, 20 if kind in ("points", "series") else 8)
        (curves,) = rollout["variables"].values()
        assert all(len(c["vrmse"]) == rollout["steps"] for c in curves.values())
        if kind in ("line", "volume"):
            assert curves[MODEL]["vrmse"] == [0] * 8
            assert curves[MODEL]["survival"] == 8
            assert curves["persistence"]["vrmse"][3] > curves["persistence"]["vrmse"][0]
            assert rollout["lead_times"] == pytest.approx([0.5 * k for k in range(1, 9)])
        assert list(curves[MODEL]["ranges"]) == (["1-10", "11-20"] if kind in ("points", "series") else ["1-8"])
    images = pictures_of(done, tmp_path, kind)
    assert len(images) == {"steady": 2, "line": 5, "map": 6, "volume": 7, "points": 5, "series": 4}[kind]
    assert (f"{kind}-animation.gif" in images) == (kind in ("map", "volume"))
    spectra = numbers["spectra"] or numbers["rollout"]["spectra"]["1-20"]
    kinds = {"line": "line", "map": "zonal", "volume": "isotropic", "points": "temporal", "series": "temporal", "steady": "isotropic"}
    assert spectra["kind"] == kinds[kind]
    assert list(numbers["regions"]) == {
        "map": ["north of 20°N", "tropics, 20°S to 20°N", "south of 20°S"],
        "points": ["north of 20°N", "tropics, 20°S to 20°N"],
    }.get(kind, [])
    if kind not in ("steady", "points", "series"):
        (drifts,) = rollout["drift"].values()
        assert set(drifts) == {"truth", MODEL}
        if kind in ("line", "volume"):  # the rule conserves both
            assert max(max(d["mean"] + d["mean_square"]) for d in drifts.values()) < 1e-6
    for name, image in images.items():
        assert min(image.shape[:2]) > 150, name
        assert image[..., :3].std() > 0.02, f"{name} is blank"
    if kind == "map":  # land is grey
        grey = np.isclose(images["map-sea-surface-temperature-one-step.png"][..., :3], 0xC4 / 255, atol=0.01).all(-1)
        assert grey.mean() > 0.01


def test_numbers_do_not_depend_on_how_windows_are_batched(worlds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = plan(subject(worlds / "map"), "valid", OPTIONS)
    whole = study(Mover(), work).numbers
    monkeypatch.setattr("scigpt.evaluate.plan.TOKENS_PER_BATCH", 1)
    assert study(Mover(), work).numbers == whole


def test_a_diverging_model_is_told_and_drawn(worlds: Path, tmp_path: Path) -> None:
    class Explodes:
        def __call__(self, batch: Batch) -> Answer:
            return Answer(torch.full_like(batch.values[:, 1:], torch.nan))

    done = study(Explodes(), plan(subject(worlds / "line"), "valid", OPTIONS))
    (row,) = done.numbers["one_step"].values()
    assert row["methods"][MODEL]["vrmse"] == math.inf
    assert row["methods"][MODEL]["diverged"] == done.numbers["windows"]
    assert done.numbers["summary"]["verdict"] == "worse"
    (bands,) = done.numbers["spectra"]["variables"].values()
    assert bands["methods"][MODEL]["bands"]["low"]["error"] == math.inf
    assert done.numbers["rollout"]["variables"]["concentration"][MODEL]["survival"] == 0
    assert len(pictures_of(done, tmp_path, "x")) == 5


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_with_nothing_valid_can_be_drawn(kind: str, tmp_path: Path) -> None:
    sample = world(kind, 0, 6)
    dark = replace(sample, valid=np.zeros_like(sample.valid))
    frames = len(dark.time)
    predictions = np.zeros((frames - 1, *dark.values.shape[1:]), np.float32)
    rolled = None if sample.steady else Example(dark, predictions[1:])
    curve = {"vrmse": [math.nan] * (frames - 2)}
    keys = [v.key for v in dark.variables if v.predicted]
    numbers = {"rollout": {"lead_times": list(range(1, frames - 1)), "lead_unit": "1", "variables": {k: {MODEL: curve} for k in keys}}}
    numbers["rollout"] |= {"spectra": {}, "drift": {}}
    numbers["spectra"] = None
    assert pictures_of(Study(numbers, Example(dark, predictions), rolled), tmp_path, kind)


class Page(HTMLParser):
    """Collects what a page refers to and checks that every element is closed."""

    VOID = ("meta", "img", "br", "link", "hr")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.links += [v for k in ("src", "href") if (v := given.get(k))]
        self.ids += [v for v in [given.get("id")] if v]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page(worlds: Path) -> None:
    corpora = []
    for kind in ("map", "steady"):
        numbers = study(Mover(), plan(subject(worlds / kind), "ood", OPTIONS)).numbers
        about = {
            "name": kind,
            "path": "/x",
            "fingerprint": "f" * 64,
            "trained_on": False,
            "licences": ["CC0-1.0"],
            "attributions": ["A & <B>"],
        }
        about |= {"source": "worlds", "grid": [1, 2, 3], "geometry": "plane", "steady": False, "calendar": "none", "step": 0.5}
        about |= {"variables": {"state": ["a"]}, "coefficients": {"viscosity": {"min": 0.1, "max": 0.2}}, "fno": None}
        corpora.append({**about, "splits": [{**numbers, "pictures": [{"file": f"{kind}.png", "caption": "c"}]}]})
    run = {
        "path": "runs/x",
        "checkpoint": "step-1",
        "step": 1,
        "steps": 2,
        "parameters": 1234567,
        "size": "nano",
        "code_version": None,
        "licences": [],
    }
    corpora[0]["fno"] = {"parameters": 1000, "width": 4, "modes": [8, 8], "windows": 7}
    corpora[0]["fno"] |= {"flops_per_window": 1e6, "model_flops_per_window": 2e6}
    options = {"windows": 4, "rollouts": 2, "steps": 30}
    html = render({"schema_version": 1, "run": run, "options": options, "corpora": corpora})
    page = Page()
    page.feed(html)
    assert page.open == []
    assert {"map.png", "steady.png", "results.json", "#map-ood", "#steady-ood"} == set(page.links)
    assert {"map-ood", "steady-ood"} == set(page.ids)
    assert "later <years>" in page.text
    assert "A & <B>" in page.text
    assert "1,234,567 parameters" in page.text
    assert "1,000 parameters, width 4, modes 8 x 8" in page.text
    for title in ("By region", "Error by scale (zonal spectra, one step)", "Drift of conserved quantities after 8 steps", "relative L2"):
        assert title in page.text
    assert 'class="text win"' in html  # the solver beats the mean
    assert 'class="text loss"' in html  # land confuses the mover, persistence is better
    assert "http" not in html


def test_the_verdict_is_honest() -> None:
    assert [verdict(s, 1.0) for s in (0.5, 0.999, 1.0, 1.2, math.inf, math.nan)] == ["win", "even", "even", "loss", "loss", "none"]

    def told(verdict: str, ratio: float) -> str:
        return conclusion({"verdict": verdict, "ratio": ratio})

    assert [told("better", r) for r in (0.5, 0.0)] == ["2 times better", "exact"]
    assert [told("worse", r) for r in (2.0, math.inf, math.nan)] == ["2 times worse", "diverged", "diverged"]
    assert [told(v, 0.9) for v in ("even", "undefined")] == ["even", "undefined"]
    assert told("better", None) == "better"  # as results.json has it
    difference = {"mean": -0.2, "low": -0.3, "high": 0.1, "trajectories": 5}
    assert interval(difference) == "-0.300 to 0.100"
    assert interval({"mean": -0.2, "low": math.nan, "high": math.nan, "trajectories": 1}) == "one trajectory"
    assert interval(None) == "-"
    assert [figure(v) for v in (0.0, 0.12345, 12.0, 1e-5, math.inf, math.nan)] == ["0", "0.123", "12.0", "1.00e-05", "diverged", "-"]


def test_labels() -> None:
    assert [pretty_unit(u) for u in ("m s**-1", "kg m-2 s-1", "1", "percent", "degrees_north")] == ["m s⁻¹", "kg m⁻² s⁻¹", "", "%", "°N"]
    sample: Sample = world("map", 0)
    assert label(sample.variables[0], unit=True) == "sea surface temperature (K)"
    assert elapsed_time(np.array([0.0, 86400 * 4]), False)[1] == "days"
    assert elapsed_time(np.array([0.0, 30.0]), False)[1] == "s"


def test_plans(worlds: Path) -> None:
    def of(kind: str, frames: int, options: Options = OPTIONS) -> Plan:
        return plan(subject(worlds / kind, frames), "valid", options)

    assert (of("line", 2).frames, of("steady", 8).frames, of("line", 5).frames) == (3, 2, 5)
    short = of("line", 12)  # the window is the whole record: fewer frames of context leave room for a rollout
    assert (short.context, short.steps) == (4, 8)
    assert of("line", 5, Options(steps=3)).steps == 3
    assert of("line", 5, Options(rollouts=0)).steps == of("line", 5, Options(steps=0)).steps == of("steady", 5).steps == 0
    assert (of("line", 40).frames, of("line", 40).steps) == (12, 8)  # records of 12 frames
    with pytest.raises(UserError, match="at least 1 window"):
        Options(windows=0)
