"""`POST /embed` through a real gunicorn worker: hits, misses, order, headers, splitting."""

from __future__ import annotations

import asyncio
import json

from tests.proxy.conftest import StartProxy, split_raw
from tests.stand_ins.qdrant import StandInQdrant
from tests.stand_ins.tei import StandInTei


async def test_a_hit_has_the_bytes_of_its_miss(start: StartProxy) -> None:
    proxy = await start()
    status, first, headers = await proxy.embed(inputs=["a", "b", "a"])
    assert (status, headers["X-Cache"]) == (200, "miss; hits=0; misses=3")
    assert headers["x-compute-type"] == "gpu+optimized"
    assert headers["x-compute-tokens"] == "6"  # two texts were embedded, not three
    status, second, headers = await proxy.embed(inputs=["a", "b", "a"])
    assert (status, headers["X-Cache"]) == (200, "hit; hits=3; misses=0")
    assert "x-compute-type" not in headers
    assert "total;dur=" in headers["Server-Timing"]
    assert second == first
    assert first[0] == first[2]


async def test_part_hit_part_miss_keeps_the_order(start: StartProxy, tei: StandInTei) -> None:
    proxy = await start()
    _, [known], _ = await proxy.embed(inputs="known")
    _, vectors, headers = await proxy.embed(inputs=["new", "known", "newer"])
    assert headers["X-Cache"] == "partial; hits=1; misses=2"
    assert vectors[1] == known
    assert tei.calls == [["known"], ["new", "newer"]]


async def test_every_way_to_write_inputs(start: StartProxy, tei: StandInTei) -> None:
    proxy = await start()
    for inputs in ("text", ["text"], [101, 102], [[101, 102]], ["text", [101, 102]]):
        status, _, _ = await proxy.embed(inputs=inputs)
        assert status == 200
    assert tei.calls == [["text"], [[101, 102]]]  # the rest were hits


async def test_all_that_changes_a_vector_is_in_the_key(start: StartProxy, tei: StandInTei) -> None:
    proxy = await start()
    requests: list[dict[str, object]] = [
        {},
        {"normalize": False},
        {"truncate": False},
        {"truncation_direction": "Left"},
        {"dimensions": 4},
        {"prompt_name": "query"},
        {"prompt_name": ""},
    ]
    for fields in requests:
        _, _, headers = await proxy.embed(inputs="text", **fields)
        assert headers["X-Cache"].startswith("miss"), fields
    calls = len(tei.calls)
    same: list[dict[str, object]] = [
        {"normalize": None, "truncate": None, "truncation_direction": None, "dimensions": None},
        {"normalize": True, "truncate": True, "truncation_direction": "right", "dimensions": 8},
        {"truncate": False, "truncation_direction": "left"},  # nothing is cut: no direction
        {"colour": "red", "prompt_name": None},
    ]
    for fields in same:
        _, _, headers = await proxy.embed(inputs="text", **fields)
        assert headers["X-Cache"].startswith("hit"), fields
    assert len(tei.calls) == calls


async def test_content_type_does_not_matter(start: StartProxy) -> None:
    proxy = await start()
    for content_type in ("text/plain", "application/x-www-form-urlencoded", ""):
        async with proxy.session.post(
            proxy.url + "/embed",
            data=b'{"inputs":"a"}',
            headers={"Content-Type": content_type},
        ) as reply:
            assert reply.status == 200


async def test_a_large_request_is_split_and_sent_side_by_side(
    start: StartProxy, tei: StandInTei
) -> None:
    tei.delay = 0.2
    proxy = await start()
    texts = [f"text {i}" for i in range(200)]
    status, vectors, headers = await proxy.embed(inputs=texts)
    assert (status, len(vectors)) == (200, 200)
    assert headers["X-Cache"] == "miss; hits=0; misses=200"
    assert sorted(map(len, tei.calls)) == [8, 32, 32, 32, 32, 32, 32]
    assert tei.most_in_flight == 200
    assert headers["x-compute-tokens"] == "800"  # two words and two special tokens each


