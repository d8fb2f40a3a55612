"""A text's vector is bit for bit the same, whatever else is asked for at the same time."""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .process import Process

WORDS = ("the", "of", "nginx", "東京", "Émile", "balance", "🙂", "x", "12.5", "(load)", "kitten\n")
LENGTHS = (1, 1, 2, 3, 5, 8, 13, 21, 34, 80, 180, 400)


def some_texts(count: int) -> list[str]:
    chance = random.Random(20)
    return [" ".join(chance.choices(WORDS, k=chance.choice(LENGTHS))) for _ in range(count)]


def bits(process: Process, inputs: Any) -> list[str]:
    reply = process.post("/v1/embeddings", {"input": inputs, "encoding_format": "base64"})
    assert reply.status == 200, reply.body
    return [entry["embedding"] for entry in reply.json()["data"]]


@pytest.fixture(scope="module")
def one_thread() -> Iterator[Process]:
    with Process("--threads", "1", "--max-batch-tokens", "300") as process:
        yield process


@pytest.fixture(scope="module")
def alone(embedder: Process) -> dict[str, str]:
    return {text: bits(embedder, text)[0] for text in some_texts(40)}


def test_batches_of_every_size_agree(embedder: Process, alone: dict[str, str]) -> None:
    texts = list(alone)
    for size in (2, 5, 13, 32):
        random.Random(size).shuffle(texts)
        for start in range(0, len(texts), size):
            batch = texts[start : start + size]
            assert bits(embedder, batch) == [alone[text] for text in batch]


def test_concurrent_requests_agree(embedder: Process, alone: dict[str, str]) -> None:
    chance = random.Random(3)
    batches = [chance.sample(list(alone), chance.randint(1, 6)) for _ in range(24)]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda batch: bits(embedder, batch), batches))
    assert found == [[alone[text] for text in batch] for batch in batches]


def test_the_number_of_threads_does_not_matter(one_thread: Process, alone: dict[str, str]) -> None:
    texts = list(alone)[:32]
    assert bits(one_thread, texts) == [alone[text] for text in texts]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=2, max_size=6))
def test_any_texts_agree(embedder: Process, texts: list[str]) -> None:
    assert bits(embedder, texts) == [bits(embedder, text)[0] for text in texts]


def test_text_and_base64_are_the_same_numbers(embedder: Process) -> None:
    texts = some_texts(20)
    written = embedder.post("/embed", {"inputs": texts}).json()
    for row, encoded in zip(written, bits(embedder, texts), strict=True):
        raw = np.frombuffer(base64.b64decode(encoded), "<f4")
        assert np.array(row, np.float32).tobytes() == raw.tobytes()


def test_dimensions_are_cut_before_normalising(embedder: Process) -> None:
    whole = np.array(embedder.post("/embed", {"inputs": "a", "normalize": False}).json()[0])
    cut = np.array(embedder.post("/embed", {"inputs": "a", "dimensions": 7}).json()[0])
    np.testing.assert_allclose(cut, whole[:7] / np.linalg.norm(whole[:7]), rtol=1e-5)
    raw = embedder.post("/embed", {"inputs": "a", "dimensions": 7, "normalize": False}).json()[0]
    assert raw == list(whole[:7])


def test_the_end_or_the_beginning_is_cut(embedder: Process) -> None:
    words = ["left"] * 300 + ["right"] * 300

    def vector(text: str, direction: str) -> list[float]:
        body = {"inputs": text, "truncation_direction": direction, "truncate": True}
        reply = embedder.post("/embed", body)
        assert reply.headers["x-compute-tokens"] == "256"
        found: list[float] = reply.json()[0]
        return found

    assert vector(" ".join(words), "Right") == vector(" ".join(words[:254]), "Left")
    assert vector(" ".join(words), "left") == vector(" ".join(words[-254:]), "right")


def test_characters_are_limited_before_tokens(embedder: Process) -> None:
    long = "a " * 32_001
    reply = embedder.post("/embed", {"inputs": long, "truncate": False})
    assert reply.status == 422
    assert "must have less than 64000 characters. Given: 64002" in reply.json()["error"]
    assert embedder.post("/tokenize", {"inputs": long}).status == 422
    assert embedder.post("/embed", {"inputs": long}).status == 200
    assert embedder.post("/embed", {"inputs": "é" * 64_001}).status == 200


def test_tokens_are_placed_in_bytes(embedder: Process) -> None:
    text = "Émile 🙂 x"
    (tokens,) = embedder.post("/tokenize", {"inputs": text, "add_special_tokens": False}).json()
    for token in tokens:
        assert text.encode()[token["start"] : token["stop"]].decode() == token["text"]
    assert tokens[-1]["stop"] == len(text.encode())


def test_ids_come_back_as_text(embedder: Process) -> None:
    body = {"ids": [[7592], [999999]], "skip_special_tokens": False}
    assert embedder.post("/decode", body).json() == ["hello", ""]
    assert embedder.post("/decode", {"ids": []}).status == 400
    assert embedder.post("/decode", {"ids": [[7592], [-1]]}).status == 422


def test_similarity_limits_count_the_source(embedder: Process) -> None:
    def body(count: int) -> dict[str, object]:
        return {"inputs": {"source_sentence": "a", "sentences": ["b"] * count}}

    assert embedder.post("/similarity", body(31)).status == 200
    assert embedder.post("/similarity", body(32)).status == 422
    assert embedder.post("/similarity", body(0)).status == 400
