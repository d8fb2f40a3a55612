"""What the workers were seen doing is shared out over the stages of a request."""

from __future__ import annotations

import json
from pathlib import Path

import aiohttp

from bench.stages import CLIENT, OTHER, STAGES, shared_out, stage_of
from tests.run.launch import ROOT

ROOTS = [("/x/proxy_app/server.py", "serve"), ("/x/proxy_app/commands/cli.py", "main")]


def test_the_innermost_function_of_a_stage_counts() -> None:
    look = [
        ("/y/hashlib.py", "new"),
        ("/x/proxy_app/entries/keys.py", "key"),
        ("/x/proxy_app/embedding/service.py", "_keys"),
        ("/x/proxy_app/embedding/service.py", "at_once"),
        *ROOTS,
    ]
    assert stage_of(look) == "keys"
    assert stage_of(look[3:]) == "flights and rules"


def test_the_client_counts_for_who_called_it() -> None:
    client = ("/y/aiohttp/client.py", "_request")
    called = [
        client,
        ("/x/proxy_app/cache/qdrant.py", "_once"),
        ("/x/proxy_app/cache/store.py", "fetch"),
    ]
    assert stage_of([*called, *ROOTS]) == "store: HTTP client"
    assert stage_of([client, *ROOTS]) == CLIENT


def test_what_stands_below_all_work_says_nothing() -> None:
    assert stage_of(ROOTS) == OTHER


def test_a_function_that_had_not_begun_is_the_loops() -> None:
    look = [("/x/proxy_app/http/lane.py", ">data_received"), *ROOTS]
    assert stage_of(look) == "the loop in C, up to the call: epoll, read"
    assert stage_of([("/x/proxy_app/http/lane.py", "data_received"), *ROOTS]) != stage_of(look)


def test_shares_add_up() -> None:
    lines = [
        json.dumps([[["/x/proxy_app/cache/memory.py", "get"]], 3]),
        json.dumps([[["/y/asyncio/tasks.py", "wait"]], 1]),
    ]
    assert shared_out("\n".join(lines)) == {"L1": 0.75, OTHER: 0.25}


def test_every_stage_names_files_that_there_are() -> None:
    files = [*ROOT.glob("proxy_app/**/*.py"), *Path(aiohttp.__file__).parent.glob("*.py")]
    names = [str(file) for file in files]
    for stage, members in STAGES:
        for place, _ in members:
            assert any(place in name for name in names), (stage, place)
