"""The promise: whatever is asked, in whatever mixture, the reply is the embedder's own."""

from __future__ import annotations

import json
import struct
import time
import urllib.request
from functools import lru_cache
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.stack.conftest import post

#: A pool small enough that texts come back, so that batches mix hits of both levels and misses.
POOL = st.one_of(
    st.integers(0, 400).map(lambda i: f"text number {i}"),
    st.sampled_from(
        ["hello", " hello", "hello ", "Hello", "héllo", "he\u0301llo", "東京", "🙂", "\0"]
    ),
    st.text(min_size=1, max_size=30),
    # The model takes 254 words and two marks.
    st.sampled_from([20, 120, 254, 255, 800]).map(lambda count: "word " * count),
    st.lists(st.integers(1000, 30_000), min_size=1, max_size=6),
)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "normalize": st.booleans(),
        "truncate": st.sampled_from([True, None]),
        "truncation_direction": st.sampled_from(["Left", "Right", "left", "right"]),
        "dimensions": st.sampled_from([None, 1, 17, 383, 384]),
    },
)


def bits(vectors: list[list[float]]) -> list[bytes]:
    """Return each vector as little-endian float32, which tells -0.0 from 0.0."""
    return [struct.pack(f"<{len(vector)}f", *vector) for vector in vectors]


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(inputs=st.lists(POOL, min_size=1, max_size=30), fields=FIELDS, data=st.data())
def test_any_batch_equals_the_direct_reply(
    embedder_url: str, proxy_url: str, inputs: list[object], fields: dict[str, object], data: Any
) -> None:
    inputs += data.draw(st.lists(st.sampled_from(inputs), max_size=2))
    body = {"inputs": inputs, **{k: v for k, v in fields.items() if v is not None}}
    status, direct, _ = post(embedder_url + "/embed", body)
    assert status == 200
    for _ in range(2):
        status, cached, headers = post(proxy_url + "/embed", {"inputs": inputs, **fields})
        assert status == 200
        assert bits(cached) == bits(direct)
        hits, misses = (int(p.split("=")[1]) for p in headers["X-Cache"].split("; ")[1:])
        assert hits + misses == len(inputs)


def test_a_large_mixed_batch(embedder_url: str, proxy_url: str) -> None:
    texts = [f"text number {i % 300}" for i in range(700)]
    direct: list[bytes] = []
    for start in range(0, 700, 32):
        direct += bits(post(embedder_url + "/embed", {"inputs": texts[start : start + 32]})[1])
    for _ in range(3):
        status, cached, _ = post(proxy_url + "/embed", {"inputs": texts})
        assert status == 200
        assert bits(cached) == direct


def test_both_levels_were_asked(proxy_url: str) -> None:
    """Without this the tests above would show less than they say."""
    lines = _metrics(proxy_url)
    for result in ("hit_l1", "hit_l2", "miss"):
        assert float(lines[f'embedrack_inputs_total{{result="{result}"}}']) > 100, result


def test_info_is_teis_with_our_limit(embedder_url: str, proxy_url: str) -> None:
    direct, ours = _get(embedder_url + "/info"), _get(proxy_url + "/info")
    assert ours.pop("embedrack")["dimension"] == 384
    assert ours == direct | {"max_client_batch_size": 2048}


def test_an_input_longer_than_the_model(embedder_url: str, proxy_url: str) -> None:
    body = {"inputs": ["hello", "word " * 2000], "truncate": False}
    assert post(proxy_url + "/embed", body)[:2] == post(embedder_url + "/embed", body)[:2]


@settings(max_examples=40, deadline=None)
@given(
    inputs=st.lists(POOL, min_size=1, max_size=12),
    encoding=st.sampled_from(["float", "base64"]),
    dimensions=st.sampled_from([None, 1, 17, 384]),
    before=st.booleans(),
)
def test_openais_replies_are_the_embedders_to_the_byte(
    embedder_url: str,
    proxy_url: str,
    inputs: list[object],
    encoding: str,
    dimensions: int | None,
    before: bool,
) -> None:
    """Model, indices and usage included; also where /embed had cached some of it before."""
    body = {"input": inputs, "encoding_format": encoding, "dimensions": dimensions}
    direct = post(embedder_url + "/v1/embeddings", body)
    assert direct[0] == 200
    if before:
        some = {"inputs": inputs[: len(inputs) // 2 + 1], "dimensions": dimensions}
        assert post(proxy_url + "/embed", some)[0] == 200
    for _ in range(2):
        assert counted(proxy_url + "/v1/embeddings", body)[:2] == direct[:2]


def counted(url: str, body: object) -> tuple[int, Any, dict[str, str]]:
    """Post JSON until the reply has its usage, which no answer waits long for."""
    for _ in range(100):
        reply = post(url, body)
        if reply[1].get("usage") is not None:
            break
        time.sleep(0.1)
    return reply


def _get(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url) as reply:
        value: dict[str, Any] = json.load(reply)
        return value


@lru_cache(maxsize=1)
def _metrics(url: str) -> dict[str, str]:
    with urllib.request.urlopen(url + "/metrics") as reply:
        lines = reply.read().decode().splitlines()
    return dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
