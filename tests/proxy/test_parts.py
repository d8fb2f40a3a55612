"""The parts that decide without I/O, by property: keys, L1, vectors, splitting, permits."""

from __future__ import annotations

import asyncio
import json
import struct
import sys
import time
import uuid
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_app.cache.memory import BASE64_OVERHEAD, ENTRY_OVERHEAD, Memory
from proxy_app.embedding.permits import Permits, Place
from proxy_app.embedding.sender import share
from proxy_app.entries.collection import collection_name, is_ours
from proxy_app.entries.entry import Entry
from proxy_app.entries.float32 import packed
from proxy_app.entries.keys import Item, Keyer, Params, point_id
from proxy_app.entries.vectors import cut, is_vector
from proxy_app.errors import EmbedError
from proxy_app.routes.inputs import Limits, token_ids
from proxy_app.routes.tei import compute_headers
from proxy_app.settings import Settings
from proxy_app.upstream.batches import Load, encode, split
from proxy_app.upstream.instances import Instances

TEXTS = st.text(max_size=5)
PREFIXES = st.from_regex(r"[a-z](-?[a-z])*", fullmatch=True)
IDS = st.lists(st.integers(0, 2**32 - 1), max_size=3).map(tuple)
PARAMS = st.builds(
    Params,
    normalize=st.booleans(),
    truncate=st.booleans(),
    left=st.booleans(),
    dimensions=st.integers(0, 3),
    prompt_name=st.none() | TEXTS,
)
NAMED = st.tuples(TEXTS, PARAMS, TEXTS | IDS)


@given(one=NAMED, other=NAMED)
def test_a_key_names_one_input_alone(
    one: tuple[str, Params, Item], other: tuple[str, Params, Item]
) -> None:
    def key(namespace: str, params: Params, item: Item) -> bytes:
        [made] = Keyer(namespace).keys(params, [item])
        return made

    assert (key(*one) == key(*other)) == (one == other)


@given(prefix=PREFIXES, other=PREFIXES, model=TEXTS)
def test_a_collection_is_of_one_prefix_alone(prefix: str, other: str, model: str) -> None:
    name = collection_name(prefix, model, "namespace")
    assert is_ours(name, prefix)
    assert is_ours(name, other) == (prefix == other)


def test_a_longer_prefix_is_another_deployment() -> None:
    name = collection_name("embedrack-two", "some/model", "")
    assert name.startswith("embedrack-")
    assert not is_ours(name, "embedrack")


def test_no_unicode_normalisation() -> None:
    composed, decomposed = Keyer("").keys(Params(), ["\u00e9", "e\u0301"])
    assert composed != decomposed


def test_a_key_does_not_depend_on_what_was_asked_before() -> None:
    keyer = Keyer("")
    usual, other = Params(), Params(normalize=False)
    first = keyer.keys(usual, ["a"])
    assert keyer.keys(other, ["a"]) != first
    assert keyer.keys(usual, ["a"]) == first


def test_point_ids_are_uuids_as_qdrant_prints_them() -> None:
    key = bytes(range(32))
    assert point_id(key) == str(uuid.UUID(bytes=key[:16]))


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 400))),
    st.integers(0, 4 * ENTRY_OVERHEAD),
)
def test_memory_keeps_its_limit_and_the_latest(puts: list[tuple[int, int]], limit: int) -> None:
    memory = Memory(limit)
    latest: dict[bytes, Entry] = {}
    for number, length in puts:
        key, entry = bytes([number]), Entry(bytes(length))
        memory.put(key, entry)
        if length + ENTRY_OVERHEAD <= limit:
            latest[key] = entry
            assert memory.get(key) is entry
        assert memory.size <= limit
    found = {key: memory.get(key) for key in latest}
    kept = {key: entry for key, entry in found.items() if entry is not None}
    assert memory.size == sum(len(e.vector) + ENTRY_OVERHEAD for e in kept.values())
    assert kept.items() <= latest.items()


def test_memory_drops_the_least_recently_used() -> None:
    memory = Memory(2 * ENTRY_OVERHEAD + 2)
    one, two, three = (Entry(text) for text in (b"1", b"2", b"3"))
    memory.put(b"a", one)
    memory.put(b"b", two)
    memory.get(b"a")
    memory.put(b"c", three)
    assert (memory.get(b"a"), memory.get(b"b"), memory.get(b"c")) == (one, None, three)


