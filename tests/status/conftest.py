"""The fixtures of the proxy's own tests: stand-ins, and real workers before them."""

from __future__ import annotations

import json
from typing import Any

from tests.proxy.conftest import Proxy, qdrant, start, tei

__all__ = ["qdrant", "start", "tei"]


async def status_of(proxy: Proxy) -> Any:
    """Fetch /status.json."""
    code, text = await proxy.get("/status.json")
    assert code == 200, text
    return json.loads(text)
