"""A host of the bed as the scenarios' clients see it: its shell, its endpoint, a load on it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from notes import keep
from playbook import PROJECT, Play

BED = PROJECT / "molecule" / "bed"


class Failed(Exception):
    """What a client saw that it must not see."""


class Host:
    """A host, by name. What a client reports goes to its output and into the scenario's notes."""

    def __init__(self, name: str) -> None:
        self.name = name
        hosts = json.loads(Path(os.environ["BED_INVENTORY"], "hosts.yml").read_text())
        self.address = str(hosts["tei"]["hosts"][name]["ansible_host"])
        self.url = f"http://{self.address}:8080"

    def report(self, line: str) -> None:
        """Print a line, and keep it for the report of all scenarios."""
        print(line, flush=True)
        keep(line)

    def sh(self, command: str, *, check_status: bool = True) -> str:
        """Run a shell line on the host and return what it printed."""
        done = subprocess.run(
            [sys.executable, str(BED), "shell", self.name, command],
            check=False,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        if check_status:
            check(done.returncode == 0, f"on {self.name}: `{command}`: {done.stdout[-800:]}")
        return done.stdout

    def play(self, playbook: str, *flags: str, **variables: Any) -> Play:
        """Run a playbook on this host alone, which may fail."""
        return Play.run(playbook, *flags, "--extra-vars", json.dumps(variables))

    def deploy(self, *flags: str, **variables: Any) -> Play:
        """Run site.yml, which must succeed."""
        play = self.play("site.yml", *flags, **variables)
        check(play.status == 0, f"site.yml failed:\n{play.output[-3000:]}")
        return play

    def units(self) -> dict[str, str]:
        """Return each unit of ours that is active with when it started."""
        listed = self.sh(
            "for u in $(systemctl list-units --plain --no-legend --state=active 'tei@*' "
            "qdrant.service nginx.service embedrack-proxy.service | cut -d' ' -f1); do "
            "echo $u $(systemctl show --value -p ExecMainStartTimestampMonotonic $u); done"
        )
        return dict(line.split(" ", 1) for line in listed.splitlines())

    def embed(self, text: str) -> tuple[int, dict[str, str]]:
        """Send one text over a new connection; returns status and headers."""
        request = urllib.request.Request(
            self.url + "/embed",
            data=json.dumps({"inputs": text}).encode(),
            headers={"Content-Type": "application/json", "Connection": "close"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                reply.read()
                return int(reply.status), dict(reply.headers)
        except urllib.error.HTTPError as error:
            return error.code, dict(error.headers)

    @contextlib.contextmanager
    def load(self, *flags: str) -> Iterator[dict[str, Any]]:
        """Send requests all the while; the load's figures are filled in at the end."""
        folder = Path(tempfile.mkdtemp(prefix="embedrack-load-"))
        figures: dict[str, Any] = {}
        process = subprocess.Popen(
            [
                # Real clients are other machines: what the hosts do here must not hold them up. One
                # that learns late that a connection was closed sends into it.
                *("nice", "-n", "-10", sys.executable, str(PROJECT / "molecule" / "load")),
                *("--url", self.url, "--report", str(folder / "report.json")),
                *("--connections", "8", "--rate", "4", *flags),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            time.sleep(2)
            yield figures
            time.sleep(2)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=90)
        figures.update(json.loads((folder / "report.json").read_text()))
        shutil.rmtree(folder)
        self.report(
            f"load: {figures['requests']} requests, {figures['inputs']} inputs, failed "
            f"{figures['failed']} {figures['kinds'] or ''}, p99 {figures['p99_ms']} ms, "
            f"longest {figures['max_ms']} ms"
        )


def check(condition: bool, why: str) -> None:
    """Fail the client with a sentence, unless the condition holds."""
    if not condition:
        raise Failed(why)


def touched(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Return the units that started, restarted or stopped between two looks."""
    return sorted(
        unit for unit in before.keys() | after.keys() if before.get(unit) != after.get(unit)
    )
