"""`python -m local_stack` as a process of its own."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tests.run.processes import descendants
from tests.stand_ins.process import heeding_signals

ROOT = Path(__file__).parents[2]
VARIABLES = ("PORT", "DATA_DIR", "TEI_URL", "QDRANT_URL", "WORKERS", "MODEL_DIR")
PATIENCE_S = 60.0


def environment(**variables: object) -> dict[str, str]:
    """This process's environment with these variables of the stack and no others."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in VARIABLES and not name.startswith("EMBEDRACK_")
    }
    return kept | {name: str(value) for name, value in variables.items()}


def attempt(*arguments: str, **variables: object) -> tuple[int, str, str]:
    """Run to the end: the exit code, the output and the error output."""
    ended = subprocess.run(
        [sys.executable, "-m", *(arguments or ["local_stack"])],
        cwd=ROOT,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    return ended.returncode, ended.stdout, ended.stderr


class Run:
    """A stack that was started, and what it has printed so far."""

    def __init__(self, *arguments: str, **variables: object) -> None:
        with heeding_signals():
            self.process = subprocess.Popen(
                [sys.executable, "-m", *(arguments or ["local_stack"])],
                cwd=ROOT,
                env=environment(**variables),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        self.output: list[str] = []
        self.errors: list[str] = []
        self._readers = [
            threading.Thread(target=_read, args=(stream, lines))
            for stream, lines in (
                (self.process.stdout, self.output),
                (self.process.stderr, self.errors),
            )
        ]
        for reader in self._readers:
            reader.start()

    def wait_for(self, text: str) -> None:
        """Wait until a line with this text was printed."""
        until = time.monotonic() + PATIENCE_S
        while not any(text in line for line in [*self.output, *self.errors]):
            assert self.process.poll() is None, self.errors
            assert time.monotonic() < until, (self.output, self.errors)
            time.sleep(0.02)

    def children(self) -> set[int]:
        """All processes that it has started and that run."""
        return descendants(self.process.pid)

    def end(self, number: signal.Signals) -> int:
        """Send a signal; the exit code."""
        self.process.send_signal(number)
        return self.result()

    def result(self) -> int:
        """Wait for its end; the exit code."""
        code = self.process.wait(PATIENCE_S)
        for reader in self._readers:
            reader.join(PATIENCE_S)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
        return code


@contextmanager
def running(*arguments: str, **variables: object) -> Iterator[Run]:
    """A stack that does not outlive the test."""
    run = Run(*arguments, **variables)
    try:
        yield run
    finally:
        if run.process.poll() is None:
            run.end(signal.SIGTERM)


def _read(stream: IO[str], lines: list[str]) -> None:
    for line in stream:
        lines.append(line.rstrip("\n"))
