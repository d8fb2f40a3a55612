"""`python -m local_stack` runs the local stack; `make run` calls it.

It is set by the environment variables PORT, DATA_DIR, TEI_URL, QDRANT_URL, WORKERS and MODEL_DIR,
which `make run` passes on.
"""

import asyncio
import os
import signal
import sys

from local_stack.run.console import Console
from local_stack.run.failure import Failure
from local_stack.run.settings import Settings
from local_stack.run.stack import Stack

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    """Run the stack until a signal stops it; 1 if a part failed."""
    if len(sys.argv) > 1:
        print(__doc__)
        return 0 if sys.argv[1] in ("-h", "--help") else 2
    console = Console()
    try:
        stack = Stack(Settings.read(os.environ), console)
        return asyncio.run(supervise(stack, console))
    except Failure as failure:
        console.fail(str(failure))
        return 1


async def supervise(stack: Stack, console: Console) -> int:
    """Run the stack until a signal or a failure, and leave nothing running."""
    stopping, hurry = asyncio.Event(), asyncio.Event()
    for number in SIGNALS:
        # `nohup make run` wants to outlive its terminal.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            # A second signal means: at once.
            asyncio.get_running_loop().add_signal_handler(
                number, lambda: (hurry if stopping.is_set() else stopping).set()
            )
    halt = asyncio.create_task(stopping.wait())
    work = asyncio.create_task(stack.run())
    await asyncio.wait((work, halt), return_when=asyncio.FIRST_COMPLETED)
    failed = work.done()
    if failed:
        console.fail(str(work.exception() or "the stack ended"))
    stopping.set()
    for task in (halt, work):
        task.cancel()
    outcome = (await asyncio.gather(work, return_exceptions=True))[0]
    names = await stack.stop(hurry)
    if names:
        console.say(f"\nStopped: {names}.")
    if not failed:
        console.say(stack.farewell())
    if not isinstance(outcome, (Failure, asyncio.CancelledError)):
        # Nothing that a person did: show where it comes from.
        raise outcome or AssertionError
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
