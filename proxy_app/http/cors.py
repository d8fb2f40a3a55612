"""What a browser needs to read a reply, as TEI sends it by default (tower-http's CorsLayer)."""

from __future__ import annotations

HEADERS = {
    "Access-Control-Allow-Origin": "*",
    "Vary": "origin, access-control-request-method, access-control-request-headers",
}
#: The same as lines of a reply's head.
LINES = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
#: The answer to what a browser asks before it asks.
PREFLIGHT = HEADERS | {
    "Access-Control-Allow-Methods": "GET,POST",
    "Access-Control-Allow-Headers": "content-type",
}
