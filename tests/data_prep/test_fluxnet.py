"""FLUXNET: equal to pandas and to arithmetic in every unit of every resolution; quality in both senses, local time, damaged tables."""

from __future__ import annotations

import functools
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from damage import HTML, PNG, cut
from readings import real, refusal_of, samples_of

from scigpt.data.corpus import Corpus
from scigpt.data.sample import Sample
from scigpt.data_prep.convert import convert
from scigpt.data_prep.formats import fluxnet_csv
from scigpt.data_prep.sources.fluxnet import Fluxnet
from scigpt.errors import UserError

PUECHABON = {"latitude": 43.7413, "longitude": 3.5957}
REAL = "fluxnet/FLX_FR-Pue_FLUXNET2015_FULLSET_MM_2007-2014_2-3.csv"
SNAPSHOT = "fluxnet/fluxnet_shuttle_snapshot_20260203T151729.csv"
JUDGED = [
    *("TA_F", "SW_IN_F", "LW_IN_F", "VPD_F", "PA_F", "P_F", "WS_F", "USTAR", "NETRAD", "SW_OUT", "LW_OUT", "PPFD_IN", "CO2_F_MDS"),
    *("TS_F_MDS_1", "G_F_MDS", "LE_F_MDS", "H_F_MDS", "NEE_VUT_REF", "NEE_VUT_REF", "NEE_VUT_REF"),
]
"""Columns whose quality judges the variables, in their order."""
C = 12.011e-9
"""Kilograms of carbon in a micromole."""

read = functools.partial(samples_of, Fluxnet)
refusal = functools.partial(refusal_of, Fluxnet)
puechabon = functools.partial(read, **PUECHABON, split="train", frames_per_sample=20000)


def stamps(resolution: str, year: int, years: int = 1) -> dict[str, list[str]]:
    """All rows of whole years, as the files write them."""
    first, after = np.datetime64(f"{year}", "s"), np.datetime64(f"{year + years}", "s")
    if resolution == "MM":
        return {"TIMESTAMP": pd.period_range(str(year), periods=12 * years, freq="M").strftime("%Y%m").tolist()}
    step = {"HH": 1800, "HR": 3600, "DD": 86400, "WW": 7 * 86400}[resolution]
    starts = pd.to_datetime(np.arange(first, after, step))
    if resolution == "DD":
        return {"TIMESTAMP": starts.strftime("%Y%m%d").tolist()}
    form = "%Y%m%d%H%M" if resolution != "WW" else "%Y%m%d"
    return {
        "TIMESTAMP_START": starts.strftime(form).tolist(),
        "TIMESTAMP_END": (starts + pd.Timedelta(seconds=step)).strftime(form).tolist(),
    }


def table(path: Path, resolution: str, columns: dict[str, Any], year: int = 2019, years: int = 1, head: str = "") -> Path:
    """A table of whole years; a column is one value for all rows or a list that is repeated."""
    told: dict[str, Any] = stamps(resolution, year, years)
    count = len(next(iter(told.values())))
    frame = pd.DataFrame({**told, **{k: np.resize(v, count) for k, v in columns.items()}})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(head + frame.to_csv(index=False), encoding="ascii")
    return path


def named(folder: Path, resolution: str, site: str = "FR-Pue", year: int = 2019, years: int = 1) -> Path:
    return folder / f"FLX_{site}_FLUXNET2015_FULLSET_{resolution}_{year}-{year + years - 1}_1-4.csv"


def column(sample: Sample, name: str) -> np.ndarray:
    """Values with NaN in the gaps, `(T, X)`."""
    index = [v.name for v in sample.variables].index(name)
    return np.where(sample.valid, sample.values, np.nan)[:, index, 0, 0]


# --- the real table of months


@pytest.fixture(scope="module")
def months() -> tuple[Sample, pd.DataFrame]:
    path = real(REAL)
    (sample,) = puechabon(path)
    return sample, pd.read_csv(path, na_values=[-9999])


