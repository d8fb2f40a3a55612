"""What each TEI instance says of itself, asked directly: ``/health`` and ``/metrics``.

The balancer's role writes a file with every instance's address; without it the upstream URL is the
one that is asked. TEI serves its metrics on its main port too; there are none before its first
request (``router/src/http/server.rs`` at v1.9.3).
"""

from __future__ import annotations

import asyncio
import os
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiohttp

from proxy_app.settings import Settings
from proxy_app.upstream.instances import Instances

#: Seconds for one instance to answer both questions, and how many are asked at once.
PATIENCE = 1.0
AT_ONCE = 64
#: The longest page of metrics that is read, in bytes (TEI's has some 25 kB).
LONGEST = 1_000_000

_SAMPLE = re.compile(rb"^(te_\w+)(?:\{[^}\n]*\})? (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Target:
    """An instance to ask. ``counted``: its metrics are one instance's, so counts make sense."""

    name: str
    url: str
    counted: bool = True
    note: str = ""


@dataclass(frozen=True)
class Report:
    """What an instance said. Counts are since it started; None where it did not tell.

    ``problem`` is empty where it is healthy.
    """

    name: str
    problem: str
    note: str
    requests: int | None = None
    inputs: int | None = None
    failures: int | None = None
    queue: int | None = None
    mean_ms: float | None = None


class Probes:
    """Asks the instances."""

    def __init__(self, settings: Settings, instances: Instances) -> None:
        self._settings = settings
        self._instances = instances
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=AT_ONCE, force_close=True),
            headers={"Accept-Encoding": "identity"},
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def ask(self) -> list[Report]:
        """Ask every instance side by side; none of them can make this fail."""
        self._instances.read()
        found = targets(self._settings, self._instances)
        return await asyncio.gather(*map(self._ask, found))

    async def _ask(self, target: Target) -> Report:
        async with self._turns:
            try:
                return await asyncio.wait_for(self._question(target), PATIENCE)
            except asyncio.TimeoutError:
                return Report(target.name, f"no answer within {PATIENCE:.0f} s", target.note)
            except (aiohttp.ClientError, OSError) as error:
                return Report(target.name, f"cannot be reached: {reason(error)}", target.note)

    async def _question(self, target: Target) -> Report:
        async with self._session.get(target.url + "/health") as reply:
            problem = "" if reply.status == 200 else f"/health says {reply.status}"
        if not target.counted:
            return Report(target.name, problem, target.note)
        async with self._session.get(target.url + "/metrics") as reply:
            if reply.status != 200:
                return Report(target.name, problem, target.note)
            page = bytearray()
            async for chunk in reply.content.iter_any():
                page += chunk
                if len(page) > LONGEST:
                    break
        return report(target, problem, read_metrics(bytes(page)))


def targets(settings: Settings, instances: Instances) -> list[Target]:
    """List whom to ask: the file's instances, else the upstream as the one that there is."""
    listed = instances.listed
    if listed is None:
        url, count = settings.upstream_url, settings.upstream_instances
        note = f"{count} instances behind one address" if count > 1 else ""
        return [Target(urlsplit(url).netloc, url, counted=count == 1, note=note)]
    return [
        Target(one.name, one.url, note="" if listed.serves(one) else "serves another model")
        for one in listed.instances
    ]


def read_metrics(page: bytes) -> dict[str, float]:
    """Sum up the samples of each name over their labels, buckets left out."""
    numbers: dict[str, float] = {}
    for name, value in _SAMPLE.findall(page):
        key = name.decode()
        if not key.endswith("_bucket"):
            try:
                numbers[key] = numbers.get(key, 0.0) + float(value)
            except ValueError:
                continue
    return numbers


def report(target: Target, problem: str, numbers: dict[str, float]) -> Report:
    """Make a report of TEI's numbers."""
    durations = numbers.get("te_request_duration_count", 0.0)
    mean = numbers.get("te_request_duration_sum", 0.0) / durations if durations else None
    return Report(
        target.name,
        problem,
        target.note,
        requests=int(numbers.get("te_request_count", 0)),
        inputs=int(numbers.get("te_embed_count", 0)),
        failures=int(numbers.get("te_request_failure", 0)),
        queue=int(numbers.get("te_queue_size", 0)),
        mean_ms=None if mean is None else round(mean * 1000, 3),
    )


def reason(error: Exception) -> str:
    """Say in a few words what went wrong with a connection."""
    number = error.errno if isinstance(error, OSError) else None
    return os.strerror(number) if number else type(error).__name__
