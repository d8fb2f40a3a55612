"""The proxy as it is, with its workers looked at while they spend CPU time.

``python -m bench.sampler FILE serve`` runs ``python -m proxy_app serve``. A worker that gets
``START`` notes, for every few milliseconds of its CPU time, which functions it is in; at ``STOP``
it writes the stacks into FILE, a line of JSON each: ``[[["PATH", "FUNCTION"], …], COUNT]``, the
innermost function first.

Python runs such a look between two of its own instructions. So what C does (a system call, say)
counts for the line that called it, or, where the event loop's own C called no Python yet, for the
very first line of what it calls next: such a function is named with a ``>`` before it.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType

START, STOP = signal.SIGRTMIN, signal.SIGRTMIN + 1
#: Seconds of CPU time between two looks; the kernel may make it a little more.
EVERY = 0.001

Stack = tuple[tuple[CodeType, bool], ...]


class Sampler:
    """The looks at one process."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._stacks: Counter[Stack] = Counter()

    def listen(self) -> None:
        """Wait for the signals; called in each worker after its fork."""
        signal.signal(signal.SIGPROF, self._look)
        signal.signal(START, self._start)
        signal.signal(STOP, self._stop)

    def _start(self, *_: object) -> None:
        self._stacks.clear()
        signal.setitimer(signal.ITIMER_PROF, EVERY, EVERY)

    def _look(self, _: int, frame: FrameType | None) -> None:
        stack = []
        while frame is not None:
            code = frame.f_code
            stack.append((code, frame.f_lineno == code.co_firstlineno))
            frame = frame.f_back
        self._stacks[tuple(stack)] += 1

    def _stop(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        lines = []
        for stack, count in self._stacks.items():
            names = [(code.co_filename, ">" * fresh + code.co_name) for code, fresh in stack]
            lines.append(json.dumps([names, count]))
        unfinished = self._file.with_suffix(".part")
        unfinished.write_text("\n".join(lines))
        unfinished.rename(self._file)


def main() -> None:
    """Run the proxy with the rest of the command line."""
    file = Path(sys.argv.pop(1))
    os.register_at_fork(after_in_child=Sampler(file).listen)
    runpy.run_module("proxy_app", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
