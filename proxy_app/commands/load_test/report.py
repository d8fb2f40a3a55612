"""The figures of a run as they are read, and as programs read them."""

from __future__ import annotations

import math
import statistics
from typing import Any

from proxy_app.commands.load_test.plan import Plan
from proxy_app.commands.load_test.tally import Tally, histogram, percentile

PERCENTILES = {"median": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p99.9": 99.9}
#: Share of a core from which on the load generator itself may be what is measured.
_BUSY = 0.9
#: Milliseconds from which on it is said how late requests were sent.
_LATE = 1.0
_WIDTH = 40


def figures(plan: Plan, tally: Tally, *, abandoned: int, busy: float) -> dict[str, Any]:
    """Return everything that a run found; times are milliseconds where the name says so.

    ``latency_ms`` is of good requests, and null where there was none. The buckets of ``histogram``
    count what is above the bucket before; ``le_ms`` null is without bound.
    """
    times = tally.times()
    seconds = tally.seconds or math.inf
    figures: dict[str, Any] = {
        "url": plan.url,
        "plan": str(plan),
        "requests": tally.requests,
        "good": tally.good,
        "failed": tally.failed,
        "error_rate": tally.error_rate,
        "kinds": dict(tally.kinds.most_common()),
        "statuses": {str(code or "none"): n for code, n in sorted(tally.statuses.items())},
        "retry_after": tally.retry_after,
        "abandoned": abandoned,
        "warm_up": {"requests": tally.warm_up, "failed": tally.warm_up_failed},
        "seconds": round(tally.seconds, 3),
        "requests_per_second": tally.good / seconds,
        "texts": tally.texts,
        "texts_per_second": tally.texts / seconds,
        "bytes_per_second": tally.size / seconds,
        "hits": tally.hits,
        "misses": tally.misses,
        "hit_rate": tally.hit_rate,
        "latency_ms": None,
        "histogram": [
            {"le_ms": None if bound == math.inf else round(bound * 1e3, 3), "requests": count}
            for bound, count in histogram(times)
        ],
        "slices": slices(tally),
        "generator": {"busy": round(busy, 3), "late_p99_ms": tally.late() * 1e3},
        "failures": [
            {"at": round(one.at, 3), "kind": one.kind, "message": one.message}
            for one in tally.failures
        ],
    }
    if times:
        figures["latency_ms"] = {
            "average": statistics.fmean(times) * 1e3,
            "min": times[0] * 1e3,
            "max": times[-1] * 1e3,
        } | {name: _milliseconds(times, percent) for name, percent in PERCENTILES.items()}
    return figures


def slices(tally: Tally) -> list[dict[str, Any]]:
    """Return the figures of each second in which a request was due."""
    return [
        {
            "second": second,
            "requests": one.requests,
            "failed": one.failed,
            "p50_ms": _milliseconds(sorted(one.times), 50),
            "p99_ms": _milliseconds(sorted(one.times), 99),
        }
        for second, one in sorted(tally.slices.items())
    ]


def _milliseconds(ordered: list[float], percent: float) -> float | None:
    found = percentile(ordered, percent)
    return None if found is None else found * 1e3


def summary(figures: dict[str, Any]) -> str:
    """Lay the figures out in a screen of text."""
    return "\n".join([f"{name:10} {text}".rstrip() for name, text in _rows(figures)])


def _rows(figures: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [("", ""), (figures["url"], ""), (figures["plan"], "")]
    if figures["warm_up"]["requests"]:
        warm_up = figures["warm_up"]
        rows.append(
            ("warm-up", f"{warm_up['requests']} requests, {warm_up['failed']} failed: in no figure")
        )
    if figures["abandoned"]:
        rows.append(
            ("abandoned", f"{figures['abandoned']} requests when it was stopped: not counted")
        )
    rows += [
        ("requests", f"{figures['requests']} in {figures['seconds']:.2f} s"),
        ("rate", f"{figures['requests_per_second']:.1f} good requests/s, "
                 f"{figures['texts_per_second']:.1f} texts/s, "
                 f"{figures['bytes_per_second'] / 2**20:.1f} MiB/s"),
        ("success", f"{1 - figures['error_rate']:.2%}: {figures['good']} good, "
                    f"{figures['failed']} failed"),
        ("status", _counts(figures["statuses"])),
    ]  # fmt: skip
    if figures["retry_after"]:
        rows.append(("", f"{figures['retry_after']} with Retry-After, which is not heeded"))
    if figures["hit_rate"] is None:
        rows.append(("hit rate", "unknown: no X-Cache in the replies"))
    else:
        hits = f"{figures['hits']} hits, {figures['misses']} misses"
        rows.append(("hit rate", f"{figures['hit_rate']:.1%}: {hits}"))
    rows += _latency(figures)
    rows += _failures(figures)
    return rows + _generator(figures["generator"])


def _generator(figures: dict[str, float]) -> list[tuple[str, str]]:
    rows = []
    if figures["busy"] > _BUSY:
        rows.append(f"{figures['busy']:.0%} of a core: the load test itself may be the limit")
    if figures["late_p99_ms"] > _LATE:
        late = shortly(figures["late_p99_ms"])
        rows.append(f"99 % were sent within {late} ms of when they were due: part of the latency")
    return [("generator", text) for text in rows]


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in counts.items()) or "none"


def _latency(figures: dict[str, Any]) -> list[tuple[str, str]]:
    times = figures["latency_ms"]
    if times is None:
        return [("latency", "none: no good reply")]
    shown = {name: shortly(value) for name, value in times.items()}
    first = ("average", "median", "min", "max")
    last = ("p90", "p95", "p99", "p99.9")
    rows = [
        ("latency", ", ".join(f"{name} {shown[name]}" for name in first) + " (ms)"),
        ("", ", ".join(f"{name} {shown[name]}" for name in last)),
    ]
    most = max(row["requests"] for row in figures["histogram"])
    for row in figures["histogram"]:
        bound = "above" if row["le_ms"] is None else f"≤ {row['le_ms']:g}"
        bar = "#" * math.ceil(row["requests"] / most * _WIDTH)
        rows.append(("", f"{bound:>8} ms {bar:{_WIDTH}} {row['requests']}"))
    return rows


def shortly(milliseconds: float) -> str:
    """Write milliseconds with three digits, or all that stand before the point."""
    return f"{milliseconds:.3g}" if milliseconds < 100 else f"{milliseconds:.0f}"


def _failures(figures: dict[str, Any]) -> list[tuple[str, str]]:
    if not figures["kinds"]:
        return []
    rows = [("errors", _counts(figures["kinds"]))]
    firsts: dict[str, dict[str, Any]] = {}
    for failure in figures["failures"]:
        firsts.setdefault(failure["kind"], failure)
    rows += [
        ("", f"{kind} first at {one['at']:.2f} s: {one['message'][:200]}".rstrip(": "))
        for kind, one in firsts.items()
    ]
    return rows
