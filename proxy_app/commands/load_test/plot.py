"""The latency of a run as a picture: an SVG of our own, since hosts have nothing that draws."""

from __future__ import annotations

import math
from html import escape
from typing import Any

from proxy_app.commands.load_test.report import shortly

_WIDTH, _HEIGHT, _TOP = 460, 260, 70
#: Where each panel begins.
_LEFT, _RIGHT = 60, 600
_BLUE, _RED, _GREY = "#2f5f9e", "#b3402e", "#888"


def draw(figures: dict[str, Any]) -> str:
    """Draw a run's figures (``report.figures``): the histogram, and p50 and p99 of each second."""
    times = figures["latency_ms"] or {}
    shown = ", ".join(f"{name} {shortly(value)} ms" for name, value in times.items())
    return "\n".join(
        [
            '<svg xmlns="http://www.w3.org/2000/svg" width="1100" height="390" '
            'font-family="sans-serif" font-size="11">',
            '<rect width="100%" height="100%" fill="white"/>',
            _text(_LEFT, 20, f"{figures['url']}: {figures['plan']}", size=13),
            _text(
                _LEFT, 38, f"{figures['requests']} requests, {figures['failed']} failed. {shown}"
            ),
            *_histogram(figures["histogram"]),
            *_seconds(figures["slices"]),
            "</svg>\n",
        ]
    )


def _histogram(rows: list[dict[str, Any]]) -> list[str]:
    parts = [_text(_LEFT, 60, "good requests by latency, up to so many ms")]
    most = max((row["requests"] for row in rows), default=1)
    step = _WIDTH / max(1, len(rows))
    for number, row in enumerate(rows):
        height = row["requests"] / most * (_HEIGHT - 15)
        x, y = _LEFT + number * step, _TOP + _HEIGHT - height
        parts.append(
            f'<rect x="{x + 2:.1f}" y="{y:.1f}" width="{step - 4:.1f}" height="{height:.1f}" '
            f'fill="{_BLUE}"/>'
        )
        bound = "more" if row["le_ms"] is None else f"{row['le_ms']:g}"
        middle = x + step / 2
        parts.append(_text(middle, _TOP + _HEIGHT + 15, bound, anchor="middle"))
        parts.append(_text(middle, y - 3, str(row["requests"]), anchor="middle"))
    return parts


def _seconds(slices: list[dict[str, Any]]) -> list[str]:
    """Draw p50 and p99 over the run, on a logarithmic scale, and a mark where requests failed."""
    parts = [_text(_RIGHT, 60, "p50 and p99 of each second (ms), and the seconds with failures")]
    values = [one[name] for one in slices for name in ("p50_ms", "p99_ms") if one[name]]
    if not values:
        return parts
    low = math.floor(math.log10(min(values)))
    high = max(low + 1, math.ceil(math.log10(max(values))))
    last: int = max(1, slices[-1]["second"])

    def x_of(one: dict[str, Any]) -> float:
        return _RIGHT + float(one["second"] / last * _WIDTH)

    def y_of(milliseconds: float) -> float:
        return float(_TOP + _HEIGHT * (1 - (math.log10(milliseconds) - low) / (high - low)))

    for power in range(low, high + 1):
        y = y_of(10**power)
        parts.append(
            f'<line x1="{_RIGHT}" x2="{_RIGHT + _WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
        )
        parts.append(_text(_RIGHT - 6, y + 4, f"{10.0**power:g}", anchor="end"))
    for name, colour in (("p50_ms", _GREY), ("p99_ms", _BLUE)):
        points = " ".join(f"{x_of(one):.1f},{y_of(one[name]):.1f}" for one in slices if one[name])
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}"/>')
    for one in slices:
        if one["failed"]:
            x = x_of(one)
            parts.append(
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP + _HEIGHT}" y2="{_TOP + _HEIGHT - 8}" '
                f'stroke="{_RED}" stroke-width="3"/>'
            )
    parts.append(_text(_RIGHT, _TOP + _HEIGHT + 15, "0 s", anchor="middle"))
    parts.append(_text(_RIGHT + _WIDTH, _TOP + _HEIGHT + 15, f"{last} s", anchor="middle"))
    return parts


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 11) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">'
        f"{escape(text)}</text>"
    )
