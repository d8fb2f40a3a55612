"""A text that kills its instance costs two restarts, whoever sends it, and nobody else anything."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy_app.errors import EmbedError, Kind
from proxy_app.settings import Settings
from proxy_app.upstream import trials
from proxy_app.upstream.connections import BrokenError
from proxy_app.upstream.instances import Instances
from proxy_app.upstream.suspects import OUTAGE, Suspects
from tests.proxy.conftest import Proxy, StartProxy, serving, worker_pids
from tests.stand_ins.process import free_port
from tests.stand_ins.tei import StandInTei


class Workers:
    """The views of two workers; ``failure`` is what known-good requests meet.

    One of ``sick`` known-good requests is answered.
    """

    def __init__(self, folder: Path, instances: int = 1) -> None:
        self.failure: Exception | None = None
        self.asked = 0
        self.sick = 1
        count = Instances(Settings(upstream_instances=instances))
        self.one, self.other = (Suspects(folder, 1, count, self.known_good) for _ in range(2))

    async def known_good(self) -> None:
        self.asked += 1
        if self.asked % self.sick:
            raise BrokenError("a sick instance")
        if self.failure is not None:
            raise self.failure


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Workers]:
    two = Workers(tmp_path, instances=5)
    yield two
    two.one.close()
    two.other.close()


GUILTY, GOOD = (hashlib.sha256(name).digest() for name in (b"guilty", b"good"))


async def dies() -> None:
    raise BrokenError("the connection broke")


async def break_together(suspects: Suspects, *keys: bytes) -> None:
    async with suspects.trial([*keys]) as trial:
        assert trial.suspects([*keys]) == set()
        suspects.note(trial)


async def are_suspects(suspects: Suspects, *keys: bytes) -> set[bytes]:
    async with suspects.trial([*keys]) as trial:
        return trial.suspects([*keys])


async def test_what_one_worker_learns_all_know(workers: Workers) -> None:
    one, other = workers.one, workers.other
    await break_together(one, GUILTY, GOOD)
    assert await are_suspects(other, GUILTY, GOOD) == {GUILTY, GOOD}
    async with other.turn():
        assert await other.send(GOOD, answers) == "vector"
        with pytest.raises(EmbedError, match="refused for 60 minutes"):
            await other.send(GUILTY, dies)
    assert await are_suspects(one, GOOD) == set()
    for suspects in (one, other):
        with pytest.raises(EmbedError, match="refused for 60 minutes"):
            await are_suspects(suspects, GOOD, GUILTY)
        assert repr(suspects) == "<Trials inputs=0 suspects=0 refused=1>"
    assert workers.asked == 1 + 5  # before a suspect is sent, and each instance after it broke


async def answers() -> str:
    return "vector"


async def test_a_suspect_is_sent_after_a_known_good_request_alone(workers: Workers) -> None:
    await break_together(workers.one, GOOD)
    workers.failure = BrokenError("an outage")
    with pytest.raises(EmbedError, match="an outage"):
        async with workers.one.turn():
            raise AssertionError("nothing is sent in an outage")
    with pytest.raises(EmbedError, match="answers no request now"):
        async with workers.other.turn():
            raise AssertionError("nor is it asked again at once")
    with pytest.raises(EmbedError, match="answers no request now"):
        await break_together(workers.other, GUILTY)
    assert workers.asked == 1
    workers.failure = None
    await asyncio.sleep(OUTAGE)
    assert await are_suspects(workers.one, GOOD, GUILTY) == {GOOD}  # sent as the outage began


async def test_an_outage_may_begin_with_a_suspect(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not blamed, but sent no more for some seconds: it may have killed an instance."""
    monkeypatch.setitem(trials._HELD, trials.PAUSED, 2.0)
    await break_together(workers.one, GOOD)

    async def dies_with_all() -> None:
        workers.failure = BrokenError("an outage")
        await dies()

    async with workers.one.turn():
        with pytest.raises(EmbedError, match="the connection broke"):
            await workers.one.send(GOOD, dies_with_all)
    workers.failure = None
    with pytest.raises(EmbedError, match="sent again after"):
        await are_suspects(workers.other, GOOD)
    await asyncio.sleep(2.1)
    assert await are_suspects(workers.other, GOOD) == {GOOD}
    async with workers.other.turn():
        assert await workers.other.send(GOOD, answers) == "vector"


