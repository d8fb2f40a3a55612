"""`embedrack status`: once, again and again, and what its exit status says."""

from __future__ import annotations

import asyncio
import json
import signal
import sys

from proxy_app.commands.status import curve, plain
from tests.proxy.conftest import StartProxy, listening, serving
from tests.stand_ins.process import free_port, heeding_signals
from tests.stand_ins.tei import StandInTei
from tests.status.front import demanding


async def run(*arguments: str) -> tuple[int | None, str, str]:
    """Run the command to its end; gives exit status, stdout and stderr."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy_app", "status", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, out.decode(), err.decode()


async def test_once_and_with_a_key(start: StartProxy) -> None:
    proxy = await start(workers=1)
    await proxy.embed(inputs=["a", "b"])
    code, out, err = await run("--url", proxy.url)
    assert (code, err) == (0, "")
    assert out.startswith("All is well")
    assert "2 inputs" in out
    assert "stand/in, 8 dimensions" in out
    assert "\x1b" not in out
    code, out, _ = await run("--url", proxy.url, "--json")
    assert code == 0
    assert json.loads(out)["traffic"]["inputs"]["miss"] == 2
    async with listening(demanding("the key", proxy)) as url:
        code, _, err = await run("--url", url)
        assert code == 2
        assert "--key" in err
        code, out, _ = await run("--url", url, "--key", "the key")
        assert code == 0
        assert out.startswith("All is well")


async def test_a_bad_verdict_is_1_and_no_answer_2() -> None:
    away = f"http://127.0.0.1:{free_port()}"
    async with serving(away) as proxy:
        code, out, _ = await run("--url", proxy.url)
        assert code == 1
        assert out.startswith("Nothing can be answered")
    code, out, err = await run("--url", away)
    assert (code, out) == (2, "")
    assert "does not answer" in err
    assert "--url" in err


async def test_another_server_is_not_taken_for_ours(tei: StandInTei) -> None:
    async with listening(tei.app()) as url:
        code, _, err = await run("--url", url)
    assert code == 2
    assert "answered 404" in err


async def test_watching_goes_on_while_the_endpoint_is_away(start: StartProxy) -> None:
    proxy = await start(workers=1)
    with heeding_signals():
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "proxy_app", "status", "--watch", "--interval", "0.2"),
            *("--url", proxy.url),
            stdout=asyncio.subprocess.PIPE,
        )
    assert process.stdout is not None
    await asyncio.wait_for(process.stdout.readuntil(b"All is well"), 30)
    await proxy.embed(inputs=["a", "b", "c"])
    await asyncio.wait_for(process.stdout.readuntil(b"3 inputs"), 30)
    proxy.process.terminate()
    await asyncio.wait_for(process.stdout.readuntil(b"no status"), 60)
    process.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(process.wait(), 30) == 2


def test_the_curve_leaves_blanks_where_nothing_was_asked() -> None:
    assert curve([{"hit_rate": 0.0}, {"hit_rate": None}, {"hit_rate": 1.0}]) == "▁ █"


def test_nothing_from_a_server_steers_the_terminal() -> None:
    assert plain("a\x1b[2J\rb\u202e") == "a[2Jb"
