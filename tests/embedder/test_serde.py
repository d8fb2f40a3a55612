"""Bodies are read by serde_json's rules.

The replies that a real TEI gave are in test_recorded.py; the messages here are read from
serde_json's rules, not recorded.
"""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_stack.embedder import serde, wire

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(VALUES, st.booleans(), st.sampled_from([None, 1]))
def test_any_json_is_read(value: Any, ascii_only: bool, indent: int | None) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    assert serde.read(serde.anything, body.encode("utf-8", "replace")) == json.loads(
        body.encode("utf-8", "replace")
    )


@given(st.binary() | st.text('[]{}",:\\u0ad 1-.e\n').map(str.encode))
def test_no_body_does_worse_than_an_error(body: bytes) -> None:
    with contextlib.suppress(serde.ReadError):
        serde.read(wire.read_embed, body)


@given(st.lists(st.integers(0, 2**32 - 1)))
def test_ids_are_read(ids: list[int]) -> None:
    for separators in ((",", ":"), (" ,\n ", ": ")):
        body = json.dumps({"inputs": [ids, ids]}, separators=separators).encode()
        assert serde.read(wire.read_embed, body).inputs.items == [ids, ids]


def refusal(body: str, reader: serde.Reader[Any] = wire.read_embed) -> str:
    with pytest.raises(serde.ReadError) as caught:
        serde.read(reader, body.encode())
    return f"{'syntax' if caught.value.syntax else 'data'}: {caught.value}"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"inputs":["a" "b"]}', "syntax: inputs: expected `,` or `]` at line 1 column 16"),
        ('{"inputs":["a",]}', "syntax: inputs: trailing comma at line 1 column 16"),
        ('{"inputs":["a"', "syntax: inputs: EOF while parsing a list at line 1 column 14"),
        ('{"inputs":[nul]}', "syntax: inputs[0]: expected ident at line 1 column 15"),
        ('{"inputs":"a"\n,}', "syntax: trailing comma at line 2 column 2"),
        ('{"inputs":"a",1', "syntax: key must be a string at line 1 column 15"),
        ('{"inputs" "a"}', "syntax: inputs: expected `:` at line 1 column 11"),
        ('{"inputs":"a\\x"}', "syntax: inputs: invalid escape at line 1 column 14"),
        ('{"inputs":"a', "syntax: inputs: EOF while parsing a string at line 1 column 12"),
        ('{"inputs":01}', "syntax: inputs: invalid number at line 1 column 12"),
        ('{"inputs":1.x}', "syntax: inputs: invalid number at line 1 column 13"),
        ('{"inputs":-}', "syntax: inputs: invalid number at line 1 column 12"),
        ('{"inputs":1e', "syntax: inputs: EOF while parsing a value at line 1 column 12"),
        ('{"inputs":1e999}', "syntax: inputs: number out of range at line 1 column 15"),
        ('{"inputs":null,"truncate":1}', "data: inputs: data did not match any variant of untagged "
         "enum Input at line 1 column 14"),
        ('{"inputs":"a","truncate":1}', "data: truncate: invalid type: integer `1`, expected a "
         "boolean at line 1 column 26"),
        ('{"inputs":"a","dimensions":1.5}', "data: dimensions: invalid type: floating point `1.5`, "
         "expected usize at line 1 column 30"),
        ('{"inputs":"a","prompt_name":[]}', "data: prompt_name: invalid type: sequence, expected a "
         "string at line 1 column 28"),
        ("5", "data: invalid type: integer `5`, expected struct EmbedRequest at line 1 column 1"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_serdes_words(body: str, message: str) -> None:
    assert refusal(body) == message


def test_the_path_of_a_nested_struct_is_told() -> None:
    body = '{"inputs":{"sentences":["a"]}}'
    expected = "data: inputs: missing field `source_sentence` at line 1 column 29"
    assert refusal(body, wire.read_similarity) == expected


def test_what_follows_the_object_is_not_looked_at() -> None:
    assert serde.read(wire.read_embed, b'{"inputs":"a"} and more').inputs.items == ["a"]


def test_a_deep_field_is_refused_not_crashed_on() -> None:
    assert "recursion limit" in refusal('{"inputs":"a","x":' + "[" * 100_000)
