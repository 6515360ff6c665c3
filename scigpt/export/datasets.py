"""An `xarray.Dataset` as the inputs of a domain. What does not fit is refused in one sentence, never guessed.

The way back, forecasts as datasets, is in `scigpt.export.results`.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from scigpt.data.domain import Domain
from scigpt.data.sample import SPACE_AXES, Origin, Sample, Time
from scigpt.data.variables import QUANTITIES, convert, same_unit
from scigpt.errors import UserError
from scigpt.export import places, times
from scigpt.export.matching import Match, inputs, lacking, match
from scigpt.export.places import Places
from scigpt.export.results import result, to_dataset

__all__ = ["Given", "choose", "result", "to_dataset"]

MAX_OUT_OF_BOUNDS = 1e-3
"""Share of values that may be implausible and are taken as gaps; more speaks for a wrong unit."""

_log = logging.getLogger(__name__)


def choose(dataset: xr.Dataset, domains: Sequence[Domain], name: str | None = None) -> Domain:
    """The domain whose inputs a dataset holds: of several the one that also has its calendar, step and grid, or takes the most variables.

    Args:
        name: of the domain, where it is known.

    Raises:
        UserError: no such domain, none that fits, or several that fit equally.
    """
    known = {d.name: d for d in domains}
    if name is not None:
        if name in known:
            return known[name]
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else "choose one of these"
        raise UserError(f"there is no domain {name!r} among {', '.join(known)}; {hint}")
    missing = {d.name: match(dataset, d)[1] for d in domains}
    fitting = [d for d in domains if not missing[d.name]]
    if not fitting:
        nearest = min(domains, key=lambda d: (len(missing[d.name]) / max(1, len(inputs(d))), -len(inputs(d))))
        raise UserError(
            f"the dataset fits none of the domains {', '.join(known)}; for {nearest.name} it lacks "
            f"{lacking(dataset, nearest, missing[nearest.name])}"
        )
    if len(fitting) > 1:
        fitting = [d for d in fitting if _usable(dataset, d)] or fitting
        most = max(len(inputs(d)) for d in fitting)
        fitting = [d for d in fitting if len(inputs(d)) == most]
    if len(fitting) > 1:
        raise UserError(f"the dataset fits the domains {', '.join(d.name for d in fitting)} equally; name one of them (domain=)")
    return fitting[0]


def _usable(dataset: xr.Dataset, domain: Domain) -> bool:
    try:
        Given.of(dataset, domain)
    except UserError:
        return False
    return True


@dataclass(frozen=True, eq=False)
class Given:
    """A dataset seen as the inputs of a domain; values are read when a sample is asked for.

    Args:
        times: of all frames of the dataset, in the calendar of the domain.
        time: dimension of the frames, None where the dataset has none.
    """

    dataset: xr.Dataset
    domain: Domain
    times: Time
    time: str | None
    matches: tuple[Match, ...]
    places: Places
    coefficients: Mapping[str, float]

    @classmethod
    def of(cls, dataset: xr.Dataset, domain: Domain, strict: bool = True) -> Given:
        """
        Args:
            dataset: with times decoded. Variables are found by standard name, name or alias, and level; diagnostics are not needed.
            strict: refuse another time step or grid spacing than in training; otherwise warn.

        Raises:
            UserError: whatever does not fit: a variable that is missing or ambiguous, a unit, a calendar, a step, a spacing, a dimension.
        """

        def complain(sentence: str) -> None:
            if strict:
                raise UserError(sentence)
            _log.warning("%s", sentence)

        matches, missing = match(dataset, domain)
        if missing:
            raise UserError(f"for the domain {domain.name} the dataset lacks {lacking(dataset, domain, missing)}")
        used = list(dict.fromkeys(str(d) for m in matches for d in dataset.variables[m.name].dims))
        levels = {m.level[0] for m in matches if m.level is not None}
        time, dim = Time.regular(0.0, 1.0, 2), None
        if not domain.layout.steady:
            found = times.find(dataset, used)
            if found is None:
                raise UserError(
                    f"the dataset has no time (by standard_name, axis or name) on the dimensions {', '.join(used) or 'of its variables'}; "
                    f"expected a coordinate time with one value for each frame"
                )
            time, dim = times.read(dataset, found[0], domain), found[1]
            times.check_step(time, domain, complain)
        where = places.find(dataset, [d for d in used if d not in levels and d != dim], domain, complain)
        given = cls(dataset, domain, time, dim, tuple(matches), where, _coefficients(dataset, domain))
        for each in matches:
            given._check(each)
        return given

    def index(self, instant: str) -> int:
        """The frame of an instant such as `2020-01-01T06`, or of a number in simulated time.

        Raises:
            UserError: no frame there, or several.
        """
        return times.index(self.times, instant)

    def sample(self, start: int | None, context: int, steps: int) -> Sample:
        """What is known up to a frame, and the frames to forecast, in which states are hidden even if the dataset has them.

        Args:
            start: the last frame that is known, by default the last one with a state.
            context: frames that are known; fewer where the dataset begins later, but two.
            steps: frames to forecast; beyond the dataset its times go on.

        Returns:
            A sample of `context + steps` frames; of a steady problem of two.

        Raises:
            UserError: no state at the start, too few frames, forcings that end too early, statics that change, values that cannot be right.
        """
        if self.domain.layout.steady:
            return self._made(0, 0, self.times)
        last = self._last() if start is None else start
        if not 0 <= last < len(self.times):
            raise UserError(f"start is frame {last}, and the dataset has the frames 0 to {len(self.times) - 1}")
        first = max(0, last - context + 1)
        needed = min(2, context)
        if last - first + 1 < needed:
            raise UserError(
                f"a forecast from {self.times.labels()[last]} has {last - first + 1} known frame, and at least {needed} are needed; "
                f"start later, or give earlier frames"
            )
        end = last + steps + 1
        time = times.extended(self.times, max(0, end - len(self.times)), self.domain)[first:end]
        sample = self._made(first, last, time)
        states = [m.channel for m in self.matches if m.variable.role == "state"]
        if not sample.valid[:, states].any():
            raise UserError(f"the dataset has no valid state in the {last - first + 1} frames up to {self.times.labels()[last]}")
        return sample

    def _made(self, first: int, last: int, time: Time) -> Sample:
        layout = self.domain.layout
        shape = (len(time), len(layout.variables), *self.places.sizes)
        values, valid = np.zeros(shape, np.float32), np.zeros(shape, bool)
        for each in self.matches:
            c, role = each.channel, each.variable.role
            if not self._timed(each):
                shown = slice(0, last + 1 - first if role == "state" else None)
                values[shown, c], valid[shown, c] = self._read(each, first, first + 1)
            elif role == "static":
                values[:, c], valid[:, c] = self._constant(each, first, last + 1)
            else:
                stop = last + 1 if role == "state" else first + len(time)
                if stop > len(self.times):
                    self._too_short(each, time, len(self.times) - 1)
                field, there = self._read(each, first, stop)
                for frame in range(last + 1 - first, stop - first):
                    if not there[frame].any():
                        self._too_short(each, time, first + frame - 1)
                values[: stop - first, c], valid[: stop - first, c] = field, there
        origin = Origin("xarray.Dataset", "as of the dataset")
        return Sample(
            values,
            valid,
            layout.variables,
            time,
            origin,
            layout.geometry,
            self.places.boundary,
            self.places.coordinates,
            self.coefficients,
            layout.steady,
        )

    def _too_short(self, each: Match, time: Time, last: int) -> None:
        raise UserError(
            f"the forcing {each.variable.key} has to be known for every frame that is forecast: it ends at {self.times.labels()[last]} in "
            f"the dataset's variable {each.name} and is needed up to {time.labels()[-1]}; give it up to there, or forecast fewer steps"
        )

    def _timed(self, each: Match) -> bool:
        return self.time is not None and self.time in self.dataset.variables[each.name].dims

    def _check(self, each: Match) -> None:
        dims = self.dataset.variables[each.name].dims
        missing = [d for d in self.places.dims.values() if d is not None and d not in dims]
        if missing:
            raise UserError(f"the dataset's variable {each.name} lacks the dimension {' and '.join(missing)}, which the others have")
        if each.variable.role == "state" and len(self.times) > 1 and not self._timed(each):
            raise UserError(f"the dataset's variable {each.name} has no time, and {each.variable.key} changes in time")

    def _last(self) -> int:
        """The last frame with a state, found from the end, so that little is read."""
        states = [m for m in self.matches if m.variable.role == "state"]
        for frame in reversed(range(len(self.times))):
            if any(self._raw(m, frame, frame + 1)[1].any() for m in states):
                return frame
        names = ", ".join(m.name for m in states)
        raise UserError(f"the dataset has no valid value of {names} in any frame; a forecast needs states to start from")

    def _constant(self, each: Match, first: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        values, valid = self._read(each, first, stop)
        low, high = (f(values, axis=0, where=valid, initial=end) for f, end in ((np.min, np.inf), (np.max, -np.inf)))
        if (low < high).any():
            raise UserError(f"the dataset's variable {each.name} changes in time, and {each.variable.key} of {self.domain.name} does not")
        known = np.argmax(valid, axis=0)[None]  # for each point the first frame that has it
        return np.take_along_axis(values, known, 0)[0], np.take_along_axis(valid, known, 0)[0]

    def _raw(self, each: Match, first: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Frames as they are, and which values are given: `(T, Z, Y, X)`, one frame where there is no time."""
        variable = self.dataset.variables[each.name]
        kept = [d for d in self.places.dims.values() if d is not None]
        take: dict[Any, Any] = {d: 0 for d in variable.dims if d not in kept}
        if each.level is not None:
            take[each.level[0]] = each.level[1]
        if self._timed(each):
            take[self.time] = slice(first, stop)
            kept = [str(self.time), *kept]
        values = variable.isel(take).transpose(*kept).to_numpy()
        values = values.astype(np.float64 if values.dtype.kind in "iub" else values.dtype).reshape(-1, *self.places.sizes)
        values = np.flip(values, tuple(1 + i for i, a in enumerate(SPACE_AXES) if a in self.places.flipped))
        valid = np.isfinite(values)
        return values, valid if self.places.known is None else valid & self.places.known

    def _read(self, each: Match, first: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Frames in the domain's unit, float32; what is implausible is a gap."""
        values, valid = self._raw(each, first, stop)
        values = convert(values, each.unit, each.variable.unit, f"the dataset's variable {each.name}").astype(np.float32)
        quantity = QUANTITIES.find(each.variable.name)
        if quantity is not None and same_unit(quantity.unit, each.variable.unit):
            outside = valid & ((values < quantity.low) | (values > quantity.high))
            if outside.sum() > MAX_OUT_OF_BOUNDS * valid.sum():
                worst = values[outside][0]
                raise UserError(
                    f"{outside.sum() / valid.sum():.3%} of the values of the dataset's variable {each.name} lie outside "
                    f"{quantity.low:g} to {quantity.high:g} {quantity.unit}, such as {worst:g}; its unit {each.unit!r} may be wrong"
                )
            if outside.any():
                _log.warning("%d values of the dataset's variable %s are implausible and taken as gaps", outside.sum(), each.name)
                valid &= ~outside
        return np.where(valid, values, np.float32(0)), valid


def _coefficients(dataset: xr.Dataset, domain: Domain) -> dict[str, float]:
    """From attributes or scalar variables; one that is not told is unknown to the model."""
    found = {}
    for name, (low, high) in domain.coefficients.items():
        scalar = dataset.variables.get(name)
        told = dataset.attrs.get(name) if scalar is None or scalar.ndim else scalar.to_numpy()[()]
        if told is None:
            continue
        try:
            found[name] = float(told)
        except (TypeError, ValueError):
            raise UserError(f"the dataset's coefficient {name} is {told!r}; expected a number") from None
        if not low <= found[name] <= high:
            _log.warning("the coefficient %s is %g, and the domain %s was learned with %g to %g", name, found[name], domain.name, low, high)
    return found
