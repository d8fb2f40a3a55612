"""Runs the process: `python -m local_stack.qdrant --data-dir DIR --port PORT`."""

from __future__ import annotations

import argparse
import asyncio
import errno
import json
import logging
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from aiohttp import web

from local_stack.qdrant.app import make_app
from local_stack.qdrant.catalogue import Catalogue
from local_stack.qdrant.errors import ServiceError, StartupError
from local_stack.qdrant.keeper import FLUSH_INTERVAL_S, QUIET_S

if sys.platform != "win32":
    import uvloop

KEEP_ALIVE_S = 75.0
"""Longer than a client's pool keeps a connection, so that the client is the one that closes it."""
SHUTDOWN_S = 5.0
"""Time a running request has to end after a signal."""


def main(arguments: list[str] | None = None) -> int:
    """Serves until SIGTERM or SIGINT; returns the exit status."""
    options = _options(arguments)
    logging.basicConfig(format="local_stack.qdrant: %(message)s", level=logging.WARNING)
    try:
        _run(_serve(options))
    except StartupError as error:
        print(f"local_stack.qdrant: {error}", file=sys.stderr)
        return 1
    except ServiceError as error:
        print(f"local_stack.qdrant: did not close cleanly: {error}", file=sys.stderr)
        return 1
    return 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="local_stack.qdrant", description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of the collections")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, required=True, help="port to listen on; 0: a free one")
    parser.add_argument("--api-key", help="refuse requests without this key")
    parser.add_argument(
        "--quiet",
        type=float,
        default=QUIET_S,
        metavar="SECONDS",
        help="without requests before segments with many deleted points are rewritten",
    )
    parser.add_argument(
        "--flush",
        type=float,
        default=FLUSH_INTERVAL_S,
        metavar="SECONDS",
        help="between two flushes of what is new to the files of the segments",
    )
    return parser.parse_args(arguments)


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Runs on uvloop where there is one; Windows has none."""
    if sys.platform == "win32":
        asyncio.run(work)
    else:
        uvloop.run(work)


async def _serve(options: argparse.Namespace) -> None:
    stop = _stop_event()
    catalogue = Catalogue(options.data_dir)
    try:
        runner = web.AppRunner(
            make_app(catalogue, options.api_key, options.quiet, options.flush),
            access_log=None,
            keepalive_timeout=KEEP_ALIVE_S,
            shutdown_timeout=SHUTDOWN_S,
        )
        await runner.setup()
        try:
            await _listen(runner, options.host, options.port)
            print(_ready_line(runner, catalogue), flush=True)
            await stop.wait()
        finally:
            await runner.cleanup()
    finally:
        catalogue.close()


def _stop_event() -> asyncio.Event:
    """Set by SIGTERM and SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(number, stop.set)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
    return stop


async def _listen(runner: web.AppRunner, host: str, port: int) -> None:
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise StartupError(f"port {port} on {host} is in use") from error
        raise StartupError(f"cannot listen on {host} port {port}: {error}") from error


def _ready_line(runner: web.AppRunner, catalogue: Catalogue) -> str:
    host, port = runner.addresses[0][:2]
    shown = f"[{host}]" if ":" in host else host
    collections = catalogue.all()
    return json.dumps(
        {
            "url": f"http://{shown}:{port}",
            "collections": len(collections),
            "points": sum(collection.points() for collection in collections),
        }
    )


if __name__ == "__main__":
    sys.exit(main())
