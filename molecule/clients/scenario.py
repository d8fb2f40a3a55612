"""How a scenario's client is run: its verdict becomes the exit status of the process."""

from __future__ import annotations

import sys
from collections.abc import Callable

from host import Failed, Host


def main(run: Callable[[Host], None]) -> None:
    """Run a client against the host that the command line names, and exit."""
    host = Host(sys.argv[1])
    try:
        run(host)
    except Failed as failure:
        host.report(f"FAILED: {failure}")
        sys.exit(1)
