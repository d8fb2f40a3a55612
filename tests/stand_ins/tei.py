"""A stand-in for TEI: vectors out of a hash, at once, and every fault on request.

``python -m tests.stand_ins.tei --dimension 1024`` runs it as a process of its own and prints its
URL, and ``--deadly TEXT`` ends that process when the text comes; tests run ``StandInTei`` in their
own event loop and look at what it was asked.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import re
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from aiohttp import web

from tests.stand_ins.process import serve

#: Numbers whose text must survive: zero's sign, exponents, subnormals, the largest float32.
ODD = [
    b"-0.0",
    b"1e-7",
    b"1e-45",
    b"1.1754942e-38",
    b"-3.4028235e38",
    b"0.0",
    b"1.0",
    b"16777216.0",
]


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def vector_of(item: object, dimension: int, odd: int = 8) -> bytes:
    """Return the raw JSON of an item's vector: first ``odd`` odd numbers, then out of its hash."""
    digest = hashlib.sha256(orjson.dumps(item)).digest()
    start = digest[0]
    numbers = [ODD[(start + i) % len(ODD)] for i in range(min(odd, dimension))]
    numbers += [b"0.%08d" % ((digest[i % 32] + 1) * 390625 + i * 7) for i in range(odd, dimension)]
    return b"[" + b",".join(numbers) + b"]"


def tokens_of(item: object) -> int:
    """Count an input's tokens: a word each and two special ones for a text."""
    return len(item.split()) + 2 if isinstance(item, str) else len(item)  # type: ignore[arg-type]


def tokens_in(text: str) -> list[dict[str, object]]:
    """Return a text's tokens as /tokenize tells them: a word each, between two special ones."""
    special: dict[str, object] = {"id": 1, "special": True, "start": None, "stop": None}
    words: list[dict[str, object]] = [
        {"id": len(word[0]), "special": False, "start": word.start(), "stop": word.end()}
        for word in re.finditer(r"\S+", text)
    ]
    return [special, *words, special]


