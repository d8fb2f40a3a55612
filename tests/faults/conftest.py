"""What load and faults do to a real worker. ``pytest tests/faults -rP`` prints what was seen."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.proxy.conftest import Proxy, qdrant, start, tei, worker_pids

__all__ = ["connect", "gauges", "is_held", "qdrant", "resident", "start", "tei", "until_idle"]


async def gauges(proxy: Proxy) -> dict[str, float]:
    """Read all metrics, summed over workers."""
    text = (await proxy.get("/metrics"))[1]
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in lines}


async def until_idle(proxy: Proxy) -> None:
    """Wait until no worker holds or queues an input any more."""

    async def idle() -> bool:
        seen = await gauges(proxy)
        return not seen["embedrack_inflight_inputs"] and not seen["embedrack_queue_inputs"]

    await proxy.until(idle)


def resident(proxy: Proxy) -> float:
    """Return the resident memory of all workers, in MiB."""
    pages = 0
    for pid in worker_pids(proxy):
        pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def sockets(proxy: Proxy) -> int:
    """Count the open files of all workers."""
    return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in worker_pids(proxy))


def is_held(client: asyncio.BaseTransport) -> bool:
    """Tell by the kernel's table whether a worker still holds its end of a client's connection."""
    _, proxy_port = client.get_extra_info("peername")
    _, client_port = client.get_extra_info("sockname")
    ends = f" 0100007F:{proxy_port:04X} 0100007F:{client_port:04X} "
    return ends in Path("/proc/net/tcp").read_text()


@asynccontextmanager
async def connect(
    proxy: Proxy, receive_buffer: int = 0
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a bare connection to the proxy; the kernel's buffer for what it sends is in bytes."""
    client = socket.socket()
    client.setblocking(False)
    if receive_buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    port = int(proxy.url.rsplit(":", 1)[1])
    await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=client)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
