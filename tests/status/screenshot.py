"""Takes the screenshot of the documentation anew: ``python -m tests.status.screenshot``.

Two embedders with a real model, the embedded Qdrant, the proxy's two workers, and for a quarter of
an hour texts that come as often as words do (Zipf's law).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

from tests.proxy.conftest import serving
from tests.stand_ins.process import first_line, started
from tests.status.browser import Page, browsing

DOCS = Path(__file__).parents[2] / "docs"
#: Name, width in CSS pixels, dark; the first is the documentation's.
PICTURES = (
    ("status", 1080, False),
    ("status-dark", 1080, True),
    ("status-phone", 390, False),
    ("status-phone-dark", 390, True),
)
TEXTS = 4000
CLIENTS = 3


async def spread(ports: list[int]) -> tuple[asyncio.Server, int]:
    """Lead each connection to the next port in turn; gives the server and its own port."""
    turns = iter(range(1_000_000))

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = ports[next(turns) % len(ports)]
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(copy(reader, back), copy(there, writer), return_exceptions=True)

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1]


async def ask(session: aiohttp.ClientSession, url: str, chance: random.Random) -> None:
    """Ask for ever, for one to eight texts at a time, with pauses."""
    ranks = range(1, TEXTS + 1)
    weights = [1 / rank for rank in ranks]
    while True:
        chosen = chance.choices(ranks, weights, k=chance.randint(1, 8))
        texts = [f"text of rank {rank}" for rank in chosen]
        async with session.post(url + "/embed", json={"inputs": texts}) as reply:
            await reply.read()
        await asyncio.sleep(chance.expovariate(8))


async def shoot(url: str, page: Page, folder: Path | None) -> None:
    """Open the page, compare the two texts, and take the picture; all of them into a folder."""
    await page.open(url + "/status")
    await page.until("document.getElementById('rate').textContent.includes('%')")
    await page.press("#compare")
    await page.until("document.getElementById('result').textContent.startsWith('Cosine')")
    for name, width, dark in PICTURES if folder else PICTURES[:1]:
        await page.look(width, dark=dark)
        await asyncio.sleep(3)
        picture = await page.screenshot()
        await asyncio.to_thread(((folder or DOCS) / f"{name}.png").write_bytes, picture)


async def main(minutes: float, folder: Path | None) -> None:
    """Run it all and write docs/status.png, or every picture into a folder."""
    with ExitStack() as stack:
        data = stack.enter_context(tempfile.TemporaryDirectory())
        embedders = [
            json.loads(first_line(stack.enter_context(started("local_stack.embedder", *flags))))
            for flags in [("--port", "0", "--threads", "1")] * 2
        ]
        store = stack.enter_context(
            started("local_stack.qdrant", "--data-dir", data + "/store", "--port", "0")
        )
        qdrant = json.loads(first_line(store))["url"]
        ports = [urlsplit(one["url"]).port or 0 for one in embedders]
        instances = [
            {"name": f"gpu-{i}", "address": "127.0.0.1", "port": port}
            for i, port in enumerate(ports)
        ]
        listed = Path(data, "instances.json")
        content = json.dumps({"namespace": "one", "instances": instances})
        await asyncio.to_thread(listed.write_text, content)
        balancer, port = await spread(ports)
        settings = {"workers": 2, "memory": 8, "upstream_instances_file": listed}
        async with (
            balancer,
            serving(f"http://127.0.0.1:{port}", qdrant, **settings) as proxy,
            browsing() as page,
        ):
            await proxy.until(proxy.is_ready, 60)
            chance = random.Random(7)
            clients = [
                asyncio.create_task(ask(proxy.session, proxy.url, chance)) for _ in range(CLIENTS)
            ]
            await asyncio.sleep(minutes * 60)
            await shoot(proxy.url, page, folder)
            for client in clients:
                client.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--folder", type=Path, help="for all pictures: light, dark, wide, phone")
    chosen = parser.parse_args()
    asyncio.run(main(chosen.minutes, chosen.folder))
