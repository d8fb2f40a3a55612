"""OpenAI's dialect and the other routes beside `/embed`, through a real gunicorn worker."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import struct
import time
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI, NotFoundError

from proxy_app.app import Parts
from proxy_app.embedding.request import Options
from proxy_app.settings import Settings
from tests.proxy.conftest import Proxy, StartProxy, listening
from tests.stand_ins.qdrant import StandInQdrant
from tests.stand_ins.tei import StandInTei


async def ask(
    proxy: Proxy, inputs: object, path: str = "/v1/embeddings", **fields: object
) -> tuple[dict[str, Any], dict[str, str]]:
    """Post to an OpenAI route, which has to answer well; gives reply and headers."""
    body = {"input": inputs} | fields
    async with proxy.session.post(proxy.url + path, json=body) as reply:
        assert reply.status == 200, await reply.text()
        return json.loads(await reply.read()), dict(reply.headers)


def usage(tokens: int) -> dict[str, int]:
    return {"prompt_tokens": tokens, "total_tokens": tokens}


async def test_it_shares_its_entries_with_embed(start: StartProxy, tei: StandInTei) -> None:
    proxy = await start()
    _, [known], _ = await proxy.embed(inputs="known")
    inputs = ["new", "known", "newer text", "new"]
    reply, headers = await ask(proxy, inputs, model="anything at all", user="u")
    assert headers["X-Cache"] == "partial; hits=1; misses=3"
    assert headers["x-compute-type"] == "gpu+optimized"
    assert "total;dur=" in headers["Server-Timing"]
    assert {name: reply[name] for name in ("object", "model")} == {
        "object": "list",
        "model": "stand/in",
    }
    assert [item["index"] for item in reply["data"]] == [0, 1, 2, 3]
    assert {item["object"] for item in reply["data"]} == {"embedding"}
    assert reply["data"][1]["embedding"] == json.loads(known)
    assert reply["usage"] == usage(3 + 3 + 4 + 3)
    _, vectors, headers = await proxy.embed(inputs=inputs)
    assert headers["X-Cache"] == "hit; hits=4; misses=0"
    assert [json.loads(vector) for vector in vectors] == [d["embedding"] for d in reply["data"]]
    assert (await ask(proxy, inputs, "/embeddings"))[0] == reply
    assert tei.calls == [["known"], ["new", "newer text"]]


async def test_base64_is_the_same_float32(start: StartProxy) -> None:
    proxy = await start()
    cold, _ = await ask(proxy, ["a", "b", "a"], encoding_format="base64")
    warm, headers = await ask(proxy, ["a", "b", "a"], encoding_format="base64")
    assert headers["X-Cache"].startswith("hit")
    assert warm == cold
    floats, _ = await ask(proxy, ["a", "b", "a"])
    for item, other in zip(warm["data"], floats["data"], strict=True):
        packed = struct.pack("<8f", *other["embedding"])
        assert base64.b64decode(item["embedding"]) == packed
    other, _ = await ask(proxy, "a", encoding_format="base64", dimensions=3)
    assert len(base64.b64decode(other["data"][0]["embedding"])) == 12


async def test_null_is_unset_and_model_is_free(start: StartProxy, tei: StandInTei) -> None:
    proxy = await start()
    plain, _ = await ask(proxy, "a")
    for fields in (
        {"encoding_format": None, "dimensions": None, "user": None, "model": None},
        {"encoding_format": "float", "dimensions": 8, "model": 7, "user": {"id": 1}},
    ):
        reply, headers = await ask(proxy, ["a"], **fields)
        assert headers["X-Cache"].startswith("hit"), fields
        assert reply == plain
    assert tei.calls == [["a"]]


async def test_tokens_are_counted_once_and_kept(
    start: StartProxy, tei: StandInTei, qdrant: StandInQdrant
) -> None:
    """A single input's count comes with it; a batch's needs /tokenize, before it is stored."""
    proxy = await start()
    await proxy.embed(inputs="one alone")
    assert (await ask(proxy, "one alone"))[0]["usage"] == usage(4)
    assert tei.tokenized == []
    texts = ["two", "words here", "word " * 300]
    assert (await ask(proxy, texts))[0]["usage"] == usage(3 + 4 + 256)
    assert tei.tokenized == [texts]
    assert (await ask(proxy, texts))[0]["usage"] == usage(3 + 4 + 256)

    async def stored() -> bool:
        return sorted(p.get("n", 0) for p in qdrant.payloads.values()) == [3, 4, 4, 256]

    await proxy.until(stored)
    proxy.process.terminate()
    await proxy.process.wait()
    proxy = await start()
    reply, headers = await ask(proxy, texts)
    assert (reply["usage"], headers["X-Cache"][:3]) == (usage(3 + 4 + 256), "hit")
    assert tei.tokenized == [texts]


async def test_a_hit_without_a_count_asks_for_it_once(start: StartProxy, tei: StandInTei) -> None:
    proxy = await start()
    texts = [f"text {i}" for i in range(70)]
    await proxy.embed(inputs=[*texts, [101, 7592, 102], [7592]])
    calls = len(tei.calls)
    for _ in range(2):
        reply, headers = await ask(proxy, [*texts, "text 0", [101, 7592, 102], [7592]])
        assert headers["X-Cache"] == "hit; hits=73; misses=0"
        assert reply["usage"] == usage(71 * 4 + 3 + 1)
    assert sorted(map(len, tei.tokenized)) == [6, 32, 32]
    # Token ids are none of /tokenize's: they are counted by an embedding of their own.
    assert sorted(tei.calls[calls:]) == [[[101, 7592, 102]], [[7592]]]


async def test_what_tokenize_does_not_count_goes_alone(start: StartProxy, tei: StandInTei) -> None:
    proxy = await start()
    long = "x" * (256 * 250 + 1)
    reply, _ = await ask(proxy, ["a", "b", long, [1, 2], [3, 4, 5]])
    assert reply["usage"] == usage(3 + 3 + 3 + 2 + 3)
    assert sorted(map(len, tei.calls)) == [1, 1, 1, 2]
    assert tei.tokenized == [["a", "b"]]
    assert (await ask(proxy, [long, [1, 2]]))[0]["usage"] == usage(5)
    assert len(tei.calls) == 4


@pytest.mark.parametrize("fault", ["overloaded", "short", "html", "close", "hang"])
async def test_usage_is_null_rather_than_invented(
    start: StartProxy, tei: StandInTei, fault: str
) -> None:
    """Where a count cannot be had, the embeddings are answered all the same, and at once."""
    proxy = await start(upstream_timeout=5)
    tei.tokenize_fault = fault
    for texts in (["a", "b"], ["c", "d"]):
        reply, _ = await ask(proxy, texts)
        assert (len(reply["data"]), reply["usage"]) == (2, None)
    assert [texts for texts in tei.tokenized if texts == ["c", "d"]] == []


async def test_counting_goes_on_after_a_pause(
    tmp_path: Path, tei: StandInTei, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy_app.embedding.tokens.PAUSE", 0.3)
    async with listening(tei.app()) as url:
        parts = Parts(Settings(upstream_url=url, workers=1), tmp_path)
        running = parts.run(None)  # type: ignore[arg-type]
        await anext(running)

        async def tokens(*texts: str) -> list[int]:
            answer = await parts.service.embed([*texts], Options(count_tokens=True))
            return [entry.tokens for entry in answer.entries]

        try:
            tei.tokenize_fault = "html"
            assert await tokens("a", "b") == [0, 0]
            tei.tokenize_fault = ""
            assert await tokens("a", "b") == [0, 0]
            await asyncio.sleep(0.3)
            assert await tokens("a", "b") == [3, 3]
            assert len(tei.tokenized) == 2
        finally:
            with pytest.raises(StopAsyncIteration):
                await anext(running)


@pytest.mark.parametrize("fault", ["hang", "missing", "overloaded", "html", "close"])
async def test_no_hit_waits_for_a_count_that_does_not_come(
    start: StartProxy, tei: StandInTei, fault: str
) -> None:
    """Twenty texts that were cached by /embed, whose tokens nobody has counted."""
    texts = [f"text {i}" for i in range(20)]
    proxy = await start(store=False, upstream_timeout=3)
    await proxy.embed(inputs=texts)
    tei.tokenize_fault = fault
    started = time.monotonic()
    for text in texts:
        reply, headers = await ask(proxy, text)
        assert (reply["usage"], headers["X-Cache"][:3]) == (None, "hit")
    seconds = time.monotonic() - started
    print(f"{fault}: 20 hits without a count took {seconds:.2f} s, {len(tei.tokenized)} calls")
    assert seconds < 20
    assert len(tei.tokenized) < 10


async def test_a_count_that_comes_late_is_kept(start: StartProxy, tei: StandInTei) -> None:
    proxy = await start(store=False)
    await proxy.embed(inputs=["some text", "another"])
    tei.tokenize_delay = 0.5
    assert (await ask(proxy, "some text"))[0]["usage"] is None

    async def counted() -> bool:
        return len(tei.tokenized) == 1 and (await ask(proxy, "some text"))[0]["usage"] == usage(4)

    await proxy.until(counted)


@pytest.mark.parametrize("path", ["/", "/invocations"])
async def test_the_models_own_task_is_to_embed(
    start: StartProxy, tei: StandInTei, path: str
) -> None:
    proxy = await start()
    for expected in ("miss", "hit"):
        async with proxy.session.post(proxy.url + path, json={"inputs": ["a"]}) as reply:
            assert reply.headers["X-Cache"].startswith(expected)
            raw = await reply.read()
    assert raw == b"[" + (await proxy.embed(inputs=["a"]))[1][0] + b"]"
    assert tei.calls == [["a"]]


async def test_a_sparse_models_task_is_passed_on(start: StartProxy, tei: StandInTei) -> None:
    tei.info["model_type"] = {"embedding": {"pooling": "splade"}}
    proxy = await start()
    async with proxy.session.post(proxy.url + "/", data=b"whatever it takes") as reply:
        assert await reply.read() == b"whatever it takes"
        assert "X-Cache" not in reply.headers


async def test_the_models_list_has_the_served_one(start: StartProxy, tei: StandInTei) -> None:
    tei.info["served_model_name"] = "a name"
    proxy = await start()
    _, text = await proxy.get("/v1/models")
    model = {"id": "a name", "object": "model", "created": 0, "owned_by": "embedrack"}
    assert json.loads(text) == {"object": "list", "data": [model]}


@pytest.mark.parametrize("name", ["a name", "stand/in"])
async def test_openais_client_retrieves_the_served_model(
    start: StartProxy, tei: StandInTei, name: str
) -> None:
    tei.info["served_model_name"] = name
    proxy = await start()
    async with AsyncOpenAI(base_url=proxy.url + "/v1", api_key="any") as client:
        assert (await client.models.retrieve(name)).id == name
        for other in ("another", name + "/", "org/" + name):
            with pytest.raises(NotFoundError) as refused:
                await client.models.retrieve(other)
            assert refused.value.code == "model_not_found"
            assert refused.value.param == "model"
            assert refused.value.type == "invalid_request_error"
            assert name in refused.value.message
    model = {"id": name, "object": "model", "created": 0, "owned_by": "embedrack"}
    assert json.loads((await proxy.get("/v1/models/" + name))[1]) == model


async def test_what_changes_by_the_moment_is_stored_by_nobody(start: StartProxy) -> None:
    proxy = await start()
    for path in ("/livez", "/readyz", "/health", "/info", "/status.json"):
        async with proxy.session.get(proxy.url + path) as reply:
            assert (reply.status, reply.headers["Cache-Control"]) == (200, "no-store"), path
    for path in ("/livez", "/info"):
        async with proxy.session.head(proxy.url + path) as reply:
            assert (reply.status, await reply.read()) == (200, b"")
            assert int(reply.headers["Content-Length"]) > 0


async def test_no_reply_names_versions(start: StartProxy) -> None:
    proxy = await start(api_keys="alice:" + "0" * 64)
    for method, path in (
        *(("GET", "/livez"), ("GET", "/metrics"), ("GET", "/status"), ("GET", "/docs")),
        *(("OPTIONS", "/embed"), ("POST", "/embed"), ("GET", "/info")),
    ):
        async with proxy.session.request(method, proxy.url + path) as reply:
            assert reply.headers["Server"] == "embedrack", path


async def test_a_browser_may_ask(start: StartProxy) -> None:
    """The headers that a real TEI sends (recorded), on every reply of ours, errors included."""
    proxy = await start()
    vary = "origin, access-control-request-method, access-control-request-headers"
    asked = {
        "Origin": "http://a",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    for path in ("/embed", "/v1/embeddings"):
        async with proxy.session.options(proxy.url + path, headers=asked) as reply:
            assert (reply.status, await reply.read()) == (200, b"")
            assert reply.headers["access-control-allow-methods"] == "GET,POST"
            assert reply.headers["access-control-allow-headers"] == "content-type"
    for path, body in (
        ("/embed", b'{"inputs":"a"}'),
        ("/embed", b"{"),
        ("/v1/embeddings", b'{"input":"a"}'),
        ("/v1/embeddings", b"{"),
    ):
        async with proxy.session.post(proxy.url + path, data=body) as reply:
            assert reply.headers["access-control-allow-origin"] == "*"
            assert reply.headers["vary"] == vary
    for path in ("/", "/info", "/health", "/livez", "/metrics", "/v1/models", "/docs"):
        async with proxy.session.get(proxy.url + path) as reply:
            assert (reply.status, reply.headers["access-control-allow-origin"]) == (200, "*")


async def test_the_document_is_teis_with_ours(start: StartProxy, tei: StandInTei) -> None:
    reply = {"description": "Embeddings", "content": {"application/json": {}}}
    tei.document = {
        "openapi": "3.0.3",
        "info": {"title": "Text Embeddings Inference", "version": "1.9.3"},
        "paths": {
            "/embed": {"post": {"summary": "Get Embeddings.", "responses": {"200": reply}}},
            "/rerank": {"post": {"summary": "Get Ranks.", "responses": {"200": reply}}},
        },
        "components": {"schemas": {"EmbedRequest": {"type": "object"}}},
    }
    proxy = await start()
    document = json.loads((await proxy.get("/api-doc/openapi.json"))[1])
    assert document["info"]["title"] == "Embedrack"
    assert document["info"]["x-tei-version"] == "1.9.3"
    components = document["components"]["schemas"]
    assert components["EmbedRequest"] == {"type": "object"}
    rerank = document["paths"]["/rerank"]["post"]
    assert rerank["summary"] == "Get Ranks."
    assert rerank["responses"].pop("200") == reply
    assert {"408", "413", "429", "503"} <= set(rerank["responses"])
    embed = document["paths"]["/embed"]["post"]
    good = embed["responses"]["200"]
    assert good.pop("headers").keys() == {"X-Cache", "Server-Timing"}
    assert good == reply
    body = embed["requestBody"]["content"]["application/json"]["schema"]
    assert components[body["$ref"].split("/")[-1]]["required"] == ["inputs"]
    assert {"/", "/invocations", "/v1/embeddings", "/v1/models", "/livez"} <= set(document["paths"])
    [parameter] = document["paths"]["/v1/models/{id}"]["get"]["parameters"]
    assert (parameter["name"], parameter["in"]) == ("id", "path")
    tei.document = {}  # a server that has none: ours alone
    document = json.loads((await proxy.get("/api-doc/openapi.json"))[1])
    assert "/rerank" not in document["paths"]
    names = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(document)))
    assert names <= set(document["components"]["schemas"])
    assert "post" in document["paths"]["/v1/embeddings"]
    assert 'fetch("api-doc/openapi.json")' in (await proxy.get("/docs"))[1]
