"""An input is in the upstream's hands once at a time, until it has survived that."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from proxy_app.upstream.trials import GROUP, GROUPS, SURVIVED, UNKNOWN, Trials
from tests.faults.test_suspects import embed_anew
from tests.proxy.conftest import Proxy, StartProxy, listening, serving, worker_pids
from tests.stand_ins.balancer import balancer
from tests.stand_ins.tei import StandInTei

KEYS = [hashlib.sha256(b"%d" % number).digest() for number in range(9)]
GUILTY, GOOD, OTHER = KEYS[:3]


@pytest.fixture
def tables(tmp_path: Path) -> Iterator[tuple[Trials, Trials]]:
    """Two workers' views of one table, which is empty at the end."""
    one, other = (Trials(tmp_path / "trials") for _ in range(2))
    yield one, other
    assert (len(one), repr(other)) == (0, "<Trials inputs=0 suspects=0 refused=0>")
    one.close()
    other.close()


async def is_free(table: Trials, key: bytes) -> bool:
    try:
        async with table.of([key], 0.02):
            return True
    except asyncio.TimeoutError:
        return False


async def test_who_comes_second_waits_for_the_outcome(tables: tuple[Trials, Trials]) -> None:
    one, other = tables
    seen = []

    async def second(table: Trials) -> None:
        async with table.of([OTHER, GOOD], 5):
            seen.append("second")

    async with one.of([GUILTY, GOOD], 5):
        waiting = [asyncio.create_task(second(table)) for table in (one, other)]
        for table in (one, other):
            assert not await is_free(table, GOOD)
            assert await is_free(table, KEYS[3])
        assert len(other) == 2  # who waits has nothing that another could wait for
        seen.append("first")
    await asyncio.gather(*waiting)
    assert seen == ["first", "second", "second"]


async def most_at_once(tables: tuple[Trials, Trials], survives: bool) -> int:
    """Have six requests with one input; returns how many of them were sent at once, at most."""
    sent = most = 0

    async def send(table: Trials) -> None:
        nonlocal sent, most
        async with table.of([GOOD], 5) as trial:
            sent += 1
            most = max(most, sent)
            await asyncio.sleep(0.1)
            sent -= 1
            trial.outcome = SURVIVED if survives else UNKNOWN

    await asyncio.gather(*(send(table) for table in tables * 3))
    return most


async def test_the_others_go_ahead_together_once_it_survived(
    tables: tuple[Trials, Trials],
) -> None:
    assert await most_at_once(tables, survives=True) == 5


async def test_the_others_go_one_by_one_where_no_outcome_came(
    tables: tuple[Trials, Trials],
) -> None:
    assert await most_at_once(tables, survives=False) == 1


async def test_who_is_cancelled_lets_go(tables: tuple[Trials, Trials]) -> None:
    one, other = tables

    async def hang(table: Trials) -> None:
        async with table.of([GOOD], 60):
            await asyncio.sleep(60)

    first = asyncio.create_task(hang(one))
    await asyncio.sleep(0)
    assert len(one) == 1
    second = asyncio.create_task(hang(other))
    await asyncio.sleep(0)
    for task in (second, first):  # one that waits, one that sends
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert await is_free(other, GOOD)


DIES = """
import asyncio, os, pathlib, sys
from proxy_app.upstream.trials import Trials

async def main():
    async with Trials(pathlib.Path(sys.argv[1])).of([bytes.fromhex(sys.argv[2])], 60):
        os.abort()

asyncio.run(main())
"""


async def test_a_worker_that_dies_has_let_go(tables: tuple[Trials, Trials], tmp_path: Path) -> None:
    path = str(tmp_path / "trials")
    done = await asyncio.create_subprocess_exec(sys.executable, "-c", DIES, path, GOOD.hex())
    assert await done.wait() < 0
    assert len(tables[0]) == 1
    assert await is_free(tables[0], GOOD)


