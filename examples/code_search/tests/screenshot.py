"""Takes the documentation's screenshots of the page anew, over the endpoint of `make run`.

``PYTHONPATH=.:examples/code_search/tests .venv-example/bin/python -m screenshot``, from the root.
The endpoint's cache is used as it is: the hit rate in the pictures is what there was.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path

from browsing import FOLDER, page_served, tab

ROOT = FOLDER.parents[1]
DOCS = ROOT / "docs"
QUESTION = "where is the nginx upstream list written"


async def main() -> None:
    """Index this repository without `examples/`, ask, and write the two pictures."""
    endpoint = os.environ.get("CODE_SEARCH_ENDPOINT", "http://127.0.0.1:8080")
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        # A name that can be shown.
        source = Path(tempfile.gettempdir(), "embedrack")
        clone(source)
        stack.callback(shutil.rmtree, source)
        with page_served(Path(folder, "data"), endpoint) as (url, _):
            async with tab(url) as page:
                await page.write("source", str(source))
                await page.press("start")
                bar = "parseFloat(document.querySelector('.cs-bar div')?.style.width ?? '0')"
                await page.page.until(f"{bar} > 40", 300)
                await write(DOCS / "code_search_indexing.png", await page.page.screenshot())
                await page.state("done", 300)
                await page.write("top", "4")
                await page.ask(QUESTION)
                await write(DOCS / "code_search.png", await page.page.screenshot())


def clone(folder: Path) -> None:
    """Make a folder of what is committed."""
    folder.mkdir()
    packed = ["git", "archive", "HEAD", "--", ".", ":(exclude)examples"]
    archive = subprocess.run(packed, cwd=ROOT, capture_output=True, check=True)
    subprocess.run(["tar", "-x"], cwd=folder, input=archive.stdout, check=True)


async def write(file: Path, picture: bytes) -> None:
    """Write a picture and say so."""
    await asyncio.to_thread(file.write_bytes, picture)
    print(f"{file.relative_to(ROOT)}: {len(picture):,} bytes")


if __name__ == "__main__":
    asyncio.run(main())
