"""``embedrack load-test`` on a terminal or in a script."""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from proxy_app.commands import client, texts
from proxy_app.commands.load_test import plot, report
from proxy_app.commands.load_test.mix import Mix, generated, sizes_of
from proxy_app.commands.load_test.plan import ARRIVALS, Plan

_ENDS = """\
Ends with 1 where more requests failed than --max-error-rate allows, or the endpoint does not
answer at all; with 2 where an option is wrong; with 130 after Ctrl-C, which still sums up."""
#: Requests under way: of a closed loop, and at most of an open one.
_CLOSED, _OPEN = 10, 1000
#: Of a run for which nothing sets an end.
_REQUESTS = 100


class OptionError(Exception):
    """An option that cannot be meant; names it, what was given, and what is wanted."""


def add(verbs: Any) -> None:
    """Add the command to the program's."""
    meaning = "send requests, and say how many, how fast and how well they were answered"
    parser = verbs.add_parser("load-test", help=meaning, description=meaning, epilog=_ENDS)
    fill(parser)
    parser.set_defaults(run=run)


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "url",
        nargs="?",
        default=client.default_url(),
        help="an endpoint, or one of its routes: /embed, /v1/embeddings; default: %(default)s",
    )
    parser.add_argument("--key", default="", help="an API key, where the endpoint wants one")
    parser.add_argument("--key-file", type=Path, metavar="FILE", help="the file that holds it")

    much = parser.add_argument_group("how much")
    much.add_argument(
        "-r", "--requests", type=_count, default=0, metavar="N", help=f"default: {_REQUESTS}"
    )
    much.add_argument(
        "--duration", type=_seconds, default=0.0, metavar="SECONDS", help="also without -r"
    )
    much.add_argument(
        "--warm-up", type=_seconds, default=0.0, metavar="SECONDS", help="before; in no figure"
    )

    fast = parser.add_argument_group("how fast")
    fast.add_argument(
        "-c",
        "--concurrency",
        type=_count,
        metavar="N",
        help=f"requests under way; default: {_CLOSED}, and with --rate at most {_OPEN}: "
        "what is due beyond them is not sent and counts as failed",
    )
    fast.add_argument(
        "--rate",
        type=_rate,
        default=0.0,
        metavar="R",
        help="open loop: so many a second start on time, whatever the replies do, and latency "
        "counts from then; default: closed, the next one after a reply",
    )
    fast.add_argument(
        "--arrivals", choices=ARRIVALS, default="poisson", help="of --rate; default: %(default)s"
    )
    fast.add_argument("--timeout", type=_seconds, default=30.0, metavar="SECONDS")

    what = parser.add_argument_group("what")
    what.add_argument(
        "-d",
        "--data",
        type=Path,
        metavar="FILE",
        help="texts, the most frequent first: a line each, .jsonl, .parquet; default: generated",
    )
    what.add_argument("--field", default="text", help="of JSON or Parquet; default: %(default)s")
    what.add_argument(
        "--texts", type=_count, default=10_000, metavar="N", help="generated; default: %(default)s"
    )
    what.add_argument(
        "--words", type=_count, default=12, metavar="N", help="of each; default: %(default)s"
    )
    what.add_argument(
        "--zipf",
        type=_exponent,
        default=1.0,
        metavar="S",
        help="the text of rank k is drawn in proportion to 1/k^S; 0: all alike; default: 1",
    )
    what.add_argument(
        "--new", type=_share, default=0.0, metavar="SHARE", help="of texts nobody sent before"
    )
    what.add_argument(
        "--batch",
        type=_sizes,
        default="1",
        metavar="SIZES",
        help="texts in a request, equally likely: 32, 1-64, 1,1,1,32; default: %(default)s",
    )
    client.add_fields(what, "a field of every request, such as normalize=false")
    what.add_argument(
        "--seed", type=int, default=0, metavar="N", help="another one draws other texts and gaps"
    )

    end = parser.add_argument_group("what comes of it")
    end.add_argument(
        "--max-error-rate",
        type=_share,
        default=0.0,
        metavar="SHARE",
        help="of requests that may fail; default: 0",
    )
    end.add_argument("--json", metavar="FILE", help="the figures; -: to standard output")
    end.add_argument("--plot", type=Path, metavar="FILE", help="latency as a picture, an .svg")
    end.add_argument("-v", "--verbose", action="store_true", help="show each failure as it comes")