async def test_nobody_is_blamed_for_a_sick_instance(workers: Workers) -> None:
    """One of several, which a balancer leads some requests to."""
    await break_together(workers.one, GOOD)
    async with workers.one.turn():
        workers.sick = 2
        with pytest.raises(EmbedError, match="the connection broke"):
            await workers.one.send(GOOD, dies)
    assert repr(workers.one) == "<Trials inputs=0 suspects=1 refused=0>"


async def test_where_no_instance_is_left_it_died_of_the_suspect(workers: Workers) -> None:
    await break_together(workers.one, GUILTY)

    async def dies_and_is_away() -> None:
        workers.failure = EmbedError(Kind.UNHEALTHY, "cannot be reached")
        await dies()

    async with workers.one.turn():
        with pytest.raises(EmbedError, match="refused for 60 minutes"):
            await workers.one.send(GUILTY, dies_and_is_away)


async def test_a_reply_that_broke_off_blames_no_suspect(workers: Workers) -> None:
    async def breaks_off() -> None:
        raise BrokenError("the reply broke off", began=True)

    await break_together(workers.one, GOOD)
    for _ in range(3):
        async with workers.one.turn():
            with pytest.raises(EmbedError, match="broke off"):
                await workers.one.send(GOOD, breaks_off)


async def test_one_suspect_at_a_time_over_all_workers(workers: Workers) -> None:
    async with workers.one.turn():
        for suspects in (workers.other, workers.one):
            with pytest.raises(asyncio.TimeoutError):
                async with suspects.turn():
                    raise AssertionError("both at once")
    async with workers.other.turn():
        pass


async def test_a_worker_that_dies_locks_nobody_out(tmp_path: Path) -> None:
    program = (
        "import asyncio, os, pathlib, sys\n"
        "from tests.faults.test_suspects import Workers\n"
        "async def main():\n"
        "    async with Workers(pathlib.Path(sys.argv[1])).one.turn():\n"
        "        os.abort()\n"
        "asyncio.run(main())\n"
    )
    done = await asyncio.create_subprocess_exec(sys.executable, "-c", program, str(tmp_path))
    assert await done.wait() < 0
    async with Workers(tmp_path).one.turn():
        pass


async def embed_anew(
    proxy: Proxy, texts: list[str], path: str = "/embed", wish: str = ""
) -> tuple[int, str]:
    """Send over a connection of its own, which any worker may get."""
    field = "input" if "embeddings" in path else "inputs"
    headers = {"Connection": "close"} | ({"Cache-Control": wish} if wish else {})
    async with proxy.session.post(proxy.url + path, json={field: texts}, headers=headers) as reply:
        return reply.status, await reply.text()


async def test_a_deadly_text_costs_two_deaths_over_four_workers(
    start: StartProxy, tei: StandInTei
) -> None:
    """It is sent 40 times, ten at once, with others' texts flying beside it."""
    proxy = await start(workers=4)

    async def all_know_the_model() -> bool:
        return proxy.log.count(b"model: stand/in") == 4

    # A worker whose first look at the upstream meets a death has no model to serve yet.
    await proxy.until(all_know_the_model)
    tei.deadly.add("poison")
    tei.delay = 0.02
    others: list[tuple[int, str]] = []
    ended = asyncio.Event()

    async def somebody(number: int) -> None:
        count = 0
        while not ended.is_set():
            count += 1
            others.append(await embed_anew(proxy, [f"good {number} {count} {i}" for i in range(3)]))

    clients = [asyncio.create_task(somebody(number)) for number in range(4)]
    answers: list[tuple[int, str]] = []
    for round_ in range(4):
        several = (embed_anew(proxy, ["poison", f"mate {round_}"]) for _ in range(10))
        answers += await asyncio.gather(*several)
    ended.set()
    await asyncio.gather(*clients)
    statuses = sorted({status for status, _ in answers})
    print(
        f"a deadly text sent {len(answers)} times to {len(worker_pids(proxy))} workers: "
        f"{tei.deaths} deaths, answered {statuses}; meanwhile {len(others)} other requests, "
        f"failed: {sum(status != 200 for status, _ in others)}"
    )
    assert tei.deaths <= 2
    assert statuses == [424]
    assert "refused for 60 minutes" in answers[-1][1]
    assert others
    assert [text for status, text in others if status != 200] == []
    assert (await embed_anew(proxy, ["mate 0"]))[0] == 200


