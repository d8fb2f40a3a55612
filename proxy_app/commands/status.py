"""``embedrack status``: what ``/status.json`` tells, in a terminal; once, or again and again."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

from proxy_app.commands import client

#: Exit statuses: what the verdict says, or that there was none.
OK, BAD, UNREACHABLE = 0, 1, 2

_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 60
_CLEAR = "\x1b[H\x1b[J"
_COLORS = {"ok": "32", "degraded": "33", "bad": "31"}


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the program's."""
    status = verbs.add_parser("status", help="show what an endpoint does; 1: bad, 2: unreachable")
    status.add_argument("--url", default=client.default_url(), help="default: %(default)s")
    status.add_argument("--key", default="", help="an API key, where the endpoint wants one")
    shown = status.add_mutually_exclusive_group()
    shown.add_argument("--watch", action="store_true", help="again and again, until Ctrl-C")
    shown.add_argument("--json", action="store_true", help="as /status.json tells it")
    status.add_argument("--interval", type=float, default=2.0, help="seconds; default: %(default)s")
    status.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    if options.watch:
        return watch(options.url, options.key, max(0.1, options.interval))
    return once(options.url, options.key, as_json=options.json)


def ask(url: str, key: str) -> dict[str, Any]:
    """Fetch the status of an endpoint; raises CallError."""
    report, _ = client.call(url.rstrip("/") + "/status.json", key=key, seconds=15)
    if not isinstance(report, dict) or "verdict" not in report:
        raise client.CallError(f"{url} is not Embedrack's; is it --url's?")
    return report


def once(url: str, key: str, *, as_json: bool) -> int:
    """Print the status and return the exit status for its verdict."""
    try:
        report = ask(url, key)
    except client.CallError as error:
        print(f"embedrack: {error}", file=sys.stderr)
        return UNREACHABLE
    print(json.dumps(report, indent=2) if as_json else render(report, color=sys.stdout.isatty()))
    return BAD if report["verdict"]["state"] == "bad" else OK


def watch(url: str, key: str, seconds: float) -> int:
    """Print the status every so many seconds until interrupted; returns what the last one means."""
    status = OK
    try:
        while True:
            screen = sys.stdout.isatty()
            try:
                report = ask(url, key)
                status = BAD if report["verdict"]["state"] == "bad" else OK
                text = render(report, color=screen)
            except client.CallError as error:
                status = UNREACHABLE
                text = f"{paint('no status', 'bad', screen)}  {plain(error)}\n"
            print((_CLEAR if screen else "") + text, flush=True)
            time.sleep(seconds)
    except KeyboardInterrupt:
        return status


def render(report: dict[str, Any], *, color: bool) -> str:
    """Lay a status out in a screen of text."""
    verdict = report["verdict"]
    lines = [paint(plain(verdict["words"]), verdict["state"], color)]
    lines += [f"  - {plain(note)}" for note in verdict["notes"]]
    lines.append("")
    for name, text in [*_model(report), *_traffic(report), *_cache(report)]:
        lines.append(f"{name:10} {text}")
    lines.append("")
    lines += _instances(report["instances"], color)
    return "\n".join(lines) + "\n"


def _model(report: dict[str, Any]) -> list[tuple[str, str]]:
    model = report["model"]
    if model is None:
        return [("model", "none yet")]
    return [
        ("model", f"{plain(model['name'])}, {model['dimension']} dimensions"),
        ("namespace", plain(model["namespace"])),
    ]


def _traffic(report: dict[str, Any]) -> list[tuple[str, str]]:
    traffic, upstream = report["traffic"], report["upstream"]
    minutes, total = traffic["window_s"] / 60, sum(traffic["inputs"].values())
    return [
        ("hit rate", f"{share(traffic['hit_rate'])} of {total} inputs in {minutes:.1f} min"),
        ("", curve(traffic["curve"])),
        ("requests", f"{traffic['requests']}, {traffic['failed']} failed"),
        *(
            (
                level.upper() if level != "miss" else level,
                f"{number(one['requests'])} requests, p50 {duration(one['p50_ms'])}, "
                f"p95 {duration(one['p95_ms'])}",
            )
            for level, one in traffic["latency"].items()
        ),
        (
            "inputs",
            f"{upstream['inflight_inputs']} with the instances now, "
            f"{upstream['queue_inputs']} wait for them",
        ),
    ]


def _cache(report: dict[str, Any]) -> list[tuple[str, str]]:
    memory, store = report["memory"], report["store"]
    return [
        (
            "memory",
            f"{memory['entries']} entries, {size(memory['bytes'])} of "
            f"{size(memory['limit_bytes'])}, {report['workers']} workers",
        ),
        (
            "store",
            f"{plain(store['state'])}, {number(store['entries'])} entries, "
            f"vectors {size(store['bytes'])}, {size(store['write_queue_bytes'])} wait",
        ),
    ]


def _instances(instances: list[dict[str, Any]], color: bool) -> list[str]:
    width = max([8, *(len(plain(one["name"])) for one in instances)])
    columns = f"{{:{width}}} {{:>10}} {{:>10}} {{:>7}} {{:>6}} {{:>8}}  {{}}"
    lines = [columns.format("instance", "inputs", "requests", "failed", "queue", "mean", "state")]
    for one in instances:
        state = "bad" if one["problem"] else "ok"
        lines.append(
            columns.format(
                plain(one["name"]),
                *(number(one[name]) for name in ("inputs", "requests", "failures", "queue")),
                duration(one["mean_ms"]),
                paint(plain(one["problem"] or one["note"] or "answers"), state, color),
            )
        )
    return lines


def curve(points: list[dict[str, Any]]) -> str:
    """Draw the latest hit rates, a block each; a blank where there were no inputs."""
    rates = [point["hit_rate"] for point in points[-_WIDTH:]]
    return "".join(" " if rate is None else _BARS[round(rate * (len(_BARS) - 1))] for rate in rates)


def plain(text: object) -> str:
    """Leave out what would steer a terminal."""
    return "".join(letter for letter in str(text) if letter.isprintable())


def paint(text: str, state: str, color: bool) -> str:
    """Color a text by a state, on a terminal."""
    return f"\x1b[{_COLORS.get(state, '0')}m{text}\x1b[0m" if color else text


def share(rate: float | None) -> str:
    """Write a rate as percent."""
    return "-" if rate is None else f"{rate * 100:.1f} %"


def number(value: float | None) -> str:
    """Write a number that may not be known."""
    return "-" if value is None else f"{value:.0f}"


def duration(milliseconds: float | None) -> str:
    """Write milliseconds."""
    return "-" if milliseconds is None else f"{milliseconds:.3g} ms"


def size(count: float | None) -> str:
    """Write bytes."""
    return "-" if count is None else f"{count / 1024 / 1024:.1f} MiB"