def run(options: argparse.Namespace) -> int:
    """Run a load test; returns the exit status, and raises CallError where nobody answers."""
    # Not at the top: the other commands need no HTTP client.
    from proxy_app.commands.load_test.session import Session

    try:
        plan = _plan(options)
        mix = _mix(options, plan)
        session = Session(plan, mix, _key(options), verbose=options.verbose)
        _writable(options)
    except (OptionError, texts.FileError, client.CallError) as error:
        print(f"embedrack: {error}", file=sys.stderr)
        return 2
    try:
        stopped_by = session.run()
    except KeyboardInterrupt:  # before the first reply
        return 128 + signal.SIGINT
    figures = session.figures()
    summary = report.summary(figures)
    print(summary, file=sys.stderr if options.json == "-" else sys.stdout, flush=True)
    if options.json:
        text = json.dumps(figures, indent=1) + "\n"
        print(text, end="") if options.json == "-" else Path(options.json).write_text(text)
    if options.plot:
        options.plot.write_text(plot.draw(figures), encoding="utf-8")
    if figures["requests"] and figures["error_rate"] > options.max_error_rate:
        limit = f"--max-error-rate allows {options.max_error_rate:.2%}"
        print(
            f"embedrack: {figures['error_rate']:.2%} of requests failed; {limit}", file=sys.stderr
        )
        return 1
    if stopped_by:
        return 128 + stopped_by
    if not figures["requests"]:
        print("embedrack: no request was due in that time", file=sys.stderr)
        return 1
    return 0


def _plan(options: argparse.Namespace) -> Plan:
    parts = urlsplit(options.url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        wanted = "http://HOST:PORT or https://HOST:PORT, with a route or without, is wanted"
        raise OptionError(f"{options.url!r}: {wanted}")
    route = "" if parts.path.strip("/") else "/embed"
    return Plan(
        url=options.url.rstrip("/") + route,
        requests=options.requests or (0 if options.duration else _REQUESTS),
        seconds=options.duration,
        warm_up=options.warm_up,
        concurrency=options.concurrency or (_OPEN if options.rate else _CLOSED),
        rate=options.rate,
        arrivals=options.arrivals,
        timeout=options.timeout,
        seed=options.seed,
    )


def _mix(options: argparse.Namespace, plan: Plan) -> Mix:
    if options.data is None:
        known = generated(options.texts, options.words, options.seed)
    else:
        try:
            known = [text for _, text in texts.read(options.data, options.field)[1]]
        except OSError as error:
            raise OptionError(f"--data {options.data}: {error.strerror}") from None
        if not known:
            raise OptionError(f"--data {options.data} holds no text")
    return Mix(
        known,
        zipf=options.zipf,
        new=options.new,
        sizes=options.batch,
        fields=client.fields(options.set),
        openai=plan.is_openai,
        seed=options.seed,
    )


def _key(options: argparse.Namespace) -> str:
    if options.key_file is None:
        return str(options.key)
    try:
        return str(options.key_file.read_text(encoding="utf-8").strip())
    except OSError as error:
        raise OptionError(f"--key-file {options.key_file}: {error.strerror}") from None


def _writable(options: argparse.Namespace) -> None:
    """Look now, and not when a long run is over, whether the figures can be written."""
    if options.plot and options.plot.suffix.lower() != ".svg":
        raise OptionError(f"--plot {options.plot}: an .svg is written, and the name has to say so")
    for name, path in (("--json", options.json), ("--plot", options.plot)):
        if path and path != "-" and not Path(path).parent.is_dir():
            raise OptionError(f"{name} {path}: there is no folder {Path(path).parent}")


def _number(text: str, kind: type, wanted: str, least: float, most: float = math.inf) -> Any:
    try:
        number = kind(text)
    except ValueError:
        number = math.nan
    if not (least <= number <= most and math.isfinite(number)):
        raise argparse.ArgumentTypeError(f"{text!r}: {wanted} is wanted")
    return number


def _count(text: str) -> int:
    return int(_number(text, int, "a whole number from 1", 1))


def _seconds(text: str) -> float:
    return float(_number(text, float, "a number of seconds above 0", 1e-3))


def _rate(text: str) -> float:
    return float(_number(text, float, "requests a second, above 0", 1e-3))


def _share(text: str) -> float:
    return float(_number(text, float, "a share from 0 to 1", 0, 1))


def _exponent(text: str) -> float:
    return float(_number(text, float, "an exponent from 0 to 10", 0, 10))


def _sizes(text: str) -> tuple[range, ...]:
    try:
        return sizes_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
