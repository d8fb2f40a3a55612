"""A large body's inputs are counted as they would be after decoding, without being decoded."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_app.errors import EmbedError
from proxy_app.routes.inputs import Limits, count_elements, refuse_unbounded

MOST = 5
#: Texts that look like JSON's own signs.
TEXTS = st.text(alphabet='ab[],"\\ \n', max_size=8)
ARRAYS = st.lists(st.one_of(TEXTS, st.lists(st.integers(0, 300), max_size=3)), max_size=9)


@given(ARRAYS, st.sampled_from([(",", ":"), (" ,\n", ": ")]))
def test_more_than_allowed_is_known_before_decoding(
    inputs: list[Any], separators: tuple[str, str]
) -> None:
    array = json.dumps(inputs, separators=separators).encode()
    assert (count_elements(array, MOST) > MOST) == (len(inputs) > MOST)


@given(st.lists(st.integers(0, 300)))
def test_numbers_alone_are_one_input(ids: list[int]) -> None:
    assert count_elements(json.dumps(ids).encode(), MOST) == 0


@pytest.mark.parametrize("field", ["inputs", "input", "\\u0069nput"])
def test_what_is_refused(field: str) -> None:
    def body(inputs: str) -> bytes:
        return f'{{"other": [[1],[2],["]"]], "{field}": {inputs}, "more": {{"a": 1}}}}'.encode()

    refuse_unbounded(body('"a [text]"'), Limits(2, 10))
    refuse_unbounded(body('["[[[[[[", [1]]'), Limits(2, 10))
    refuse_unbounded(body("[1, 2, 3, 4 ]"), Limits(2, 9))
    with pytest.raises(EmbedError, match="batch size 3 > maximum allowed batch size 2"):
        refuse_unbounded(body("[[1], [2], []]"), Limits(2, 10))
    with pytest.raises(EmbedError, match="an input has 9 bytes as JSON"):
        refuse_unbounded(body("[1, 2, 3, 4 ]"), Limits(2, 8))
