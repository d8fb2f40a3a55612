"""What a wrong request and a wrong upstream get: one shape, TEI's status, nothing stored.

``pytest tests/proxy/test_errors.py -rP`` prints status and body of each.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from dataclasses import replace

import aiohttp
import pytest
from aiohttp import web

from tests.proxy.conftest import Proxy, StartProxy, listening, serving, worker_pids
from tests.stand_ins.qdrant import StandInQdrant
from tests.stand_ins.tei import StandInTei

BAD_BODIES: list[tuple[str, bytes, int, str, str]] = [
    ("empty list", b'{"inputs":[]}', 400, "Empty", "cannot be empty"),
    ("empty text", b'{"inputs":["a",""]}', 400, "Empty", "cannot be empty"),
    ("empty ids", b'{"inputs":[[]]}', 400, "Empty", "cannot be empty"),
    ("null inputs", b'{"inputs":null}', 422, "Validation", "$.inputs"),
    ("no inputs", b"{}", 422, "Validation", "inputs"),
    ("a null among inputs", b'{"inputs":["a",null]}', 422, "Validation", "$.inputs[1]"),
    ("ids beside a text", b'{"inputs":[1,"a"]}', 422, "Validation", "list of its own"),
    ("negative id", b'{"inputs":[-1]}', 422, "Validation", "$.inputs[0]"),
    ("id beyond 32 bits", b'{"inputs":[4294967296]}', 422, "Validation", "$.inputs[0]"),
    ("unknown ids", b'{"inputs":[999999]}', 422, "Validation", "check_embedding_ctx_length"),
    ("no object", b"[]", 422, "Validation", "object"),
    ("broken JSON", b'{"inputs":"a', 400, "Validation", "line 1"),
    ("no body", b"", 400, "Validation", "JSON"),
    ("lone surrogate", b'{"inputs":"a\\ud800 and more"}', 400, "Validation", "surrogate"),
    ("lone surrogate at the end", b'{"inputs":"a\\ud800"}', 400, "Validation", "surrogate"),
    ("bad UTF-8", b'{"inputs":"a\xff"}', 400, "Validation", "UTF-8"),
    ("too many brackets", b'{"inputs":[[["a"]]]}', 422, "Validation", "$.inputs[0][0]"),
    ("100,000 brackets", b'{"inputs":' + b"[" * 100_000, 400, "Validation", "JSON"),
    ("5,000 pairs", b'{"inputs":' + b"[" * 5000 + b"]" * 5000 + b"}", 400, "Validation", "JSON"),
    ("a wrong type in broken JSON", b'{"inputs":[{}', 400, "Validation", "JSON"),
    ("deep unknown field", b'{"x":' + b"[" * 100_000, 400, "Validation", "JSON"),
    ("normalize a text", b'{"inputs":"a","normalize":"no"}', 422, "Validation", "normalize"),
    ("wrong direction", b'{"inputs":"a","truncation_direction":"up"}', 422, "Validation", "up"),
    ("dimensions 0", b'{"inputs":"a","dimensions":0}', 422, "Validation", "positive"),
    ("dimensions -1", b'{"inputs":"a","dimensions":-1}', 422, "Validation", "dimensions"),
    ("too many dimensions", b'{"inputs":"a","dimensions":9}', 422, "Validation", "smaller"),
    ("too long", b'{"inputs":"too long","truncate":false}', 422, "Validation", "256 tokens"),
    ("10,000 texts", json.dumps({"inputs": ["a"] * 10_000}).encode(), 422, "Validation", "2048"),
    ("a 3 MB text", json.dumps({"inputs": "x" * 3_000_000}).encode(), 413, "Validation", "payload"),
]


#: Fields that OpenAI's dialect does not have.
TEI_ALONE = (b"normalize", b"truncat")
OPENAI_ALONE: list[tuple[str, bytes, int, str, str]] = [
    ("wrong encoding", b'{"input":"a","encoding_format":"hex"}', 422, "Validation", "hex"),
    ("inputs for input", b'{"inputs":"a"}', 422, "Validation", "`input`"),
]


def error_of(reply: list[bytes]) -> dict[str, str]:
    """Read an error and hold it against TEI's shape: two strings and no more."""
    error: dict[str, str] = json.loads(reply[0])
    assert set(error) == {"error", "error_type"}
    return error


