"""The comparison with other proxies tells right replies from wrong ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

from bench.peers import litellm, mixed
from bench.peers.upstream import app, stand_in, texts_vector

Data = list[dict[str, Any]]


def reply_to(texts: list[str]) -> dict[str, Any]:
    server = stand_in()
    vectors = [orjson.loads(texts_vector(server, text)) for text in texts]
    return {"data": [{"index": i, "embedding": vector} for i, vector in enumerate(vectors)]}


def test_a_right_reply() -> None:
    assert mixed.judge(["a", "b", "a"], reply_to(["a", "b", "a"])) == mixed.Verdict()


def test_each_way_of_being_wrong() -> None:
    twice = reply_to(["a", "b"])
    twice["data"][1]["index"] = 0
    assert mixed.judge(["a", "b"], twice).problem == "index 0, 0"
    assert mixed.judge(["a", "b"], reply_to(["a"])).problem == "1 embeddings for 2 texts"
    swapped = mixed.judge(["a", "b", "c"], reply_to(["a", "c", "b"]))
    assert swapped.problem == "the vector at 1 is that of the text at 2"
    foreign = mixed.judge(["a", "b"], reply_to(["a", "z"]))
    assert foreign.problem == "the vector at 1 is that of none of the texts"


def test_a_float_that_is_printed_longer_is_the_same_float32() -> None:
    reply = reply_to(["a"])
    [entry] = reply["data"]
    entry["embedding"] = [number * (1 + 1e-12) for number in entry["embedding"]]
    assert mixed.judge(["a"], reply).problem == ""


@asynccontextmanager
async def serving(spoil: Callable[[Data], None]) -> AsyncIterator[str]:
    """Run the honest server, behind something that spoils the replies with more than one text."""
    served = app(stand_in())

    @web.middleware
    async def spoiled(
        request: web.Request, handler: Callable[[web.Request], Any]
    ) -> web.StreamResponse:
        response: web.Response = await handler(request)
        assert isinstance(response.body, bytes)
        reply = orjson.loads(response.body)
        spoil(reply["data"])
        return web.Response(body=orjson.dumps(reply), content_type="application/json")

    served.middlewares.append(spoiled)
    runner = web.AppRunner(served)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def nothing(_: Data) -> None:
    pass


def swap_the_ends(data: Data) -> None:
    data[0]["embedding"], data[-1]["embedding"] = data[-1]["embedding"], data[0]["embedding"]


async def test_every_shape_of_an_honest_server_is_right() -> None:
    async with serving(nothing) as url:
        verdicts = await asyncio.to_thread(mixed.compare, url)
    assert {mixed.summary(of_shape) for of_shape in verdicts.values()} == {"right, 5 of 5"}


async def test_a_server_that_swaps_vectors_is_wrong_in_every_shape() -> None:
    async with serving(swap_the_ends) as url:
        verdicts = await asyncio.to_thread(mixed.compare, url)
    for of_shape in verdicts.values():
        assert mixed.summary(of_shape).startswith("wrong, 5 of 5: the vector at 0 is that of")


def test_a_peer_that_does_not_start_shows_its_log(tmp_path: Path) -> None:
    program = tmp_path / "litellm"
    program.write_text("#!/bin/sh\necho 'no such option: --config'; exit 2\n")
    program.chmod(0o755)
    with (
        pytest.raises(SystemExit, match=r"LiteLLM ended with 2(.|\n)*no such option: --config"),
        litellm.proxy("http://127.0.0.1:9", program),
    ):
        pass
    with (
        pytest.raises(SystemExit, match=r"bootstrap\.py peers"),
        litellm.proxy("http://127.0.0.1:9", tmp_path / "absent"),
    ):
        pass
