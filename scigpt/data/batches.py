"""Batch: samples of one corpus as tensors, with everything that is not a number kept as Python metadata."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scigpt.data.normalize import Scales, which
from scigpt.data.patching import Extent, choose_patch
from scigpt.data.sample import Coordinate, Layout, Sample, Time
from scigpt.errors import UserError


@dataclass(frozen=True, slots=True)
class Batch:
    """B windows of T frames of one corpus.

    Tensors (float32 unless said):
        values `(B, T, C, Z, Y, X)` in the variables' units, 0 where invalid; valid, bool, the same shape.
        seconds `(B, T)` float64, time of each frame; step `(B, T-1)`, time from each frame to the next.
        season, hour `(B, T)`: fractions of the year and day, 0 for simulated time (`calendar == "none"`).
        coefficients, known `(B, K)`: values and (bool) whether they are told, in the order of `coefficient_names`.
        latitude, longitude `(B, Y, X)` in degrees, height `(B, Y, X)` in m, or None.
        weight `(B, 1, 1, 1, Y, X)`: area of each point relative to the mean, 1 on planes and points.
        truth, of the shape of values: what is to be predicted, where `values` holds something else (forecasts in the place of later frames,
            or a coarse field); None where it is `values`.
        answers `(B, K)`: what a head for whole windows is to say, NaN where it is unknown; None where nothing is asked.

    Metadata: `layout`, `scales`, `patch` (the token size), `corpus` (its name), `calendar`, `coefficient_names`.
    """

    values: Tensor
    valid: Tensor
    seconds: Tensor
    step: Tensor
    season: Tensor
    hour: Tensor
    coefficients: Tensor
    known: Tensor
    weight: Tensor
    latitude: Tensor | None
    longitude: Tensor | None
    height: Tensor | None
    layout: Layout
    scales: Scales
    patch: Extent
    corpus: str
    calendar: str
    coefficient_names: tuple[str, ...]
    truth: Tensor | None = None
    answers: Tensor | None = None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        return self._map(lambda t: t.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        return self._map(lambda t: t.pin_memory())

    def select(self, index: slice) -> Batch:
        """Some of the samples."""
        return self._map(lambda t: t[index])

    def frames(self, index: slice) -> Batch:
        """Some of the frames."""
        names = ("values", "valid", "seconds", "season", "hour", *(("truth",) if self.truth is not None else ()))
        timed = {n: getattr(self, n)[:, index] for n in names}
        return replace(self, **timed, step=steps_of(timed["seconds"]))

    def target_values(self) -> Tensor:
        """What is to be predicted, frames 1 to T-1, in the variables' units."""
        return (self.values if self.truth is None else self.truth)[:, 1:]

    def shifted(self, points: Sequence[int]) -> Batch:
        """The fields moved by so many points along (Z, Y, X), around periodic axes of a plane; place and area stay where they are."""
        return replace(self, values=self.values.roll(tuple(points), (3, 4, 5)), valid=self.valid.roll(tuple(points), (3, 4, 5)))

    def used_by(self, stream: torch.cuda.Stream) -> None:
        """Tell the allocator that work of another stream than the one that made it will read the batch."""
        for tensor in self.tensors().values():
            tensor.record_stream(stream)

    def tensors(self) -> dict[str, Tensor]:
        """Those that are there, by the name of their field."""
        return {f.name: t for f in fields(self) if isinstance(t := getattr(self, f.name), Tensor)}

    def _map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        changed: dict[str, Any] = {name: function(tensor) for name, tensor in self.tensors().items()}
        return replace(self, **changed)

    def __len__(self) -> int:
        return int(self.values.shape[0])


@dataclass(frozen=True, slots=True)
class Places:
    """Where the points of B windows lie: the tensors of that name of a `Batch`."""

    latitude: Tensor | None
    longitude: Tensor | None
    height: Tensor | None
    weight: Tensor

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> Places:
        first = samples[0]
        latitude, longitude, height = (_coordinate(samples, n) for n in ("latitude", "longitude", "height"))
        curvilinear = latitude is not None and len(first.coordinates["latitude"].axes) == 2
        return cls(latitude, longitude, height, area(first.layout, latitude, longitude, curvilinear, len(samples)))

    def repeated(self, count: int) -> Places:
        """Those of one window for `count` windows."""
        latitude, longitude, height = (None if t is None else _repeated(t, count) for t in (self.latitude, self.longitude, self.height))
        return Places(latitude, longitude, height, _repeated(self.weight, count))


