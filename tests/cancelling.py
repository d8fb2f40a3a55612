"""Cancels work at its n-th await: for n = 1, 2, … until it runs through, that is everywhere.

A task is cancelled in one of two states: what it waits for has not come, or has come, but the task
has not run since.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")

#: Turns of the loop in which a cancellation reaches all tasks that the work has started.
TURNS = 8


class Cancellation:
    """Cancels some work once, at one await of its task or of a task that it has started.

    ``late``: what that one waited for has come. ``happened`` tells whether there was an await of
    that number.
    """

    def __init__(self, number: int, late: bool) -> None:
        self._left = number
        self._late = late
        self._work: asyncio.Task[Any] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self.happened = False

    def __enter__(self) -> Cancellation:
        """Take notice of the tasks that are started from now on."""
        asyncio.get_running_loop().set_task_factory(self._start)  # type: ignore[arg-type]
        return self

    def __exit__(self, *_: object) -> None:
        """Leave tasks alone again."""
        asyncio.get_running_loop().set_task_factory(None)

    async def of(self, work: Coroutine[Any, Any, T]) -> T:
        """Do the work in the present task, which is cancelled."""
        self._work = asyncio.current_task()
        assert self._work is not None
        self._tasks.add(self._work)
        return await self._stepwise(work)

    def _start(
        self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T], **options: Any
    ) -> asyncio.Task[T]:
        """Make a task; one that the work starts is a part of it."""
        if asyncio.current_task() not in self._tasks:
            return asyncio.Task(work, loop=loop, **options)
        task = asyncio.Task(self._as_coroutine(work), loop=loop, **options)
        self._tasks.add(task)
        return task

    async def _as_coroutine(self, work: Coroutine[Any, Any, T]) -> T:
        return await self._stepwise(work)

    @types.coroutine
    def _stepwise(self, work: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
        """Await the work, and notice each of its awaits."""
        error: BaseException | None = None
        try:
            yield from self._wakes()
        except asyncio.CancelledError as cancelled:
            error = cancelled
        while True:
            try:
                waits_for = work.send(None) if error is None else work.throw(error)
            except StopIteration as done:
                return done.value  # type: ignore[no-any-return]
            error = None
            if not self._late and self._is_now():
                asyncio.get_running_loop().call_soon(self._cancel)
            try:
                yield waits_for
                yield from self._wakes()
            except asyncio.CancelledError as cancelled:
                error = cancelled

    def _wakes(self) -> Generator[None, None, None]:
        """Hold back a task that is about to go on, so that the cancellation comes first."""
        if self._late and self._is_now():
            self._cancel()
            for _ in range(TURNS):
                yield

    def _is_now(self) -> bool:
        self._left -= 1
        return self._left == 0

    def _cancel(self) -> None:
        assert self._work is not None
        self.happened = True
        self._work.cancel()
