"""Recipes: every one that is shipped names a source and options that exist; mistakes in one are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from scigpt.data_prep.source import parse_options
from scigpt.data_prep.sources import SOURCES
from scigpt.errors import UserError
from scigpt.launch.recipes import is_recipe, load_recipe

FOLDER = Path(__file__).parents[2] / "configs" / "data"
PUBLIC = (
    "arm", "cmip6", "daymet", "earthscope", "edx", "era5", "ess-dive", "fluxnet", "gdr", "ghcn", "grdc", "hls", "ilamb", "modis", "narr",
    "prism", "scec-bbp", "segy", "seismic-experiments",
)  # fmt: skip


def test_every_public_archive_has_one() -> None:
    assert sorted(p.stem for p in FOLDER.glob("*.yaml")) == sorted(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_a_recipe_that_is_shipped_can_be_followed(name: str) -> None:
    recipe = load_recipe(FOLDER / f"{name}.yaml")
    source = SOURCES[recipe.source]
    assert source.name == name
    source((), parse_options(source.Options, recipe.options))
    assert source.Fetch is not None
    assert recipe.fetch
    parse_options(source.Fetch, recipe.fetch)


def test_words_of_the_command_line_win(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("source: era5\noptions: {gap: 4, levels: [500, 850], solar: true, period: null}\n")
    recipe = load_recipe(tmp_path / "a.yaml")
    options = parse_options(SOURCES["era5"].Options, [*recipe.options, "gap=7"])
    assert (options.gap, options.levels, options.solar, options.period) == (7, (500.0, 850.0), True, None)
    assert is_recipe("configs/data/era5.yaml")
    assert not is_recipe("era5")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("source: [era5", "is not valid YAML"),
        ("options: {}\n", "names no source; it begins with a line such as source: era5"),
        ("source: era5\noption: {}\n", "has the unknown key 'option'; did you mean options?"),
        ("source: era5\noptions: [gap]\n", "options is ['gap']; expected names with values"),
        ("source: era5\noptions: {gap: {a: 1}}\n", "options.gap is {'a': 1}; expected a word, a number or a list of them"),
    ],
)
def test_a_mistake_is_told(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        load_recipe(tmp_path / "a.yaml")
    assert sentence in str(caught.value)
    with pytest.raises(UserError, match="cannot be read"):
        load_recipe(tmp_path / "none.yaml")
