"""Bodies are decoded by msgspec and refused in serde's words.

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

from local_stack.embedder.body import BodyError, Read, reader
from local_stack.embedder.request import (
    DecodeRequest,
    EmbedRequest,
    PredictRequest,
    RerankRequest,
    SimilarityRequest,
)

read_embed = reader(EmbedRequest)
read_similarity = reader(SimilarityRequest)
read_rerank = reader(RerankRequest)

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=20,
)


@given(VALUES, st.booleans(), st.sampled_from([None, 1]))
def test_any_json_is_read(value: Any, ascii_only: bool, indent: int | None) -> None:
    body = json.dumps({"inputs": value}, ensure_ascii=ascii_only, indent=indent)
    assert reader(PredictRequest)(body.encode()).inputs == value


@given(st.binary() | st.text('[]{}",:\\u0ad 1-.e\n').map(str.encode))
def test_no_body_does_worse_than_an_error(body: bytes) -> None:
    with contextlib.suppress(BodyError):
        read_embed(body)


@given(st.sampled_from(EmbedRequest.__struct_fields__), VALUES)
def test_every_refusal_can_be_sent(field: str, value: Any) -> None:
    body = json.dumps({"inputs": "a"} | {field: [None, value]}).encode()
    with pytest.raises(BodyError) as caught:
        read_embed(body)
    assert str(caught.value).encode()


@given(st.lists(st.integers(0, 2**32 - 1)))
def test_ids_are_read(ids: list[int]) -> None:
    for separators in ((",", ":"), (" ,\n ", ": ")):
        body = json.dumps({"inputs": [ids, ids]}, separators=separators).encode()
        assert read_embed(body).inputs.items == [ids, ids]


def refusal(body: str, read: Read[Any] = read_embed) -> tuple[int, str]:
    with pytest.raises(BodyError) as caught:
        read(body.encode())
    return caught.value.status, str(caught.value).split(": ", 1)[1]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"inputs":null,"truncate":true}', "inputs: data did not match any variant of untagged "
         "enum Input at line 1 column 14"),
        ('{"inputs":"a","truncate":1}', "truncate: invalid type: integer `1`, expected a boolean "
         "at line 1 column 26"),
        ('{"inputs":"a",\n"truncate":1}', "truncate: invalid type: integer `1`, expected a boolean "
         "at line 2 column 12"),
        ('{"inputs":"a","dimensions":1.5}', "dimensions: invalid type: floating point `1.5`, "
         "expected usize at line 1 column 30"),
        ('{"inputs":"a","prompt_name":[]}', "prompt_name: invalid type: sequence, expected a "
         "string at line 1 column 28"),
        ("5", "invalid type: integer `5`, expected struct EmbedRequest at line 1 column 1"),
    ],
)  # fmt: skip
def test_json_of_another_shape_is_refused_in_serdes_words(body: str, message: str) -> None:
    assert refusal(body) == (422, message)


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        ('{"inputs":["a" "b"]}', "inputs", "expected `,` or `]` at line 1 column 16"),
        ('{"inputs":["a",]}', "inputs", "trailing comma at line 1 column 16"),
        ('{"inputs":"a"\n,}', "", "trailing comma at line 2 column 2"),
        ('{"inputs":"a",1', "", "key must be a string at line 1 column 15"),
        ('{"inputs" "a"}', "inputs", "expected `:` at line 1 column 11"),
        ('{"inputs":01}', "inputs", "invalid number at line 1 column 12"),
        ('{"inputs":1.x}', "inputs", "invalid number at line 1 column 13"),
    ],
)
def test_broken_json_is_refused_in_serdes_words_without_the_field(
    body: str, field: str, message: str
) -> None:
    # serde_json names the field that it is in, when it is in one; msgspec does not know it.
    assert field in body
    assert refusal(body) == (400, message)


@pytest.mark.parametrize(
    ("body", "serdes", "ours"),
    [
        ('{"inputs":["a"', "EOF while parsing a list", "EOF while parsing an object"),
        ('{"inputs":"a', "EOF while parsing a string", "EOF while parsing an object"),
        ('{"inputs":1e', "EOF while parsing a value", "invalid number"),
        ('{"inputs":-}', "invalid number", "expected value"),
        ('{"inputs":[nul]}', "expected ident", "expected value"),
        ('{"inputs":"a\\x"}', "invalid escape at line 1 column 14", "invalid escape"),
    ],
)
def test_other_words_for_broken_json(body: str, serdes: str, ours: str) -> None:
    """msgspec does not tell these apart as serde_json does; the status is the same."""
    status, message = refusal(body)
    assert status == 400
    assert ours in message
    assert serdes not in message


def test_a_number_that_is_too_large_is_no_json() -> None:
    assert refusal('{"inputs":1e999}') == (400, "inputs: number out of range at line 1 column 15")
    assert refusal('{"inputs":[{"a":1e999}]}')[0] == 400


def test_a_refused_value_is_shown_as_it_was_written() -> None:
    for value in ('"東京"', r'"\u6771"'):
        status, message = refusal(f'{{"inputs":"a","normalize":{value}}}')
        assert status == 422
        assert f"string {value}, expected a boolean" in message


def test_the_path_of_a_nested_struct_is_said() -> None:
    message = "inputs: missing field `source_sentence` at line 1 column 29"
    assert refusal('{"inputs":{"sentences":["a"]}}', read_similarity) == (422, message)
    message = "inputs: invalid type: integer `5`, expected struct SimilarityInput"
    assert refusal('{"inputs":5}', read_similarity) == (422, f"{message} at line 1 column 11")


def test_the_element_of_a_list_is_named() -> None:
    status, message = refusal('{"query":"a","texts":["b",5]}', read_rerank)
    assert status == 422
    assert message.startswith("texts[1]: invalid type: integer `5`, expected a string")


def test_a_field_is_looked_for_once_in_its_own_object() -> None:
    body = b'{"inputs":"a","extra":{"inputs":"b"}}'
    assert read_embed(body).inputs.items == ["a"]
    status, message = refusal('{"inputs":"a","extra":{},"truncate":true,"truncate":null}')
    assert (status, message.split(" at ")[0]) == (422, "duplicate field `truncate`")


def test_what_follows_the_object_is_not_looked_at() -> None:
    for rest in (b" and more", b"x", b"}", b'{"inputs":5}'):
        assert read_embed(b'{"inputs":"a"}' + rest).inputs.items == ["a"]


def test_a_deep_field_is_refused_not_crashed_on() -> None:
    assert refusal('{"inputs":"a","x":' + "[" * 100_000) == (400, "recursion limit exceeded")


def test_ids_of_a_text_are_no_list_of_lists() -> None:
    assert reader(DecodeRequest)(b'{"ids":[1,2]}').ids == [[1, 2]]
    assert refusal('{"ids":[[1],2]}', reader(DecodeRequest))[0] == 422
