"""Stops the parts of a stack that was killed without a chance to stop them itself.

It runs as a process of its own and reads from the stack a line per part: `+ID` for a process
group that was started, `-ID` for one that is gone. When the input ends, the stack is gone; what
it left running is stopped. A pipe's end is noticed on every system, and costs nothing to wait for.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time

GRACE_S = 10.0


class Guardian:
    """The stack's end of the pipe."""

    def __init__(self) -> None:
        """Start the process, out of reach of the terminal's Ctrl-C."""
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def add(self, group: int) -> None:
        """Have this process group stopped when the stack is gone."""
        self._tell(f"+{group}\n")

    def remove(self, group: int) -> None:
        """Leave this process group alone: it has ended."""
        self._tell(f"-{group}\n")

    def end(self) -> None:
        """End the process, and with it what was not removed before."""
        # It may have been killed: the stack works without it.
        with contextlib.suppress(OSError):
            self._process.communicate()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()


def main() -> None:
    """Keep the list until the input ends; then stop what is left on it."""
    groups: set[int] = set()
    for line in sys.stdin:
        (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
    left = {group for group in groups if send(group, signal.SIGTERM)}
    until = time.monotonic() + GRACE_S
    while left and time.monotonic() < until:
        time.sleep(0.1)
        left = {group for group in left if send(group, 0)}
    for group in left:
        send(group, signal.SIGKILL)


def send(group: int, number: int) -> bool:
    """Signal a process group; False if it is gone."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    main()
