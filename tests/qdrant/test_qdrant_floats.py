from __future__ import annotations

import re

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.qdrant.server import Server, bits

SIZE = 16
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=True)
VECTORS = st.lists(arrays(np.float32, SIZE, elements=FLOATS), min_size=1, max_size=8)


@pytest.fixture
def wide(server: Server) -> Server:
    server.create("wide", SIZE)
    return server


@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(vectors=VECTORS)
def test_every_float32_comes_back_as_it_went_in(
    wide: Server, vectors: list[np.ndarray[tuple[int], np.dtype[np.float32]]]
) -> None:
    points = [{"id": i, "vector": vector} for i, vector in enumerate(vectors)]
    body = orjson.dumps({"points": points}, option=orjson.OPT_SERIALIZE_NUMPY)
    assert wide.call("PUT", "/collections/wide/points", body).status == 200
    stored = wide.retrieve(list(range(len(vectors))), "wide")
    assert [bits(point["vector"]) for point in stored] == [bits(vector) for vector in vectors]


@pytest.mark.parametrize(
    ("number", "printed"),
    [
        ("0.1", "0.1"),
        ("-0.0", "-0.0"),
        ("1e-7", "1e-7"),
        ("3.4e38", "3.4e+38"),
        ("1e-45", "1e-45"),
        ("1.1754944e-38", "1.1754944e-38"),
        ("16777216", "16777216.0"),
        ("0.10000000149011612", "0.1"),
        ("-1e39", "null"),
    ],
)
def test_numbers_get_their_shortest_text(cache: Server, number: str, printed: str) -> None:
    body = b'{"points":[{"id":1,"vector":[%b,0,0,0]}]}' % number.encode()
    assert cache.call("PUT", "/collections/cache/points", body).status == 200
    reply = cache.call("POST", "/collections/cache/points", {"ids": [1], "with_vector": True})
    first = re.search(rb'"vector":\[([^,]*),', reply.body)
    assert first is not None
    assert first[1].decode() == printed
