"""Resident memory of a worker whose L1 is full, beside what was configured."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

from bench import load, servers
from bench.figure import Figure

MIB = 1024 * 1024
CONFIGURED = 192


def measure() -> Iterator[Figure]:
    """Fill L1 half as much again as it holds, and compare."""
    with servers.instances() as [upstream], servers.proxy(upstream, memory=CONFIGURED) as proxy:
        load.send(proxy.url + "/embed", load.bodies("warm up", 4, 256), 2)
        small = proxy.resident() - held(proxy.url)
        entries = CONFIGURED * MIB * 3 // 2 // 11_500
        load.send(proxy.url + "/embed", load.bodies("fill", entries // 256, 256), 2)
        full = proxy.resident()
        ratio = (full - small) / (CONFIGURED * MIB)
        made_of = (
            f"{(full - small) / MIB:.0f} MiB for {CONFIGURED} MiB "
            f"({held(proxy.url) / MIB:.0f} MiB accounted)"
        )
    yield Figure(
        "(resident memory full - empty) / configured L1", ratio, 1.2, made_of, at_most=True
    )


def held(url: str) -> float:
    """Return the bytes that L1 accounts for, once the gauge has settled."""
    time.sleep(2.5)
    text = servers.fetch(url + "/metrics")[1].decode()
    found = re.search(r"^embedrack_bytes(?:\{[^}]*\})? (\S+)$", text, re.MULTILINE)
    assert found, "no embedrack_bytes among the metrics"
    return float(found[1])
