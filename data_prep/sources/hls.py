"""HLS v2.0, surface reflectance of Landsat (L30) and Sentinel-2 (S30) harmonised on one grid: a GeoTIFF for each band of a granule.

Bands go by their common name, because the instruments number them differently (B05 is near infrared in L30 and a red edge in S30). What
the mask of a granule (Fmask) says is cloud, beside a cloud, shadow or thick aerosol is invalid; values below 0 and above 1 are kept.
A stacked image of several bands (a chip for training) is read too, where options name its bands and its date.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import xarray as xr

from scigpt.data_prep.formats import rasters
from scigpt.data_prep.formats.lazy import lazy
from scigpt.data_prep.gridded import GriddedOptions, GriddedSource
from scigpt.data_prep.source import Description, Plan, Remote
from scigpt.data_prep.sources.hls_catalogue import BANDS, NAMES, THERMAL, HlsFetch, Name, named, search
from scigpt.data_prep.suggest import nearest
from scigpt.errors import UserError

MASKS: Mapping[str, tuple[int, int]] = {
    "cirrus": (1, 1),
    "cloud": (2, 2),
    "adjacent": (4, 4),
    "shadow": (8, 8),
    "snow": (16, 16),
    "water": (32, 32),
    "aerosol": (192, 192),
}
"""Bits of Fmask and the value they have where it is so: aerosol is high where both of its bits are set."""
LAYERS = {"cloud_mask": "cloud", "snow_mask": "snow", "water_mask": "water"}
NO_MASK, FILL = 255, -9999
REMEMBERED = 1 << 18
"""Cells of a window of an Fmask that is kept for the next band."""
_SENSED = ("SENSING_TIME", "TIFFTAG_DATETIME")


@dataclass(frozen=True)
class HlsOptions(GriddedOptions):
    """As every gridded source.

    Args:
        mask: what is made invalid, of cirrus, cloud, adjacent, shadow, snow, water and aerosol (high only); `mask=` leaves all values.
        bands: of a stacked image the common names in order.
        date: of a stacked image, `2024-04-29` or `2024-04-29T21:11:59`.
        stack_scale: of a stacked image, `hls` where it holds the numbers of the product (reflectance x 10000, degC x 100), `unit` where
            it holds reflectance as a fraction and degC; integers are taken as `hls`.
    """

    mask: tuple[str, ...] = ("cloud", "adjacent", "shadow", "aerosol")
    bands: tuple[str, ...] = ()
    date: str | None = None
    stack_scale: Literal["hls", "unit"] | None = None


class Hls(GriddedSource):
    """Harmonized Landsat and Sentinel-2 images at 30 m."""

    name = "hls"
    Options: ClassVar[type] = HlsOptions
    Fetch: ClassVar[type | None] = HlsFetch
    names: ClassVar[Mapping[str, str]] = NAMES
    one_grid: ClassVar[bool] = False
    hole: ClassVar[float] = math.inf
    """Overpasses are irregular and clouds take most of them: no step between two images is a hole."""

    options: HlsOptions

    def __init__(self, inputs: Sequence[Path] = (), options: Any = None) -> None:
        super().__init__([file for given in inputs for file in _files(Path(given))], options)
        for what, words, allowed in (("mask", self.options.mask, list(MASKS)), ("bands", self.options.bands, list(NAMES))):
            if unknown := [w for w in words if w not in allowed]:
                hint = nearest(unknown[0], allowed) or f"expected some of {', '.join(allowed)}"
                raise UserError(f"{what}={unknown[0]} is not known; {hint}")
        known_names = [(p, n) for p in self.inputs if (n := named(p))]
        self._flags: dict[Path, tuple[tuple[int, ...], np.ndarray]] = {}
        """Of each Fmask the window read last, for the other bands of the granule."""
        self._masks = {n.granule: p for p, n in known_names if n.band == "FMASK"}
        self._products = {n.product for _, n in known_names if n.band in BANDS[n.product]}

    @classmethod
    def describe(cls) -> Description:
        return Description(
            "hls",
            "land: satellite images, 30 m",
            "GeoTIFF",
            "NASA open data",
            "HLS v2.0, NASA LP DAAC (Landsat: doi:10.5067/HLS/HLSL30.002, Sentinel-2: doi:10.5067/HLS/HLSS30.002); "
            "contains modified Copernicus Sentinel data",
            extra="raster",
        )

    @classmethod
    def recognises(cls, path: Path) -> bool:
        try:
            if path.is_dir():
                return any(named(p) and rasters.is_tiff(p) for p in rasters.glance(path, ("*.tif*", "*/*.tif*")))
            return rasters.is_tiff(path) and named(path) is not None
        except (OSError, UserError):
            return False

    def plan(self) -> Plan:
        plan = super().plan()
        masked = [(p, n) for p in self.inputs if self.options.mask and (n := named(p)) and n.band in BANDS[n.product]]
        plan = rasters.with_companions(plan, {p.name: [self._mask_of(p, n)] for p, n in masked})
        if left := self._of_one_product():
            told = f"left out: {', '.join(left)}: bands that only one of L30 and S30 has; prepare one product, or choose with variables="
            return replace(plan, notes=(*plan.notes, told))
        return plan

    def open(self, path: Path) -> list[xr.Dataset]:
        if path.suffix.lower() in (".hdf", ".h4"):
            raise UserError(f"{path.name} is HDF4, the form of HLS up to v1.5, which is withdrawn; fetch v2.0 (`scigpt data fetch hls`)")
        name = named(path)
        if name is None:
            return [self._stack(path)]
        if name.band == "FMASK":
            asked = not self._products or any(v in LAYERS for v in self.options.variables or ())
            return [self._layers(path, name)] if asked else []
        if name.band not in BANDS[name.product]:
            raise UserError(
                f"{path.name}: {name.band} is no band that can be used; {name.product} has {', '.join(BANDS[name.product])}, Fmask"
            )
        common = BANDS[name.product][name.band]
        if self.options.variables is None and common in self._of_one_product():
            return []
        raster = rasters.open_raster(path)
        mask = self._mask(raster, self._mask_of(path, name)) if self.options.mask else None
        tags = (rasters.number(raster.tags.get(t)) for t in ("scale_factor", "add_offset"))
        scale, offset = (
            own if own != neutral else tag for own, tag, neutral in zip((raster.scales[0], raster.offsets[0]), tags, (1, 0), strict=True)
        )
        values = functools.partial(_values, raster, 1, scale or _unit(common)[1], offset or 0.0, mask)
        return [_dataset(raster, name.time, _place(raster, name), {common: (values, _unit(common)[0])})]

    def record_name(self, dataset: xr.Dataset) -> str:
        return str(dataset.attrs["place"])

    @classmethod
    def remotes(cls, options: Any, get: Callable[[str], bytes]) -> Iterator[Remote]:
        assert isinstance(options, HlsFetch)
        return search(options, get)

    def _of_one_product(self) -> list[str]:
        """Common names that L30 or S30 lacks, where the inputs hold both and no variables were chosen."""
        if len(self._products) < 2 or self.options.variables is not None:
            return []
        one, other = (set(bands.values()) for bands in BANDS.values())
        return sorted(one ^ other)

    def _mask_of(self, path: Path, name: Name) -> Path:
        found = self._masks.get(name.granule) or path.with_name(re.sub(rf"\.{name.band}\.", ".Fmask.", path.name, flags=re.IGNORECASE))
        if not found.is_file():
            raise UserError(
                f"{path.name}: there is no {found.name} beside it to mask clouds with; fetch it too, or give mask= to leave clouds in"
            )
        return found

    def _mask(self, raster: rasters.Raster, path: Path) -> Callable[[slice, slice], np.ndarray]:
        """A function of a window: where the values are to be invalid."""
        layer = rasters.open_raster(path)
        if not layer.same_grid(raster):
            raise UserError(
                f"{path.name} is on another grid than {raster.path.name}; expected the Fmask of the same granule, fetch both again"
            )
        tests = [MASKS[word] for word in self.options.mask]

        def masked(y: slice, x: slice) -> np.ndarray:
            window = (y.start, y.stop, x.start, x.stop)
            held, flags = self._flags.get(path, (None, None))
            if held != window or flags is None:
                flags = layer.read(1, y, x)
                if flags.size <= REMEMBERED:
                    self._flags[path] = window, flags
            return functools.reduce(np.logical_or, [(flags & bits) == value for bits, value in tests], flags == NO_MASK)

        return masked

    def _layers(self, path: Path, name: Name) -> xr.Dataset:
        """What an Fmask says, as variables of its own: 1 where it is so, 0 where not."""
        raster = rasters.open_raster(path)

        def values(word: str, y: slice, x: slice) -> np.ndarray:
            flags = raster.read(1, y, x)
            bits, value = MASKS[word]
            return np.where(flags == NO_MASK, np.nan, (flags & bits) == value).astype(np.float32)

        layers = {layer: (functools.partial(values, word), "1") for layer, word in LAYERS.items()}
        return _dataset(raster, name.time, _place(raster, name), layers)

    def _stack(self, path: Path) -> xr.Dataset:
        """A file of several bands, of which the options say what and when they are."""
        if not rasters.is_tiff(path):
            raise UserError(f"{path.name} is not a GeoTIFF by its first bytes; expected the bands of an HLS granule or a stacked image")
        raster = rasters.open_raster(path)
        bands, sensed = self.options.bands, self.options.date or next((raster.tags[t] for t in _SENSED if t in raster.tags), None)
        if len(bands) != len(raster.scales) or len(set(bands)) != len(bands):
            told = f"bands= names {len(set(bands))} of them" if bands else "by no name of HLS"
            raise UserError(
                f"{path.name} is a stacked image of {len(raster.scales)} bands, {told}; give the common name of each in order, "
                f"such as bands=blue,green,red,nir,swir_1,swir_2, and its date="
            )
        if sensed is None:
            raise UserError(f"{path.name} does not say when it was sensed; give date=2024-04-29")
        scaled = self.options.stack_scale or ("hls" if raster.dtype.kind in "iu" else None)
        if scaled is None:
            raise UserError(
                f"{path.name} holds {raster.dtype} and does not say in what unit; give stack_scale=hls where reflectance is in 0.0001, "
                f"stack_scale=unit where it is a fraction"
            )
        found = {}
        for index, band in enumerate(bands):
            unit, scale = _unit(band)
            found[band] = functools.partial(_values, raster, index + 1, scale if scaled == "hls" else 1.0, 0.0, None), unit
        return _dataset(raster, _instant(sensed, path), path.stem, found)


def _unit(band: str) -> tuple[str, float]:
    """Unit and scale of the stored numbers."""
    return ("degC", 0.01) if band in THERMAL else ("1", 0.0001)


def _values(
    raster: rasters.Raster,
    band: int,
    scale: float,
    offset: float,
    masked: Callable[[slice, slice], np.ndarray] | None,
    y: slice,
    x: slice,
) -> np.ndarray:
    raw = raster.read(band, y, x)
    with np.errstate(invalid="ignore"):  # NaN of some other make
        values = raw.astype(np.float64) * scale + offset
    fill = rasters.number(raster.tags.get("_FillValue"))
    invalid = np.isin(raw, [f for f in (raster.nodata, fill, FILL) if f is not None])
    values[invalid if masked is None else invalid | masked(y, x)] = np.nan
    return values.astype(np.float32)


def _dataset(
    raster: rasters.Raster, time: np.datetime64, place: str, variables: Mapping[str, tuple[Callable[[slice, slice], np.ndarray], str]]
) -> xr.Dataset:
    dims, coordinates = raster.coordinates()

    def windowed(values: Callable[[slice, slice], np.ndarray], window: tuple[slice, ...]) -> np.ndarray:
        return values(window[1], window[2])[None]

    shape = (1, *raster.shape)
    return xr.Dataset(
        {
            n: lazy(("time", *dims), shape, np.float32, functools.partial(windowed, v), {"units": unit})
            for n, (v, unit) in variables.items()
        },
        {"time": xr.Variable("time", [time.astype("datetime64[ns]")], {"standard_name": "time"}), **coordinates},
        {"place": place},
    )


def _files(path: Path) -> list[Path]:
    """The bands and masks in a folder of granules, and anything else as it is."""
    if not path.is_dir():
        return [path]
    found = [p for p in sorted(path.rglob("*.tif*")) if (n := named(p)) and (n.band == "FMASK" or n.band in BANDS[n.product])]
    if not found:
        raise UserError(
            f"the folder {path.name} holds no HLS band; expected files such as HLS.L30.T06WVS.2024120T211159.v2.0.B04.tif in it"
        )
    return found


def _instant(text: str, path: Path) -> np.datetime64:
    text = text.split(";")[0].strip().removesuffix("Z")
    text = re.sub(r"^(\d{4}):(\d\d):(\d\d) ", r"\1-\2-\3T", text)  # the form of TIFF
    try:
        return np.datetime64(text, "s")
    except ValueError:
        raise UserError(f"{path.name}: date {text!r} cannot be read; expected one such as 2024-04-29 or 2024-04-29T21:11:59") from None


def _place(raster: rasters.Raster, name: Name) -> str:
    """The tile, and the zone of the projection where it is not that of the tile's name: such images lie on another grid."""
    zone = rasters.utm_zone(raster.crs)
    return name.tile if zone == name.zone else f"{name.tile} in UTM zone {zone}"