def told_in(path: str, status: int, reply: list[bytes]) -> dict[str, str]:
    """Read an error in the shape of the path's dialect, under the names of TEI's."""
    if path == "/embed":
        return error_of(reply)
    error = json.loads(reply[0])
    assert set(error) == {"message", "code", "type"}
    assert error["code"] == status
    return {"error": error["message"], "error_type": error["type"]}


DIALECTS = {"/embed": b"inputs", "/v1/embeddings": b"input"}


async def test_wrong_requests(start: StartProxy, qdrant: StandInQdrant) -> None:
    proxy = await start()
    openai = [
        (name, body.replace(b'"inputs"', b'"input"'), status, kind, words.replace("puts", "put"))
        for name, body, status, kind, words in BAD_BODIES
        if not any(field in body for field in TEI_ALONE)
    ]
    cases = [("/embed", case) for case in BAD_BODIES]
    cases += [("/v1/embeddings", case) for case in openai + OPENAI_ALONE]
    for path, (name, body, status, kind, words) in cases:
        got, reply, headers = await proxy.post(body, path)
        error = told_in(path, got, reply)
        print(f"{path:14} {name:26} {got} {reply[0].decode()}")
        assert (got, error["error_type"]) == (status, kind), (path, name, error)
        assert words in error["error"], (path, name, error)
        assert headers["Content-Type"] == "application/json"
    assert qdrant.points == {}
    assert (await proxy.embed(inputs="a"))[0] == 200


async def test_a_body_over_the_limit(start: StartProxy) -> None:
    proxy = await start(max_body=1)
    for path in DIALECTS:
        status, reply, _ = await proxy.post(b'{"inputs":"' + b"x" * 1_100_000 + b'"}', path)
        assert status == 413
        assert "EMBEDRACK_MAX_BODY" in told_in(path, status, reply)["error"]


FAULTS = {
    "short": (424, "Backend", "31 embeddings for 32"),
    "null": (424, "Backend", "embedding 31 of 32"),
    "nan": (424, "Backend", "embedding 31 of 32"),
    "huge": (424, "Backend", "embedding 31 of 32"),
    "dimension": (424, "Backend", "embedding 0 of 32 is not 8 float32"),
    "html": (424, "Backend", "no list of embeddings"),
    "cut": (424, "Backend", "no list of embeddings"),
    "overloaded": (429, "Overloaded", "Model is overloaded"),
    "backend": (424, "Backend", "out of memory"),
}


async def test_wrong_replies_from_above(
    start: StartProxy, tei: StandInTei, qdrant: StandInQdrant
) -> None:
    proxy = await start()
    for fault, (expected, kind, words) in FAULTS.items():
        texts = [f"{fault} {i}" for i in range(32)]
        for path, field in DIALECTS.items():
            tei.faults.append(fault)
            body = json.dumps({field.decode(): texts}).encode()
            status, reply, headers = await proxy.post(body, path)
            error = told_in(path, status, reply)
            print(f"TEI: {fault:21} {status} {reply[0].decode()}")
            assert (status, error["error_type"]) == (expected, kind), fault
            assert words in error["error"], fault
            assert ("Retry-After" in headers) == (status == 429)
    await asyncio.sleep(0.2)
    assert qdrant.points == {}
    for fault in FAULTS:
        status, vectors, headers = await proxy.embed(inputs=[f"{fault} {i}" for i in range(32)])
        assert (status, len(vectors)) == (200, 32)
        assert headers["X-Cache"] == "miss; hits=0; misses=32"


@pytest.mark.parametrize("fault", ["close", "502"])
async def test_an_instance_that_dies_is_not_noticed(
    start: StartProxy, tei: StandInTei, fault: str
) -> None:
    proxy = await start()
    tei.faults.append(fault)
    status, vectors, _ = await proxy.embed(inputs=["a", "b", "c"])
    assert (status, len(vectors)) == (200, 3)
    assert tei.calls == [["a", "b", "c"], ["a"], ["b"], ["c"]]


