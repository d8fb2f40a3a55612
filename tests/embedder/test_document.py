"""The embedder's OpenAPI document describes what a real TEI answered."""

from __future__ import annotations

from typing import Any

import pytest

from local_stack.embedder.document import document

from .process import Process
from .test_recorded import CASES

PATHS = document("1.9.3")["paths"]


def is_described(case: dict[str, Any]) -> bool:
    return case.get("request", {}).get("path") in PATHS and isinstance(case["status"], int)


def test_it_is_served(embedder: Process, strict: Process) -> None:
    for process in (embedder, strict):  # the second asks for a key, but not here
        reply = process.ask("GET", "/api-doc/openapi.json")
        assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
        assert reply.json()["paths"] == PATHS


@pytest.mark.parametrize(
    "case", [case for case in CASES if is_described(case)], ids=lambda case: case["case"]
)
def test_a_recorded_reply_is_described(case: dict[str, Any]) -> None:
    method = case["request"]["method"].lower()
    operation = PATHS[case["request"]["path"]].get(method)
    if operation is None:
        assert method in ("options", "head") or case["status"] == 405
        return
    response = operation["responses"][str(case["status"])]
    media = case["headers"].get("content-type", "").split(";")[0]
    assert media in response.get("content", {"": None})


def test_every_name_is_defined(embedder: Process) -> None:
    whole = embedder.ask("GET", "/api-doc/openapi.json").body.decode()
    schemas = document("1.9.3")["components"]["schemas"]
    for name in schemas:
        assert f'"#/components/schemas/{name}"' in whole
    assert whole.count("$ref") == sum(
        whole.count(f'"#/components/schemas/{name}"') for name in schemas
    )
