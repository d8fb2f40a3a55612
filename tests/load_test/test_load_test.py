"""`embedrack load-test` before a real proxy, and before an endpoint that fails on request."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from proxy_app.commands.cli import main
from proxy_app.commands.load_test.mix import Body
from proxy_app.commands.load_test.outcome import Outcome
from proxy_app.commands.load_test.plan import Plan
from proxy_app.commands.load_test.run import Run
from tests.load_test.conftest import Endpoint, begin, load_test
from tests.proxy.conftest import StartProxy, listening
from tests.stand_ins.process import free_port

ROOT = Path(__file__).parents[2]


async def test_against_a_real_proxy(start: StartProxy, tmp_path: Path) -> None:
    proxy = await start(workers=2)
    figures, picture = tmp_path / "figures.json", tmp_path / "latency.svg"
    flags = ("-r", "300", "-c", "4", "--texts", "50", "--batch", "1,1-8")
    files = ("--json", str(figures), "--plot", str(picture))
    done = await load_test(proxy.url, *flags, *files)
    assert (done.status, done.err) == (0, "")
    summary = json.loads(figures.read_text())
    assert (summary["requests"], summary["good"], summary["failed"]) == (300, 300, 0)
    assert summary["statuses"] == {"200": 300}
    assert summary["hits"] + summary["misses"] == summary["texts"] > 600
    assert summary["misses"] < 200 < summary["hits"]
    times = summary["latency_ms"]
    ordered = [times[name] for name in ("min", "median", "p90", "p95", "p99", "p99.9", "max")]
    assert ordered == sorted(ordered)
    assert times["min"] > 0
    assert sum(row["requests"] for row in summary["histogram"]) == 300
    assert sum(row["requests"] for row in summary["slices"]) == 300
    for words in (
        "300 in ",
        "100.00%: 300 good, 0 failed",
        "200: 300",
        "average",
        "median",
        "p99 ",
    ):
        assert words in done.out
    drawn = "".join(ElementTree.parse(picture).getroot().itertext())
    assert f"{proxy.url}/embed: closed loop, 4 under way, 300 requests" in drawn


async def test_openai_with_a_key_from_a_file(start: StartProxy, tmp_path: Path) -> None:
    proxy = await start(api_keys=f"tester:{hashlib.sha256(b'a key').hexdigest()}")
    route = proxy.url + "/v1/embeddings"
    (tmp_path / "key").write_text("a key\n")
    flags = ("-r", "20", "--batch", "3", "--set", 'encoding_format="base64"', "--json", "-")
    done = await load_test(route, *flags, "--key-file", str(tmp_path / "key"))
    assert (done.status, done.figures["good"], done.figures["texts"]) == (0, 20, 60)
    refused = await load_test(route, *flags)
    assert (refused.status, refused.out) == (1, "")
    assert "answered 401: the key is wrong or missing: --key, --key-file" in refused.err


async def test_the_hit_rate_is_what_the_headers_said() -> None:
    endpoint = Endpoint()
    async with listening(endpoint.app()) as url:
        flags = ("-r", "200", "--texts", "100", "--batch", "1-5", "--new", "0.2", "--json", "-")
        done = await load_test(url, *flags)
    assert done.status == 0
    assert (done.figures["hits"], done.figures["misses"]) == (endpoint.hits, endpoint.misses)
    assert endpoint.hits > 100
    rate = endpoint.hits / (endpoint.hits + endpoint.misses)
    assert done.figures["hit_rate"] == pytest.approx(rate)
    assert f"{rate:.1%}: {endpoint.hits} hits" in done.err  # standard output is the JSON's
    new = [text for request in endpoint.requests[1:] for text in request if text.count(" ") == 14]
    assert 0.15 < len(new) / (endpoint.hits + endpoint.misses) < 0.25
    assert len(set(new)) == len(new)


FAULTS = ("503", "429", "500", "html", "close", "short", "null", "dimension")
KINDS = {
    **{f"status-{status}": 1 for status in (503, 429, 500)},
    **{"not-embeddings": 1, "reset": 1, "count": 1, "vector": 2},
}


@pytest.mark.parametrize(("allowed", "expected"), [((), 1), (("--max-error-rate", "0.4"), 0)])
async def test_every_wrong_reply_is_an_error_of_its_kind(
    allowed: tuple[str, ...], expected: int
) -> None:
    endpoint = Endpoint(*FAULTS)
    async with listening(endpoint.app()) as url:
        flags = ("-r", "20", "-c", "1", "--batch", "4", "--json", "-", "--verbose")
        done = await load_test(url, *flags, *allowed)
    assert done.status == expected
    figures = done.figures
    assert figures["kinds"] == KINDS
    assert (figures["good"], figures["failed"], figures["error_rate"]) == (12, 8, 0.4)
    assert figures["statuses"] == {"none": 1, "200": 16, "429": 1, "500": 1, "503": 1}
    assert figures["retry_after"] == 2
    assert "2 with Retry-After" in done.err
    assert "s count: 3 vectors for 4 texts" in done.err
    assert ("40.00% of requests failed; --max-error-rate allows 0.00%" in done.err) == (not allowed)
    assert len(endpoint.requests) == 21, "a request was sent twice"


async def test_an_open_loop_waits_for_no_reply_and_counts_the_wait() -> None:
    """Nothing is answered before 40 are there: the k-th has waited for the 40 - k after it."""
    endpoint = Endpoint(gather=40)
    async with listening(endpoint.app()) as url:
        flags = ("--rate", "100", "--arrivals", "constant", "-r", "40", "--json", "-")
        done = await load_test(url, *flags)
    assert (done.status, done.figures["good"]) == (0, 40)
    waited = [row["requests"] for row in done.figures["histogram"] if row["le_ms"] > 100]
    assert sum(waited) >= 29
    assert done.figures["latency_ms"]["max"] >= 390


async def test_latency_counts_from_when_a_request_was_due() -> None:
    """The load test itself is held up for half a second, with fifty requests due in it."""

    def bodies() -> Iterator[Body]:
        for number in itertools.count():
            if number == 10:
                time.sleep(0.5)
            yield Body(b'{"inputs":"a"}', 1)

    outcomes: list[Outcome] = []
    async with listening(Endpoint().app()) as url:
        plan = Plan(url + "/embed", requests=80, concurrency=80, rate=100, arrivals="constant")
        await Run(plan, bodies(), outcomes.append).go()
    assert [one.kind for one in outcomes] == [""] * 80
    # The k-th of the fifty waited for 500 - 10 k ms at least before it was even sent.
    assert sum(one.late >= 0.25 for one in outcomes) >= 24
    assert all(one.seconds >= one.late for one in outcomes)


async def test_what_is_due_beyond_the_bound_is_not_sent_and_fails() -> None:
    endpoint = Endpoint(gather=1000)
    async with listening(endpoint.app()) as url:
        flags = ("--rate", "200", "-r", "50", "-c", "5", "--timeout", "2", "--json", "-")
        done = await load_test(url, *flags)
    assert done.status == 1
    assert done.figures["kinds"] == {"not-sent": 45, "timeout": 5}
    assert len(endpoint.requests) == 6
    assert done.figures["latency_ms"] is None


async def test_the_warm_up_is_in_no_figure() -> None:
    endpoint = Endpoint("500", "500")
    async with listening(endpoint.app()) as url:
        done = await load_test(url, "-r", "20", "-c", "2", "--warm-up", "1", "--json", "-")
    assert done.status == 0
    figures = done.figures
    assert (figures["requests"], figures["failed"], figures["warm_up"]["failed"]) == (20, 0, 2)
    assert figures["warm_up"]["requests"] == len(endpoint.requests) - 1 - 20 > 2


@pytest.mark.parametrize(("faults", "expected"), [((), 130), (("500",), 1)])
async def test_ctrl_c_sums_up_what_ran(faults: tuple[str, ...], expected: int) -> None:
    """The last thirty requests wait for ever; on a terminal a line tells how it goes."""
    endpoint = Endpoint(*faults)
    terminal, end = pty.openpty()
    async with listening(endpoint.app()) as url:
        process = await begin(url, "--duration", "60", "-c", "3", stderr=end)
        os.close(end)
        shown = b""
        while shown.count(b"requests") < 2:
            shown += await asyncio.to_thread(os.read, terminal, 10_000)
        process.send_signal(signal.SIGINT)
        out, _ = await asyncio.wait_for(process.communicate(), 30)
    os.close(terminal)
    assert b"\r\x1b[K" in shown
    assert process.returncode == expected
    assert b"good requests/s" in out
    assert b"closed loop, 3 under way, 60 s" in out


def test_what_cannot_be_meant_is_refused_with_the_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text("\n")
    nowhere = f"http://127.0.0.1:{free_port()}"
    for arguments, status, words in (
        (["nowhere"], 2, "'nowhere': http://HOST:PORT or https://HOST:PORT"),
        (["-r", "0"], 2, "'0': a whole number from 1 is wanted"),
        (["--rate", "0"], 2, "'0': requests a second, above 0"),
        (["--batch", "8-4"], 2, "sizes begin with 1, the smaller one first"),
        (["--batch", "few"], 2, "sizes such as 32, 1-64 or 1,1,1,32 are wanted"),
        (["--max-error-rate", "2"], 2, "'2': a share from 0 to 1 is wanted"),
        (["--set", "normalize=no"], 2, "--set normalize: JSON is wanted"),
        (["-d", str(tmp_path / "no")], 2, "No such file"),
        (["-d", str(empty)], 2, "holds no text"),
        (["--key-file", str(tmp_path / "no")], 2, "--key-file"),
        (["--plot", "latency.png"], 2, "an .svg is written"),
        (["--json", str(tmp_path / "no" / "a.json")], 2, "there is no folder"),
        ([nowhere], 1, f"{nowhere}/embed does not answer: ClientConnectorError"),
    ):
        try:
            ended = main(["load-test", *arguments])
        except SystemExit as refused:
            ended = int(str(refused.code))
        errors = capsys.readouterr().err
        assert (ended, words in errors) == (status, True), (arguments, errors)


async def test_texts_of_a_file_the_first_the_most_frequent(tmp_path: Path) -> None:
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"title": f"text {n}"}) + "\n" for n in range(10)))
    endpoint = Endpoint()
    async with listening(endpoint.app()) as url:
        flags = ("-d", str(texts), "--field", "title", "--zipf", "2", "-r", "200")
        # The same program by its other name.
        command = (sys.executable, str(ROOT / "bench" / "load_test.py"), url, *flags)
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    sent = [text for request in endpoint.requests for text in request]
    counts = [sent.count(f"text {n}") for n in range(10)]
    assert sum(counts) == 201
    assert counts[0] > 2 * counts[1] > 2 * counts[3]