class Ground:
    """Makes `Places`. The areas of a curvilinear grid take longer than reading the fields on it, and most corpora have one grid: what was
    made last is given again where all windows are of that grid. Nobody may write into it."""

    def __init__(self) -> None:
        self._last: tuple[Mapping[str, Coordinate], Layout, int, Places] | None = None

    def under(self, samples: Sequence[Sample], layout: Layout) -> Places:
        """The places of samples of one layout, whose coordinates have the same names."""
        coordinates, count, last = samples[0].coordinates, len(samples), self._last
        if not all(_alike(s.coordinates, coordinates) for s in samples[1:]):
            return Places.of(samples)
        if last is not None and last[1:3] == (layout, count) and _alike(last[0], coordinates):
            return last[3]
        found = Places.of(samples[:1]).repeated(count)
        self._last = coordinates, layout, count, found
        return found


def collate(
    samples: Sequence[Sample],
    scales: Scales,
    corpus: str = "",
    patch: int = 8,
    stacked: tuple[Tensor, Tensor] | None = None,
    ground: Ground | None = None,
) -> Batch:
    """Samples of one layout and length to a batch; `patch` is the preferred token size in points.

    Args:
        stacked: values (0 where invalid) and valid of all samples, where they lie side by side already.
        ground: of the batches before; None: a new one.

    Raises:
        UserError: samples of different layouts or numbers of frames, or fewer than two frames.
    """
    first = samples[0]
    layout, calendar = first.layout, first.time.calendar
    for sample in samples[1:]:
        same = sample.layout == layout and sample.values.shape == first.values.shape
        same = same and sample.coordinates.keys() == first.coordinates.keys()
        if not same or sample.time.calendar != calendar:
            raise UserError(
                f"corpus {corpus!r}: samples do not share variables, grid, coordinates, frames and calendar; one batch needs one shape"
            )
    if len(first.time) < 2:
        raise UserError(f"corpus {corpus!r}: a window of {len(first.time)} frame has nothing to predict; at least 2 frames are needed")
    values, valid = _stacked(samples) if stacked is None else stacked
    seconds = np.stack([s.time.seconds for s in samples])
    season, hour = _clock(seconds, calendar)
    names = tuple(sorted({n for s in samples for n in s.coefficients}))
    coefficients = torch.tensor([[s.coefficients.get(n, 0.0) for n in names] for s in samples], dtype=torch.float32)
    known = torch.tensor([[n in s.coefficients for n in names] for s in samples], dtype=torch.bool)
    places = (ground or Ground()).under(samples, layout)
    return Batch(
        values=values,
        valid=valid,
        seconds=torch.from_numpy(seconds),
        step=steps_of(torch.from_numpy(seconds)),
        season=season,
        hour=hour,
        coefficients=coefficients.reshape(len(samples), len(names)),
        known=known.reshape(len(samples), len(names)),
        weight=places.weight,
        latitude=places.latitude,
        longitude=places.longitude,
        height=places.height,
        layout=layout,
        scales=scales,
        patch=choose_patch(layout.grid, patch, layout.geometry),
        corpus=corpus,
        calendar=calendar,
        coefficient_names=names,
    )


def _stacked(samples: Sequence[Sample]) -> tuple[Tensor, Tensor]:
    valid = torch.from_numpy(np.stack([s.valid for s in samples]))
    values = torch.from_numpy(np.stack([s.values for s in samples]))
    return (values if valid.all() else torch.where(valid, values, 0.0)), valid


def target_weight(batch: Batch) -> Tensor:
    """What each target counts, float32 `(B, T-1, C, Z, Y, X)`: its area where it is valid and of a predicted variable, else 0."""
    return batch.weight * (batch.valid[:, 1:] & which((v.predicted for v in batch.layout.variables), batch.valid))


def steps_of(seconds: Tensor) -> Tensor:
    """Time from each frame to the next, float32."""
    return seconds.diff(dim=1).to(torch.float32)


