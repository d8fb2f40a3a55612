"""A collection's settings: read from requests, reported as Qdrant reports them, given to Edge."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import qdrant_edge as edge

from local_stack.qdrant.errors import BadRequest, Unprocessable, Unsupported
from local_stack.qdrant.wire import end_of

Settings = dict[str, Any]
"""What `GET /collections/{c}` shows under `config`; also what the catalogue stores."""

MAX_DIMENSION = 65536

Placement = Literal["cold", "cached", "pinned"]


class Hnsw(msgspec.Struct, omit_defaults=True):
    """Index settings a request may give."""

    m: int | None = None
    ef_construct: int | None = None
    full_scan_threshold: int | None = None
    max_indexing_threads: int | None = None
    on_disk: bool | None = None
    payload_m: int | None = None
    memory: Placement | None = None


class Optimizers(msgspec.Struct, omit_defaults=True):
    """Optimiser settings a request may give; sizes in kilobytes."""

    deleted_threshold: float | None = None
    vacuum_min_vector_number: int | None = None
    default_segment_number: int | None = None
    max_segment_size: int | None = None
    memmap_threshold: int | None = None
    indexing_threshold: int | None = None
    flush_interval_sec: int | None = None
    max_optimization_threads: int | Literal["auto"] | None = None
    prevent_unoptimized: bool | None = None


class Wal(msgspec.Struct, omit_defaults=True):
    """Write-ahead log settings: reported, and left at Edge's own values."""

    wal_capacity_mb: int | None = None
    wal_segments_ahead: int | None = None
    wal_retain_closed: int | None = None


class Vectors(msgspec.Struct, omit_defaults=True):
    """The one unnamed dense vector of a point."""

    size: int
    distance: Literal["Cosine", "Euclid", "Dot", "Manhattan"]
    hnsw_config: Hnsw | None = None
    on_disk: bool | None = None
    datatype: Literal["float32", "float16", "uint8"] | None = None
    memory: Placement | None = None


class Creation(msgspec.Struct):
    """The body of `PUT /collections/{c}`."""

    vectors: Any = None
    sparse_vectors: dict[str, Any] | None = None
    shard_number: int | None = None
    replication_factor: int | None = None
    write_consistency_factor: int | None = None
    on_disk_payload: bool | None = None
    hnsw_config: Hnsw | None = None
    wal_config: Wal | None = None
    optimizers_config: Optimizers | None = None
    quantization_config: Any = None


class Change(msgspec.Struct):
    """The body of `PATCH /collections/{c}`."""

    params: dict[str, Any] | None = None
    hnsw_config: Hnsw | None = None
    optimizers_config: Optimizers | None = None


CHANGEABLE_PARAMS = frozenset({"replication_factor", "write_consistency_factor", "on_disk_payload"})

HNSW_DEFAULTS: Settings = {
    "m": 16,
    "ef_construct": 100,
    "full_scan_threshold": 10000,
    "max_indexing_threads": 0,
    "on_disk": False,
}
OPTIMIZER_DEFAULTS: Settings = {
    "deleted_threshold": 0.2,
    "vacuum_min_vector_number": 1000,
    "default_segment_number": 0,
    "max_segment_size": None,
    "memmap_threshold": None,
    "indexing_threshold": 10000,
    "flush_interval_sec": 5,
    "max_optimization_threads": None,
    "prevent_unoptimized": None,
}
WAL_DEFAULTS: Settings = {"wal_capacity_mb": 32, "wal_segments_ahead": 0, "wal_retain_closed": 1}

DISTANCES = {
    "Cosine": edge.Distance.Cosine,
    "Euclid": edge.Distance.Euclid,
    "Dot": edge.Distance.Dot,
    "Manhattan": edge.Distance.Manhattan,
}
DATATYPES = {
    "float32": edge.VectorStorageDatatype.Float32,
    "float16": edge.VectorStorageDatatype.Float16,
    "uint8": edge.VectorStorageDatatype.Uint8,
}
PLACEMENTS = {
    "cold": edge.Memory.Cold,
    "cached": edge.Memory.Cached,
    "pinned": edge.Memory.Pinned,
}


