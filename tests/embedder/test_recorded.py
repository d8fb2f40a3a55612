"""A real TEI's recorded replies, word for word.

Everything is compared in full (messages with their line and column too) but for the few messages
of ``OWN_WORDS`` and for numbers: the recording is of the float32 model and the embedder's weights
are int8, so that vectors are held to a cosine where the recording has them whole, and to shape and
rough size elsewhere. Long bodies and long vectors are abbreviated in the recording and written out
here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .process import Process, Reply

DATA = Path(__file__).parent / "data"
CASES = [json.loads(line) for line in (DATA / "recorded.jsonl").read_text("utf-8").splitlines()]
STRICT = ("key", "auto_truncate false", "max_concurrent_requests")
FRESH = ("metrics", "embed: id beyond the vocabulary")  # see test_process.py
#: What an embedder with another engine and another file cannot have in common with the recording.
OWN_INFO = {"model_id", "model_dtype", "max_batch_requests", "sha"}
#: The messages that differ, by case: what TEI says, and what the embedder says. All three are about
#: text that is no JSON. msgspec, which decodes the bodies, does not say in which field it was then,
#: takes half a surrogate pair for the end of the body, and does not count how deep it has got.
OWN_WORDS = {
    "embed: lone surrogate escape": (
        "inputs: unexpected end of hex escape at line 1 column 19",
        "EOF while parsing an object at line 1 column 21",
    ),
    "embed: bad UTF-8": (
        "inputs: invalid unicode code point at line 1 column 14",
        "invalid unicode code point",
    ),
    "embed: 100,000 open brackets": (
        f"inputs{'[0]' * 126}: recursion limit exceeded at line 1 column 137",
        "recursion limit exceeded",
    ),
}
ABBREVIATED = {
    "word word … 2000 times": "word " * 2000,
    "a… 2,100,000 times": "a" * 2_100_000,
    "[[[… 100,000": "[" * 100_000,
    '["a", … 33]': json.dumps(["a"] * 33),
    "\\xff": "\udcff",  # a byte that is no UTF-8, with the error handler below
}


def is_checked(case: dict[str, Any]) -> bool:
    return "request" in case and not case["case"].startswith(FRESH)


def body_of(request: dict[str, Any]) -> bytes | None:
    text = request.get("body")
    if text is None:
        return None
    for short, whole in ABBREVIATED.items():
        text = text.replace(short, whole)
    return bytes(text.encode("utf-8", "surrogateescape"))


def headers_of(request: dict[str, Any]) -> dict[str, str]:
    headers = dict(request.get("headers", {}))
    if request.get("content-type"):
        headers["content-type"] = request["content-type"]
    return headers


@pytest.mark.parametrize(
    "case", [case for case in CASES if is_checked(case)], ids=lambda case: case["case"]
)
def test_reply_is_as_recorded(case: dict[str, Any], embedder: Process, strict: Process) -> None:
    request = case["request"]
    server = strict if case["case"].startswith(STRICT) else embedder
    reply = server.ask(request["method"], request["path"], body_of(request), headers_of(request))
    assert reply.status == case["status"], reply.body[:300]
    assert_headers(reply, case["headers"])
    if case["case"] == "GET /info":
        assert_info(reply.json(), json.loads(case["body"]))
    elif case["case"].endswith("GET /metrics"):
        assert reply.body.startswith(b"# TYPE te_")
    elif case["status"] == 200 and case["body"][:1] in ("[", "{"):
        found, recorded = reply.json(), case["body"]
        if recorded.endswith(" characters"):  # cut, somewhere within one of its 32 equal vectors
            recorded = recorded[: recorded.rindex("],[")] + "]]"
            assert len(found) == len(json.loads(request["body"])["inputs"])
            found = found[: len(json.loads(recorded))]
        assert_close(found, json.loads(recorded))
    else:
        theirs, ours = OWN_WORDS.get(case["case"], ("", ""))
        assert theirs in case["body"]
        assert reply.body.decode() == case["body"].replace(theirs, ours)


def assert_headers(reply: Reply, recorded: dict[str, str]) -> None:
    transport = ("date", "content-length", "connection")
    found = {name: value for name, value in reply.headers.items() if name not in transport}
    for name, value in recorded.items():
        if value == "<ms>":
            assert found[name].isdigit()
            found[name] = value
    assert found == recorded


def assert_info(found: dict[str, Any], recorded: dict[str, Any]) -> None:
    assert list(found) == list(recorded)
    for name in set(found) - OWN_INFO:
        assert found[name] == recorded[name], name


def assert_close(found: Any, recorded: Any) -> None:
    """The same JSON, numbers apart: whole lists of floats by cosine, abbreviated ones by length."""
    if isinstance(recorded, dict):
        assert list(found) == list(recorded)
        for name, value in recorded.items():
            assert_close(found[name], value)
    elif isinstance(recorded, list) and recorded and isinstance(recorded[0], float):
        assert_vector(found, recorded)
    elif isinstance(recorded, list):
        assert len(found) == len(recorded)
        for one, other in zip(found, recorded, strict=True):
            assert_close(one, other)
    elif isinstance(recorded, str) and "…" in recorded:
        assert len(found) == int(recorded.split("… ")[1].split()[0])
    else:
        assert found == recorded


def assert_vector(found: list[float], recorded: list[Any]) -> None:
    if isinstance(recorded[-1], str):  # "… 384 numbers"
        assert len(found) == int(recorded[-1].split()[1])
        recorded = recorded[:-1]
        found = found[: len(recorded)]
        tolerance = 0.1 * max(1.0, float(np.linalg.norm(recorded)))
        assert np.abs(np.subtract(found, recorded)).max() < tolerance
        return
    assert len(found) == len(recorded)
    norms = float(np.linalg.norm(found) * np.linalg.norm(recorded))
    assert float(np.dot(found, recorded)) > 0.99 * norms


def test_vectors_are_those_of_the_recorded_model(embedder: Process) -> None:
    recorded = json.loads((DATA / "vectors.json").read_text("utf-8"))
    found = embedder.post("/embed", {"inputs": recorded["texts"]}).json()
    for one, other in zip(found, recorded["vectors"], strict=True):
        assert np.dot(one, other) / np.linalg.norm(other) >= 0.995
