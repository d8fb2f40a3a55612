"""A stand-in for Qdrant: the look-ups and upserts of the proxy on a dict, floats as raw text.

Qdrant prints back the text of a float32 as TEI wrote it; this one gives back the very bytes, odd
ones included, and can be away, slow, or wrong. Runs in a test's event loop, or as a process:
``python -m tests.stand_ins.qdrant``.
"""

from __future__ import annotations

import asyncio
from collections import Counter

import msgspec
import orjson
from aiohttp import web
from aiohttp.http import HttpVersion10

from tests.stand_ins.process import serve


class _Point(msgspec.Struct):
    id: str
    vector: msgspec.Raw
    payload: dict[str, int] | None = None


class _Upsert(msgspec.Struct):
    points: list[_Point]


class StandInQdrant:
    """The server; ``points`` by id, ``mode`` is "" or one of the faults below."""

    def __init__(self) -> None:
        self.points: dict[str, bytes] = {}
        self.payloads: dict[str, dict[str, int]] = {}
        self.collections: dict[str, int] = {}
        self.counts: Counter[str] = Counter()
        self.mode = ""
        self.distance = "Dot"

    def app(self) -> web.Application:
        app = web.Application(client_max_size=32 * 1024 * 1024)
        app.add_routes(
            [
                web.get("/readyz", self._ready),
                web.get("/collections", self._list),
                web.get("/collections/{name}", self._collection),
                web.delete("/collections/{name}", self._drop),
                web.post("/collections/{name}/points/delete", self._delete),
                web.put("/collections/{name}", self._create),
                web.put("/collections/{name}/index", self._done),
                web.post("/collections/{name}/points", self._retrieve),
                web.put("/collections/{name}/points", self._upsert),
            ]
        )
        return app

    async def _ready(self, _: web.Request) -> web.Response:
        return web.Response(text="all shards are ready")

    async def _collection(self, request: web.Request) -> web.Response:
        size = self.collections.get(request.match_info["name"])
        if size is None:
            return _json({"status": {"error": "Not found"}, "time": 0}, 404)
        vectors = {"size": size, "distance": self.distance}
        result = {"points_count": len(self.points), "config": {"params": {"vectors": vectors}}}
        return _json({"result": result, "status": "ok"})

    async def _list(self, _: web.Request) -> web.Response:
        names = [{"name": name} for name in self.collections]
        return _json({"result": {"collections": names}, "status": "ok", "time": 0})

    async def _drop(self, request: web.Request) -> web.Response:
        """Drop a collection; the points are those of the one that the proxy uses."""
        was_there = self.collections.pop(request.match_info["name"], None) is not None
        self.points.clear()
        self.payloads.clear()
        return _json({"result": was_there, "status": "ok", "time": 0})

    async def _delete(self, request: web.Request) -> web.Response:
        self.counts["delete"] += 1
        if self.mode == "refuse":
            return _json({"status": {"error": "Service internal error"}}, 500)
        for point in orjson.loads(await request.read())["points"]:
            self.points.pop(point, None)
            self.payloads.pop(point, None)
        return _json({"result": {"status": "completed"}, "status": "ok", "time": 0})

    async def _create(self, request: web.Request) -> web.Response:
        size = orjson.loads(await request.read())["vectors"]["size"]
        self.collections[request.match_info["name"]] = size
        return _json({"result": True, "status": "ok", "time": 0})

    async def _done(self, _: web.Request) -> web.Response:
        return _json({"result": True, "status": "ok", "time": 0})

    async def _retrieve(self, request: web.Request) -> web.Response:
        self.counts["retrieve"] += 1
        ids = orjson.loads(await request.read())["ids"]
        if self.mode == "refuse":
            return _json({"status": {"error": "Service internal error"}}, 500)
        if self.mode == "slow":
            await asyncio.sleep(5)
        found = [(i, self.points[i]) for i in ids if i in self.points]
        if self.mode == "null":
            found = [(i, b"[null" + raw[raw.index(b",") :]) for i, raw in found]
        points = b",".join(
            b'{"id":"%b","payload":%b,"vector":%b}'
            % (i.encode(), orjson.dumps(self.payloads.get(i)), raw)
            for i, raw in found
        )
        reply = _raw(b'{"result":[' + points + b'],"status":"ok","time":0}')
        if self.mode == "chunked":
            reply.enable_chunked_encoding()
        elif self.mode == "HTTP/1.0":
            request._version = HttpVersion10
        return reply

    async def _upsert(self, request: web.Request) -> web.Response:
        self.counts["upsert"] += 1
        body = await request.read()
        if self.mode == "refuse":
            return _json({"status": {"error": "Service internal error"}}, 500)
        for point in msgspec.json.decode(body, type=_Upsert).points:
            self.points[point.id] = bytes(point.vector)
            self.payloads[point.id] = point.payload or {}
        return _json({"result": {"status": "acknowledged"}, "status": "ok", "time": 0})


def _raw(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(value), status=status, content_type="application/json")


if __name__ == "__main__":
    asyncio.run(serve(StandInQdrant().app()))
