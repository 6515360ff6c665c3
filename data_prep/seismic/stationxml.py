"""Station metadata: StationXML files read as one, and their channels by id and instant."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scigpt.data_prep.formats.opening import one_sentence
from scigpt.data_prep.seismic.waveforms import obspy


def is_stationxml(head: bytes) -> bool:
    return b"FDSNStationXML" in head


class Metadata:
    """The channels of inventories, each with its epochs."""

    def __init__(self, *inventories: Any) -> None:
        self._epochs: dict[str, list[Any]] = {}
        for inventory in inventories:
            for network in inventory:
                for station in network:
                    for channel in station:
                        name = f"{network.code}.{station.code}.{channel.location_code}.{channel.code}"
                        self._epochs.setdefault(name, []).append(channel)

    def channel(self, name: str, at: int) -> Any:
        """obspy's channel of `NET.STA.LOC.CHA` at an instant in nanoseconds since 1970; None where there is none."""
        moment = obspy().UTCDateTime(ns=at)
        for found in self._epochs.get(name, ()):
            begun = found.start_date is None or found.start_date <= moment
            if begun and (found.end_date is None or moment <= found.end_date):
                return found
        return None

    def orientation(self, name: str, at: int) -> tuple[float, float] | None:
        """Azimuth and dip of a channel in degrees; None where they are not stated."""
        found = self.channel(name, at)
        if found is None or found.azimuth is None or found.dip is None:
            return None
        return float(found.azimuth), float(found.dip)

    def place(self, name: str, at: int) -> dict[str, float] | None:
        """Latitude, longitude and height of the sensor."""
        found = self.channel(name, at)
        if found is None:
            return None
        return {"latitude": float(found.latitude), "longitude": float(found.longitude), "height": float(found.elevation)}

    def has_response(self, name: str, at: int) -> bool:
        found = self.channel(name, at)
        return found is not None and found.response is not None and bool(found.response.response_stages)


def read_metadata(paths: Sequence[Path]) -> Metadata:
    """All channels of some StationXML files.

    Raises:
        UserError: one that is none, or damaged.
    """
    return _read(tuple((p, p.stat().st_mtime_ns, p.stat().st_size) for p in paths))


@functools.lru_cache(4)
def _read(paths: tuple[tuple[Path, int, int], ...]) -> Metadata:
    found = []
    for path, _, _ in paths:
        with one_sentence(path, "read as StationXML"):
            found.append(obspy().read_inventory(str(path), format="STATIONXML"))
    return Metadata(*found)
