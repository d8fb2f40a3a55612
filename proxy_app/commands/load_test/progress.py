"""How a run goes: a line that is written over on a terminal, else one every five seconds."""

from __future__ import annotations

import asyncio
import sys
import time

from proxy_app.commands.load_test.tally import Tally


class Progress:
    """Shows the tally on standard error while the run goes on."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._live = sys.stderr.isatty()
        self._began = self._then = time.monotonic()
        self._before = 0

    async def show(self) -> None:
        """Show it again and again, until cancelled."""
        while True:
            await asyncio.sleep(0.2 if self._live else 5)
            line = self.line()
            if self._live:
                print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
            else:
                print(line, file=sys.stderr, flush=True)

    def end(self) -> None:
        """Take the line off the terminal."""
        if self._live:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def line(self) -> str:
        """Say in a line what was seen so far, and the rate since the last line."""
        tally, now = self._tally, time.monotonic()
        done = tally.requests + tally.warm_up
        rate = (done - self._before) / max(0.001, now - self._then)
        self._then, self._before = now, done
        hits = "" if tally.hit_rate is None else f", {tally.hit_rate:.1%} hits"
        what = f"{tally.requests} requests" if tally.requests else f"warm-up, {tally.warm_up}"
        return f"{now - self._began:.0f} s: {what}, {rate:.0f}/s{hits}, {tally.failed} failed"
