"""Numbers are written as serde_json writes float32."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_stack.embedder import wire


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.0, "0.0"),
        (-0.0, "-0.0"),
        (1.0, "1.0"),
        (0.1, "0.1"),
        (1e-5, "0.00001"),
        (1.5e-6, "1.5e-6"),
        (-1e-6, "-1e-6"),
        (1e-7, "1e-7"),
        (10.000001, "10.000001"),
        (1e16, "1e16"),
        (3.4028235e38, "3.4028235e38"),
        (float("nan"), "null"),
    ],
)
def test_numbers_look_as_rust_writes_them(number: float, text: str) -> None:
    assert wire.json_floats(np.array([number], np.float32)) == f"[{text}]".encode()


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_numbers_read_back_as_the_same_float32(numbers: list[float]) -> None:
    array = np.array(numbers, np.float32)
    found = np.array(json.loads(wire.json_floats(array)), np.float32)
    assert found.tobytes() == array.tobytes()
