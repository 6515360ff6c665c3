"""Units as files spell them."""

from __future__ import annotations

import numpy as np
import pytest

from scigpt.data.variables import convert
from scigpt.errors import UserError


@pytest.mark.parametrize(
    ("unit", "target", "factor", "offset"),
    [
        ("1e-3", "1", 1e-3, 0.0),  # salinity by CF; the e is no unit
        ("1E-3 kg kg-1", "kg kg**-1", 1e-3, 0.0),
        ("2.5e+2 m", "m", 250.0, 0.0),
        ("m2 s-2", "m**2 s**-2", 1.0, 0.0),
        ("g m^-2 s^-1", "kg m**-2 s**-1", 1e-3, 0.0),
        ("%", "1", 1e-2, 0.0),
        ("Celsius", "K", 1.0, 273.15),
    ],
)
def test_spellings(unit: str, target: str, factor: float, offset: float) -> None:
    values = np.array([0.0, 1.0, -3.0])
    np.testing.assert_allclose(convert(values, unit, target), factor * values + offset, rtol=1e-12)


def test_a_unit_of_another_dimension_is_refused() -> None:
    with pytest.raises(UserError, match=r"tas\.nc: the unit 'm s-1' cannot be converted to 'K'"):
        convert(np.zeros(1), "m s-1", "K", "tas.nc")
