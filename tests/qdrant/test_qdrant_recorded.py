"""The replies of a real Qdrant 1.18.3 to the same calls.

Left out: the two snapshot calls, which this process answers as an unknown route. Not compared:
times, versions, the number of segments (the engine's business), and the numbers of operations,
which a server takes from its log.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.qdrant.server import Server

RECORDED = Path(__file__).parent / "data" / "recorded-1.18.3.jsonl"
NOT_COMPARED = frozenset({"time", "version", "commit", "segments_count", "operation_id"})


def request_body(case: dict[str, Any]) -> bytes | None:
    if case["case"] == "body over 32 MB":
        return b'{"points":[' + b" " * 34_000_000 + b"]}"
    return case["request"]["body"].encode() or None


def comparable(body: str) -> Any:
    """What is compared of a body, with the order of its fields."""
    if not body.startswith("{"):
        return body

    def fields(pairs: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
        return [(key, value) for key, value in pairs if key not in NOT_COMPARED]

    # Numbers stay text: 1e-7 and 0.0000001 are the same number and not the same reply.
    return json.loads(body, object_pairs_hook=fields, parse_float=str, parse_int=str)


def test_replies_are_those_of_a_server(own: Server) -> None:
    cases = [json.loads(line) for line in RECORDED.read_text().splitlines()]
    assert len(cases) == 44
    for case in cases:
        request = case["request"]
        reply = own.call(request["method"], request["path"], request_body(case))
        assert (case["case"], reply.status) == (case["case"], case["status"])
        assert (case["case"], reply.content_type) == (case["case"], case["content_type"])
        assert (case["case"], comparable(reply.body.decode())) == (
            case["case"],
            comparable(case["body"]),
        )