@pytest.mark.parametrize("workers", [1, 3])
async def test_the_mates_of_a_deadly_text_are_not_refused(
    start: StartProxy, tei: StandInTei, workers: int
) -> None:
    """One text after another kills; the same good ones are beside each of them.

    A process that ends still takes connections for a moment, which break.
    """
    tei.dying = 0.05
    proxy = await start(workers=workers)
    good = [f"good {i}" for i in range(5)]
    for poison in ("one", "two", "three"):
        tei.deadly.add(poison)
        status, text = await embed_anew(proxy, [*good, poison])
        assert status == 424, text
        status, text = await embed_anew(proxy, good)
        assert (status, len(json.loads(text))) == (200, 5), text
    # Two each, but that a text's first break may be the end of what the one before it killed.
    assert 4 <= tei.deaths <= 6


async def test_a_process_that_really_dies_is_restarted_twice() -> None:
    """One instance that aborts, as TEI does, and that somebody starts again soon."""
    port = free_port()
    starts = 0

    async def keep_running() -> None:
        nonlocal starts
        program = ("-m", "tests.stand_ins.tei", "--port", str(port), "--deadly", "poison")
        while True:
            starts += 1
            child = await asyncio.create_subprocess_exec(
                sys.executable, *program, stdout=subprocess.DEVNULL
            )
            try:
                await child.wait()
            finally:
                if child.returncode is None:
                    child.terminate()
                    await child.wait()

    supervisor = asyncio.create_task(keep_running())
    try:
        async with serving(f"http://127.0.0.1:{port}", workers=3) as proxy:
            await proxy.until(proxy.is_ready)
            seen: Counter[int] = Counter()

            async def refused_by_all() -> bool:
                several = (embed_anew(proxy, ["poison", "mate"]) for _ in range(8))
                statuses = [status for status, _ in await asyncio.gather(*several)]
                seen.update(statuses)
                return set(statuses) == {424}

            # While it starts again some get a 503; so first and last once more.
            await proxy.until(refused_by_all)

            async def answers_others() -> bool:
                return (await embed_anew(proxy, ["good", "mate"]))[0] == 200

            await proxy.until(answers_others)
            await proxy.until(refused_by_all)
            await proxy.until(answers_others)
            print(
                f"a deadly text sent {seen.total()} times, eight at once, to 3 workers before one "
                f"process: it was restarted {starts - 1} times; answers {dict(seen)}"
            )
            assert starts <= 3
    finally:
        supervisor.cancel()
        await asyncio.gather(supervisor, return_exceptions=True)


async def test_a_refusal_outlives_the_worker(start: StartProxy, tei: StandInTei) -> None:
    proxy = await start(workers=2)
    tei.deadly.add("poison")
    assert (await embed_anew(proxy, ["poison"]))[0] == 424
    before = worker_pids(proxy)
    for pid in before:
        os.kill(pid, 9)

    async def new_ones() -> bool:
        return len(worker_pids(proxy) - before) == 2 and await proxy.is_ready()

    await proxy.until(new_ones, 30)
    for _ in range(6):
        assert (await embed_anew(proxy, ["poison"]))[0] == 424
    assert tei.deaths == 2


async def test_a_passed_request_that_kills_costs_two_deaths(
    start: StartProxy, tei: StandInTei
) -> None:
    """Routes that are TEI's alone are not sent again by us; their clients do that."""
    proxy = await start(workers=2)
    tei.deadly.add("poison")
    answers = [await embed_anew(proxy, ["poison"], "/embed_all") for _ in range(10)]
    print("a deadly text on /embed_all:", [status for status, _ in answers], f"{tei.deaths} deaths")
    assert [status for status, _ in answers] == [503] + 9 * [424]
    assert tei.deaths == 2
    assert (await embed_anew(proxy, ["good"], "/embed_all"))[0] == 200


IDS = b'{"%b":[[999999]]}'


IDS_ON_ROUTES = [
    ("/embed", IDS % b"inputs"),
    ("/", IDS % b"inputs"),
    ("/invocations", IDS % b"inputs"),
    ("/embed_all", IDS % b"inputs"),
    ("/embed_sparse", IDS % b"inputs"),
    ("/v1/embeddings", IDS % b"input"),
    ("/embeddings", IDS % b"input"),
    ("/vertex", b'{"instances":[{"type":"embed","inputs":[[999999]]}]}'),
    ("/embed_all", b'{"\\u0069nputs":[[999999]]}'),
]


async def test_ids_of_another_vocabulary(start: StartProxy, tei: StandInTei) -> None:
    proxy = await start(store=False)
    for path, body in IDS_ON_ROUTES:
        async with proxy.session.post(proxy.url + path, data=body) as reply:
            text = await reply.text()
        print(f"ids of another vocabulary on {path:15} {reply.status} {text}")
        assert reply.status == 422
        assert "check_embedding_ctx_length=False" in text
    assert tei.calls == []