async def test_a_decode_reply_that_is_not_utf8(start: StartProxy, tei: StandInTei) -> None:
    proxy = await start(store=False)
    tei.decoded = b'["\xff"]'
    status, reply, _ = await proxy.embed(inputs=[101, 7592])
    assert (status, error_of(reply)["error_type"]) == (424, "Backend")
    assert "/decode" in error_of(reply)["error"]


async def test_a_text_that_kills_costs_two_deaths(start: StartProxy, tei: StandInTei) -> None:
    proxy = await start()
    tei.deadly.add("poison")
    deaths = 0
    for _ in range(5):
        status, reply, _ = await proxy.embed(inputs=["good", "poison", "fine"])
        assert status == 424
        assert "refused for 60 minutes" in error_of(reply)["error"]
        deaths = sum("poison" in call for call in tei.calls)
    assert deaths == 2
    status, _, headers = await proxy.embed(inputs=["good", "fine"])
    assert (status, headers["X-Cache"][:3]) == (200, "hit")  # computed, though their request failed


async def test_a_bad_text_fails_its_own_request_alone(start: StartProxy, tei: StandInTei) -> None:
    """Whoever waits for a text that flew beside somebody's bad one gets it all the same."""
    tei.delay = 0.3
    proxy = await start()
    bad = asyncio.create_task(proxy.embed(inputs=["too long", "shared"], truncate=False))
    await asyncio.sleep(0.1)
    good = asyncio.create_task(proxy.embed(inputs=["shared"], truncate=False))
    assert (await bad)[0] == 422
    assert (await good)[0] == 200


async def test_tei_away_hits_are_answered(tei: StandInTei) -> None:
    """It starts without TEI, becomes ready when it answers, and serves hits when it goes."""
    async with listening(tei.app()) as url:
        port = int(url.rsplit(":", 1)[1])
    async with serving(url) as proxy:
        status, text = await proxy.get("/readyz")
        assert status == 503
        assert "cannot be reached" in text
        assert (await proxy.get("/livez"))[0] == 200
        status, reply, headers = await proxy.embed(inputs="a")
        assert (status, headers["Retry-After"]) == (503, "1")
        assert error_of(reply)["error_type"] == "Unhealthy"
        status, text = await proxy.get("/v1/models")
        assert told_in("/v1/models", status, [text.encode()])["error_type"] == "Unhealthy"
        status, text = await proxy.get("/api-doc/openapi.json")
        assert (status, error_of([text.encode()])["error_type"]) == (503, "Unhealthy")
        async with listening(tei.app(), port):
            await proxy.until(proxy.is_ready)
            _, known, _ = await proxy.embed(inputs="a")
            await proxy.embed(inputs=["b", "c"])

        async def is_unready() -> bool:
            return not await proxy.is_ready()

        await proxy.until(is_unready)
        for path, field in DIALECTS.items():
            status, reply, headers = await proxy.post(b'{"%b":"new"}' % field, path)
            print(f"TEI: {'away':21} {status} {reply[0].decode()}")
            assert (status, headers["Retry-After"]) == (503, "1")
            assert told_in(path, status, reply)["error_type"] == "Unhealthy"
        status, again, headers = await proxy.embed(inputs="a")
        assert (status, headers["X-Cache"][:3], again) == (200, "hit", known)
        for inputs, usage in (
            (b'"a"', b'{"prompt_tokens":3,"total_tokens":3}'),
            (b'["b","c"]', b"null"),  # nobody has counted these, and nobody can now
        ):
            status, [body], _ = await proxy.post(b'{"input":%b}' % inputs, "/v1/embeddings")
            assert (status, body[-len(usage) - 1 :]) == (200, usage + b"}")


async def test_one_error_for_all_when_the_upstream_is_gone_amid_a_batch(
    start: StartProxy, tei: StandInTei
) -> None:
    proxy = await start()
    tei.faults.extend(["close", "overloaded"])
    status, reply, headers = await proxy.embed(inputs=["a", "b", "c"])
    assert (status, error_of(reply)["error_type"]) == (429, "Overloaded")
    assert tei.calls == [["a", "b", "c"], ["a"]]
    assert "Retry-After" in headers


