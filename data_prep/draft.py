"""The first draft of a map: names, units, roles, axes and times guessed from a file; what is not sure ends in `# check`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cftime
import numpy as np
import pandas as pd
import xarray as xr

from scigpt.data.variables import QUANTITIES, convert
from scigpt.data_prep.datamap import Channel, TableFormat
from scigpt.data_prep.fields import LATITUDE, LONGITUDE, MEMBER_DIMS, MILLIBAR, is_coordinate, level_kind
from scigpt.data_prep.files import kind, locate
from scigpt.data_prep.formats.opening import open_datasets
from scigpt.data_prep.instants import whole
from scigpt.data_prep.sniff import LOOK, is_numeric, is_table, sniff
from scigpt.data_prep.tables import Table, read_table
from scigpt.data_prep.tracks import convert_channel, make_variable
from scigpt.errors import UserError

CHECK = "  # check"

# words in a header, the quantity they mean, and the unit it has where nothing says one; own names are not in the registry
MEANINGS: tuple[tuple[str, str, str], ...] = (
    (r"dew", "dew_point_temperature", "degC"),
    (r"sst|sea.?(surface)?.?temp", "sea_surface_temperature", "degC"),
    (r"soil.*temp|ts_?\d", "soil_temperature", "degC"),
    (r"water.*temp", "water_temperature", "degC"),
    (r"^t_?max|temp.*max|max.*temp", "air_temperature_maximum", "degC"),
    (r"^t_?min|temp.*min|min.*temp", "air_temperature_minimum", "degC"),
    (r"temp|tair|t_?air|^t2m$|^tas$", "air_temperature", "degC"),
    (r"^rh$|humid", "relative_humidity", "percent"),
    (r"precip|rain|prcp|ppt", "precipitation", "mm"),
    (r"press|baro|^slp$|^pa$", "surface_air_pressure", "hPa"),
    (r"wind.*dir|^wd$", "wind_direction", "degree"),
    (r"wind|^ws$", "wind_speed", "m s**-1"),
    (r"solar|srad|short.?wave|swdown|^sw_?in", "surface_downwelling_shortwave_flux", "W m**-2"),
    (r"discharge|streamflow|^q$|flow", "discharge", "m**3 s**-1"),
)
UNITS = {
    "f": "degF", "c": "degC", "k": "K", "kelvin": "K", "deg f": "degF", "deg c": "degC", "degf": "degF", "degc": "degC", "°f": "degF",
    "°c": "degC", "fahrenheit": "degF", "celsius": "degC", "%": "percent", "pct": "percent", "percent": "percent", "mph": "mph",
    "kmh": "km/h", "kph": "km/h", "km/h": "km/h", "kt": "knot", "kts": "knot", "knots": "knot", "ms": "m/s", "mps": "m/s", "m/s": "m/s",
    "m s-1": "m/s", "ft/s": "ft/s", "in": "in", "inch": "in", "inches": "in", "mm": "mm", "cm": "cm", "in/day": "in/day",
    "in/d": "in/day", "in/hr": "in/hour", "mm/day": "mm/day", "mm/d": "mm/day", "mm/h": "mm/hour", "mm/hr": "mm/hour", "hpa": "hPa",
    "mb": "mbar", "mbar": "mbar", "kpa": "kPa", "pa": "Pa", "inhg": "inHg", "psi": "psi", "atm": "atm", "w/m2": "W/m**2", "wm2": "W/m**2",
    "w m-2": "W/m**2", "m": "m", "ft": "ft", "feet": "ft", "km": "km", "mi": "mile", "cfs": "cfs", "m3/s": "m**3/s", "cms": "m**3/s",
    "deg": "degree", "degrees": "degree", "s": "s", "sec": "s", "seconds": "s", "min": "min", "minutes": "min", "h": "hour", "hr": "hour",
    "hours": "hour", "days": "day",
}  # fmt: skip
TIME = r"(yyyy|year)\W.*|.*timestamp.*|time|date|datetime|timestamp|date_?time|time_?stamp|valid_?time|t|utc|hour|day"
PARTS = {"year|yyyy|yr": "%Y", "month|mm|mo": "%m", "day|dd": "%d", "yday|doy|jday": "%j", "hour|hh|hr": "%H", "minute|min": "%M"}
FORMATS = (
    "%Y%m%d", "%Y%m%d%H", "%Y%m%d%H%M", "%Y%m%d%H%M%S", "%Y%m", "%Y", "%Y/%m/%d", "%Y/%m/%d %H:%M", "%Y/%m/%d %H:%M:%S", "%d.%m.%Y",
    "%d.%m.%Y %H:%M", "%d.%m.%Y %H:%M:%S", "%m/%d/%Y", "%m/%d/%Y %H:%M", "%m/%d/%Y %H:%M:%S", "%m/%d/%Y %I:%M %p", "%d/%m/%Y",
    "%d/%m/%Y %H:%M", "%d/%m/%Y %H:%M:%S", "%m/%d/%y %H:%M", "%d-%b-%Y", "%d-%b-%Y %H:%M",
)  # fmt: skip
PLACES = {"latitude": "lat|latitude", "longitude": "lon|lng|long|longitude", "height": "elev|elevation|alt|altitude|height"}
RUN = "trajectory|traj|sample|samples|run|batch|case|simulation|n"
STATION = r"station|site|id|station_?(id|name)|site_?(id|name)|gauge|sensor|sensor_?id"


@dataclass(frozen=True)
class Guess:
    """A channel and whether its name and unit were told, not supposed."""

    channel: Channel
    sure: bool

    def line(self, column: str) -> str:
        parts = [f"name: {self.channel.name}", f"unit: {quoted(self.channel.unit or '1')}"]
        if self.channel.role != "state":
            parts.append(f"role: {self.channel.role}")
        if self.channel.level is not None:
            parts.append(f"level: {quoted(self.channel.level)}")
        return f"  {quoted(column)}: {{{', '.join(parts)}}}" + ("" if self.sure else CHECK)


def quoted(text: str) -> str:
    """A string as YAML reads it back, in quotes only where it must be."""
    plain = re.fullmatch(r"[A-Za-z_][\w./*-]*", text) and text.lower() not in ("yes", "no", "on", "off", "true", "false", "null", "y", "n")
    return text if plain else json.dumps(text, ensure_ascii=False)


def draft(path: Path | str) -> str:
    """The draft of a map for a table or a file of arrays, as YAML.

    Raises:
        UserError: a file that is neither, or that holds no variable.
    """
    found = locate(path)
    if kind(found) != "other":
        datasets = open_datasets(found)
        try:
            body = list(_arrays(found, datasets))
        finally:
            for dataset in datasets:
                dataset.close()
    elif is_table(found):
        body = list(_table(read_table(found, sniff(found), LOOK)))
    else:
        raise UserError(f"{found.name} is neither a table with a line of names nor NetCDF, Zarr or GRIB; a map cannot be drafted from it")
    head = [f"# Drafted from {found.name}; lines that end in `# check` are guesses."]
    tail = ["licence: unstated" + CHECK + ": the licence of your data, as in CC-BY-4.0", 'attribution: ""']
    return "\n".join([*head, *body, *tail]) + "\n"


# tables


def header_parts(header: str) -> tuple[str, str | None]:
    """`Temp (F)` as `Temp` and `F`; `wind_mph` as `wind` and `mph`. `TA_F` and `t_min` may mean anything else: no unit."""
    if match := re.fullmatch(r"(.+?)\s*[(\[](.+?)[)\]]", header):
        return match[1], match[2]
    stem, _, last = header.rpartition("_")
    unit = last.lower()
    usual = any(re.search(words, stem.lower()) for words, _, unit_of in MEANINGS if unit_of == ("degC" if unit in "cfk" else "mm"))
    usual |= unit == "s" and re.fullmatch(TIME, stem.lower()) is not None
    sure = unit in UNITS and (usual if len(unit) == 1 or unit == "in" else unit not in ("min", "ms", "deg"))
    return (stem, last) if stem and sure else (header, None)


def guess(header: str, unit: str | None, values: np.ndarray) -> Guess:
    """What a column of these numbers is, from its header and a unit that stands beside it (None: unknown)."""
    stem, told = header_parts(header)
    told = unit or told
    meant = next(((name, usual) for words, name, usual in MEANINGS if re.search(words, stem.lower())), None)
    quantity = QUANTITIES.find(stem) if len(stem) > 1 else None
    name = quantity.name if quantity else meant[0] if meant else re.sub(r"\W+", "_", stem).strip("_").lower() or "value"
    known = UNITS.get(told.strip().lower(), told.strip()) if told else None
    if name == "precipitation":
        name = "precipitation_flux" if re.search(r"/|-1", known or "") else "precipitation_amount"
    if not name[0].isalpha():
        name = "v_" + name
    usual = (quantity.unit if quantity else None) or (meant[1] if meant else "1")
    channel = Channel(name, known or usual)
    if known is None or (quantity is None and meant is None):
        return Guess(channel, known is not None and quantity is None and meant is None and _pint_knows(known))
    try:
        made = make_variable(name, channel, known, None, header)
        registered = QUANTITIES.find(made.name)
        if registered is not None:
            inside = convert_channel(values[np.isfinite(values)], known, made.name, made.unit, header)
            return Guess(channel, bool(((inside >= registered.low) & (inside <= registered.high)).mean() > 0.999))
        return Guess(channel, _pint_knows(known))
    except UserError:  # the words of the header and its unit do not go together: the unit is what was told
        return Guess(Channel(re.sub(r"\W+", "_", stem).strip("_").lower() or "value", known), False)


def _pint_knows(unit: str) -> bool:
    try:
        convert(np.zeros(1), unit, f"1.0 * {unit}" if unit != "1" else "1", unit)
    except UserError:
        return False
    return True


def _table(table: Table) -> Iterator[str]:
    form = table.format
    units = _units_row(table)
    yield "format:"
    yield f"  separator: {json.dumps(form.separator)}"
    for key in ("header", "skip", "decimal", "encoding", "comment"):
        if getattr(form, key) != getattr(TableFormat(), key):
            yield f"  {key}: {json.dumps(getattr(form, key))}"
    if form.missing:
        yield f"  missing: {json.dumps(list(form.missing))}{CHECK}: codes of missing values"
    left = {c: header_parts(c)[0].strip().lower() for c in table.frame.columns}

    def take(words: str) -> str | None:
        column = next((c for c, stem in left.items() if re.fullmatch(words, stem)), None)
        if column is not None:
            del left[column]
        return column

    axes = list(_time_lines(table, left))
    station = next((c for c, stem in left.items() if re.fullmatch(STATION, stem) and table.frame[c].nunique() < len(table.frame)), None)
    if station is not None:
        del left[station]
        axes.append(f"  station: {quoted(station)}")
    for name, words in PLACES.items():
        column = take(words)
        if column is not None and is_numeric(table, column):
            unit = header_parts(column)[1] if name == "height" else None
            spelt = UNITS.get((unit or "m").lower(), unit or "m")
            axes.append(f"  {name}: {quoted(column)}" if spelt == "m" else f"  {name}: {{name: {quoted(column)}, unit: {quoted(spelt)}}}")
    yield "axes:"
    yield from axes
    variables, constants, others = [], [], []
    for column in left:
        if not is_numeric(table, column):
            others.append(column)
            continue
        values = table.numbers(column, "draft")
        seen = values[np.isfinite(values)]
        if seen.size and np.ptp(seen) == 0 and len(left) > 1:
            constants.append((column, seen[0]))
        else:
            variables.append((column, guess(column, units.get(column), values)))
    if not variables:
        raise UserError(f"{table.path.name} has no column of numbers that change beside its time and places; there is nothing to predict")
    yield "variables:"
    names: set[str] = set()
    for column, found in variables:
        if found.channel.name in names:
            own = re.sub(r"\W+", "_", column).strip("_").lower()
            found = Guess(replace(found.channel, name=own if own[:1].isalpha() else f"v_{own}"), False)
        names.add(str(found.channel.name))
        yield found.line(column)
    for column in others:
        yield f"  # {column}: left out, not numbers"
    if constants:
        yield "coefficients:"
        for column, value in constants:
            yield f"  {re.sub(r'[^A-Za-z0-9]+', '_', column).strip('_').lower()}: {quoted(column)}{CHECK}: always {value:g}"
    yield "split: {by: time, fractions: [0.8, 0.1, 0.1], gap: 2}"


def _units_row(table: Table) -> dict[str, str]:
    """The row below the names where it was skipped: it holds units."""
    if table.format.skip == 0:
        return {}
    with_units = read_table(table.path, replace(table.format, skip=0), table.lines[0])
    row = with_units.frame.iloc[0]
    return {c: str(row[c]) for c in table.frame.columns if str(row[c]).lower() in UNITS or (str(row[c]) and _pint_knows(str(row[c])))}


def _time_lines(table: Table, left: dict[str, str]) -> Iterator[str]:
    """The time of a table; the columns used are taken out of `left`."""
    parts = {form: c for words, form in PARTS.items() for c, stem in left.items() if re.fullmatch(words, stem) and is_numeric(table, c)}
    if "%Y" in parts and ("%j" in parts or "%m" in parts):
        used = [f for f in (("%Y", "%j", "%H", "%M") if "%j" in parts else ("%Y", "%m", "%d", "%H", "%M")) if f in parts]
        for column in (parts[f] for f in used):
            del left[column]
        names = ", ".join(quoted(parts[f]) for f in used)
        yield f'  time: {{column: [{names}], format: "{" ".join(used)}"}}'
        return
    named = [c for c, stem in left.items() if re.fullmatch(TIME, stem)]
    if (dated := _dated_columns(table, named, [c for c in left if c not in named])) is not None:
        columns, text, forms = dated
        for column in columns:
            del left[column]
        names = quoted(columns[0]) if len(columns) == 1 else "[" + ", ".join(map(quoted, columns)) + "]"
        spelt = f", format: {json.dumps(forms[0])}" if forms[0] else ""
        hours = re.search(r"%H|%I|:", forms[0] or str(text.iloc[0])) is not None
        remark = "  # in UTC; else zone: Europe/Berlin" if hours and not _has_offset(text) else ""
        yield f"  time: {{column: {names}{spelt}}}" + (f"{CHECK}: or {forms[1]}" if len(forms) > 1 else remark)
        return
    counted = next((c for c in named if is_numeric(table, c)), None)
    if counted is not None:
        del left[counted]
        unit = header_parts(counted)[1]
        spelt = quoted(UNITS.get((unit or "s").lower(), unit or "s"))
        yield f"  time: {{column: {quoted(counted)}, unit: {spelt}}}" + ("" if unit else CHECK)
        return
    yield f"  time: {{step: 1, unit: s}}{CHECK}: no column of times was found"


def _dated_columns(table: Table, named: list[str], others: list[str]) -> tuple[list[str], pd.Series, list[str | None]] | None:
    """The column whose cells are all times, or two that are (day and hour), and the formats that fit; columns with a telling name first."""
    pair = [named[:2]] if len(named) > 1 and table.frame[named[0]].duplicated().any() else []
    for columns in [*pair, *([c] for c in named), *([c] for c in others if not is_numeric(table, c))]:
        text = table.frame[columns].agg(" ".join, axis=1)
        if forms := _formats(text):
            return columns, text, forms
    return None


def _has_offset(text: pd.Series) -> bool:
    return bool(text.str.contains(r"(?:Z|[+-]\d\d:?\d\d)$", regex=True).any()) and bool(text.str.contains("T|:", regex=True).any())


def _formats(text: pd.Series) -> list[str | None]:
    """Formats under which every cell is a time; None stands for ISO 8601."""
    text = whole(text)
    dashes = text.str.contains(r"^\d{4}-\d\d(?:-\d\d)?", regex=True).all()
    if dashes and pd.to_datetime(text, format="ISO8601", errors="coerce", utc=True).notna().all():
        return [None]
    found: list[str | None] = []
    for form in FORMATS:
        width = len(pd.Timestamp(2000, 10, 10).strftime(form)) if text.str.fullmatch(r"\d+").all() else None
        if width is not None and not text.str.len().eq(width).all():
            continue
        parsed = pd.to_datetime(text, format=form, errors="coerce")
        if parsed.notna().all() and (width is None or parsed.dt.year.between(1700, 2200).all()):
            found.append(form)
    return found


# arrays


def _arrays(path: Path, datasets: list[xr.Dataset]) -> Iterator[str]:
    arrays = {str(n): d[n] for d in reversed(datasets) for n in d.variables}
    edges = {str(a.attrs.get("bounds")) for a in arrays.values()}
    usable = {
        str(n): a
        for d in datasets
        for n, a in d.data_vars.items()
        if a.dtype.kind in "iuf" and a.ndim > 0 and str(n) not in edges and "bnds" not in a.dims
    }
    latitude, longitude = (
        next((n for n, a in arrays.items() if a.ndim in (1, 2) and is_coordinate(n, a.variable, wanted)), None)
        for wanted in (LATITUDE, LONGITUDE)
    )
    for name in (latitude, longitude):
        usable.pop(str(name), None)
    if not usable:
        raise UserError(f"{path.name} has no variable of numbers on a dimension; there is nothing to predict")
    main = max(usable.values(), key=lambda a: a.ndim)
    dims = [str(d) for d in main.dims]
    free = list(dims)
    yield "axes:"
    dated = [n for n, a in arrays.items() if set(a.dims) <= set(dims) and a.ndim <= 1 and a.size and _dated(a)]
    time = max(dated, key=lambda n: (arrays[n].ndim, n in dims), default=None)
    time_dim = None
    if time is not None:
        time_dim = str(arrays[time].dims[0]) if arrays[time].ndim else None
        yield f"  time: {quoted(time)}"
    elif named := next((d for d in dims if re.fullmatch(TIME + "|nt|step|steps|frame", d.lower()) or _counts_time(arrays.get(d))), None):
        time_dim = named
        if named in arrays:
            unit = str(arrays[named].attrs.get("units") or "")
            yield f"  time: {{column: {quoted(named)}, unit: {quoted(UNITS.get(unit.lower(), unit or '1'))}}}" + ("" if unit else CHECK)
        else:
            yield f'  time: {{column: {quoted(named)}, step: 1, unit: "1"}}{CHECK}: the step is not known'
    if time_dim in free:
        free.remove(time_dim)
    level = next((d for d in free if d in arrays and level_kind(d, arrays[d].attrs) is not None), None)
    if level is not None:
        free.remove(level)
    on_sphere = latitude is not None and longitude is not None
    if on_sphere:
        yield f"  latitude: {quoted(str(latitude))}"
        yield f"  longitude: {quoted(str(longitude))}"
        for dim in map(str, (*arrays[str(latitude)].dims, *arrays[str(longitude)].dims)):
            if dim in free:
                free.remove(dim)
    run = next((d for d in free if d in MEMBER_DIMS or re.fullmatch(RUN, d.lower())), None)
    room = 1 if on_sphere else 3
    if run is None and len(free) > room:
        run = free[0]
    if run is not None:
        free.remove(run)
        yield f"  trajectory: {quoted(run)}"
    # the last dimension varies along x, whatever it is called, unless names say otherwise
    axes = ("z",) if on_sphere else {1: ("x",), 2: ("y", "x"), 3: ("z", "y", "x")}.get(len(free), ())
    by_name = {d.lower()[-1]: d for d in free}
    for i, axis in enumerate(axes[: len(free)]):
        dim = by_name[axis] if set(by_name) == set(axes) else free[i]
        yield f"  {axis}: {quoted(dim)}" + ("" if dim.lower().endswith(axis) or dim in ("lat", "lon") else CHECK)
    space = {d for d in dims if d not in (time_dim, level, run)}
    yield "variables:"
    names: set[str] = set()
    for name, array in usable.items():
        if not space <= set(map(str, array.dims)) or not set(map(str, array.dims)) <= set(dims):
            yield f"  # {name}: left out, its dimensions are {', '.join(map(str, array.dims))}"
            continue
        found = _array_guess(name, array)
        if time_dim is not None and time_dim not in array.dims:
            found = replace(found, channel=replace(found.channel, role="static"))
        if level is not None and level in array.dims:
            found = replace(found, channel=replace(found.channel, level=level))
        if found.channel.name in names:
            found = Guess(replace(found.channel, name=re.sub(r"\W+", "_", name)), False)
        names.add(str(found.channel.name))
        yield found.line(name)
    if not on_sphere:
        yield f"boundary: {{{', '.join(f'{a}: open' for a in axes)}}}{CHECK}: periodic, wall, open or given" if axes else "boundary: {}"
    # members of an ensemble share their weather: only runs apart from each other may be told apart by a split
    by = "trajectory" if run is not None and run not in MEMBER_DIMS and main.sizes[run] >= 10 else "time"
    yield f"split: {{by: {by}, fractions: [0.8, 0.1, 0.1], gap: 2}}"


def _counts_time(array: xr.DataArray | None) -> bool:
    try:
        return array is not None and bool(convert(np.ones(1), str(array.attrs["units"]), "s").all())
    except (KeyError, UserError):
        return False


def _dated(array: xr.DataArray) -> bool:
    return array.dtype.kind == "M" or isinstance(array.to_numpy().flat[0], cftime.datetime)


def _array_guess(name: str, array: xr.DataArray) -> Guess:
    unit = array.attrs.get("units")
    quantity = QUANTITIES.find(array.attrs.get("standard_name"), name if len(name) > 1 else None)
    spelt = None if unit is None else MILLIBAR.get(str(unit).strip(), str(unit).strip()) or "1"
    own = re.sub(r"\W+", "_", name)
    own = own if own[:1].isalpha() else f"v_{own}"
    if quantity is not None and spelt is not None:
        try:
            make_variable(name, Channel(quantity.name), spelt, None, name)
            return Guess(Channel(quantity.name, spelt), True)
        except UserError:
            return Guess(Channel(own, spelt), False)
    if quantity is not None:
        return Guess(Channel(quantity.name, quantity.unit), False)
    return Guess(Channel(own, spelt or "1"), spelt is not None)
