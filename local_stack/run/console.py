"""What the person at the terminal sees."""

import contextlib
import os
import sys
import time
from typing import TextIO

NAME_WIDTH = 12


class Console:
    """Numbered steps on standard output; what goes wrong on standard error."""

    def __init__(self) -> None:
        """Use colour and moving lines only where a terminal shows them."""
        self._terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self._colour = self._terminal and not os.environ.get("NO_COLOR")
        self._number = 0
        self._began = time.monotonic()
        self._pending = False

    def begin(self, name: str) -> None:
        """Start the next step; on a terminal its name stands there while it goes on."""
        self._number += 1
        self._began = time.monotonic()
        if self._terminal:
            self._write(f"{self._title(name)}…", end="")
            self._pending = True

    def done(self, name: str, what: str) -> None:
        """End the step: what it did, and how long that took."""
        seconds = self._paint("2", f"{time.monotonic() - self._began:.1f} s")
        start = "\r\033[K" if self._pending else ""
        self._pending = False
        self._write(f"{start}{self._title(name)}{what}  {seconds}")

    def say(self, text: str = "") -> None:
        """Print a line as it is."""
        self._end_pending()
        self._write(text)

    def pair(self, name: str, value: str) -> None:
        """Print a name and its value, aligned with the others."""
        self.say(f"    {name:<{NAME_WIDTH}}{value}")

    def fail(self, text: str) -> None:
        """Print what went wrong."""
        self._end_pending()
        label = self._paint("31", "failed:")
        self._write(f"{label} {text}", stream=sys.stderr)

    def _title(self, name: str) -> str:
        return f"{self._paint('1', str(self._number))}   {name:<{NAME_WIDTH}}"

    def _end_pending(self) -> None:
        if self._pending:
            self._pending = False
            self._write("")

    def _paint(self, code: str, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._colour else text

    def _write(self, text: str, end: str = "\n", stream: TextIO | None = None) -> None:
        # The terminal may have been closed; what remains, stopping the parts, goes on without it.
        with contextlib.suppress(OSError):
            print(text, end=end, file=stream or sys.stdout, flush=True)
