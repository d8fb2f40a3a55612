"""A headless Chromium, driven by its DevTools protocol (https://chromedevtools.github.io)."""

from __future__ import annotations

import asyncio
import base64
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser")
MISSING = "no chromium here (Debian's package chromium)"

_FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-port=0"),
)


class Page:
    """A page; ``errors`` is what its console complained of, ``requests`` the URLs it asked for."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse[bool]) -> None:
        self._socket = socket
        self._sent = 0
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.errors: list[str] = []
        self.requests: list[str] = []

    async def read(self) -> None:
        """Take what the browser says, for ever; run as a task."""
        async for message in self._socket:
            reply = message.json()
            if "id" in reply:
                self._waiting.pop(reply["id"]).set_result(reply)
            else:
                self._note(reply["method"], reply["params"])

    def _note(self, event: str, params: dict[str, Any]) -> None:
        if event == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            self.errors.append(str(params["exceptionDetails"]))
        elif event == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.errors.append(str(params["args"]))
        elif event == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.errors.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")

    async def call(self, method: str, **params: object) -> dict[str, Any]:
        """Call a method of the protocol; gives its result."""
        self._sent += 1
        reply = self._waiting[self._sent] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": self._sent, "method": method, "params": params})
        result = await asyncio.wait_for(reply, 30)
        assert "error" not in result, (method, result["error"])
        return dict(result["result"])

    async def open(self, url: str) -> None:
        """Go to a URL."""
        result = await self.call("Page.navigate", url=url)
        assert "errorText" not in result, result
        await self.until("document.readyState === 'complete'")

    async def value(self, expression: str) -> Any:
        """Evaluate an expression in the page; gives its value, once it is there if a promise."""
        result = await self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    async def text(self, name: str) -> str:
        """Return the text of the element with this id."""
        return str(await self.value(f"document.getElementById('{name}').textContent"))

    async def until(self, expression: str, seconds: float = 20) -> None:
        """Wait until an expression of the page is true."""
        for _ in range(int(seconds / 0.1)):
            if await self.value(expression):
                return
            await asyncio.sleep(0.1)
        shown = await self.value("document.body.innerText")
        raise AssertionError(f"not within {seconds} s: {expression}; the page says:\n{shown}")

    async def press(self, selector: str) -> None:
        """Click an element."""
        await self.value(f"document.querySelector('{selector}').click()")

    async def write(self, name: str, text: str) -> None:
        """Type a text into an empty field."""
        await self.value(
            f"(e => {{ e.focus(); e.value = ''; }})(document.getElementById('{name}'))"
        )
        await self.call("Input.insertText", text=text)

    async def look(self, width: int, *, dark: bool = False, scale: float = 1) -> None:
        """Take a screen's width in CSS pixels, and a light or a dark scheme."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            **{"width": width, "height": 800, "deviceScaleFactor": scale, "mobile": width < 600},
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])

    async def screenshot(self) -> bytes:
        """Return the whole page as a PNG."""
        result = await self.call("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(result["data"])


@asynccontextmanager
async def browsing() -> AsyncIterator[Page]:
    """Run a browser with a profile of its own; gives a page of it."""
    assert PROGRAM is not None, MISSING
    profile = Path(tempfile.mkdtemp(prefix="embedrack-chromium-"))
    process = await asyncio.create_subprocess_exec(
        PROGRAM,
        *_FLAGS,
        f"--user-data-dir={profile}",
        "about:blank",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        port = await _port(profile, process)
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as reply:
                [target] = [one for one in await reply.json() if one["type"] == "page"]
            address = target["webSocketDebuggerUrl"]
            async with session.ws_connect(address, max_msg_size=0) as socket:
                page = Page(socket)
                reading = asyncio.create_task(page.read())
                for domain in ("Page", "Network", "Runtime", "Log"):
                    await page.call(f"{domain}.enable")
                yield page
            await reading
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        shutil.rmtree(profile, ignore_errors=True)


async def _port(profile: Path, process: asyncio.subprocess.Process) -> int:
    """Return the port that the browser has written into its profile once it listens."""
    file = profile / "DevToolsActivePort"
    for _ in range(600):
        assert process.returncode is None, "chromium ended"
        if file.exists() and len(lines := file.read_text().splitlines()) == 2:
            return int(lines[0])
        await asyncio.sleep(0.1)
    raise AssertionError("chromium does not listen")
