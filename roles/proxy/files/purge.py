"""Deletes our collections from a Qdrant: `purge.py` with EMBEDRACK_QDRANT_* in the environment."""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from typing import Any


def call(method: str, path: str) -> Any:
    """Return the result of a call to Qdrant's REST API."""
    request = urllib.request.Request(os.environ["EMBEDRACK_QDRANT_URL"] + path, method=method)
    if key := os.environ.get("EMBEDRACK_QDRANT_API_KEY"):
        request.add_header("api-key", key)
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.load(reply)["result"]


def main() -> int:
    """Delete every collection whose name begins with our word; prints how many."""
    prefix = os.environ.get("EMBEDRACK_QDRANT_COLLECTION", "embedrack") + "-"
    try:
        found = [entry["name"] for entry in call("GET", "/collections")["collections"]]
        ours = [name for name in found if name.startswith(prefix)]
        for name in ours:
            call("DELETE", f"/collections/{name}")
    except (OSError, ValueError, KeyError) as error:
        print(f"qdrant_host: the store does not answer: {error}", file=sys.stderr)
        return 1
    print(len(ours))
    return 0


if __name__ == "__main__":
    sys.exit(main())
