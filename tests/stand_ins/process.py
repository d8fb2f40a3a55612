"""Parts as processes of their own."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web


@contextmanager
def started(*arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Run ``python -m …`` until the body ends; its stdout can be read."""
    child = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )
    try:
        yield child
    finally:
        child.terminate()
        child.communicate(timeout=60)


@contextmanager
def heeding_signals() -> Iterator[None]:
    """Start processes that heed SIGINT and SIGHUP, also where pytest was started to ignore them.

    `nohup pytest &` does that. Children inherit that a signal is ignored, but no handler.
    """
    numbers = (signal.SIGINT, signal.SIGHUP)
    ignored = [number for number in numbers if signal.getsignal(number) == signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, lambda *_: None)
    try:
        yield
    finally:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)


def first_line(child: subprocess.Popen[str]) -> str:
    """Read the line that a part prints once it listens."""
    assert child.stdout is not None
    line = child.stdout.readline().strip()
    assert line, "it ended without listening"
    return line


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def serve(app: web.Application, port: int = 0) -> None:
    """Be such a part: listen, print the URL, and go on until the process is ended."""
    runner = web.AppRunner(app, access_log=None, keepalive_timeout=600)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()