def test_real_months_equal_pandas_in_the_units_of_the_registry(months: tuple[Sample, pd.DataFrame]) -> None:
    sample, frame = months
    expected = {
        "air_temperature": frame.TA_F + 273.15,
        "surface_downwelling_shortwave_flux": frame.SW_IN_F,
        "surface_downwelling_longwave_flux": frame.LW_IN_F,
        "vapour_pressure_deficit": frame.VPD_F * 100,
        "surface_air_pressure": frame.PA_F * 1000,
        "precipitation_flux": frame.P_F / 86400,
        "wind_speed": frame.WS_F,
        "friction_velocity": frame.USTAR,
        "surface_net_downward_radiative_flux": frame.NETRAD,
        "surface_upwelling_shortwave_flux": frame.SW_OUT,
        "surface_upwelling_longwave_flux": frame.LW_OUT,
        "photosynthetic_photon_flux": frame.PPFD_IN * 1e-6,
        "carbon_dioxide_mole_fraction": frame.CO2_F_MDS,
        "soil_temperature": frame.TS_F_MDS_1 + 273.15,
        "soil_heat_flux": frame.G_F_MDS,
        "surface_upward_latent_heat_flux": frame.LE_F_MDS,
        "surface_upward_sensible_heat_flux": frame.H_F_MDS,
        "net_ecosystem_exchange": frame.NEE_VUT_REF * 1e-3 / 86400,
        "ecosystem_respiration": frame.RECO_NT_VUT_REF * 1e-3 / 86400,
        "gross_primary_productivity": frame.GPP_NT_VUT_REF * 1e-3 / 86400,
    }
    quality = {
        name: frame[f"{c}_QC"]
        for name, c in zip(
            expected,
            JUDGED,
            strict=True,
        )
    }
    assert [v.name for v in sample.variables] == list(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(column(sample, name)[:, 0], values.where(quality[name] >= 0.5), rtol=2e-7, err_msg=name)
    assert all(v.role == "state" for v in sample.variables)
    np.testing.assert_array_equal(sample.coordinates["latitude"].values, [43.7413])
    np.testing.assert_array_equal(sample.coordinates["longitude"].values, [3.5957])
    assert sample.origin.about["stations"] == ["FR-Pue"]


def test_real_months_are_calendar_months(months: tuple[Sample, pd.DataFrame]) -> None:
    sample, frame = months
    begins = pd.to_datetime(frame.TIMESTAMP.astype(str), format="%Y%m").to_numpy().astype("datetime64[s]")
    seconds = (begins - np.datetime64("2000-01-01", "s")).astype(float)
    assert sample.time.bounds is not None
    np.testing.assert_array_equal(sample.time.bounds[:, 0], seconds)
    np.testing.assert_array_equal(sample.time.bounds[:-1, 1], seconds[1:])
    assert sample.time.bounds[-1, 1] - sample.time.bounds[-1, 0] == 31 * 86400


def test_trap_a_month_of_quality_0_is_no_measurement_though_it_has_a_value(months: tuple[Sample, pd.DataFrame]) -> None:
    sample, frame = months
    empty = (frame.NEE_VUT_REF_QC == 0).to_numpy()
    assert empty.any()
    assert frame.NEE_VUT_REF[empty].notna().all()
    for name in ("net_ecosystem_exchange", "gross_primary_productivity", "ecosystem_respiration"):
        assert np.isnan(column(sample, name)[empty]).all()
    unknown = frame.LE_F_MDS_QC.isna() & frame.LE_F_MDS.notna()
    assert unknown.any()
    assert np.isnan(column(sample, "surface_upward_latent_heat_flux")[unknown]).all()
    (every,) = puechabon(real(REAL), quality="any")
    assert np.isfinite(column(every, "net_ecosystem_exchange")).all()
    (all_good,) = puechabon(real(REAL), quality="measured")
    np.testing.assert_array_equal(np.isfinite(column(all_good, "air_temperature"))[:, 0], frame.TA_F_QC == 1)


def test_a_damaged_copy_of_the_real_table_is_refused(tmp_path: Path) -> None:
    whole, path = real(REAL).read_bytes(), tmp_path / Path(REAL).name
    lines = whole.split(b"\n")
    spoilt = {
        **{f"cut at {share:.0%}": cut(whole, share) for share in (0.0, 0.3, 0.6, 0.99)},
        "cut at a line": b"\n".join(lines[:50]) + b"\n",
        "a line lost": b"\n".join(lines[:40] + lines[41:]),
        "a line twice": b"\n".join([*lines[:40], lines[39], *lines[40:]]),
        "a letter": whole.replace(b"0.955645", b"0.9s5645"),
        "a byte that is no text": whole.replace(b"0.955645", b"0.9\xb05645"),
        "a separator": whole.replace(b",0.955645,", b";0.955645,"),
        "a time": whole.replace(b"\n200903,", b"\n20O903,"),
        "HTML": HTML,
        "PNG": PNG,
    }
    for about, data in spoilt.items():
        path.write_bytes(data)
        sentence = refusal(path, **PUECHABON)
        assert path.name.split(".")[0] in sentence, about


def test_the_last_cell_of_a_table_without_a_last_line_feed_is_not_believed(tmp_path: Path) -> None:
    path = table(named(tmp_path, "DD"), "DD", {"WS_F_QC": 1, "TA_F": 2.5, "TA_F_QC": 1, "WS_F": 4.25})
    path.write_bytes(path.read_bytes().removesuffix(b"25\n"))
    (sample,) = puechabon(path)
    assert np.isnan(column(sample, "wind_speed")[-1, 0])
    np.testing.assert_array_equal(column(sample, "wind_speed")[:-1], 4.25)
    np.testing.assert_array_equal(column(sample, "air_temperature"), np.float32(275.65))


# --- units and quality of each resolution


def test_trap_carbon_and_rain_change_their_units_with_the_resolution(tmp_path: Path) -> None:
    columns = {"P_F": [6.0], "P_F_QC": 1, "NEE_VUT_REF": [-2.0], "NEE_VUT_REF_QC": 1, "GPP_NT_VUT_REF": 3.0, "RECO_NT_VUT_REF": 1.0}
    gram_a_day = 1e-3 / 86400
    for resolution, carbon in {"HH": C, "HR": C, "DD": gram_a_day, "MM": gram_a_day}.items():
        (sample,) = puechabon(table(named(tmp_path, resolution), resolution, columns))
        np.testing.assert_allclose(column(sample, "net_ecosystem_exchange"), -2 * carbon, rtol=1e-6)
        np.testing.assert_allclose(column(sample, "gross_primary_productivity"), 3 * carbon, rtol=1e-6)
        np.testing.assert_allclose(column(sample, "ecosystem_respiration"), carbon, rtol=1e-6)
        if resolution == "MM":  # a mean rate, not the total of the month
            np.testing.assert_allclose(column(sample, "precipitation_flux"), 6 / 86400, rtol=1e-6)
        else:
            np.testing.assert_array_equal(column(sample, "precipitation_amount"), 6)
        step = np.diff(sample.time.bounds, axis=1) if sample.time.bounds is not None else np.zeros(1)
        assert (step == {"HH": 1800, "HR": 3600, "DD": 86400}.get(resolution, step)).all()


def test_trap_quality_has_the_opposite_sense_in_half_hours_and_in_days(tmp_path: Path) -> None:
    codes = table(named(tmp_path, "HH"), "HH", {"TA_F": [1.0, 2.0, 3.0, 4.0, 5.0], "TA_F_QC": [0, 1, 2, 3, -9999]})
    for quality, kept in {"measured": [0], "good": [0, 1], "medium": [0, 1, 2], "any": [0, 1, 2, 3, 4]}.items():
        (sample,) = puechabon(codes, quality=quality)
        assert np.flatnonzero(sample.valid[:5, 0, 0, 0, 0]).tolist() == kept, quality
    shares = table(named(tmp_path, "DD"), "DD", {"TA_F": [1.0, 2.0, 3.0, 4.0, 5.0], "TA_F_QC": [0, 0.3, 0.6, 1, -9999]})
    for quality, kept in {"measured": [3], "good": [2, 3], "medium": [1, 2, 3], "any": [0, 1, 2, 3, 4]}.items():
        (sample,) = puechabon(shares, quality=quality)
        assert np.flatnonzero(sample.valid[:5, 0, 0, 0, 0]).tolist() == kept, quality


def test_a_quality_of_the_other_resolution_is_refused(tmp_path: Path) -> None:
    share = table(named(tmp_path, "HH"), "HH", {"TA_F": 1.0, "TA_F_QC": [1, 0.75]})
    assert "TA_F_QC is 0.75; expected 0, 1, 2 or 3" in refusal(share, **PUECHABON)
    code = table(named(tmp_path, "DD"), "DD", {"TA_F": 1.0, "TA_F_QC": [1, 2]})
    assert "TA_F_QC is 2; expected a share from 0 to 1" in refusal(code, **PUECHABON)


def test_a_filled_column_without_its_quality_is_left_out_unless_any_is_wanted(tmp_path: Path) -> None:
    path = table(named(tmp_path, "DD"), "DD", {"TA_F": 1.0, "WS_F": 2.0, "WS_F_QC": 1, "RH": 50.0})
    source = Fluxnet([path], Fluxnet.Options(**PUECHABON))
    assert any("TA_F" in note and "quality=any" in note for note in source.plan().notes)
    assert [v.name for v in puechabon(path)[0].variables] == ["wind_speed", "relative_humidity"]
    assert "air_temperature" in [v.name for v in puechabon(path, quality="any")[0].variables]


def test_minus_9999_is_a_gap_and_soil_water_is_a_fraction(tmp_path: Path) -> None:
    path = table(named(tmp_path, "HH"), "HH", {"SWC_F_MDS_1": [25.0, -9999], "SWC_F_MDS_1_QC": 0, "CO2_F_MDS": 410.0, "CO2_F_MDS_QC": 0})
    (sample,) = puechabon(path, forcings=("carbon_dioxide_mole_fraction",))
    np.testing.assert_allclose(column(sample, "soil_water_content")[:2, 0], [0.25, np.nan])
    assert {v.name: v.role for v in sample.variables} == {"soil_water_content": "state", "carbon_dioxide_mole_fraction": "forcing"}
    assert "forcings=co2_mole" in refusal(path, forcings=("co2_mole",), **PUECHABON)


# --- where and when


def list_of_sites(
    path: Path, *rows: str, columns: str = "site_id,location_lat,location_long,utc_offset,igbp,site_name,product_citation"
) -> Path:
    path.write_text("\n".join([columns, *rows]) + "\n", encoding="utf-8")
    return path


def first_instant(sample: Sample) -> str:
    assert sample.time.bounds is not None
    return str(np.datetime64("2000-01-01", "s") + np.timedelta64(int(sample.time.bounds[0, 0]), "s"))


def test_trap_half_hours_are_in_local_standard_time_without_summer_time(tmp_path: Path) -> None:
    path = table(named(tmp_path, "HH"), "HH", {"TA_F": np.arange(17520) % 48 / 4, "TA_F_QC": 0})
    (sample,) = puechabon(path, utc_offset=1)
    assert first_instant(sample) == "2018-12-31T23:00:00"
    assert sample.time.bounds is not None
    hour = sample.time.bounds[:, 0] % 86400 / 3600
    assert set(hour[column(sample, "air_temperature")[:, 0] == np.float32(279.15)]) == {11.0}  # noon, in January and in July
    assert first_instant(puechabon(path)[0]) == "2019-01-01T00:00:00"  # by its longitude of 3.6 degrees
    notes = Fluxnet([path], Fluxnet.Options(**PUECHABON)).plan().notes
    assert any("UTC offset of FR-Pue" in n and "utc_offset=" in n for n in notes)
    assert not any("UTC" in n for n in Fluxnet([path], Fluxnet.Options(**PUECHABON, utc_offset=1)).plan().notes)


def test_the_list_of_sites_gives_place_offset_and_thanks_wherever_it_is(tmp_path: Path) -> None:
    path = table(named(tmp_path / "data", "HH", "IN-Xyz"), "HH", {"TA_F": 20.0, "TA_F_QC": 0})
    cited = '"A. Person (2025), doi:10.1/abc"'
    sites = list_of_sites(tmp_path / "data" / "sites.csv", f"IN-Xyz,12.5,77.5,5.5,GRA,Some Place,{cited}", "US-Abc,40,-100,-6,ENF,Other,x")
    for inputs, options in (([tmp_path / "data"], {}), ([path], {"sites": str(sites)})):
        source = Fluxnet(inputs, Fluxnet.Options(split="train", **options))
        plan = source.plan()
        assert [name for name, _ in plan.inputs] == [path.name, "sites.csv"]
        sample = next(s for s in source.samples(plan.refs) if s is not None)
        assert first_instant(sample) == "2018-12-31T18:30:00"
        assert sample.coordinates["latitude"].values.tolist() == [12.5]
        assert "doi:10.1/abc" in sample.origin.attribution
        assert sample.origin.licence == "CC-BY-4.0"
        assert sample.origin.about["name"] == ["Some Place"]
    assert "no list says where IN-Xyz stands" in refusal(path)


def test_days_keep_their_local_date(tmp_path: Path) -> None:
    path = table(named(tmp_path, "DD", "AU-Abc"), "DD", {"TA_F": 20.0, "TA_F_QC": 1})
    (sample,) = read(path, latitude=-30, longitude=150, utc_offset=10, split="train", frames_per_sample=366)
    assert first_instant(sample) == "2019-01-01T00:00:00"


def test_two_towers_become_points_and_miss_what_they_do_not_measure(tmp_path: Path) -> None:
    a = table(named(tmp_path, "DD", "US-Aaa", 2018, 2), "DD", {"TA_F": 20.0, "TA_F_QC": 1}, 2018, 2)
    b = table(named(tmp_path, "DD", "US-Bbb"), "DD", {"TA_F": 10.0, "TA_F_QC": 1, "WS_F": 3.0, "WS_F_QC": 1})
    sites = list_of_sites(tmp_path / "sites.csv", "US-Aaa,40,-100,-6,,,", "US-Bbb,41,-101,-6,,,")
    (sample,) = read([a, b, sites], split="train", frames_per_sample=1000)
    assert sample.values.shape == (730, 2, 1, 1, 2)
    assert sample.valid[:, 0, 0, 0, 0].all()
    np.testing.assert_array_equal(sample.valid[:, 0, 0, 0, 1], np.arange(730) >= 365)
    assert not sample.valid[:, 1, 0, 0, 0].any()
    assert "of one tower" in refusal([a, b], **PUECHABON)


# --- archives, AmeriFlux BASE


def archive(folder: Path, site: str = "AR-CCg", members: dict[str, str] | None = None) -> Path:
    """As the Shuttle's hubs make them: several resolutions, a reanalysis, and what is known of the site."""
    parts = {
        r: table(folder / "parts" / f"{r}.csv", r, {"TA_F": 20.0, "TA_F_QC": q}) for r, q in (("HH", 0), ("DD", 1), ("WW", 1), ("MM", 1))
    }
    era = table(folder / "parts" / "era.csv", "HH", {"TA_ERA": 9.0})
    told = {"LOCATION_LAT": "-35.9244", "LOCATION_LONG": "-61.1855", "LOCATION_ELEV": "83", "UTC_OFFSET": "-3", "IGBP": "GRA"}
    bif = "SITE_ID,GROUP_ID,VARIABLE_GROUP,VARIABLE,DATAVALUE\n" + "".join(f"{site},1,GRP_X,{k},{v}\n" for k, v in told.items())
    path = folder / f"AMF_{site}_FLUXNET_2019-2019_v1.3_r1.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for resolution, part in parts.items():
            file.write(part, f"AMF_{site}_FLUXNET_FLUXMET_{resolution}_2019-2019_v1.3_r1.csv")
        file.write(era, f"AMF_{site}_FLUXNET_ERA5_HH_1981-2019_v1.3_r1.csv")
        file.writestr(f"AMF_{site}_FLUXNET_BIF_2019-2019_v1.3_r1.csv", bif)
        file.writestr(f"AMF_{site}_FLUXNET_BIFVARINFO_HH_2019-2019_v1.3_r1.csv", "SITE_ID,GROUP_ID\n")
        for name, text in (members or {}).items():
            file.writestr(name, text)
    return path


def test_an_archive_of_the_shuttle_brings_its_place_and_asks_for_a_resolution(tmp_path: Path) -> None:
    path = archive(tmp_path)
    assert "the resolutions HH, DD, MM; choose one with resolution=" in refusal(path)
    (sample,) = read(path, resolution="HH", split="train", frames_per_sample=20000)
    assert first_instant(sample) == "2019-01-01T03:00:00"
    assert sample.values.shape == (17520, 1, 1, 1, 1)
    assert sample.coordinates["height"].values.tolist() == [83]
    assert sample.origin.about["igbp"] == ["GRA"]
    notes = Fluxnet([path], Fluxnet.Options(resolution="DD")).plan().notes
    assert any("HH, MM, WW are left out" in n for n in notes)
    assert "the input has none" in refusal(path, resolution="HR")


def test_an_archive_that_reaches_outside_or_is_damaged_is_refused(tmp_path: Path) -> None:
    evil = archive(tmp_path / "a", members={"../../evil_FLUXNET_FLUXMET_HH_2019-2019.csv": "x"})
    assert "reaches outside its folder" in refusal(evil, resolution="HH")
    path = archive(tmp_path / "b")
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as file:
        info = file.getinfo("AMF_AR-CCg_FLUXNET_FLUXMET_HH_2019-2019_v1.3_r1.csv")
    at = info.header_offset + 30 + len(info.filename) + info.compress_size // 2
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 8]) + whole[at + 1 :])
    assert path.name in refusal(path, resolution="HH")
    path.write_bytes(whole[: len(whole) // 2])
    assert "truncated zip" in refusal(path, resolution="HH")


def test_a_forcing_that_no_table_has_is_refused() -> None:
    path = real(REAL)
    sentence = refusal(path, **PUECHABON, forcings=("precipitation_amount",))
    assert sentence == "forcings=precipitation_amount: no table of MM has it; rain is precipitation_flux there"
    (sample,) = puechabon(path, forcings=("precipitation_flux", "air_temperature"))
    assert {v.name for v in sample.variables if v.role == "forcing"} == {"precipitation_flux", "air_temperature"}


def test_a_list_of_sites_and_a_snapshot_are_files(tmp_path: Path) -> None:
    for path, what in ((tmp_path, "a folder"), (tmp_path / "snapshot.csv", "not there")):
        assert refusal(real(REAL), sites=str(path)).endswith(f" is {what}; expected a file, such as a snapshot of the Shuttle")
    for wrong in (tmp_path / "snapshot.csv", tmp_path):
        with pytest.raises(UserError, match=r"is no file here; `fluxnet-shuttle listall` writes it .*as snapshot=$") as caught:
            list(Fluxnet.remotes(Fluxnet.Fetch(snapshot=str(wrong)), lambda url: b""))
        assert "--input" not in str(caught.value)


def test_weeks_and_years_have_no_steady_step(tmp_path: Path) -> None:
    path = table(named(tmp_path, "WW"), "WW", {"TA_F": 20.0, "TA_F_QC": 1})
    assert "weeks begin anew each year" in refusal(path, **PUECHABON)


def test_ameriflux_base_two_lines_of_comment_other_names_and_holes(tmp_path: Path) -> None:
    columns = {
        "FC": [5.0, -9999], "NEE_PI": [-3.0], "TA_1_2_1": 99.0, "TA_1_1_1": 12.0, "TA_PI_F_1_1_1": 98.0, "TS_1": 8.0, "TS_2": 7.0,
        "PA": 100.0, "VPD_PI": 4.0, "P": 0.5, "SWC_1_1_1": 30.0, "TA_SD": 1.0,
    }  # fmt: skip
    path = table(tmp_path / "AMF_US-Abc_BASE_HH_3-5.csv", "HH", columns, head="# Site: US-Abc\n# Version: 3-5\n")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:10] + lines[20:-30]))
    assert Fluxnet.recognises(path)
    (sample,) = read(path, latitude=40, longitude=-100, utc_offset=-6, split="train", frames_per_sample=20000)
    assert first_instant(sample) == "2019-01-01T06:00:00"
    expected = {
        "air_temperature": 285.15, "soil_temperature": 281.15, "surface_air_pressure": 1e5, "vapour_pressure_deficit": 400,
        "precipitation_amount": 0.5, "soil_water_content": 0.3, "surface_upward_mole_flux_of_carbon_dioxide": 5e-6,
        "net_ecosystem_exchange": -3 * C,
    }  # fmt: skip
    assert {v.name for v in sample.variables} == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(column(sample, name)[0, 0], value, rtol=1e-6, err_msg=name)
    np.testing.assert_array_equal(np.isfinite(column(sample, "air_temperature"))[:20, 0], np.r_[np.ones(7), np.zeros(10), np.ones(3)] == 1)
    assert np.isnan(column(sample, "surface_upward_mole_flux_of_carbon_dioxide")[1, 0])