def read_creation(request: Creation, body: bytes) -> Settings:
    """The settings of a new collection.

    Raises:
        BadRequest, Unprocessable: a setting is wrong or not supported here.
    """
    if request.sparse_vectors:
        raise Unsupported("a sparse vector")
    if request.quantization_config is not None:
        raise Unsupported("quantization")
    return {
        "params": {
            "vectors": _given(_read_vectors(request.vectors, body)),
            "shard_number": request.shard_number or 1,
            "replication_factor": request.replication_factor or 1,
            "write_consistency_factor": request.write_consistency_factor or 1,
            "on_disk_payload": request.on_disk_payload is not False,
        },
        "hnsw_config": HNSW_DEFAULTS | _given(request.hnsw_config),
        "optimizer_config": OPTIMIZER_DEFAULTS | _given(request.optimizers_config),
        "wal_config": WAL_DEFAULTS | _given(request.wal_config),
        "quantization_config": None,
    }


def changed(settings: Settings, request: Change) -> Settings:
    """The settings after a PATCH; Edge takes them up when the collection is next opened."""
    params = {k: v for k, v in (request.params or {}).items() if k in CHANGEABLE_PARAMS}
    return settings | {
        "params": settings["params"] | params,
        "hnsw_config": settings["hnsw_config"] | _given(request.hnsw_config),
        "optimizer_config": settings["optimizer_config"] | _given(request.optimizers_config),
    }


def engine_config(settings: Settings) -> edge.EdgeConfig:
    """The same settings in Edge's terms.

    Raises:
        KeyError, TypeError, OverflowError: they are not what `read_creation` makes.
    """
    params, optimizers = settings["params"], settings["optimizer_config"]
    vectors = params["vectors"]
    own_hnsw = vectors.get("hnsw_config")
    return edge.EdgeConfig(
        vectors=edge.EdgeVectorParams(
            size=vectors["size"],
            distance=DISTANCES[vectors["distance"]],
            on_disk=vectors.get("on_disk"),
            datatype=DATATYPES[vectors.get("datatype", "float32")],
            hnsw_config=_engine_hnsw(settings["hnsw_config"] | own_hnsw) if own_hnsw else None,
            memory=PLACEMENTS.get(vectors.get("memory")),
        ),
        on_disk_payload=params["on_disk_payload"],
        hnsw_config=_engine_hnsw(settings["hnsw_config"]),
        optimizers=edge.EdgeOptimizersConfig(
            deleted_threshold=optimizers["deleted_threshold"],
            vacuum_min_vector_number=optimizers["vacuum_min_vector_number"],
            default_segment_number=optimizers["default_segment_number"],
            max_segment_size=optimizers["max_segment_size"],
            indexing_threshold=optimizers["indexing_threshold"],
            # Deferred points would be acknowledged and not readable until the next optimisation.
            prevent_unoptimized=False,
        ),
    )


def _read_vectors(given: object, body: bytes) -> Vectors:
    if given is None:
        raise Unsupported("a collection without a vector")
    if isinstance(given, dict) and "size" not in given and given:
        raise Unsupported("a named vector")
    if isinstance(given, dict) and given.get("multivector_config") is not None:
        raise Unsupported("a multivector")
    if isinstance(given, dict) and given.get("quantization_config") is not None:
        raise Unsupported("quantization")
    try:
        vectors = msgspec.convert(given, Vectors)
    except msgspec.ValidationError as error:
        raise _no_vectors(body) from error
    if vectors.size < 1:
        raise _no_vectors(body)
    if vectors.size > MAX_DIMENSION:
        raise Unprocessable(
            f"Validation error in JSON body: [vectors.size: value {vectors.size} invalid, "
            f"must be from 1 to {MAX_DIMENSION}]"
        )
    return vectors


def _no_vectors(body: bytes) -> BadRequest:
    return BadRequest(
        "Format error in JSON body: data did not match any variant of untagged enum "
        f"VectorsConfig at {end_of(body)}"
    )


def _given(request: msgspec.Struct | None) -> Settings:
    """The fields a request gave a value to."""
    return {} if request is None else msgspec.to_builtins(request)


def _engine_hnsw(settings: Settings) -> edge.HnswIndexConfig:
    return edge.HnswIndexConfig(
        m=settings["m"],
        ef_construct=settings["ef_construct"],
        full_scan_threshold=settings["full_scan_threshold"],
        max_indexing_threads=settings["max_indexing_threads"],
        on_disk=settings["on_disk"],
        payload_m=settings.get("payload_m"),
        memory=PLACEMENTS.get(settings.get("memory", "")),
    )
