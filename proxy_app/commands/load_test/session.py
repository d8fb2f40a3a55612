"""A load test from its first request to its figures."""

from __future__ import annotations

import asyncio
import dataclasses
import signal
import sys
from typing import Any

import uvloop

from proxy_app.commands import client
from proxy_app.commands.load_test import report
from proxy_app.commands.load_test.mix import Mix
from proxy_app.commands.load_test.outcome import UNREACHABLE, Outcome
from proxy_app.commands.load_test.plan import Plan
from proxy_app.commands.load_test.progress import Progress
from proxy_app.commands.load_test.run import Run
from proxy_app.commands.load_test.tally import Tally


class Session:
    """Runs a plan while it shows how it goes; Ctrl-C and SIGTERM end it early."""

    def __init__(self, plan: Plan, mix: Mix, key: str = "", *, verbose: bool = False) -> None:
        self._plan = plan
        self._bodies = mix.bodies()
        self._key = key
        self._verbose = verbose
        self._tally = Tally()
        self._run = Run(plan, self._bodies, self._keep, key)

    def run(self) -> int:
        """Run; returns the signal that ended it, or 0. Raises CallError where nobody answers."""
        return uvloop.run(self._watched())

    def figures(self) -> dict[str, Any]:
        """Return what was found."""
        return report.figures(
            self._plan, self._tally, abandoned=self._run.abandoned, busy=self._run.busy
        )

    def _keep(self, outcome: Outcome) -> None:
        self._tally.add(outcome)
        if self._verbose and outcome.kind:
            print(f"{outcome.at:.3f} s {outcome.kind}: {outcome.message}", file=sys.stderr)

    async def _watched(self) -> int:
        await self._try()
        stopped_by: list[int] = []

        def stop(number: int) -> None:
            stopped_by.append(number)
            self._run.stop()

        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop, number)
        progress = Progress(self._tally)
        showing = asyncio.create_task(progress.show())
        await self._run.go()
        showing.cancel()
        progress.end()
        return stopped_by[0] if stopped_by else 0

    async def _try(self) -> None:
        """Send one request before all others: where nobody is there, a thousand say no more."""
        found: list[Outcome] = []
        url = self._plan.url
        plan = dataclasses.replace(
            self._plan, requests=1, seconds=0.0, warm_up=0.0, concurrency=1, rate=0.0
        )
        await Run(plan, self._bodies, found.append, self._key).go()
        [first] = found
        if first.kind in UNREACHABLE:
            raise client.CallError(f"{url} does not answer: {first.message}; is it the endpoint's?")
        if first.status in (401, 403):
            wrong = "the key is wrong or missing: --key, --key-file"
            raise client.CallError(f"{url} answered {first.status}: {wrong}")
        if first.status in (404, 405) or first.kind == "not-embeddings":
            wrong = f"answered {first.status} and no embeddings; is it the endpoint's?"
            raise client.CallError(f"{url} {wrong} {first.message}")