async def test_the_process_may_be_another_users(
    tables: tuple[Trials, Trials], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker died, and its number is that of a process that may not be asked: it runs."""

    def refuse(pid: int, _: int) -> None:
        raise PermissionError(pid)

    async with tables[0].of([GOOD], 5):
        monkeypatch.setattr(os, "kill", refuse)
        assert not await is_free(tables[1], GOOD)


async def test_a_trial_that_lasts_too_long_is_over(tables: tuple[Trials, Trials]) -> None:
    """The process of that number may be another by then, which will never let go."""
    one, other = tables
    async with one.of([GOOD], 0.05), other.of([GOOD], 1e12):
        pass


def of_one_group(number: int) -> list[bytes]:
    return [(GROUPS * i + 7).to_bytes(8, "little").ljust(32, b"\0") for i in range(number)]


async def test_keys_of_one_group_are_told_apart(tables: tuple[Trials, Trials]) -> None:
    one, other = tables
    *keys, last, unguarded = of_one_group(GROUP + 1)
    async with one.of(keys, 5):
        async with other.of([last], 5):
            assert [await is_free(one, key) for key in (*keys, last)] == [False] * GROUP
            assert await is_free(one, unguarded)
            async with one.of([unguarded], 5), other.of([unguarded], 5):
                assert len(one) == GROUP  # there is no room for it
        assert [await is_free(one, key) for key in (*keys, last)] == [False] * (GROUP - 1) + [True]


async def test_a_dead_workers_places_are_taken(
    tables: tuple[Trials, Trials], tmp_path: Path
) -> None:
    keys = of_one_group(2 * GROUP)
    for key in keys[:GROUP]:
        command = [sys.executable, "-c", DIES, str(tmp_path / "trials"), key.hex()]
        await asyncio.to_thread(subprocess.run, command, check=False)
    async with tables[0].of(keys[GROUP:], 5):
        assert [await is_free(tables[1], key) for key in keys[GROUP:]] == [False] * GROUP


async def test_a_key_may_come_twice_in_one_request(tables: tuple[Trials, Trials]) -> None:
    async with tables[0].of([GOOD, OTHER, GOOD], 5):
        assert len(tables[1]) == 2


async def test_many_mixed_requests_all_get_their_turn(tables: tuple[Trials, Trials]) -> None:
    """Each has some of nine inputs, in an order of its own."""
    chance = random.Random(5)
    held: Counter[bytes] = Counter()

    async def send(number: int) -> None:
        keys = chance.sample(KEYS, chance.randint(1, 5))
        async with tables[number % 2].of(keys, 60):
            held.update(keys)
            assert max(held.values()) == 1
            await asyncio.sleep(0.001)
            held.subtract(keys)

    await asyncio.gather(*(send(number) for number in range(100)))


#: Requests that do not share a flight, not even in one worker.
WISHES = ["", "no-cache", "no-store", "no-cache, no-store"]


@pytest.mark.parametrize("path", ["/embed", "/embed_all"])
async def test_a_deadly_text_costs_two_deaths_over_three_instances(path: str) -> None:
    """Four workers are sent it, ten at once, and a balancer would lead each to the next instance.

    Who passes a request on does not send it again, so there a client must: one gets a 503.
    """
    instances = [StandInTei() for _ in range(3)]
    for instance in instances:
        instance.deadly.add("poison")
        instance.agony = 0.05  # long enough that each of them could be given the text
    async with AsyncExitStack() as stack:
        urls = [await stack.enter_async_context(listening(one.app())) for one in instances]
        upstream = await stack.enter_async_context(listening(balancer(urls)))
        proxy = await stack.enter_async_context(serving(upstream, workers=4, memory=8))
        await proxy.until(proxy.is_ready)
        answers = []
        for round_ in range(4):
            texts = ["poison", f"mate {round_}"] if path == "/embed" else ["poison"]
            answers += await asyncio.gather(
                *(embed_anew(proxy, texts, path, WISHES[i % 4]) for i in range(10))
            )
        deaths = [one.deaths for one in instances]
        statuses = Counter(status for status, _ in answers)
        print(
            f"a deadly text sent {len(answers)} times to {path}: deaths {deaths}, "
            f"statuses {dict(statuses)}"
        )
        assert sum(deaths) == 2
        assert statuses == ({424: 40} if path == "/embed" else {503: 1, 424: 39})
        assert (await embed_anew(proxy, ["mate 0"], path))[0] == 200


async def until(proxy: Proxy, condition: Callable[[], bool]) -> None:
    async def holds() -> bool:
        return condition()

    await proxy.until(holds)


async def test_nobody_waits_for_a_client_that_left_or_a_worker_that_died(
    start: StartProxy, tei: StandInTei
) -> None:
    proxy = await start(workers=2)
    tei.slow["text"] = 60

    async def begin(wish: str) -> asyncio.Task[tuple[int, str]]:
        task = asyncio.create_task(embed_anew(proxy, ["text"], "/embed", wish))
        await until(proxy, lambda: ["text"] in tei.calls)
        tei.calls.clear()
        return task

    left = await begin("no-cache")
    left.cancel()
    await asyncio.gather(left, return_exceptions=True)
    lost = await begin("no-store")
    for pid in worker_pids(proxy):
        os.kill(pid, signal.SIGKILL)
    await asyncio.gather(lost, return_exceptions=True)
    tei.slow.clear()
    await proxy.until(proxy.is_ready)
    assert (await asyncio.wait_for(embed_anew(proxy, ["text"]), 30))[0] == 200
