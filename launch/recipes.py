"""Recipes: YAML files that name a source and its options, so that a corpus can be made again by one word."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scigpt.errors import UserError

KEYS = ("source", "options", "fetch")


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a recipe says.

    Args:
        source: name of a source.
        options: `key=value` words for `scigpt data prepare`; words given on the command line come after them and win.
        fetch: the same for `scigpt data fetch`.
    """

    source: str
    options: tuple[str, ...] = ()
    fetch: tuple[str, ...] = ()


def is_recipe(word: str) -> bool:
    """Whether a word on the command line is the path of a recipe and not the name of a source."""
    return word.endswith((".yaml", ".yml"))


def load_recipe(path: Path | str) -> Recipe:
    """A recipe from its file.

    Raises:
        UserError: a file that cannot be read, or a key or value that a recipe has not.
    """
    import yaml

    from scigpt.data_prep.suggest import nearest

    path = Path(path)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the recipe {path} cannot be read ({error}); give the path of a YAML file or the name of a source") from None
    except yaml.YAMLError as error:
        raise UserError(f"the recipe {path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, Mapping) or not isinstance(data.get("source"), str):
        raise UserError(f"the recipe {path} names no source; it begins with a line such as source: era5")
    for key in data:
        if key not in KEYS:
            hint = nearest(str(key), KEYS) or f"expected one of {', '.join(KEYS)}"
            raise UserError(f"the recipe {path} has the unknown key {key!r}; {hint}")
    return Recipe(data["source"], *(_words(data.get(part) or {}, f"{path}: {part}") for part in ("options", "fetch")))


def _words(options: Any, where: str) -> tuple[str, ...]:
    if not isinstance(options, Mapping):
        raise UserError(f"{where} is {options!r}; expected names with values")
    return tuple(f"{key}={_text(value, f'{where}.{key}')}" for key, value in options.items())


def _text(value: Any, where: str) -> str:
    if isinstance(value, Mapping):
        raise UserError(f"{where} is {value!r}; expected a word, a number or a list of them")
    if isinstance(value, list):
        return ",".join(_text(v, where) for v in value)
    return "none" if value is None else str(value)