def test_memory_counts_an_entrys_other_form() -> None:
    memory = Memory(2 * ENTRY_OVERHEAD + BASE64_OVERHEAD + 10)
    one, two = Entry(b"12345"), Entry(b"12345")
    memory.put(b"a", one)
    memory.put(b"b", two)
    memory.keep_base64(b"c", one, b"not here")
    memory.keep_base64(b"a", two, b"not this one")
    assert (one.base64, two.base64, memory.size) == (b"", b"", 2 * ENTRY_OVERHEAD + 10)
    memory.keep_base64(b"b", two, b"base64")  # six bytes too many: the oldest goes
    assert (memory.get(b"a"), memory.get(b"b")) == (None, two)
    assert memory.size == ENTRY_OVERHEAD + 5 + BASE64_OVERHEAD + 6
    memory.put(b"b", Entry(b"1"))
    assert memory.size == ENTRY_OVERHEAD + 1


def test_memory_forgets_what_is_too_old() -> None:
    memory = Memory(10_000, ttl=1000)
    now = int(time.time())
    young, old = Entry(b"1", now - 500), Entry(b"2", now - 1500)
    memory.put(b"a", young)
    memory.put(b"b", old)
    assert (memory.get(b"a"), memory.get(b"b")) == (young, None)
    assert (len(memory), memory.size) == (1, 1 + ENTRY_OVERHEAD)
    forever = Memory(10_000)
    forever.put(b"b", old)
    assert forever.get(b"b") is old


def test_an_entrys_overhead_is_what_python_takes() -> None:
    key, entry = bytes(32), Entry(bytes(1000))
    objects = sys.getsizeof(key) + sys.getsizeof(entry) + sys.getsizeof(entry.vector)
    assert objects - len(entry.vector) < ENTRY_OVERHEAD


FLOAT32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(st.lists(FLOAT32, min_size=1, max_size=8))
def test_packed_vectors_are_the_float32_that_were_printed(numbers: list[float]) -> None:
    shortest = [np.format_float_scientific(np.float32(n), trim="0") for n in numbers]
    raw = "[" + ",".join(shortest) + "]"
    assert packed(raw.encode()) == struct.pack(f"<{len(numbers)}f", *numbers)


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("7.038531e-26", "fd43ae15"),  # as a float64 it is the middle of two float32
        ("-7.038531E-26", "fd43ae95"),
        ("16777217", "0000804b"),  # the very middle: to the even one
        ("1e-45", "01000000"),
        ("3.4028235e38", "ffff7f7f"),
        ("-0.0", "00000080"),
    ],
)
def test_packed_rounds_once(text: str, bits: str) -> None:
    assert packed(f"[{text},1e-40]".encode()).hex() == bits + "c2160100"
    assert packed(f"[{text}]".encode()).hex() == bits


@given(st.lists(FLOAT32, min_size=1, max_size=8), st.integers(1, 8))
def test_float32_vectors_are_vectors(numbers: list[float], dimension: int) -> None:
    raw = msgspec.json.encode(numbers)
    assert is_vector(raw, dimension) == (len(numbers) == dimension)


@pytest.mark.parametrize(
    "raw",
    [
        "[null,1]",
        "[1e39,1]",
        "[-1e+39,1]",
        "[1E39,1]",
        '["a",1]',
        "[[1],1]",
        "[]",
        "null",
        '"ab"',
        "{}",
    ],
)
def test_anything_else_is_not(raw: str) -> None:
    assert not is_vector(raw.encode(), 2)
    with pytest.raises(EmbedError):
        asyncio.run(cut(f"[{raw}]".encode(), 1, 2))


def test_a_number_that_no_float32_is_printed_as_is_refused() -> None:
    """One of 51 digits; the longest that are printed pass, as TEI prints them and as float64."""
    exact = "0.1000000014901161193847656250000000000000000000001"
    for text in ("-1.1754943508222875e-38", "-0.00012345679", "-1.1754944e-38"):
        vector = f"[{text},1.0]".encode()
        assert asyncio.run(cut(b"[" + vector + b"]", 1, 2)) == [vector]
    with pytest.raises(EmbedError, match="is not 2 float32 numbers"):
        asyncio.run(cut(f"[[1.0,{exact}]]".encode(), 1, 2))


def test_an_empty_array_is_no_vector_of_one() -> None:
    assert not is_vector(b"[]", 1)
    assert is_vector(b"[5]", 1)


@given(st.lists(st.lists(FLOAT32, min_size=3, max_size=3), min_size=1, max_size=20))
def test_cutting_gives_each_vectors_own_text(rows: list[list[float]]) -> None:
    texts = [msgspec.json.encode(row) for row in rows]
    assert asyncio.run(cut(b"[" + b",".join(texts) + b"]", len(rows), 3)) == texts
    spaced = msgspec.json.format(msgspec.json.encode(rows), indent=1)
    for raw, row in zip(asyncio.run(cut(spaced, len(rows), 0)), rows, strict=True):
        assert b"\n" not in raw
        numbers = msgspec.json.decode(raw, type=list[float])
        assert struct.pack("3f", *numbers) == struct.pack("3f", *row)


