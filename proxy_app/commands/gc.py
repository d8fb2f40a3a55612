"""``embedrack gc`` on a terminal or under a timer."""

from __future__ import annotations

import argparse
import os
from typing import Any

from proxy_app.commands import client
from proxy_app.settings import Settings


def add(verbs: Any) -> None:
    """Add the command to the program's."""
    gc = verbs.add_parser("gc", help="delete what is too old or too much in Qdrant")
    gc.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    gc.set_defaults(run=_gc)


def _gc(options: argparse.Namespace) -> int:
    settings = Settings.from_environment(os.environ)
    if not settings.qdrant_url:
        print("nothing to do: EMBEDRACK_QDRANT_URL is empty")
        return 0
    try:
        # Not at the top: the client takes a second to load, and only this command needs it.
        from proxy_app.cache.collector import Collector, CollectorError
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "qdrant_client":
            raise
        raise client.CallError(
            "gc needs qdrant-client, which is not installed: `pip install 'embedrack[collector]'`"
        ) from None
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        print(line, flush=True)

    try:
        Collector(settings, say, options.dry_run).run()
    except CollectorError as error:
        raise client.CallError(str(error)) from None
    if not said:
        print("nothing to delete")
    return 0
