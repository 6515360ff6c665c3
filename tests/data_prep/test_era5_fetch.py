"""What `scigpt data fetch era5` asks for: parts of stores, and requests to the climate data store."""

from __future__ import annotations

from typing import Any

import pytest

from scigpt.data_prep.source import Remote
from scigpt.data_prep.sources.era5 import Era5
from scigpt.errors import UserError


def fetched(**options: Any) -> list[Remote]:
    def get(url: str) -> bytes:
        raise AssertionError(url)

    return list(Era5.remotes(Era5.Fetch(**options), get))


def test_stores_are_selected_by_variable_level_time_and_region() -> None:
    (remote,) = fetched(start="2019-02-01", stop="2019-02-03", latitude=(35.0, 60.0))
    assert remote.url == "gs://weatherbench2/datasets/era5/1959-2023_01_10-6h-64x32_equiangular_conservative.zarr"
    assert (remote.kind, remote.login, remote.file) == ("zarr", None, "era5-weatherbench-64x32-20190201-20190203.zarr")
    assert remote.select["start"] == "2019-02-01"
    assert remote.select["stop"] == "2019-02-03"
    assert remote.select["levels"] == [500, 850]
    assert remote.select["latitude"] == [35.0, 60.0]
    assert "geopotential_at_surface" in remote.select["variables"]
    (remote,) = fetched(route="arco", variables=("2m_temperature",), server="http://127.0.0.1:9/ar")
    assert remote.url == "http://127.0.0.1:9/ar/full_37-1h-0p25deg-chunk-1.zarr-v3"
    assert "levels" not in remote.select


def test_requests_to_the_climate_data_store() -> None:
    requests = fetched(route="cds", start="2020-01-30", stop="2020-02-02", every=12, latitude=(40.0, 60.0), longitude=(-10.0, 20.0))
    assert [r.file for r in requests] == [
        "era5-pressure-levels-2020-01.grib",
        "era5-single-levels-2020-01.grib",
        "era5-pressure-levels-2020-02.grib",
        "era5-single-levels-2020-02.grib",
        "era5-static.grib",
    ]
    assert all((r.kind, r.login) == ("cds", "cds") for r in requests)
    assert requests[0].url == "reanalysis-era5-pressure-levels"
    assert requests[0].select == {
        "product_type": ["reanalysis"],
        "variable": ["geopotential", "temperature"],
        "year": ["2020"],
        "month": ["01"],
        "day": ["30", "31"],
        "time": ["00:00", "12:00"],
        "data_format": "grib",
        "download_format": "unarchived",
        "pressure_level": ["500", "850"],
        "area": [60.0, -10.0, 40.0, 20.0],
    }
    assert requests[3].select["variable"] == ["2m_temperature", "mean_sea_level_pressure"]
    assert requests[3].select["day"] == ["01", "02"]
    assert requests[4].select["variable"] == ["geopotential", "land_sea_mask"]
    assert requests[4].select["time"] == ["00:00"]
    across = fetched(route="cds", variables=("2m_temperature",), longitude=(350.0, 20.0))
    assert [r.select["area"] for r in across] == [[90.0, -10.0, -90.0, 20.0]]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"start": "2020"}, "option start='2020' is not a day"),
        ({"stop": "2019-01-01"}, "stop=2019-01-01 is before start=2020-01-01"),
        ({"resolution": "64x23"}, "did you mean 64x32?"),
        ({"route": "cds", "every": 5}, "every=5 does not divide the 24 hours"),
        ({"route": "cds", "levels": ()}, "have pressure levels; say which"),
        ({"variables": ()}, "variables= is empty"),
        ({"latitude": (60.0, 35.0)}, "latitude=60.0,35.0 is not a region"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        fetched(**options)
    assert sentence in str(caught.value)
