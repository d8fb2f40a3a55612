"""Inputs that arrive together run together, beside the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from local_stack.embedder.errors import TeiError
from local_stack.embedder.metrics import Metrics
from local_stack.embedder.model import Model
from local_stack.embedder.wire import Floats

ABORTED = 134
"""The exit status of a process that aborted, as a shell reports it."""


@dataclass(frozen=True)
class Answer:
    """What became of one input; times are in seconds.

    ``vectors``: float32, (dimension,) when pooled, else (tokens, dimension).
    """

    vectors: Floats
    queue: float
    inference: float


@dataclass(frozen=True)
class _Job:
    ids: tuple[int, ...]
    pooled: bool
    answer: asyncio.Future[Answer]
    queued: float


class Batcher:
    """Gathers inputs into batches of at most ``max_batch_tokens``, one batch at a time."""

    def __init__(
        self, model: Model, metrics: Metrics, *, max_batch_tokens: int, threads: int
    ) -> None:
        self._model, self._metrics = model, metrics
        self._max_batch_tokens = max_batch_tokens
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="inference")
        self._jobs: deque[_Job] = deque()
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to work, in the running event loop."""
        self._task = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """End; nothing may be waiting for an answer any more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._threads.shutdown()

    async def run(self, inputs: Sequence[Sequence[int]], *, pooled: bool) -> list[Answer]:
        """Run inputs, each a list of token ids. Raises ``TeiError`` when the model fails."""
        loop = asyncio.get_running_loop()
        now = time.perf_counter()
        jobs = [_Job(tuple(ids), pooled, loop.create_future(), now) for ids in inputs]
        self._jobs.extend(jobs)
        self._metrics.gauge("te_queue_size", len(self._jobs))
        self._arrived.set()
        return await asyncio.gather(*(job.answer for job in jobs))

    async def _work(self) -> None:
        while True:
            await self._arrived.wait()
            # One turn of the loop more, so that requests which came in together share a batch.
            await asyncio.sleep(0)
            if batch := self._next_batch():
                await self._answer(batch)
            if not self._jobs:
                self._arrived.clear()

    def _next_batch(self) -> list[_Job]:
        batch: list[_Job] = []
        tokens = 0
        while self._jobs:
            size = len(self._jobs[0].ids)
            if batch and tokens + size > self._max_batch_tokens:
                break
            job = self._jobs.popleft()
            # Nobody waits for a job any more whose request went away.
            if not job.answer.done():
                batch.append(job)
                tokens += size
        self._metrics.gauge("te_queue_size", len(self._jobs))
        if batch:
            self._metrics.record("te_batch_next_size", len(batch))
            self._metrics.record("te_batch_next_tokens", tokens)
        return batch

    async def _answer(self, batch: list[_Job]) -> None:
        if not any(job.ids for job in batch):
            _abort()
        started = time.perf_counter()
        try:
            vectors = await self._vectors({(job.ids, job.pooled) for job in batch})
        # Whatever onnxruntime raises is the answer to this batch and must not end the work.
        except Exception as error:
            for job in batch:
                if not job.answer.done():
                    job.answer.set_exception(
                        TeiError("Backend", f"Backend error: {error}", "inference")
                    )
            return
        inference = time.perf_counter() - started
        for job in batch:
            if not job.answer.done():
                found = vectors[job.ids, job.pooled]
                job.answer.set_result(Answer(found, started - job.queued, inference))

    async def _vectors(
        self, wanted: set[tuple[tuple[int, ...], bool]]
    ) -> dict[tuple[tuple[int, ...], bool], Floats]:
        # The same text twice in a batch runs once; the longest first, so that none ends it alone.
        order = sorted(wanted, key=lambda one: len(one[0]), reverse=True)
        loop = asyncio.get_running_loop()
        runs = [loop.run_in_executor(self._threads, self._run, *one) for one in order]
        return dict(zip(order, await asyncio.gather(*runs), strict=True))

    def _run(self, ids: tuple[int, ...], pooled: bool) -> Floats:
        if not ids:
            # TEI divides no sum by no tokens: NaN, which JSON shows as null.
            shape = (self._model.dimension,) if pooled else (0, self._model.dimension)
            return np.full(shape, np.nan, np.float32)
        return self._model.vector(ids) if pooled else self._model.token_vectors(ids)


def _abort() -> None:
    """End the process, as TEI does over a batch without a single token.

    Ids that all lie beyond the vocabulary make one. ``os.abort`` would do the same and leave a
    dump of the memory behind where the system is set so.
    """
    print("embedder: a batch without a single token: aborting, as TEI does", file=sys.stderr)
    sys.stderr.flush()
    os._exit(ABORTED)