async def test_a_hanging_tei_delays_no_start(tei: StandInTei) -> None:
    async def hang(_: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    app = web.Application()
    app.router.add_get("/info", hang)
    async with listening(app) as url, serving(url, upstream_timeout=2) as proxy:
        assert (await proxy.get("/livez"))[0] == 200
        assert (await proxy.embed(inputs="a"))[0] == 503


async def test_a_busy_tei_at_the_start_makes_a_request_wait(tei: StandInTei) -> None:
    """A worker that starts under load does not know the model yet: that is no reason for a 503."""
    tei.delay = 5
    async with listening(tei.app()) as url, serving(url) as proxy:
        assert (await proxy.get("/readyz"))[0] == 503
        tei.delay = 0
        assert (await proxy.embed(inputs="a"))[0] == 200


async def test_tei_hangs(start: StartProxy, tei: StandInTei) -> None:
    proxy = await start(upstream_timeout=0.5)
    tei.faults.append("hang")
    status, reply, _ = await proxy.embed(inputs="a")
    assert status == 503
    assert "in time" in error_of(reply)["error"]
    assert (await proxy.embed(inputs="a"))[0] == 200


async def test_qdrant_away_slow_or_wrong(
    start: StartProxy, tei: StandInTei, qdrant: StandInQdrant
) -> None:
    proxy = await start(memory=0, store_timeout=0.1)
    first = (await proxy.embed(inputs="a"))[1]
    for mode in ("refuse", "slow", "null"):
        qdrant.mode = mode
        status, vectors, headers = await proxy.embed(inputs="a")
        print(f"Qdrant: {mode:18} {status} {headers['X-Cache']}")
        assert (status, vectors, headers["X-Cache"][:4]) == (200, first, "miss"), mode
    qdrant.mode = ""

    async def hit() -> bool:
        return (await proxy.embed(inputs="a"))[2]["X-Cache"].startswith("hit")

    await proxy.until(hit)


async def test_qdrant_comes_later_and_gets_what_waited(
    tei: StandInTei, qdrant: StandInQdrant
) -> None:
    async with listening(qdrant.app()) as url:
        port = int(url.rsplit(":", 1)[1])
    async with listening(tei.app()) as upstream, serving(upstream, url) as proxy:
        await proxy.until(proxy.is_ready)
        assert (await proxy.embed(inputs=["a", "b"]))[0] == 200
        async with listening(qdrant.app(), port):

            async def stored() -> bool:
                return len(qdrant.points) == 2

            await proxy.until(stored)


async def test_a_collection_that_is_not_exact_is_left_alone(
    start: StartProxy, qdrant: StandInQdrant
) -> None:
    qdrant.distance = "Cosine"
    proxy = await start()
    assert (await proxy.embed(inputs="a"))[0] == 200

    async def says_so() -> bool:
        return "Dot, float32 are needed" in (await proxy.get("/readyz"))[1]

    await proxy.until(says_so)
    assert qdrant.points == {}


async def test_another_model_behind_the_same_url(
    start: StartProxy, tei: StandInTei, qdrant: StandInQdrant
) -> None:
    """A restart with another model closes the connections; nothing of it is filed as the old."""
    proxy = await start(memory=0)
    await proxy.embed(inputs="a")
    tei.info["model_id"], tei.salt = "stand/other", "other"
    tei.faults.append("close")
    _, [vector], headers = await proxy.embed(inputs="b")
    assert headers["X-Cache"].startswith("miss")
    _, _, headers = await proxy.embed(inputs="a")
    assert headers["X-Cache"].startswith("miss")
    assert "stand/other" in (await proxy.get("/info"))[1]
    assert vector == (await proxy.embed(inputs="b"))[1][0]


@pytest.mark.parametrize("fault", ["close", "bye"])
async def test_another_dimension_behind_the_same_name(
    start: StartProxy, tei: StandInTei, fault: str
) -> None:
    """A model folder that was exchanged: /info is the same, the vectors are not."""
    proxy = await start()
    if fault == "bye":  # it ends the connection after a good reply, as a server that drains does
        tei.faults.append(fault)
    assert len(json.loads((await proxy.embed(inputs="a"))[1][0])) == 8
    tei.dimension = 6
    if fault == "close":
        tei.faults.append(fault)
    for text in ("b", "a"):
        status, [vector], headers = await proxy.embed(inputs=text)
        assert (status, headers["X-Cache"][:4], len(json.loads(vector))) == (200, "miss", 6)


async def test_a_client_that_goes_takes_its_work_along(start: StartProxy, tei: StandInTei) -> None:
    answered = tei.held["shared"] = tei.held["only mine"] = asyncio.Event()
    proxy = await start()
    alone = asyncio.create_task(proxy.embed(inputs=["only mine"]))
    both = asyncio.create_task(proxy.embed(inputs=["shared"]))

    async def two_wait() -> bool:
        return tei.in_flight == 2

    await proxy.until(two_wait)
    other = asyncio.create_task(proxy.embed(inputs=["shared", "others'"]))

    async def other_waits() -> bool:
        return ["others'"] in tei.calls

    await proxy.until(other_waits)
    for task in (alone, both):
        task.cancel()

    async def cancelled() -> bool:
        return tei.cancelled == 1

    await proxy.until(cancelled)
    answered.set()
    assert (await other)[0] == 200
    assert tei.cancelled == 1


async def test_overload_is_refused_and_passes(start: StartProxy, tei: StandInTei) -> None:
    tei.info["max_concurrent_requests"] = 32
    tei.delay = 0.3
    proxy = await start(max_queue=64)
    requests = [proxy.embed(inputs=[f"{i} {j}" for j in range(32)]) for i in range(8)]
    replies = await asyncio.gather(*requests)
    statuses = [status for status, _, _ in replies]
    assert set(statuses) == {200, 429}
    for status, reply, headers in replies:
        if status == 429:
            assert error_of(reply)["error_type"] == "Overloaded"
            assert "Retry-After" in headers
    assert (await proxy.embed(inputs="later"))[0] == 200


async def test_a_killed_worker_comes_back(start: StartProxy) -> None:
    proxy = await start(workers=2)
    before = worker_pids(proxy)
    os.kill(min(before), signal.SIGKILL)

    async def another() -> bool:
        return len(worker_pids(proxy) - before) == 1

    await proxy.until(another)
    # A connection that was kept may be the killed worker's.
    async with aiohttp.ClientSession() as session:
        again = replace(proxy, session=session)
        for i in range(10):
            assert (await again.embed(inputs=f"text {i}"))[0] == 200


async def passes(proxy: Proxy, path: str, body: bytes) -> tuple[int, str]:
    async with proxy.session.post(proxy.url + path, data=body) as reply:
        return reply.status, await reply.text()


async def test_other_routes_pass_through(start: StartProxy) -> None:
    proxy = await start()
    async with proxy.session.post(
        proxy.url + "/similarity?a=%20b", data=b"as it is", headers={"x-say": "this"}
    ) as reply:
        assert await reply.read() == b"as it is"
        assert reply.headers["x-heard"] == "this"
        assert reply.headers["x-path"] == "/similarity?a=%20b"
    assert (await proxy.get("/nothing"))[0] == 404
    status, text = await passes(proxy, "/v1/embeddings", b'{"input":[[999999]]}')
    assert status == 422
    assert set(json.loads(text)) == {"message", "code", "type"}


async def test_metrics_are_there_from_the_first_scrape(start: StartProxy) -> None:
    proxy = await start(workers=2)
    first = (await proxy.get("/metrics"))[1]
    assert 'embedrack_inputs_total{result="hit_l1"} 0.0' in first
    for _ in range(6):
        await proxy.embed(inputs=["a", "b"])

    async def summed() -> bool:
        text = (await proxy.get("/metrics"))[1]
        lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
        inputs = [float(v) for k, v in lines.items() if k.startswith("embedrack_inputs_total")]
        return (
            sum(inputs) == 12
            and lines['embedrack_requests_total{code="200",route="embed"}'] == "6.0"
        )

    await proxy.until(summed)
