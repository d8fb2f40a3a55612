"""How long one turn of the event loop holds a worker: a turn that is long delays every client."""

from __future__ import annotations

import asyncio
import logging
import time

log = logging.getLogger("embedrack")

#: Seconds between two looks.
LOOK = 0.05
#: Seconds of the processor from which a turn is reported. A body of the largest size may take
#: 10 ms and 5 ms per MiB of it, and several may come at once.
LONG = 1.0


async def watch() -> None:
    """Report long turns for ever; run as a task.

    Measured in the processor's time of this thread: where other programs hold the processor, the
    turn is not at fault.
    """
    before, spent = time.monotonic(), time.thread_time()
    while True:
        await asyncio.sleep(LOOK)
        now, used = time.monotonic(), time.thread_time()
        # Both: a worker that is busy with many short turns looks in time.
        held = min(now - before - LOOK, used - spent)
        if held >= LONG:
            log.warning("the event loop was held for %.2f s by one turn", held)
        before, spent = now, used
