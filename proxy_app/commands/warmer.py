"""``embedrack warm``: embeds a file of texts through an endpoint, so that they are hits later."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import aiohttp

from proxy_app.commands import client, texts

#: Seconds between two attempts where the endpoint names none, and the most that it may name.
PAUSE = 1.0
LONGEST_PAUSE = 30.0
#: Seconds for one batch.
TIMEOUT = 120.0


class WarmError(Exception):
    """Why the file is not embedded; names the rows."""


@dataclass
class Batch:
    """Texts that go in one request, and their rows' numbers."""

    rows: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"rows {self.rows[0]} to {self.rows[-1]}"


def batches(rows: texts.Texts, size: int) -> Iterator[Batch]:
    """Cut texts into batches of at most ``size``."""
    batch = Batch()
    for row, text in rows:
        batch.rows.append(row)
        batch.texts.append(text)
        if len(batch.texts) == size:
            yield batch
            batch = Batch()
    if batch.texts:
        yield batch


class Progress:
    """How far it is: a line that is written over on a terminal, else one every ten seconds."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._began = time.monotonic()
        self._shown = self._began
        self._live = sys.stderr.isatty()
        self._row = 0
        self.texts = 0
        self.hits = 0

    def add(self, batch: Batch, hits: int) -> None:
        """Count a batch that was embedded."""
        self.texts += len(batch.texts)
        self.hits += hits
        self._row = max(self._row, batch.rows[-1])
        now = time.monotonic()
        if now - self._shown >= (0.2 if self._live else 10):
            self._shown = now
            self._show("\r" if self._live else "", "" if self._live else "\n")

    def end(self) -> None:
        """Leave the last state on the terminal."""
        if self._live:
            self._show("\r", "\n")

    def _show(self, before: str, after: str) -> None:
        part = self._row / max(1, self._total)
        bar = ("#" * round(20 * part)).ljust(20, ".")
        line = f"{bar} {part:4.0%}  {self}"
        print(before + line.ljust(78) if before else line, end=after, file=sys.stderr, flush=True)

    def __str__(self) -> str:
        seconds = max(0.001, time.monotonic() - self._began)
        return (
            f"{self.texts} texts, {self.hits} of them hits, {seconds:.1f} s, "
            f"{self.texts / seconds:.0f} texts/s"
        )


class Warmer:
    """Sends batches to an endpoint, a few at a time, and again while it is overloaded or away."""

    def __init__(
        self, session: aiohttp.ClientSession, url: str, fields: dict[str, object], patience: float
    ) -> None:
        self._session = session
        self._url = url.rstrip("/") + "/embed"
        self._fields = fields
        self._patience = patience

    async def run(self, work: Iterator[Batch], at_once: int, progress: Progress) -> None:
        """Send all batches; raises WarmError and FileError for the first that fails."""
        workers = [asyncio.create_task(self._work(work, progress)) for _ in range(at_once)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _work(self, work: Iterator[Batch], progress: Progress) -> None:
        for batch in work:
            progress.add(batch, await self._send(batch))

    async def _send(self, batch: Batch) -> int:
        """Embed a batch; returns how many of its texts were hits."""
        deadline = time.monotonic() + self._patience
        while True:
            pause = PAUSE
            try:
                body = {"inputs": batch.texts, **self._fields}
                async with self._session.post(self._url, json=body) as reply:
                    if reply.status == 200:
                        await reply.read()
                        return client.hits_and_misses(reply.headers.get("X-Cache", ""))[0]
                    problem = f"{self._url} answered {reply.status}: {(await reply.text())[:300]}"
                    if reply.status == 401:
                        problem = f"{self._url} answered 401: the key is wrong or missing (--key)"
                    if reply.status not in (429, 503):
                        raise WarmError(f"{batch}: {problem}")
                    pause = seconds_of(reply.headers.get("Retry-After", ""))
            except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
                problem = f"{self._url} does not answer: {error or type(error).__name__}"
            if time.monotonic() + pause > deadline:
                raise WarmError(
                    f"{batch}: {problem} (tried for {self._patience:.0f} s: --patience)"
                )
            await asyncio.sleep(pause)


def seconds_of(header: str) -> float:
    """Read a Retry-After header's seconds, within bounds."""
    try:
        return min(max(float(header), 0.1), LONGEST_PAUSE)
    except ValueError:
        return PAUSE


async def warm(
    url: str,
    key: str,
    fields: dict[str, object],
    work: Iterator[Batch],
    progress: Progress,
    *,
    at_once: int,
    patience: float,
) -> None:
    """Embed all batches through an endpoint; raises WarmError and FileError."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with aiohttp.ClientSession(
        headers=headers,
        timeout=aiohttp.ClientTimeout(total=TIMEOUT),
        connector=aiohttp.TCPConnector(limit=at_once, ssl=client.trust(url) or True),
    ) as session:
        await Warmer(session, url, fields, patience).run(work, at_once, progress)