def test_large_tables_are_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = table(named(tmp_path, "DD"), "DD", {"TA_F": np.arange(365) / 16, "TA_F_QC": 1})
    (whole,) = puechabon(path)
    monkeypatch.setattr(fluxnet_csv, "_BLOCK", 1000)
    (pieces,) = puechabon(path)
    np.testing.assert_array_equal(pieces.values, whole.values)
    path.write_text(path.read_text().replace("20190704,", "20190704,1,"))
    assert "line 186: 4 cells and 3 columns" in refusal(path, **PUECHABON)


# --- the source as a whole


def test_the_real_snapshot_lists_what_to_fetch() -> None:
    rows = pd.read_csv(real(SNAPSHOT))
    every = list(Fluxnet.remotes(Fluxnet.Fetch(snapshot=str(real(SNAPSHOT))), lambda _: b""))
    assert [r.url for r in every] == rows.download_link.tolist()
    assert [r.file for r in every] == rows.fluxnet_product_name.tolist()
    body = real(SNAPSHOT).read_bytes()
    asked: list[str] = []
    options = Fluxnet.Fetch(snapshot="https://example.org/s.csv", hubs=("ICOS",), igbp=("ENF",))
    found = list(Fluxnet.remotes(options, lambda url: asked.append(url) or body))  # type: ignore[func-returns-value]
    assert asked == ["https://example.org/s.csv"]
    assert len(found) == ((rows.data_hub == "ICOS") & (rows.igbp == "ENF")).sum() > 0
    for options, words in (
        (Fluxnet.Fetch(), "fluxnet-shuttle listall"),
        (Fluxnet.Fetch(snapshot=str(real(SNAPSHOT)), sites=("DK-Gdd",)), "did you mean DK-Gds?"),
        (Fluxnet.Fetch(snapshot=str(real(REAL))), "no whole snapshot"),
    ):
        with pytest.raises(UserError, match=words.replace("?", r"\?")):
            list(Fluxnet.remotes(options, lambda _: b""))


