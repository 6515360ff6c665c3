"""Units written as words, as reporting formats ask for: `milligrams_per_liter`, `degree_celsius`, `meters_above_mean_sea_level_NAVD88`."""

from __future__ import annotations

import re

_PREFIXES = {"nano": "n", "micro": "u", "milli": "m", "centi": "c", "deci": "d", "hecto": "h", "kilo": "k", "mega": "M"}
_BASES = {
    "meter": "m", "metre": "m", "gram": "g", "liter": "l", "litre": "l", "second": "s", "pascal": "Pa", "siemens": "S", "volt": "V",
    "mole": "mol", "mol": "mol", "watt": "W", "joule": "J", "bar": "bar", "ampere": "A",
}  # fmt: skip
_WORDS = {
    "minute": "min", "hour": "hour", "hr": "hour", "day": "day", "year": "year", "inch": "inch", "inches": "inch", "foot": "foot",
    "feet": "foot", "hectare": "hectare", "percent": "percent", "degree": "degree", "degrees": "degree", "kelvin": "K", "sec": "s",
    **{p + b: short + unit for p, short in _PREFIXES.items() for b, unit in _BASES.items()}, **_BASES,
}  # fmt: skip
_WHOLE = {
    **dict.fromkeys(("degree_celsius", "degrees_celsius", "celsius", "degree_c", "degrees_c", "deg_c", "degc", "c"), "degC"),
    **dict.fromkeys(("degree_fahrenheit", "degrees_fahrenheit", "fahrenheit", "degree_f", "degrees_f", "deg_f", "degf"), "degF"),
    **dict.fromkeys(("ph", "ph_unit", "ph_units", "standard_units", "unitless", "dimensionless"), "1"),
    **dict.fromkeys(("percent_saturation", "percent_relative_humidity", "%"), "percent"),
    **dict.fromkeys(("m3/m3", "m^3/m^3", "m3 m-3", "cm3/cm3", "cubic_meter_per_cubic_meter", "cubic_meters_per_cubic_meter"), "1"),
    "cms": "m**3 s**-1",
    "cfs": "cfs",
}
_POWERS = {"square": 2, "cubic": 3}
_SPECIES = re.compile(r"(o2|co2|ch4|n2o|c|n|p|h2o)", re.IGNORECASE)
_DATUM = re.compile(r"(\w+?)_(above|below)_\w+")


def spelled_short(unit: str) -> str:
    """The unit as pint reads it where every word of it is known, else as it stands; what a unit is of (`grams_O2`) is left out."""
    text = " ".join(unit.split())
    words = text.lower().replace(" ", "_")
    if words in _WHOLE:
        return _WHOLE[words]
    if datum := _DATUM.fullmatch(words):
        words = datum[1]
    above, *below = words.split("_per_")
    parts = [_product(above, 1), *(_product(w, -1) for w in below)]
    return text if None in parts else " ".join(p for p in parts if p)


def _product(words: str, sign: int) -> str | None:
    """`square_meter` as `m**2`; None where a word is not known."""
    found, power = [], 1
    for word in words.split("_"):
        if word in _POWERS:
            power = _POWERS[word]
        elif short := _WORDS.get(word) or _WORDS.get(word.removesuffix("s")):
            exponent = sign * power
            found.append(short if exponent == 1 else f"{short}**{exponent}")
            power = 1
        elif not (found and _SPECIES.fullmatch(word)):
            return None
    return " ".join(found) if found and power == 1 else None