class StandInTei:
    """The server; ``faults`` are used up one per /embed.

    A text that is ``held`` is answered once its event is set, one that is ``slow`` after seconds.
    A ``deadly`` text is a death, ``agony`` seconds later: it breaks every connection that carries a
    request, as the end of the process does, and for ``dying`` seconds each that comes then,
    but for the proxy's own question. During an ``outage`` ("502" or "close") no route answers, and
    ``lost`` has the inputs that came.
    """

    def __init__(self, dimension: int = 8, odd: int = 8, **info: object) -> None:
        self.dimension = dimension
        self.odd = odd
        self.faults: deque[str] = deque()
        self.deadly: set[str] = set()
        self.deaths = 0
        self.agony = 0.0
        self.dying = 0.0
        self._died = float("-inf")
        self.outage = ""
        self.lost: list[list[object]] = []
        self.aborts = False
        self.carrying: set[asyncio.Transport] = set()
        self.slow: dict[str, float] = {}
        self.held: dict[str, asyncio.Event] = {}
        self.calls: list[list[object]] = []
        self.tokenized: list[list[str]] = []
        self.tokenize_fault = ""
        self.tokenize_delay = 0.0
        self.decoded = b""
        self.default_prompt = ""
        self.document: dict[str, Any] = {}
        self.counts: Counter[str] = Counter()
        self.cancelled = 0
        self.embedded = 0
        self.in_flight = 0
        self.most_in_flight = 0
        self.salt = ""
        self.delay = 0.0
        self._cache: dict[bytes, bytes] = {}
        self.info: dict[str, object] = {
            "model_id": "stand/in",
            "model_sha": None,
            "model_dtype": "float32",
            "served_model_name": "stand/in",
            "model_type": {"embedding": {"pooling": "mean"}},
            "max_concurrent_requests": 512,
            "max_input_length": 256,
            "max_batch_tokens": 16384,
            "max_batch_requests": None,
            "max_client_batch_size": 32,
            "auto_truncate": True,
            "tokenization_workers": 1,
            "version": "1.9.3",
            "sha": None,
            "docker_label": None,
        } | info

    def app(self) -> web.Application:
        app = web.Application(client_max_size=2_000_000, middlewares=[self._break_off])
        app.add_routes(
            [
                web.get("/info", self._info),
                web.get("/health", self._health),
                web.get("/metrics", self._metrics),
                web.post("/embed", self._embed),
                web.post("/", self._echo),
                web.post("/embed_all", self._embed),
                web.post("/decode", self._decode),
                web.post("/tokenize", self._tokenize),
                web.post("/similarity", self._echo),
                web.get("/api-doc/openapi.json", self._document),
            ]
        )
        return app

    @web.middleware
    async def _break_off(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if not self.outage:
            return await handler(request)
        if request.path == "/embed":
            inputs = orjson.loads(await request.read())["inputs"]
            if inputs != "dimension":
                self.lost.append(inputs)
        return web.Response(status=502) if self.outage == "502" else _hang_up(request)

    async def _info(self, _: web.Request) -> web.Response:
        self.counts["info"] += 1
        return _json(self.info)

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _metrics(self, _: web.Request) -> web.Response:
        """A little of TEI's page."""
        self.counts["metrics"] += 1
        calls = f'te_request_count{{method="batch"}} {len(self.calls)}\n'
        return web.Response(text=f"{calls}te_embed_count {self.embedded}\nte_queue_size 0\n")

    async def _echo(self, request: web.Request) -> web.Response:
        return web.Response(
            body=await request.read(),
            headers={
                "x-heard": request.headers.get("x-say", ""),
                "x-path": request.path_qs,
                "x-authorization": request.headers.get("Authorization", ""),
            },
        )

    async def _tokenize(self, request: web.Request) -> web.Response:
        inputs = orjson.loads(await request.read())["inputs"]
        texts = [inputs] if isinstance(inputs, str) else inputs
        if texts != ["dimension"]:
            self.tokenized.append(texts)
        tokens = [tokens_in(self.default_prompt + text) for text in texts]
        await asyncio.sleep(self.tokenize_delay)
        match self.tokenize_fault:
            case "overloaded":
                return _error("Model is overloaded", "Overloaded", 429)
            case "missing":
                return web.Response(status=404)
            case "short":
                return _json(tokens[:-1])
            case "html":
                return web.Response(text="<html>hello</html>", content_type="text/html")
            case "close":
                return _hang_up(request)
            case "hang":
                await asyncio.sleep(30)
        return _json(tokens)

    async def _document(self, _: web.Request) -> web.Response:
        return _json(self.document) if self.document else web.Response(status=404)

    async def _decode(self, request: web.Request) -> web.Response:
        self.counts["decode"] += 1
        ids = orjson.loads(await request.read())["ids"]
        if self.decoded:
            return _raw(self.decoded)
        lists = ids if ids and isinstance(ids[0], list) else [ids]
        return _json(["" if all(i >= 30522 for i in one) else "text" for one in lists])

    async def _embed(self, request: web.Request) -> web.StreamResponse:
        body = orjson.loads(await request.read())
        inputs = body["inputs"] if isinstance(body["inputs"], list) else [body["inputs"]]
        if inputs != ["dimension"]:
            self.calls.append(inputs)
        transport = request.transport
        assert transport is not None
        self.carrying.add(transport)
        self.embedded += len(inputs)
        self.in_flight += len(inputs)
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return await self._answer(request, body, inputs)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.in_flight -= len(inputs)
            self.carrying.discard(transport)

    async def _answer(
        self, request: web.Request, body: dict[str, Any], inputs: list[object]
    ) -> web.StreamResponse:
        texts = {text for text in inputs if isinstance(text, str)}
        if inputs != ["dimension"] and time.monotonic() < self._died + self.dying:
            return _hang_up(request)
        if self.deadly & texts:
            await asyncio.sleep(self.agony)
            if self.aborts:
                os.abort()
            self.deaths += 1
            self._died = time.monotonic()
            for transport in self.carrying:
                transport.abort()
            return web.Response()
        await asyncio.sleep(self.delay + max((self.slow.get(t, 0.0) for t in texts), default=0.0))
        for text in texts & self.held.keys():
            await self.held[text].wait()
        if "too long" in texts and body.get("truncate") is False:
            return _error("`inputs` must have less than 256 tokens. Given: 2002", "Validation", 422)
        fault = self.faults.popleft() if self.faults and inputs != ["dimension"] else ""
        if fault:
            return await self._fault(request, fault, inputs, body)
        return self._vectors(inputs, body)

    def _vectors(self, inputs: list[object], body: dict[str, Any]) -> web.Response:
        vectors = [self.vector(item, body) for item in inputs]
        headers = {
            "Content-Type": "application/json",
            "x-compute-type": "gpu+optimized",
            "x-compute-tokens": str(sum(min(256, tokens_of(item)) for item in inputs)),
            "x-compute-time": "5",
        }
        return web.Response(body=b"[" + b",".join(vectors) + b"]", headers=headers)

    def vector(self, item: object, body: dict[str, Any]) -> bytes:
        """Return an item's raw vector under a request's fields."""
        dimension = body.get("dimensions") or self.dimension
        truncate = body.get("truncate")
        truncate = self.info["auto_truncate"] if truncate is None else truncate
        left = truncate and body.get("truncation_direction") in ("Left", "left")
        normalize = body.get("normalize") is not False
        prompt = body.get("prompt_name")
        marks = orjson.dumps(
            [self.salt + self.default_prompt, item, normalize, truncate, left, dimension, prompt]
        )
        if marks not in self._cache:
            if len(self._cache) > 20_000:
                self._cache.clear()
            self._cache[marks] = vector_of(marks.decode(), dimension, self.odd)
        return self._cache[marks]

    async def _fault(
        self, request: web.Request, fault: str, inputs: list[object], body: dict[str, Any]
    ) -> web.StreamResponse:
        good = [vector_of(item, self.dimension) for item in inputs]
        html = "<html>hello</html>"
        match fault:
            case "short":
                return _raw(b"[" + b",".join(good[:-1]) + b"]")
            case "null":
                return _raw(b"[" + b",".join([*good[:-1], b"null"]) + b"]")
            case "nan":
                spoiled = good[-1].rsplit(b",", 1)[0] + b",null]"
                return _raw(b"[" + b",".join([*good[:-1], spoiled]) + b"]")
            case "huge":
                spoiled = b"[1e39" + b",0.5" * (self.dimension - 1) + b"]"
                return _raw(b"[" + b",".join([*good[:-1], spoiled]) + b"]")
            case "dimension":
                return _raw(b"[" + b",".join(b"[1.0,2.0]" for _ in inputs) + b"]")
            case "html":
                return web.Response(text=html, content_type="text/html")
            case "cut":
                return _raw((b"[" + b",".join(good) + b"]")[:-20])
            case "overloaded":
                return _error("Model is overloaded", "Overloaded", 429)
            case "backend":
                return _error("Backend error: out of memory", "Backend", 424)
            case "502":
                return web.Response(status=502, text=html, content_type="text/html")
            case "bye":
                reply = self._vectors(inputs, body)
                reply.force_close()
                return reply
            case "close":
                return _hang_up(request)
            case "204":
                return web.Response(status=204)
            case "redirect":
                return web.Response(status=307, headers={"Location": "/embed"})
            case "gzip":
                reply = self._vectors(inputs, body)
                reply.enable_compression(web.ContentCoding.gzip)
                return reply
            case "text":
                return _raw(b'["' + b'","'.join(b"0.5" for _ in inputs) + b'"]')
            case "object":
                return _raw(b'{"embeddings":[' + b",".join(good) + b"]}")
            case "two":
                return _raw((b"[" + b",".join(good) + b"]") * 2)
            case "endless" | "trickle" | "breaks off":
                return await self._pour(request, fault)
            case "hang":
                await asyncio.sleep(30)
                return self._vectors(inputs, body)
            case _:
                raise ValueError(fault)

    async def _pour(self, request: web.Request, fault: str) -> web.StreamResponse:
        """Send a reply that never ends, as fast as it goes or drop by drop, or breaks off."""
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"[[" if fault != "endless" else b" " * 1_000_000)
                self.counts["poured"] += 1
                if fault == "breaks off":
                    return _hang_up(request)
                await asyncio.sleep(0 if fault == "endless" else 0.05)
        finally:
            self.counts["pour ended"] += 1


def _hang_up(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


def _raw(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")


def _json(value: object) -> web.Response:
    return _raw(orjson.dumps(value))


def _error(error: str, kind: str, status: int) -> web.Response:
    return web.Response(
        body=orjson.dumps({"error": error, "error_type": kind}),
        status=status,
        content_type="application/json",
    )


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--dimension", type=int, default=1024)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--deadly", action="append", default=[])
    options = parser.parse_args()
    server = StandInTei(options.dimension, odd=0)
    server.deadly.update(options.deadly)
    server.aborts = True
    await serve(server.app(), options.port)


if __name__ == "__main__":
    asyncio.run(main())
