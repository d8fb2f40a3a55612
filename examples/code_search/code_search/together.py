"""Several coroutines as one: what asyncio's ``TaskGroup`` is from Python 3.11 on."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

_Answer = TypeVar("_Answer")


async def together(*works: Coroutine[Any, Any, _Answer]) -> list[_Answer]:
    """Run all and return what they return, in order.

    When one fails, or the caller is cancelled, the others are ended before it learns of it.
    """
    tasks = [asyncio.create_task(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
