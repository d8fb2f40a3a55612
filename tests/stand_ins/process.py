"""Parts as processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def started(*arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Run ``python -m …`` until the body ends; its stdout can be read."""
    child = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )
    try:
        yield child
    finally:
        child.terminate()
        child.communicate(timeout=60)


def first_line(child: subprocess.Popen[str]) -> str:
    """Read the line that a part prints once it listens."""
    assert child.stdout is not None
    line = child.stdout.readline().strip()
    assert line, "it ended without listening"
    return line
