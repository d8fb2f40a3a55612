"""What qdrant-client's users of this project do, against the process."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

from tests.qdrant.server import Server

IDS = [str(uuid.UUID(int=n)) for n in range(1, 11)]
BEFORE_5 = models.Filter(must=[models.FieldCondition(key="t", range=models.Range(lt=5))])


@pytest.fixture
def client(server: Server) -> Iterator[QdrantClient]:
    client = QdrantClient(url=server.url, timeout=30, check_compatibility=False)
    yield client
    client.close()


@pytest.fixture
def filled(client: QdrantClient) -> QdrantClient:
    client.create_collection(
        "cache",
        vectors_config=models.VectorParams(size=4, distance=models.Distance.DOT, on_disk=True),
        hnsw_config=models.HnswConfigDiff(m=0, payload_m=0),
        optimizers_config=models.OptimizersConfigDiff(indexing_threshold=0),
        on_disk_payload=True,
    )
    points = [
        models.PointStruct(id=id_, vector=[float(n), 0, 0, 1], payload={"t": n, "model": "a"})
        for n, id_ in enumerate(IDS)
    ]
    client.upsert("cache", points, wait=True)
    return client


def test_collections_are_made_listed_and_dropped(filled: QdrantClient) -> None:
    assert filled.collection_exists("cache")
    assert [c.name for c in filled.get_collections().collections] == ["cache"]
    info = filled.get_collection("cache")
    assert info.points_count == 10
    assert info.config.hnsw_config.m == 0
    assert info.config.optimizer_config.indexing_threshold == 0
    assert isinstance(info.config.params.vectors, models.VectorParams)
    assert info.config.params.vectors.on_disk is True
    assert filled.delete_collection("cache")
    assert not filled.collection_exists("cache")
    with pytest.raises(UnexpectedResponse, match="404"):
        filled.get_collection("cache")


def test_settings_are_changed(filled: QdrantClient) -> None:
    change = models.OptimizersConfigDiff(indexing_threshold=5000)
    assert filled.update_collection("cache", optimizers_config=change)
    assert filled.get_collection("cache").config.optimizer_config.indexing_threshold == 5000


def test_points_are_read_counted_and_scrolled(filled: QdrantClient) -> None:
    (point,) = filled.retrieve("cache", [IDS[3]], with_vectors=True)
    assert (point.id, point.vector, point.payload) == (IDS[3], [3, 0, 0, 1], {"t": 3, "model": "a"})
    assert filled.count("cache").count == 10
    assert filled.count("cache", count_filter=BEFORE_5, exact=True).count == 5
    page, offset = filled.scroll("cache", limit=6, with_payload=["t"])
    rest, end = filled.scroll("cache", limit=6, offset=offset)
    assert [p.id for p in page + rest] == IDS
    assert page[0].payload == {"t": 0}
    assert end is None


def test_the_nearest_points_are_found(filled: QdrantClient) -> None:
    hits = filled.query_points("cache", [1.0, 0.0, 0.0, 0.0], limit=3, with_vectors=True).points
    assert [(hit.id, hit.score) for hit in hits] == [(IDS[9], 9), (IDS[8], 8), (IDS[7], 7)]
    assert hits[0].vector == [9, 0, 0, 1]


def test_an_index_is_made_reported_and_dropped(filled: QdrantClient) -> None:
    schema = models.IntegerIndexParams(
        type=models.IntegerIndexType.INTEGER, lookup=False, range=True
    )
    filled.create_payload_index("cache", "t", schema, wait=True)
    filled.create_payload_index("cache", "model", models.PayloadSchemaType.KEYWORD, wait=True)
    reported = filled.get_collection("cache").payload_schema
    assert reported["t"].params == schema
    assert (reported["t"].data_type, reported["t"].points) == ("integer", 10)
    assert reported["model"].data_type == "keyword"
    filled.delete_payload_index("cache", "t")
    assert list(filled.get_collection("cache").payload_schema) == ["model"]


def test_points_are_deleted_by_id_and_by_filter(filled: QdrantClient) -> None:
    filled.delete("cache", models.PointIdsList(points=[IDS[9]]), wait=True)
    assert filled.count("cache").count == 9
    filled.delete("cache", models.FilterSelector(filter=BEFORE_5), wait=True)
    assert [p.id for p in filled.scroll("cache")[0]] == IDS[5:9]


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        ({"must": [{"key": "t", "match": {"value": 3}}]}, 1),
        ({"must": [{"key": "model", "match": {"value": "a"}}]}, 10),
        ({"must": {"key": "t", "match": {"any": [1, 2, 99]}}}, 2),
        ({"must": [{"key": "t", "match": {"except": [1, 2]}}]}, 8),
        ({"must_not": [{"key": "t", "range": {"gte": 3, "lt": 5}}]}, 8),
        ({"should": [{"key": "t", "match": {"value": n}} for n in (1, 2)]}, 2),
        ({"must": [{"has_id": IDS[:4]}, {"key": "t", "range": {"gt": 1}}]}, 2),
        ({"must": [{"should": [{"key": "t", "match": {"value": 1}}]}]}, 1),
        ({"must": [{"is_empty": {"key": "nothing"}}]}, 10),
        (None, 10),
    ],
)
def test_filters_match_what_they_say(
    filled: QdrantClient, server: Server, condition: object, found: int
) -> None:
    assert server.count(condition) == found


@pytest.mark.parametrize(
    "condition",
    [
        {"must": [{"key": "t", "range": {"lt": 3}, "geo_radius": {"radius": 1}}]},
        {"must": [{"key": "t", "range": {"less": 3}}]},
        {"must": [{"key": "t", "match": {"value": [1]}}]},
        {"must": [{"key": "t"}]},
        {"musst": []},
        [],
    ],
)
def test_a_filter_that_is_not_understood_deletes_nothing(
    filled: QdrantClient, server: Server, condition: object
) -> None:
    reply = server.call("POST", "/collections/cache/points/delete", {"filter": condition})
    assert reply.status == 400
    assert "did not match any variant" in reply.error
    assert filled.count("cache").count == 10
