"""``python -m code_search``: the page; or index a source, search it, list and drop indexes."""

from __future__ import annotations

import argparse
import asyncio
import sys

from code_search.endpoint import Endpoint
from code_search.errors import CodeSearchError
from code_search.index import Indexes
from code_search.indexing import Progress, index
from code_search.search import MAX_TOP, search
from code_search.settings import Settings


def main() -> int:
    """Run the command that the arguments name; 1 with a sentence where it fails."""
    options = _options()
    try:
        settings = Settings.from_environment()
        if options.command == "page":
            from code_search.server import serve  # Gradio takes seconds to import

            asyncio.run(serve(settings))
            return 0
        return asyncio.run(_run(options, settings))
    except CodeSearchError as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("ended; what was indexed stays", file=sys.stderr)
        return 130


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="code_search", description="Code search.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("page", help="serve the page until Ctrl-C")
    one = commands.add_parser("index", help="index a repository's https:// address or a folder")
    one.add_argument("source")
    one = commands.add_parser("search", help="ask an indexed source")
    one.add_argument("name", help="as `list` prints it")
    one.add_argument("question")
    one.add_argument("--language", action="append", default=[], help="only this; may be repeated")
    one.add_argument("--path", default="", help="how paths begin, or a glob")
    one.add_argument("--top", type=int, default=10, help=f"1 to {MAX_TOP}")
    commands.add_parser("list", help="print the indexes")
    one = commands.add_parser("drop", help="delete a source's indexes")
    one.add_argument("name", help="as `list` prints it")
    return parser.parse_args()


async def _run(options: argparse.Namespace, settings: Settings) -> int:
    async with Indexes(settings) as indexes, Endpoint(settings) as endpoint:
        if options.command == "index":
            async for progress in index(options.source, settings, endpoint, indexes):
                _show(progress)
        elif options.command == "search":
            for result in await search(
                *(indexes, endpoint, options.name, options.question),
                languages=options.language,
                path=options.path,
                top=options.top,
            ):
                where = f"{_plain(result.path)}:{result.start}-{result.end}"
                print(f"{result.score:.3f}  {where}  {_plain(result.symbol)}  {result.url}")
        elif options.command == "list":
            for one in await indexes.stored():
                state = "" if one.complete else ", not complete"
                print(f"{_plain(one.name)}  {one.chunks} chunks, {one.model_id}{state}")
        else:
            found = [one for one in await indexes.stored() if one.name == options.name]
            if not found:
                raise CodeSearchError(f"{options.name} is not indexed")
            for one in found:
                await indexes.drop(one.collection)
    return 0


def _show(progress: Progress) -> None:
    text = (
        f"{progress.message}: {progress.files}/{progress.files_total} files, "
        f"{progress.chunks} chunks, {progress.kept} kept, {progress.embedded} embedded "
        f"({progress.hits} hits), {progress.removed} removed, "
        f"{progress.chunks_per_second:.0f} chunks/s, {progress.seconds:.1f} s"
    )
    if sys.stderr.isatty() and not progress.done:
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
    elif progress.done:
        print(f"\r\x1b[K{text}" if sys.stderr.isatty() else text, file=sys.stderr)
        for reason, files in progress.skipped.most_common():
            print(f"  skipped: {files} {reason}", file=sys.stderr)


def _plain(text: str) -> str:
    """Show nothing that a terminal would obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


if __name__ == "__main__":
    sys.exit(main())
