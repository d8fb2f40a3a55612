"""Keeps sending to an endpoint while something happens to it, and reports every failure.

Until --seconds are over, --stop-file appears, or SIGTERM or SIGINT comes; then what is in flight
is finished. Nothing is sent twice: a connection refused or broken, 30 s without a reply, a status
other than 200, a wrong list or another vector than before is a failure; the exit status is then 1.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import signal
import sys
from pathlib import Path
from urllib.parse import urlsplit

from client import Client
from judge import Judge
from pace import Pace
from tally import KINDS, Tally
from texts import MIXES, Texts


def main() -> int:
    """Run the load; returns the exit status."""
    options = _options()
    tally = asyncio.run(_run(options))
    if options.report:
        options.report.write_text(json.dumps(tally.report(), indent=2) + "\n", encoding="utf-8")
    print(tally.line(), flush=True)
    return 1 if tally.too_many(dict(options.allow)) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="molecule/load", description=__doc__)
    parser.add_argument("--url", required=True, type=_url, help="such as http://127.0.0.1:8080")
    parser.add_argument("--connections", type=_count, default=16, metavar="N")
    parser.add_argument("--connect-each", action="store_true", help="a connection per request")
    parser.add_argument(
        "--rate", type=float, default=0.0, metavar="R", help="requests a second, all together"
    )
    parser.add_argument("--seconds", type=float, default=0.0, help="0: until a signal ends it")
    parser.add_argument("--stop-file", type=Path, metavar="PATH", help="stop once it is there")
    parser.add_argument("--texts", choices=MIXES, default="mixed", help="what is sent")
    parser.add_argument("--report", type=Path, metavar="FILE", help="where the JSON report goes")
    parser.add_argument(
        "--allow",
        type=_allowed,
        action="append",
        default=[],
        metavar="KIND=N",
        help=f"failures that are none: {', '.join(KINDS)}, status-NNN",
    )
    options = parser.parse_args()
    if options.rate < 0 or options.seconds < 0:
        parser.error("--rate and --seconds are not negative")
    # Now, and not when a long run is over.
    if options.report and not options.report.parent.is_dir():
        parser.error(f"--report: there is no folder {options.report.parent}")
    if options.stop_file and options.stop_file.exists():
        parser.error(f"--stop-file: {options.stop_file} is there already; remove it first")
    return options


async def _run(options: argparse.Namespace) -> Tally:
    tally, judge, pace = Tally(), Judge(), Pace(options.rate)
    texts = Texts(options.texts, judge.known)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, pace.stop)
    clients = [Client(options.url, texts, judge, tally) for _ in range(options.connections)]
    await asyncio.gather(
        _watch(options, tally, pace),
        *(client.run(pace, connect_each=options.connect_each) for client in clients),
    )
    return tally


async def _watch(options: argparse.Namespace, tally: Tally, pace: Pace) -> None:
    """Show how it goes every five seconds, and end the run when it is time."""
    shown = 0.0
    while not pace.over:
        await pace.sleep(0.1)
        over = options.seconds and tally.seconds >= options.seconds
        if over or (options.stop_file and options.stop_file.exists()):
            pace.stop()
        if tally.seconds >= shown + 5:
            shown = tally.seconds
            print(tally.line(), file=sys.stderr, flush=True)


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise argparse.ArgumentTypeError(f"{text!r}: a URL such as http://127.0.0.1:8080 is wanted")
    return text


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: a number from 1 is wanted")
    return int(text)


def _allowed(text: str) -> tuple[str, int]:
    found = re.fullmatch(rf"({'|'.join(KINDS)}|status-\d{{3}})=(\d+)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r}: KIND=N is wanted, such as refused=3")
    return found[1], int(found[2])


if __name__ == "__main__":
    sys.exit(main())