def _clock(seconds: np.ndarray, calendar: str) -> tuple[Tensor, Tensor]:
    """Season and hour of the frames `(B, T)`. Each instant is looked up once, whatever the number of windows that hold it."""
    if calendar == "none":
        return torch.zeros(seconds.shape), torch.zeros(seconds.shape)
    instants, place = np.unique(seconds, return_inverse=True)
    time = Time(instants, calendar)
    season, hour = (torch.from_numpy(fraction[place.reshape(seconds.shape)]) for fraction in (time.season(), time.hour()))
    return season, hour


def _repeated(one: Tensor, count: int) -> Tensor:
    return torch.from_numpy(np.repeat(one.numpy(), count, 0))


def _alike(a: Mapping[str, Coordinate], b: Mapping[str, Coordinate]) -> bool:
    """Whether coordinates of the same names are the same to the last bit: mostly they are one object, that of the record."""
    return a is b or all(c.axes == d.axes and _equal_bits(c.values, d.values) for c, d in ((c, b[name]) for name, c in a.items()))


def _equal_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a is b or np.array_equal(a.view(np.int64), b.view(np.int64))


def _coordinate(samples: Sequence[Sample], name: str) -> Tensor | None:
    """A coordinate on the `(Y, X)` grid of each sample, or None where the corpus has none."""
    if name not in samples[0].coordinates:
        return None
    _, y, x = samples[0].layout.grid
    shapes = {("y",): (y, 1), ("x",): (1, x), ("y", "x"): (y, x), (): (1, 1)}
    found = [s.coordinates[name] for s in samples]
    if any(c.axes not in shapes for c in found):
        return None
    grids = [c.values.reshape(shapes[c.axes]) for c in found]
    if len({grid.shape for grid in grids}) > 1:
        grids = [np.broadcast_to(grid, (y, x)) for grid in grids]
    stacked = np.nan_to_num(np.stack(grids)).astype(np.float32)
    return torch.from_numpy(np.broadcast_to(stacked, (len(grids), y, x)).copy())


def area(layout: Layout, latitude: Tensor | None, longitude: Tensor | None, curvilinear: bool, count: int) -> Tensor:
    """Area of each point relative to the mean, `(count, 1, 1, 1, Y, X)`, from places `(count, Y, X)`; 1 off the sphere."""
    _, y, x = layout.grid
    if layout.geometry != "sphere" or latitude is None or longitude is None:
        return torch.ones(count, 1, 1, 1, y, x)
    if curvilinear and y > 1 and x > 1:
        size = _cell_area(latitude, longitude, layout.boundary.periodic("x"))
    else:
        size = torch.cos(torch.deg2rad(latitude)).clamp(min=0.0)
    return (size / size.mean((-2, -1), keepdim=True).clamp(min=1e-12)).view(-1, 1, 1, 1, y, x).float()


def _cell_area(latitude: Tensor, longitude: Tensor, periodic: bool) -> Tensor:
    """Area of the cells of a curvilinear grid on the unit sphere, float64 `(B, Y, X)`: the cross product of the steps along y and x.

    The cosine of the latitude, which stands for the area on a regular grid, is off by a factor of two on ocean grids.
    """
    phi, lam = torch.deg2rad(latitude.double()), torch.deg2rad(longitude.double())
    place = torch.stack([phi.cos() * lam.cos(), phi.cos() * lam.sin(), phi.sin()], -1)
    if periodic:
        place = torch.cat([place[:, :, -1:], place, place[:, :, :1]], 2)
    area = torch.linalg.cross(_gradient(place, 1), _gradient(place, 2)).norm(dim=-1)
    return area[:, :, 1:-1] if periodic else area


def _gradient(field: Tensor, dim: int) -> Tensor:
    """`torch.gradient` along one axis, to the last bit; that function fixes the size of the batch in a program that is exported."""
    last = field.shape[dim] - 1
    inner = (field.narrow(dim, 2, last - 1) - field.narrow(dim, 0, last - 1)) / 2
    low, high = (field.narrow(dim, i, 1) - field.narrow(dim, i - 1, 1) for i in (1, last))
    return torch.cat([low, inner, high], dim)
