"""The metrics, summed over workers by prometheus_client's multiprocess mode.

That mode is on when PROMETHEUS_MULTIPROC_DIR is set before this module is imported, which
``embedrack serve`` does. All label values are made here, so that a first scrape shows each series.
"""

from __future__ import annotations

import os

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

from proxy_app import __version__

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

_requests = Counter("embedrack_requests", "Requests answered", ["route", "code"])
_inputs = Counter("embedrack_inputs", "Inputs embedded, by where the vector came from", ["result"])
_request_seconds = Histogram(
    "embedrack_request_seconds", "Time to answer a request", ["route"], buckets=_SECONDS
)
_stage_seconds = Histogram(
    "embedrack_stage_seconds", "Time of one stage of a request", ["stage"], buckets=_SECONDS
)
_key_requests = Counter("embedrack_key_requests", "Requests with an API key", ["name"])
_store_errors = Counter("embedrack_store_errors", "Calls to Qdrant that did not help", ["op"])
_upstream_errors = Counter("embedrack_upstream_errors", "Batches that failed", ["reason"])

ROUTES = ("embed", "openai", "info", "other")
REQUEST_SECONDS = {route: _request_seconds.labels(route) for route in ROUTES}
INPUTS = {result: _inputs.labels(result) for result in ("hit_l1", "hit_l2", "miss")}
STAGE_SECONDS = {stage: _stage_seconds.labels(stage) for stage in ("l2", "upstream")}
STORE_ERRORS = {op: _store_errors.labels(op) for op in ("read", "write", "skipped", "wrong")}
UPSTREAM_ERRORS = {
    kind: _upstream_errors.labels(kind)
    for kind in ("Empty", "Validation", "Tokenizer", "Backend", "Overloaded", "Unhealthy")
}
WRITES_DROPPED = Counter("embedrack_writes_dropped", "Embeddings that were not stored")
INFLIGHT_INPUTS = Gauge(
    "embedrack_inflight_inputs", "Inputs in the upstream's hands", multiprocess_mode="livesum"
)
QUEUE_INPUTS = Gauge(
    "embedrack_queue_inputs", "Inputs that wait for the upstream", multiprocess_mode="livesum"
)
BODY_BYTES = Gauge(
    "embedrack_body_bytes", "Bytes of large requests under way", multiprocess_mode="livesum"
)
MEMORY_ENTRIES = Gauge("embedrack_entries", "Entries in L1", multiprocess_mode="livesum")
MEMORY_BYTES = Gauge("embedrack_bytes", "Bytes of L1 in use", multiprocess_mode="livesum")
WRITE_QUEUE_BYTES = Gauge(
    "embedrack_write_queue_bytes", "Bytes that wait to be stored", multiprocess_mode="livesum"
)
_info = Gauge(
    "embedrack_info",
    "What is served",
    ["version", "model", "collection", "dimension"],
    multiprocess_mode="livemax",
)

_codes: dict[tuple[str, int], Counter] = {}
_shown: list[Gauge] = []


def count_request(route: str, code: int, seconds: float) -> None:
    """Count one answered request of a route (one of ROUTES)."""
    child = _codes.get((route, code))
    if child is None:
        child = _codes[route, code] = _requests.labels(route, str(code))
    child.inc()
    REQUEST_SECONDS[route].observe(seconds)


def count_key(name: str) -> Counter:
    """Return the counter of one API key's requests."""
    return _key_requests.labels(name)


def show_model(model: str, collection: str, dimension: int) -> None:
    """Show what is served now with 1; what was served before goes to 0."""
    for former in _shown:
        former.set(0)
    _shown[:] = [_info.labels(__version__, model, collection, str(dimension))]
    _shown[0].set(1)


def exposition() -> bytes:
    """Return all metrics in Prometheus' text format; reads files, so call it in a thread."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


for _route in ROUTES:
    _codes[_route, 200] = _requests.labels(_route, "200")
