"""The endpoint's failures: what is sent again, what is shown, and how many are asked at once."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest
from aiohttp import web
from code_search.endpoint import Endpoint
from code_search.errors import EndpointError
from code_search.settings import Settings
from stand_in import DIMENSION, StandIn, vector

Answers = list[web.Response | None]


@pytest.fixture
def settings(settings: Settings, stand_in: StandIn) -> Settings:
    return replace(settings, endpoint=stand_in.url, batch=4, concurrency=2)


async def test_texts_are_embedded_in_batches_by_few_at_once(
    stand_in: StandIn, settings: Settings
) -> None:
    texts = [f"text {number}" for number in range(21)]
    async with Endpoint(settings) as endpoint:
        embedded = await endpoint.embed(texts)
    assert embedded.vectors == [vector(text) for text in texts]
    assert (embedded.hits, embedded.misses) == (0, 21)
    assert sorted(stand_in.sizes) == [1, 4, 4, 4, 4, 4]
    assert stand_in.most_at_once == 2


LATER: dict[str, Answers] = {
    "429": [web.Response(status=429, headers={"Retry-After": "0"})],
    "503, and again": [web.Response(status=503), web.Response(status=503)],
    "502 of a balancer": [web.Response(status=502, text="<html>")],
    "a lost connection": [None],
}


@pytest.mark.parametrize("kind", LATER)
async def test_what_is_refused_for_now_is_sent_again(
    kind: str, stand_in: StandIn, settings: Settings
) -> None:
    stand_in.fails = list(LATER[kind])
    async with Endpoint(settings) as endpoint:
        embedded = await endpoint.embed(["a", "b"])
    assert embedded.vectors == [vector("a"), vector("b")]


async def test_retry_after_is_waited_for(stand_in: StandIn, settings: Settings) -> None:
    stand_in.fails = [web.Response(status=429, headers={"Retry-After": "2"})]
    began = time.monotonic()
    async with Endpoint(settings) as endpoint:
        await endpoint.embed(["a"])
    assert time.monotonic() - began >= 2


REFUSED: dict[str, tuple[Answers, str]] = {
    "422": ([web.json_response({"error": "no such field"}, status=422)], "422: no such field"),
    "401": ([web.Response(status=401)], "401: Unauthorized"),
    "a redirect": ([web.Response(status=302, headers={"Location": "http://a/"})], "answered 302"),
    "no JSON": ([web.Response(text="<html>")], "did not answer JSON"),
    "too few": ([web.json_response([[0.5]])], "one vector per text"),
    "null": ([web.json_response([[0.5], [None]])], "one vector per text"),
    "another dimension": ([web.json_response([[0.5], [0.5, 1]])], "one vector per text"),
    "not finite": ([web.Response(text="[[NaN],[Infinity]]")], "one vector per text"),
    "an object": ([web.json_response({"a": 1})], "one vector per text"),
    "503 for long": ([web.Response(status=503, headers={"Retry-After": "60"})], r"for 5 s \(503"),
}


@pytest.mark.parametrize("kind", REFUSED)
async def test_what_cannot_be_had_is_told(kind: str, stand_in: StandIn, settings: Settings) -> None:
    stand_in.fails, sentence = list(REFUSED[kind][0]), REFUSED[kind][1]
    async with Endpoint(settings) as endpoint:
        with pytest.raises(EndpointError, match=sentence):
            await endpoint.embed(["a", "b"])
    assert stand_in.texts == []


async def test_a_batch_that_is_too_large_is_halved(stand_in: StandIn, settings: Settings) -> None:
    stand_in.limit = 1
    async with Endpoint(settings) as endpoint:
        embedded = await endpoint.embed(["a", "b", "c"])
        assert embedded.vectors == list(map(vector, "abc"))
        stand_in.limit = 0
        with pytest.raises(EndpointError, match="413: too large"):
            await endpoint.embed(["a", "b", "c"])


async def test_a_cancelled_call_ends_its_requests(stand_in: StandIn, settings: Settings) -> None:
    stand_in.gate.clear()
    async with Endpoint(settings) as endpoint:
        work = asyncio.create_task(endpoint.embed(["a"] * 20))
        await stand_in.asked.wait()
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        stand_in.gate.set()
        assert (await endpoint.embed(["b"])).vectors == [vector("b")]


async def test_the_model_and_its_limits_are_read(stand_in: StandIn, settings: Settings) -> None:
    stand_in.info["max_client_batch_size"] = 3
    async with Endpoint(settings) as endpoint:
        model = await endpoint.info()
        assert (model.model_id, model.dimension) == ("stand-in", DIMENSION)
        await endpoint.embed(["a"] * 7)
        assert sorted(stand_in.sizes) == [1, 3, 3]
        stand_in.info["embedrack"]["namespace"] = "2"
        assert (await endpoint.info()).fingerprint != model.fingerprint


async def test_a_plain_tei_is_asked_for_its_dimension(
    stand_in: StandIn, settings: Settings
) -> None:
    del stand_in.info["embedrack"]
    async with Endpoint(settings) as endpoint:
        model = await endpoint.info()
        assert (model.model_id, model.dimension) == ("stand-in", DIMENSION)
        stand_in.info["model_sha"] = "2"
        assert (await endpoint.info()).fingerprint != model.fingerprint


async def test_what_is_no_endpoint_is_told(stand_in: StandIn, settings: Settings) -> None:
    stand_in.info = {"name": "something else"}
    async with Endpoint(settings) as endpoint:
        with pytest.raises(EndpointError, match="is not an embeddings endpoint's"):
            await endpoint.info()
    for url, sentence in {
        "http://127.0.0.1:1": "`make run` starts one",
        "127.0.0.1:8080": "is no address",
        "http://": "is no address",
    }.items():
        async with Endpoint(replace(settings, endpoint=url, patience=1)) as endpoint:
            with pytest.raises(EndpointError, match=sentence):
                await endpoint.info()


async def test_the_key_is_sent_and_not_shown(stand_in: StandIn, settings: Settings) -> None:
    keyed = replace(settings, api_key="s3cret")
    async with Endpoint(keyed) as endpoint:
        await endpoint.embed(["a"])
    assert stand_in.keys == ["Bearer s3cret"]
    assert "s3cret" not in repr(keyed)
