"""wrk, the load generator: 16 connections of one thread, a request after the other on each."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

CONNECTIONS = 16
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


@dataclass(frozen=True)
class Run:
    """What wrk saw: requests, requests per second, and the 99th percentile in seconds."""

    requests: int
    rate: float
    p99: float


def run(
    url: str,
    bodies: list[bytes] | None = None,
    seconds: float = 2,
    headers: Mapping[str, str] | None = None,
) -> Run:
    """Post the bodies in turn, or get the URL, for some seconds; any error ends the benchmark."""
    command = ["wrk", f"-c{CONNECTIONS}", "-t1", f"-d{seconds:g}s", "--latency", "--timeout", "30s"]
    for name, value in (headers or {}).items():
        command += ["-H", f"{name}: {value}"]
    with tempfile.TemporaryDirectory() as folder:
        if bodies is not None:
            # Lua reads what is in the files, so that no text needs quoting.
            for number, body in enumerate(bodies):
                Path(folder, str(number)).write_bytes(body)
            script = Path(folder, "post.lua")
            script.write_text(_SCRIPT % {"folder": folder, "last": len(bodies) - 1})
            command += ["-s", str(script)]
        printed = subprocess.run([*command, url], check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in printed or "Socket errors" in printed:
        raise SystemExit(f"bench: {url}:\n{printed}")
    counted = re.search(r"(\d+) requests in", printed)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", printed)
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s|m)", printed)
    assert counted, printed
    assert rate, printed
    assert p99, printed
    return Run(int(counted[1]), float(rate[1]), float(p99[1]) * _UNITS[p99[2]])


_SCRIPT = """\
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local ready, turn = {}, 0
function init()
  for number = 0, %(last)d do
    local file = io.open("%(folder)s/" .. number)  -- closed, since wrk takes few descriptors
    ready[number] = wrk.format(nil, nil, nil, file:read("*a"))
    file:close()
  end
end
function request()
  turn = (turn + 1) %% (%(last)d + 1)
  return ready[turn]
end
"""
