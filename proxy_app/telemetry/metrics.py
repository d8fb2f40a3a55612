"""The metrics: what is counted, under which names, and how the sums over workers are written.

A worker counts for itself (``tallies``); twice a second and before each answer of its own to
``/metrics`` it leaves its numbers where all workers find them (``ledger``). All label values that
are known beforehand are made here, so that a first scrape shows each series.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from proxy_app import __version__
from proxy_app.errors import Kind
from proxy_app.telemetry.tallies import Counter, Gauge, Histogram, Sums, Tallies

#: Upper bounds of every histogram, in seconds.
SECONDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
#: The routes that are counted apart; those of EMBEDDING answer with embeddings.
EMBEDDING = ("embed", "openai")
ROUTES = (*EMBEDDING, "info", "other")
#: Where the last of an answer's embeddings came from; "none" where it had none.
LEVELS = ("l1", "l2", "miss")

TALLIES = Tallies()

_requests = TALLIES.counter("embedrack_requests", "Requests answered", "route", "code")
_inputs = TALLIES.counter(
    "embedrack_inputs", "Inputs embedded, by where the vector came from", "result"
)
LANE_REQUESTS = TALLIES.counter(
    "embedrack_lane_requests", "Requests answered by the fast lane, without aiohttp"
).labels()
_request_seconds = TALLIES.histogram(
    "embedrack_request_seconds",
    "Time to answer a request; level: the slowest place that an embedding came from",
    *("route", "level"),
    bounds=SECONDS,
)
_stage_seconds = TALLIES.histogram(
    "embedrack_stage_seconds", "Time of one stage of a request", "stage", bounds=SECONDS
)
_key_requests = TALLIES.counter("embedrack_key_requests", "Requests with an API key", "name")
_store_errors = TALLIES.counter("embedrack_store_errors", "Calls to Qdrant that did not help", "op")
_upstream_errors = TALLIES.counter("embedrack_upstream_errors", "Batches that failed", "reason")

INPUTS = {result: _inputs.labels(result) for result in ("hit_l1", "hit_l2", "miss")}
_L1, _L2, _MISS = INPUTS.values()
STAGE_SECONDS = {stage: _stage_seconds.labels(stage) for stage in ("l2", "upstream")}
STORE_ERRORS = {op: _store_errors.labels(op) for op in ("read", "write", "skipped", "wrong")}
UPSTREAM_ERRORS = {kind.value: _upstream_errors.labels(kind.value) for kind in Kind}
WRITES_DROPPED = TALLIES.counter(
    "embedrack_writes_dropped", "Embeddings that were not stored"
).labels()
INFLIGHT_INPUTS = TALLIES.gauge(
    "embedrack_inflight_inputs", "Inputs in the upstream's hands"
).labels()
QUEUE_INPUTS = TALLIES.gauge("embedrack_queue_inputs", "Inputs that wait for the upstream").labels()
BODY_BYTES = TALLIES.gauge("embedrack_body_bytes", "Bytes of large requests under way").labels()
MEMORY_ENTRIES = TALLIES.gauge("embedrack_entries", "Entries in L1").labels()
MEMORY_BYTES = TALLIES.gauge("embedrack_bytes", "Bytes of L1 in use").labels()
WRITE_QUEUE_BYTES = TALLIES.gauge(
    "embedrack_write_queue_bytes", "Bytes that wait to be stored"
).labels()
WORKERS = TALLIES.gauge("embedrack_workers", "Workers that run").labels()
WORKERS.set(1)
_info = TALLIES.gauge(
    "embedrack_info", "1 for what is served", "version", "model", "namespace", "dimension"
)

_codes: dict[tuple[str, int], Counter] = {}
_seconds: dict[tuple[str, str], Histogram] = {}


def count_request(route: str, code: int, seconds: float, level: str = "none") -> None:
    """Count one answered request of a route (one of ROUTES) and a level (of LEVELS, or "none")."""
    codes = _codes.get((route, code))
    if codes is None:
        codes = _codes[route, code] = _requests.labels(route, str(code))
    codes.value += 1
    observed = _seconds.get((route, level))
    if observed is None:
        observed = _seconds[route, level] = _request_seconds.labels(route, level)
    observed.observe(seconds)


def count_inputs(l1: int, l2: int, misses: int) -> None:
    """Count the inputs of one answered request, by where their vectors came from."""
    _L1.value += l1
    _L2.value += l2
    _MISS.value += misses


def count_key(name: str) -> Counter:
    """Return the counter of one API key's requests."""
    return _key_requests.labels(name)


def show_model(model: str, namespace: str, dimension: int) -> None:
    """Show what is served now, in place of what was served before.

    ``namespace`` is its short name, that of the collection.
    """
    _info.series.clear()
    served: Gauge = _info.labels(__version__, model, namespace, str(dimension))
    served.set(1)


class _Sums(Collector):
    def __init__(self, sums: Sums) -> None:
        self._sums = sums

    def collect(self) -> Iterator[Metric]:
        """Give every family, and for the model 1 however many workers serve it."""
        ones = {key: [1.0] for key in self._sums if key[0] == "embedrack_info"}
        return TALLIES.collect(self._sums | ones)


def exposition(sums: Sums) -> bytes:
    """Write the sums over all workers in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Sums(sums))
    return generate_latest(registry)


for _route in ROUTES:
    _codes[_route, 200] = _requests.labels(_route, "200")
    for _level in (*LEVELS, "none") if _route in EMBEDDING else ("none",):
        _seconds[_route, _level] = _request_seconds.labels(_route, _level)
show_model("", "", 0)
