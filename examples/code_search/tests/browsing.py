"""The page as a process of its own, and a browser's tab that uses it as a person does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from tests.stand_ins.process import free_port
from tests.status.browser import Page, browsing

FOLDER = Path(__file__).parents[1]


@contextmanager
def page_served(
    data: Path, endpoint: str, **settings: str
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run `python -m code_search page`; gives its URL and the process."""
    port = free_port()
    log = data.with_suffix(".log")
    names = {"ENDPOINT": endpoint, "DATA_DIR": str(data), "PORT": str(port)} | settings
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "code_search", "page"],
            cwd=FOLDER,
            env=os.environ | {f"CODE_SEARCH_{name}": value for name, value in names.items()},
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )
    try:
        end = time.monotonic() + 280
        while "Ctrl-C" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}", process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(60)


class Tab:
    """A tab with the page, once it knows the endpoint."""

    def __init__(self, page: Page) -> None:
        self.page = page

    async def write(self, field: str, text: str) -> None:
        """Type a text into a field, in place of what it holds."""
        found = f"document.querySelector('#{field} input, #{field} textarea')"
        await self.page.value(f"{found}.focus(), {found}.select()")
        if text:
            await self.page.call("Input.insertText", text=text)
        else:
            await self.page.value("document.execCommand('delete')")

    async def choose(self, field: str, option: str) -> None:
        """Choose an option of a list by typing it."""
        await self.write(field, option)
        await self.page.until("document.querySelectorAll('[role=option]').length === 1")
        for kind in ("keyDown", "keyUp"):
            enter = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13}
            await self.page.call("Input.dispatchKeyEvent", type=kind, **enter)

    async def press(self, button: str) -> None:
        """Click a button once it can be clicked."""
        await self.page.until(f"document.querySelector('#{button}')?.disabled === false", 60)
        await self.page.press(f"#{button}")

    async def shows(self, element: str, text: str, seconds: float = 60) -> None:
        """Wait until an element has a text."""
        inner = f"document.querySelector('#{element}').innerText"
        await self.page.until(f"{inner}.includes({json.dumps(text)})", seconds)

    async def state(self, name: str, seconds: float = 60) -> None:
        """Wait until an indexing is in a state: running, cancelled or done."""
        await self.page.until(f"!!document.querySelector('#progress [data-state={name}]')", seconds)

    async def counts(self) -> dict[str, str]:
        """Return what the progress tells, by name."""
        pairs = "[...document.querySelectorAll('#progress dl div')]"
        values = await self.page.value(
            f"{pairs}.map(e => [e.children[0].innerText, e.children[1].innerText])"
        )
        return dict(values)

    async def index(self, source: str, seconds: float = 60) -> dict[str, str]:
        """Index a source to its end; gives the counts."""
        await self.write("source", source)
        await self.press("start")
        await self.page.until("document.querySelector('#start').disabled")
        await self.page.until("!document.querySelector('#start').disabled", seconds)
        await self.state("done")
        return await self.counts()

    async def ask(self, question: str) -> list[str]:
        """Search; gives the paths of the results, best first."""
        await self.write("query", question)
        await self.press("ask")
        asked = "document.querySelector('#results [data-question]')?.dataset.question"
        await self.page.until(f"{asked} === {json.dumps(question)}", 60)
        paths = "[...document.querySelectorAll('.cs-result')].map(e => e.dataset.path)"
        return list(await self.page.value(paths))


@asynccontextmanager
async def tab(url: str) -> AsyncIterator[Tab]:
    """Open the page in a browser of its own."""
    async with browsing() as page:
        await page.look(1280)
        await page.open(url)
        await page.until("!!document.querySelector('#status dl')", 60)
        yield Tab(page)
