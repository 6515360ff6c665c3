"""Tables that give the channels of a fibre their places."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scigpt.data_prep.datamap import TableFormat
from scigpt.data_prep.tables import read_table
from scigpt.errors import UserError


def read_map(path: Path) -> dict[str, dict[float, float]]:
    """Of each coordinate (`x` in m, or `latitude`, `longitude` and where there is one `height`) channel to value.

    Raises:
        UserError: no column channel, no place, or a channel that is no number or stands there twice.
    """
    table = read_table(path, TableFormat())
    names = {c.lower(): c for c in table.frame.columns}
    if "channel" not in names:
        raise UserError(f"{path.name} has no column channel; expected channel and depth, distance, or latitude and longitude")
    channels = table.numbers(names["channel"], "channel_map")
    if {"latitude", "longitude"} <= set(names):
        chosen = {"latitude": "latitude", "longitude": "longitude"} | ({"height": "height"} if "height" in names else {})
    else:
        chosen = {"x": next((n for n in ("depth", "distance") if n in names), "")}
        if not chosen["x"]:
            raise UserError(f"{path.name} has no column depth, distance, or latitude and longitude; expected the place of each channel")
    if not np.isfinite(channels).all() or len(np.unique(channels)) < len(channels) or (channels % 1 != 0).any():
        raise UserError(f"{path.name}: the column channel must hold each channel's number once")
    return {n: dict(zip(channels.tolist(), table.numbers(names[c], "channel_map").tolist(), strict=True)) for n, c in chosen.items()}
