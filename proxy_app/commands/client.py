"""The commands' side of the endpoint: one call, and what went wrong in a sentence."""

from __future__ import annotations

import argparse
import json
import os
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit


class CallError(Exception):
    """Why a call has no result; says where it went and what to do."""


def call(
    url: str, body: object = None, key: str = "", seconds: float = 90
) -> tuple[Any, Mapping[str, str]]:
    """Get (or post JSON to) a URL; gives the reply's JSON and headers. Raises CallError."""
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=content, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=seconds, context=trust(url)) as reply:
            return json.load(reply), reply.headers
    except urllib.error.HTTPError as error:
        raise CallError(f"{url} answered {error.code}: {_told(error)}") from None
    except (urllib.error.URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise CallError(f"{url} does not answer: {reason}; is it --url's?") from None


def add_fields(parser: argparse._ActionsContainer, meaning: str) -> None:
    """Add the option ``--set``, to be read by ``fields``."""
    parser.add_argument("--set", action="append", default=[], metavar="NAME=JSON", help=meaning)


def fields(given: list[str]) -> dict[str, object]:
    """Read each ``--set NAME=JSON`` as a field of a request. Raises CallError."""
    found = {}
    for one in given:
        name, _, value = one.partition("=")
        try:
            found[name] = json.loads(value)
        except ValueError:
            raise CallError(
                f"--set {name}: JSON is wanted, such as normalize=false or prompt_name='\"query\"'"
            ) from None
    return found


def trust(url: str) -> ssl.SSLContext | None:
    """Return what checks a URL's certificate; None is the usual check.

    On the loopback nobody is in between, and no certificate names it.
    """
    if urlsplit(url).hostname in ("127.0.0.1", "::1", "localhost"):
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    return None


def hits_and_misses(header: str) -> tuple[int, int]:
    """Read both numbers from an ``X-Cache`` header; zeros where it does not tell."""
    found = re.search(r"hits=(\d+); misses=(\d+)", header)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def default_url() -> str:
    """Return where this machine's proxy listens, by the environment."""
    bind = os.environ.get("EMBEDRACK_BIND") or "0.0.0.0"
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bind, bind)
    port = os.environ.get("EMBEDRACK_PORT") or 8080
    scheme = "https" if os.environ.get("EMBEDRACK_TLS_CERTIFICATE") else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def admin_key() -> str:
    """Return the administrator's key of the environment; empty where there is none."""
    return os.environ.get("EMBEDRACK_ADMIN_KEY", "")


def _told(error: urllib.error.HTTPError) -> str:
    text = error.read(2000).decode("utf-8", "replace")
    if error.code == 401:
        return "the key is wrong or missing: --key, or EMBEDRACK_ADMIN_KEY in the environment"
    try:
        return str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        return text
