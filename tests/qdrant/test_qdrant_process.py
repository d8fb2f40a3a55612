"""Starting, stopping, and everything a request can get wrong."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from aiohttp.test_utils import TestClient, TestServer

from local_stack.qdrant import collection
from local_stack.qdrant.app import make_app
from local_stack.qdrant.catalogue import Catalogue
from tests.qdrant.server import CACHE_SETTINGS, START_S, Server, launch, refusal

POINT = {"id": 1, "vector": [1, 2, 3, 4]}


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "data", "--api-key", "secret")
    yield server
    server.stop()


def test_a_restart_keeps_everything(own_cache: Server) -> None:
    own_cache.upsert([{**POINT, "payload": {"t": 5}}])
    own_cache.call(
        "PUT", "/collections/cache/index", {"field_name": "t", "field_schema": "integer"}
    )
    before = own_cache.call("GET", "/collections/cache").result
    assert own_cache.stop() == (0, "")
    own_cache.start()
    assert own_cache.ready == {"url": own_cache.url, "collections": 1, "points": 1}
    assert own_cache.call("GET", "/collections/cache").result == before
    assert own_cache.retrieve([1]) == [{"id": 1, "payload": {"t": 5}, "vector": [1, 2, 3, 4]}]


def test_changed_settings_outlive_a_restart(own_cache: Server) -> None:
    own_cache.upsert([POINT])
    change = {"hnsw_config": {"m": 4}, "optimizers_config": {"indexing_threshold": 100}}
    assert own_cache.call("PATCH", "/collections/cache", change).result is True
    own_cache.stop()
    own_cache.start()
    config = own_cache.call("GET", "/collections/cache").result["config"]
    assert (config["hnsw_config"]["m"], config["hnsw_config"]["payload_m"]) == (4, 0)
    assert config["optimizer_config"]["indexing_threshold"] == 100
    assert own_cache.count() == 1


def test_what_a_crash_left_behind_is_cleared(own_cache: Server) -> None:
    own_cache.stop()
    leftover = own_cache.folder / "collections" / "0123"
    leftover.mkdir()
    own_cache.start()
    assert not leftover.exists()
    assert own_cache.ready["collections"] == 1


def test_a_port_in_use_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = f"port {port} on 127.0.0.1 is in use"
        assert said in refusal(tmp_path / "data", port)
        process = launch(tmp_path / "data", port=port)  # and the same as a process
        output, errors = process.communicate(timeout=START_S)
    assert (process.returncode, output, errors.count("\n")) == (1, "", 1)
    assert said in errors


def test_a_folder_in_use_is_said(own: Server) -> None:
    assert "in use by another process" in refusal(own.folder)


def test_a_folder_of_others_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("dear")
    assert "not one of ours" in refusal(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["letters.txt"]


def test_a_path_that_is_no_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot use the data folder" in refusal(tmp_path / "file" / "data")


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    # Root may write anywhere but where the kernel itself says no.
    parent = tmp_path if os.geteuid() else Path("/sys")
    assert re.search("ermission denied|not permitted", refusal(parent / "data"))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format":"other"}'])
def test_a_damaged_catalogue_is_said(tmp_path: Path, content: str) -> None:
    (tmp_path / "catalogue.json").write_text(content)
    assert "damaged" in refusal(tmp_path)
    assert (tmp_path / "catalogue.json").read_text() == content


def test_a_damaged_collection_is_said(own_cache: Server) -> None:
    own_cache.upsert([POINT])
    own_cache.stop()
    (shard,) = (own_cache.folder / "collections").iterdir()
    for needed in ("edge_config.json", "segments", "wal"):
        (shard / needed).rename(shard / "lost")
        assert "the collection cache" in refusal(own_cache.folder)
        (shard / "lost").rename(shard / needed)
    (segment,) = (shard / "segments").iterdir()
    state = (segment / "segment.json").read_bytes()
    (segment / "segment.json").write_bytes(state[:20])
    assert "the collection cache" in refusal(own_cache.folder)
    (segment / "segment.json").write_bytes(state)
    own_cache.start()
    assert own_cache.count() == 1


def test_a_key_is_asked_for_except_by_health_routes(locked: Server) -> None:
    for path in ("/", "/healthz", "/livez", "/readyz"):
        assert locked.call("GET", path).status == 200
    for path in ("/collections", "/metrics", "/telemetry", "/nothing"):
        reply = locked.call("GET", path)
        assert reply.status == 401
        assert reply.body == b"Must provide an API key or an Authorization bearer token"
    wrong = locked.call("GET", "/collections", headers={"api-key": "secreT"})
    assert (wrong.status, wrong.body) == (401, b"Invalid API key or JWT")
    assert locked.call("GET", "/collections", headers={"api-key": "secret"}).status == 200
    bearer = {"Authorization": "Bearer secret"}
    assert locked.call("GET", "/collections", headers=bearer).status == 200


@pytest.mark.parametrize("name", ["..", "../x", "a/b", "a\\b", "a:b", "a*", "\0", "x" * 256])
def test_names_that_could_be_paths_are_refused(server: Server, name: str) -> None:
    path = f"/collections/{quote(name, safe='')}"
    if name == "..":
        path = "/collections/%2E%2E"
    reply = server.call("PUT", path, CACHE_SETTINGS)
    assert reply.status in {404, 422}
    assert server.call("GET", "/collections").result == {"collections": []}
    assert sorted(entry.name for entry in server.folder.parent.iterdir()) == ["data"]


def test_names_may_be_in_any_language(server: Server) -> None:
    path = f"/collections/{quote('été 東京.-_')}"
    assert server.call("PUT", path, CACHE_SETTINGS).result is True
    assert server.call("GET", path + "/exists").result == {"exists": True}
    assert server.call("DELETE", path).result is True


@pytest.mark.parametrize(
    ("settings", "status", "words"),
    [
        ({"vectors": {"size": 65537, "distance": "Dot"}}, 422, "must be from 1 to 65536"),
        ({"vectors": {"a": {"size": 4, "distance": "Dot"}}}, 400, "named vector is not supported"),
        ({"vectors": {}}, 400, "VectorsConfig"),
        ({}, 400, "not supported"),
        ([], 400, "Format error"),
    ],
)
def test_wrong_settings_are_refused(
    server: Server, settings: object, status: int, words: str
) -> None:
    reply = server.call("PUT", "/collections/x", settings)
    assert (reply.status, words in reply.error) == (status, True), reply
    assert server.call("GET", "/collections/x/exists").result == {"exists": False}


def test_a_hnsw_setting_the_engine_refuses_makes_no_collection(server: Server) -> None:
    settings = {**CACHE_SETTINGS, "hnsw_config": {"m": -1}}
    assert server.call("PUT", "/collections/x", settings).status == 400
    assert server.call("GET", "/collections").result == {"collections": []}
    assert list((server.folder / "collections").iterdir()) == []


@pytest.mark.parametrize(
    "bad",
    [
        {"id": -1, "vector": [1, 2, 3, 4]},
        {"id": 2**64, "vector": [1, 2, 3, 4]},
        {"id": "hello", "vector": [1, 2, 3, 4]},
        {"id": 1.5, "vector": [1, 2, 3, 4]},
        {"id": True, "vector": [1, 2, 3, 4]},
        {"id": 2, "vector": [1, 2, 3]},
        {"id": 2, "vector": []},
        {"id": 2, "vector": [1, 2, 3, None]},
        {"id": 2, "vector": [1, 2, 3, "4"]},
        {"id": 2, "vector": [1, 2, 3, True]},
        {"id": 2, "vector": "abc"},
        {"id": 2, "vector": [1, 2, 3, 4], "payload": 5},
        {"id": 2},
        {"vector": [1, 2, 3, 4]},
        [],
    ],
)
def test_one_bad_point_rejects_the_batch(cache: Server, bad: object) -> None:
    for wait in ("true", "false"):
        body = {"points": [POINT, bad, {**POINT, "id": 3}]}
        reply = cache.call("PUT", f"/collections/cache/points?wait={wait}", body)
        assert reply.status == 400, reply
        assert reply.error
    assert cache.count() == 0


@pytest.mark.parametrize(
    "body",
    [b"", b"nope", b"{", b'{"points":', b'{"points":[{"id":1,"vector":[NaN,0,0,0]}]}', b"\xff"],
)
def test_what_is_no_json_is_refused(cache: Server, body: bytes) -> None:
    reply = cache.call("PUT", "/collections/cache/points", body)
    assert reply.status == 400
    assert reply.error.startswith("Format error in JSON body: ")


def test_deep_json_is_refused(cache: Server) -> None:
    body = b'{"points":[{"id":1,"vector":[1,2,3,4],"payload":{"a":' + b"[" * 100_000
    assert cache.call("PUT", "/collections/cache/points", body).status == 400
    assert cache.count() == 0


def test_points_in_columns_and_twice_in_a_batch(cache: Server) -> None:
    batch = {"ids": [1, 2], "vectors": [[1, 0, 0, 0], [2, 0, 0, 0]], "payloads": [{"t": 1}, None]}
    assert cache.call("PUT", "/collections/cache/points", {"batch": batch}).status == 200
    assert cache.retrieve([2, 1]) == [
        {"id": 2, "payload": {}, "vector": [2, 0, 0, 0]},
        {"id": 1, "payload": {"t": 1}, "vector": [1, 0, 0, 0]},
    ]
    cache.upsert([{**POINT, "id": 5}, {"id": 5, "vector": [9, 9, 9, 9]}])
    assert cache.retrieve([5])[0]["vector"] == [9, 9, 9, 9]


def test_a_batch_of_many_chunks_is_stored_whole(server: Server) -> None:
    server.create("wide", 1024)
    points = [{"id": n, "vector": [n] + [0] * 1023} for n in range(1000)]
    assert server.upsert(points, "wide").status == 200
    assert server.count(name="wide") == 1000
    assert [p["vector"][0] for p in server.retrieve([999, 0, 500], "wide")] == [999, 0, 500]


def test_a_point_is_read_by_its_path(cache: Server) -> None:
    cache.upsert([POINT])
    assert cache.call("GET", "/collections/cache/points/1").result["vector"] == [1, 2, 3, 4]
    absent = cache.call("GET", "/collections/cache/points/2")
    assert (absent.status, absent.error) == (404, "Not found: Point with id 2 does not exists!")
    assert cache.call("GET", "/collections/cache/points/hello").status == 400


def test_a_body_without_a_length_has_the_same_limit(cache: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", cache.port, timeout=60)
    chunk = b" " * 2**20
    try:
        connection.request(
            "PUT", "/collections/cache/points", iter([chunk] * 33), encode_chunked=True
        )
        response = connection.getresponse()
        assert response.status == 400
        assert b"JSON payload has exceeded limit" in response.read()
    finally:
        connection.close()
    assert cache.count() == 0


async def test_a_full_disk_is_an_error_and_the_process_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue = Catalogue(tmp_path / "data")
    async with TestClient(TestServer(make_app(catalogue))) as client:
        path = "/collections/cache"
        assert (await client.put(path, json=CACHE_SETTINGS)).status == 200
        assert (await client.put(path + "/points", json={"points": [POINT]})).status == 200
        with monkeypatch.context() as full:
            full.setattr(collection, "MIN_FREE_BYTES", 2**60)
            for refused in (
                await client.put(path + "/points", json={"points": [{**POINT, "id": 2}]}),
                await client.put("/collections/more", json=CACHE_SETTINGS),
            ):
                assert refused.status == 500
                assert refused.content_type == "application/json"
                assert (
                    "No space left on device" in json.loads(await refused.read())["status"]["error"]
                )
            found = await client.post(path + "/points", json={"ids": [1, 2]})
            assert [p["id"] for p in (await found.json())["result"]] == [1]
        assert (await client.put(path + "/points", json={"points": [POINT]})).status == 200
    catalogue.close()