def test_the_real_snapshot_gives_the_places_of_towers(tmp_path: Path) -> None:
    rows = pd.read_csv(real(SNAPSHOT)).set_index("site_id")
    path = table(named(tmp_path, "DD", "DK-Gds"), "DD", {"TA_F": 20.0, "TA_F_QC": 1})
    (sample,) = read([path, real(SNAPSHOT)], split="train", frames_per_sample=366)
    assert sample.coordinates["longitude"].values[0] == rows.location_long["DK-Gds"]
    assert rows.product_id["DK-Gds"] in sample.origin.attribution
    assert "holds no station" in refusal(real(SNAPSHOT))


def test_recognised_by_content(tmp_path: Path) -> None:
    assert Fluxnet.recognises(real(REAL))
    assert Fluxnet.recognises(real(SNAPSHOT))
    assert Fluxnet.recognises(archive(tmp_path))
    for name, data in {
        "a.csv": b"TIMESTAMP,x\n2019,1\n",
        "b.csv": b"",
        "c.png": PNG,
        "FLX_FR-Pue_FLUXNET2015_FULLSET_DD_2019-2019_1-4.csv": HTML,
    }.items():
        (tmp_path / name).write_bytes(data)
        assert not Fluxnet.recognises(tmp_path / name)
    assert not Fluxnet.recognises(tmp_path)


def test_a_corpus_of_the_real_table(tmp_path: Path) -> None:
    source = Fluxnet([real(REAL)], Fluxnet.Options(**PUECHABON, layout="series", frames_per_sample=24, gap=1))
    corpus = Corpus.open(convert(source, tmp_path / "corpus", progress=False))
    assert {s: len(corpus.entries(s)) for s in corpus.splits} == {"train": 4, "valid": 1, "test": 1}
    sample = corpus.read("train", 0)
    assert sample.geometry == "points"
    assert sample.origin.place == "FR-Pue"
    assert sample.origin.licence == "CC-BY-4.0"
    np.testing.assert_allclose(column(sample, "air_temperature")[0, 0], 8.009 + 273.15, rtol=1e-6)