async def test_never_more_inputs_in_flight_than_permits(start: StartProxy, tei: StandInTei) -> None:
    tei.info["max_concurrent_requests"] = 40
    tei.delay = 0.05
    proxy = await start()
    texts = [f"text {i}" for i in range(100)]
    assert (await proxy.embed(inputs=texts))[0] == 200
    assert tei.most_in_flight <= 40


async def test_batches_keep_the_payload_limit(start: StartProxy, tei: StandInTei) -> None:
    proxy = await start()
    texts = [str(i) + "x" * 500_000 for i in range(8)]
    status, vectors, _ = await proxy.embed(inputs=texts)
    assert (status, len(vectors)) == (200, 8)
    assert sorted(len(call) for call in tei.calls) == [2, 3, 3]


async def test_a_second_worker_finds_it_in_the_store(
    start: StartProxy, tei: StandInTei, qdrant: StandInQdrant
) -> None:
    proxy = await start(workers=2)
    words = set()
    first = (await proxy.embed(inputs="shared"))[1]

    async def stored() -> bool:
        return len(qdrant.points) == 1

    await proxy.until(stored)
    for _ in range(40):  # each on a new connection, so that both workers get some
        async with proxy.session.post(
            proxy.url + "/embed", json={"inputs": "shared"}, headers={"Connection": "close"}
        ) as reply:
            assert split_raw(await reply.read()) == first
            words.add("l2" in reply.headers["Server-Timing"])
        await asyncio.sleep(0.02)
    assert words == {True, False}
    assert len(tei.calls) == 1


async def test_a_new_proxy_finds_the_old_ones_cache(
    start: StartProxy, qdrant: StandInQdrant, tei: StandInTei
) -> None:
    proxy = await start()
    texts = [f"text {i}" for i in range(300)]
    before = (await proxy.embed(inputs=texts))[1]
    proxy.process.terminate()
    await proxy.process.wait()
    assert len(qdrant.points) == 300  # the queue was written before it ended
    proxy = await start()
    _, after, headers = await proxy.embed(inputs=texts)
    assert headers["X-Cache"] == "hit; hits=300; misses=0"
    assert after == before


async def test_identical_misses_at_once_are_one_flight(start: StartProxy, tei: StandInTei) -> None:
    tei.delay = 0.2
    proxy = await start()
    replies = await asyncio.gather(*(proxy.embed(inputs=["same", "same"]) for _ in range(50)))
    assert {status for status, _, _ in replies} == {200}
    assert len({tuple(vectors) for _, vectors, _ in replies}) == 1
    assert tei.calls == [["same"]]


async def test_other_dimensions_live_in_l1_alone(start: StartProxy, qdrant: StandInQdrant) -> None:
    proxy = await start()
    for expected in ("miss", "hit"):
        _, [vector], headers = await proxy.embed(inputs="a", dimensions=3)
        assert headers["X-Cache"].startswith(expected)
        assert len(json.loads(vector)) == 3
    await asyncio.sleep(0.3)
    assert qdrant.points == {}


async def test_without_qdrant_l1_alone_and_says_so(start: StartProxy) -> None:
    proxy = await start(store=False)
    assert (await proxy.embed(inputs="a"))[2]["X-Cache"].startswith("miss")
    assert (await proxy.embed(inputs="a"))[2]["X-Cache"].startswith("hit")
    assert '"store":"none: L1 alone"' in (await proxy.get("/readyz"))[1]
    assert b"L1 alone" in proxy.log


async def test_l1_without_memory_still_answers_from_the_store(start: StartProxy) -> None:
    proxy = await start(memory=0)
    await proxy.embed(inputs="a")

    async def hit() -> bool:
        return (await proxy.embed(inputs="a"))[2]["X-Cache"].startswith("hit")

    await proxy.until(hit)


async def test_md5_on_request(start: StartProxy) -> None:
    proxy = await start(hash_function="md5")
    assert b"md5" in proxy.log
    assert (await proxy.embed(inputs="a"))[2]["X-Cache"].startswith("miss")
    assert (await proxy.embed(inputs="a"))[2]["X-Cache"].startswith("hit")