@given(st.lists(TEXTS, min_size=1, max_size=40), st.integers(1, 8), st.integers(1, 60))
def test_splitting_keeps_all_in_order(texts: list[str], most: int, limit: int) -> None:
    loads = [Load(text.encode(), text, encode(text)) for text in texts]
    batches = split(loads, most, limit)
    assert [load for batch in batches for load in batch] == loads
    for batch in batches:
        assert 0 < len(batch) <= most
        assert len(batch) == 1 or sum(len(load.json) + 1 for load in batch) <= limit


def test_a_request_is_shared_by_all_instances() -> None:
    assert share(1024, instances=4, most=32) == 32
    assert share(64, instances=4, most=32) == 16
    assert share(9, instances=4, most=32) == 8
    assert share(64, instances=4, most=4) == 4


def test_instances_of_another_namespace_do_not_count(tmp_path: Path) -> None:
    """While models change, some instances serve the next one, under a path of its own."""
    file = tmp_path / "instances.json"
    served = [{"name": str(i), "namespace": name} for i, name in enumerate(["now", "now", "next"])]
    file.write_text(json.dumps({"namespace": "now", "instances": served}))
    instances = Instances(Settings(upstream_instances_file=str(file)))
    instances.read()
    assert instances.count == 2
    file.write_text('{"instances": "broken"}')
    instances.read()
    assert instances.count == 2


async def test_permits_are_given_in_turn_and_come_back() -> None:
    permits = Permits(10, 100)
    first, big, small = (permits.join(count) for count in (8, 10, 2))
    assert [turn.granted.done() for turn in (first, big, small)] == [True, False, False]
    assert repr(permits) == "<Permits in_flight=8/10 queued=12>"
    first.leave()
    assert [turn.granted.done() for turn in (big, small)] == [True, False]
    big.leave()
    big.leave()
    assert small.granted.done()
    small.leave()
    assert repr(permits) == "<Permits in_flight=0/10 queued=0>"


async def test_who_leaves_the_line_leaves_nothing_behind() -> None:
    permits = Permits(1, 100)
    turns = [permits.join(1) for _ in range(5)]
    turns[2].leave()
    turns[0].granted.cancel()
    for turn in turns:
        turn.leave()
    assert repr(permits) == "<Permits in_flight=0/1 queued=0>"


async def test_leaving_a_long_line_costs_the_same_from_any_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever leaves is not searched for among the others."""
    compared = 0

    def equal(one: Place, other: object) -> bool:
        nonlocal compared
        compared += 1
        return one is other

    permits = Permits(1, 1000)
    first, *turns = [permits.join(1) for _ in range(1000)]
    monkeypatch.setattr(Place, "__eq__", equal)
    monkeypatch.setattr(Place, "__hash__", object.__hash__)
    for turn in reversed(turns):
        turn.leave()
    first.leave()
    print(f"1,000 left: {compared} comparisons")
    assert compared < 1000
    assert repr(permits) == "<Permits in_flight=0/1 queued=0>"


async def test_a_full_line_refuses_and_any_other_takes_all() -> None:
    permits = Permits(10, 20)
    permits.join(10)
    permits.refuse_overload()
    permits.join(19)
    permits.refuse_overload()
    permits.join(2048)
    with pytest.raises(EmbedError, match="EMBEDRACK_MAX_QUEUE"):
        permits.refuse_overload()


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b'{"input":[1,2]}', [b"[1,2]"]),
        (b'{"inputs":[[1],"a",[2,3]]}', [b"[1]", b"[2,3]"]),
        (b'{"input":"a"}', []),
        (b'{"instances":[{"type":"embed","inputs":[[4,5]]},7]}', [b"[4,5]"]),
        (b'{"\\u0069nputs":[8]}', [b"[8]"]),
        (b'{"inputs":{"a":1}}', []),
        (b"no json", []),
        (b' {"inputs":[[7]]} and more', [b"[7]"]),
        (b'{"input":[[]]}', []),
        (b"[" * 100_000, []),
    ],
)
def test_token_ids_of_a_passed_body(body: bytes, found: list[bytes]) -> None:
    assert token_ids(body, Limits(8, 1000)) == found


def test_compute_headers_add_counts_and_take_the_longest_time() -> None:
    one = {"x-compute-type": "gpu", "x-compute-tokens": "3", "x-total-time": "5"}
    other = {"x-compute-type": "gpu", "x-compute-tokens": "4", "x-total-time": "2", "x-y": "z"}
    assert compute_headers([one, other]) == {
        "x-compute-type": "gpu",
        "x-compute-tokens": "7",
        "x-total-time": "5",
    }
