"""The fast lane and aiohttp's way say the same of every request, good or not."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web

from proxy_app.app import runner
from proxy_app.embedding import tokens
from proxy_app.http.drain import Runner
from proxy_app.settings import Settings
from proxy_app.telemetry.metrics import LANE_REQUESTS
from tests.proxy.conftest import listening
from tests.proxy.test_access import hashed
from tests.stand_ins.tei import StandInTei

KEY = "alice's key"
#: Requests that a run generates, and how many of them are under way at once.
COUNT = 1000
AT_ONCE = 50
#: What differs between two replies that say the same: times.
_TIMES = re.compile(rb"(?i)\r\n(?:date|server-timing): [^\r]*")


@dataclass
class BothWays:
    """A worker in this process, whose fast lane can be closed."""

    runner: Runner
    port: int

    async def say(self, requests: Sequence[bytes], *, lane: bool) -> list[bytes]:
        """Send each request on a connection of its own; gives all that came back on it."""
        self.runner._lane.is_open = lane
        replies: list[bytes] = []
        for start in range(0, len(requests), AT_ONCE):
            group = requests[start : start + AT_ONCE]
            replies += await asyncio.gather(*map(self._say, group))
        return replies

    async def _say(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request)
            reply = b""
            # Something may be missing: then what follows is taken for it.
            with suppress(asyncio.TimeoutError):
                reply = await asyncio.wait_for(reader.read(1), 0.3)
            writer.write(b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            with suppress(ConnectionError):  # what came before it counts
                while part := await asyncio.wait_for(reader.read(1 << 20), 60):
                    reply += part
            return _TIMES.sub(b"", reply)
        finally:
            writer.close()


def status_of(reply: bytes) -> int:
    return int(reply.split(b" ", 2)[1])


@asynccontextmanager
async def both_ways(folder: Path, **settings: str) -> AsyncIterator[BothWays]:
    async with listening(StandInTei().app()) as upstream:
        given = {"upstream_url": upstream, "max_inputs": "2", "client_timeout": "1"} | settings
        environment = {"EMBEDRACK_" + name.upper(): value for name, value in given.items()}
        worker = await runner(Settings.from_environment(environment), folder)
        await worker.setup()
        try:
            await web.TCPSite(worker, "127.0.0.1", 0).start()
            assert isinstance(worker, Runner)
            ways = BothWays(worker, worker.addresses[0][1])
            yield ways
        finally:
            await worker.cleanup()


PATHS = ("/embed", "/v1/embeddings", "/embeddings")
#: Inputs, and the rest of a body.
INPUTS: tuple[object, ...] = (
    *("a", "b", ["a"], ["a", "b"], ["b", "a"], [1, 2], [[1, 2], "a"]),
    *(["a", "b", "a"], ["a"] * 70, "", [], [""], [[]], ["a", 1], 1, None, {}, [[[1]]], [-1]),
)
FIELDS: tuple[Mapping[str, object], ...] = (
    *({}, {}, {}, {}, {"model": "m"}, {"truncate": True}, {"normalize": False}),
    *({"dimensions": 3}, {"dimensions": 0}, {"dimensions": 9}, {"dimensions": "a"}),
    *({"encoding_format": "base64"}, {"encoding_format": "hex"}, {"truncation_direction": "up"}),
)
BROKEN = (b"", b"{", b"[]", b"{}", b'{"inputs":"a",}', b'{"inputs":"\xff"}', b"[" * 3000, b"{}{}")


def post(path: str, body: bytes, *lines: bytes, first: bytes = b"") -> bytes:
    first = first or b"POST %b HTTP/1.1" % path.encode()
    lines = lines or plain(body)
    return b"\r\n".join([first, *lines, b"", b""]) + body


def plain(body: bytes) -> tuple[bytes, bytes]:
    return b"Host: a", b"Content-Length: %d" % len(body)


#: Lines of a head that change nothing, that change something, and that are wrong.
LINES = (
    *(b"X: y", b"Accept: */*", b"User-Agent: me", b"Content-Type: application/json"),
    *(b"Empty:", b"X:y", b"X: y ", b"X:  y\t", b"X: y\tz", b"X: caf\xc3\xa9", b"X: \xe9"),
    *(b"Connection: keep-alive", b"Connection: close", b"Proxy-Connection: close"),
    *(b"Cache-Control: no-cache", b"Cache-Control: no-store", b"Authorization: Bearer a"),
    *(b"Authorization: Bearer " + KEY.encode(), b"authorization: bearer " + KEY.encode()),
    *(b"Authorization:", b"Authorization: Basic a", b"Transfer-Encoding: identity"),
    *(b"Upgrade: h2c", b"Expect: 200-ok", b"Content-Encoding: br", b"Sec-WebSocket-Key1: 1"),
    *(b"nocolon", b"a b: c", b"a : c", b": c", b" folded", b"X: \0", b"X: \x01", b"X: \x7f"),
    *(b"X: y\rz", b"X: y\nz", b"(: y", b"Host: b", b"Host:", b"Content-Length: 3", b"TE: trailers"),
    *(b"Content-Length: +2", b"Content-Length: 2, 2", b"Content-Length:", b"Content-Length: -1"),
    *(b"X: " + b"y" * 5000, b"X: " + b"y" * 9000, b"\r\n".join([b"X: y"] * 200)),
)
HOSTS = (b"Host: a", b"host:a", b"HOST: a:80", b"Host: [::1]:80", b"Host:", b"Host: a_b.c")
WRONG_HOSTS = (b"Host: a b/c", b"Host: a/b", b"Host: a:b", b"Host: a@b", b"Host: [::1", b"X: y")
FIRST = (
    *(b"GET %b HTTP/1.1", b"POST %b HTTP/1.0", b"POST %b HTTP/2.0", b"POST %b HTTP/0.9"),
    *(b"POST %b HTTP/1.2", b"POST  %b HTTP/1.1", b"POST %b HTTP/1.1 ", b"post %b HTTP/1.1"),
    *(b"POST %b?a=b HTTP/1.1", b"POST http://a%b HTTP/1.1", b"POST %b/ HTTP/1.1", b"POST %b"),
    *(b"PRI * HTTP/2.0", b"POST %b HTTPS/1.1", b"\r\nPOST %b HTTP/1.1", b"POST %b\x7f HTTP/1.1"),
)


def generated(dice: random.Random, *usual: bytes) -> bytes:
    """Make a request that is nearly right; most have the usual lines in their heads."""
    path = dice.choice(PATHS)
    name = "inputs" if path == "/embed" else "input"
    body = json.dumps({name: dice.choice(INPUTS), **dice.choice(FIELDS)}).encode()
    if dice.random() < 0.1:
        body = dice.choice(BROKEN)
    elif dice.random() < 0.1:
        body = scratched(dice, body)
    lines = [
        dice.choice(WRONG_HOSTS if dice.random() < 0.1 else HOSTS),
        b"%b: %d" % (dice.choice((b"Content-Length", b"content-length")), len(body)),
        *(line for line in usual if dice.random() < 0.8),
        *(dice.choice(LINES) for _ in range(dice.choice((0, 0, 1, 1, 2, 3)))),
    ]
    dice.shuffle(lines)
    first = b"POST %b HTTP/1.1"
    if dice.random() < 0.1:
        first = dice.choice(FIRST)
    first = first.replace(b"%b", path.encode())
    request = post(path, body, *lines, first=first)
    if dice.random() < 0.1:
        end = request.index(b"\r\n\r\n")
        request = scratched(dice, request[:end]) + request[end:]
    return request


def scratched(dice: random.Random, text: bytes) -> bytes:
    """Add a byte, or take one away."""
    place = dice.randrange(len(text) + 1)
    added = bytes([dice.choice((0, 9, 10, 13, 32, 34, 58, dice.randrange(256)))])
    return text[:place] + (added if dice.random() < 0.5 else b"") + text[place + 1 :]


@pytest.mark.parametrize("keys", ["", hashed(alice=KEY)])
async def test_both_ways_say_the_same_of_generated_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: str
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    dice = random.Random(seed)
    usual = [b"Authorization: Bearer " + KEY.encode()] if keys else []
    requests = [generated(dice, *usual) for _ in range(COUNT)]
    # Without it a busy machine leaves out the counts of the one or the other.
    monkeypatch.setattr(tokens, "WAIT", 30.0)
    monkeypatch.setattr(tokens, "WAIT_COMPUTED", 30.0)
    async with both_ways(tmp_path, api_keys=keys) as ways:
        await ways.say(requests, lane=False)  # what can be cached is, from now on
        counts = [LANE_REQUESTS.value]
        slow = await ways.say(requests, lane=False)
        counts.append(LANE_REQUESTS.value)
        fast = await ways.say(requests, lane=True)
        counts.append(LANE_REQUESTS.value)
    different = [case for case in zip(requests, slow, fast, strict=True) if case[1] != case[2]]
    shown = "\n".join(
        f"{case[0]!r}\n  slow: {case[1]!r}\n  fast: {case[2]!r}" for case in different
    )
    assert not different, f"seed {seed}: {len(different)} differ\n{shown[:10_000]}"
    # A lane that takes nothing differs in nothing.
    assert counts[1] == counts[0]
    assert counts[2] - counts[1] > COUNT * 0.2, f"seed {seed}: {counts}"
    print(f"seed {seed}: {counts[2] - counts[1]:.0f} of {COUNT} by the lane")


HIT = b'{"inputs":"a"}'
PLAIN = plain(HIT)


@pytest.mark.parametrize(
    ("status", "request_"),
    [
        (200, post("/embed", HIT)),
        (422, post("/embed", b'{"inputs":["a","b","a"]}')),
        (400, post("/embed", HIT, *PLAIN, b"nocolon")),
        (400, post("/embed", HIT, *PLAIN, b"a b: c")),
        (400, post("/embed", HIT, *PLAIN, b"X: \x01")),
        (400, post("/embed", HIT, *PLAIN, b"Host: b")),
        (400, post("/embed", HIT, *PLAIN[1:])),
        (400, post("/embed", HIT, b"Host: a b/c", *PLAIN[1:])),
        (505, post("/embed", HIT, first=b"POST /embed HTTP/2.0")),
        (505, post("/embed", HIT, first=b"POST /embed HTTP/0.9")),
        (200, post("/embed", HIT, first=b"POST /embed HTTP/1.0")),
    ],
)
async def test_what_is_wrong_is_refused_both_ways(
    tmp_path: Path, status: int, request_: bytes
) -> None:
    async with both_ways(tmp_path) as ways:
        await ways.say([post("/embed", b'{"inputs":["a","b"]}')], lane=False)
        for lane in (False, True):
            [reply] = await ways.say([request_], lane=lane)
            assert status_of(reply) == status, f"lane {lane}: {reply!r}"


async def test_what_is_not_http_gets_a_plain_error(tmp_path: Path) -> None:
    async with both_ways(tmp_path) as ways:
        for request_ in (b"hello\r\n\r\n", post("/embed", HIT, *PLAIN, b"nocolon")):
            [reply] = await ways.say([request_], lane=True)
            head, body = reply.split(b"\r\n\r\n", 1)
            assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
            assert b"\r\nContent-Type: application/json\r\n" in head
            assert b"\r\nConnection: close" in head
            assert b"\r\nServer: embedrack\r\n" in head
            error = json.loads(body)
            assert error.keys() == {"error", "error_type"}
            assert "\n" not in error["error"]
            assert "nocolon" not in error["error"]
