"""``embedrack warm`` on a terminal or in a script."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import Any

from proxy_app.commands import client, texts


def add(verbs: Any) -> None:
    """Add the command to the program's."""
    warm = verbs.add_parser("warm", help="embed a file of texts, so that they are hits later")
    warm.add_argument("file", type=Path, help="a text a line; .jsonl, .ndjson; .parquet")
    warm.add_argument("--field", default="text", help="of JSON or Parquet; default: %(default)s")
    warm.add_argument("--url", default=client.default_url(), help="default: %(default)s")
    warm.add_argument("--key", default="", help="an API key, where the endpoint wants one")
    warm.add_argument("--batch", type=_positive, default=64, help="texts in a request")
    warm.add_argument("--at-once", type=_positive, default=8, help="requests under way")
    warm.add_argument(
        "--patience", type=float, default=60, help="seconds for which a batch is sent again"
    )
    client.add_fields(warm, "a field of every request, such as normalize=false")
    warm.set_defaults(run=_warm)


def _warm(options: argparse.Namespace) -> int:
    # Not at the top: the other commands need no HTTP client.
    from proxy_app.commands.warmer import Progress, WarmError, batches, warm

    fields = client.fields(options.set)
    progress = None
    try:
        total, rows = texts.read(options.file, options.field)
        progress = Progress(total)
        work = batches(rows, options.batch)
        bounds = {"at_once": options.at_once, "patience": options.patience}
        asyncio.run(warm(options.url, options.key, fields, work, progress, **bounds))
    except (WarmError, texts.FileError) as error:
        if progress is not None:
            progress.end()
        raise client.CallError(f"{error}; done so far: {progress or 'nothing'}") from None
    except KeyboardInterrupt:
        raise client.CallError(f"interrupted; done so far: {progress or 'nothing'}") from None
    progress.end()
    print(progress)
    return 0


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number
