"""What the scenarios share: a host of the bed, `ansible-playbook` on it, a load beside it."""

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
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BED = ROOT / "molecule" / "bed"
#: A shell line for a host: how many entries each collection of ours has, a line each.
CACHE_ENTRIES = (
    "for c in $(curl -s 127.0.0.1:6333/collections | grep -o 'embedrack-[^\"]*'); do "
    "curl -s 127.0.0.1:6333/collections/$c | grep -o '\"points_count\":[0-9]*' | cut -d: -f2; done"
)


class Failed(Exception):
    """What a scenario saw that it must not see."""


@dataclass
class Host:
    """A host of the bed, by name."""

    name: str
    address: str = ""
    inventory: str = ""
    log: list[str] = field(default_factory=list)

    def up(self, system: str) -> None:
        """Boot it, if it does not run yet."""
        self.bed("up", self.name, "--os", system)
        self.inventory = self.bed("inventory", self.name).strip()
        told = json.loads(Path(self.inventory, "hosts.yml").read_text())
        self.address = told["tei"]["hosts"][self.name]["ansible_host"]

    def down(self) -> None:
        """Remove it."""
        self.bed("down", self.name)

    def traces(self) -> set[str]:
        """Return what is on this machine that a bed could have made."""
        return set(self.bed("traces").splitlines())

    def bed(self, *words: str) -> str:
        """Run a verb of the bed."""
        done = subprocess.run(
            [sys.executable, str(BED), *words], check=False, text=True, stdout=subprocess.PIPE
        )
        check(done.returncode == 0, f"`molecule/bed {' '.join(words)}` failed")
        return done.stdout

    def sh(self, command: str, *, check_status: bool = True) -> str:
        """Run a shell line on the host."""
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

    def play(
        self, playbook: str = "site.yml", *flags: str, inventory: str = "", **variables: Any
    ) -> Play:
        """Run a playbook; what it printed comes back, whether it failed or not."""
        command = [
            str(Path(sys.executable).parent / "ansible-playbook"),
            *("-i", inventory or self.inventory),
            *(playbook, *flags, "-e", json.dumps(variables)),
        ]
        began = time.monotonic()
        done = subprocess.run(
            command,
            check=False,
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
        )
        return Play(done.returncode, done.stdout, time.monotonic() - began)

    def deploy(self, *flags: str, **variables: Any) -> Play:
        """Run site.yml, which must succeed."""
        play = self.play("site.yml", *flags, **variables)
        check(play.status == 0, f"site.yml failed:\n{play.output[-3000:]}")
        return play

    def units(self) -> dict[str, str]:
        """Return each unit of ours that is active with when it started."""
        told = self.sh(
            "for u in $(systemctl list-units --plain --no-legend --state=active 'tei@*' "
            "qdrant.service nginx.service embedrack-proxy.service | cut -d' ' -f1); do "
            "echo $u $(systemctl show --value -p ExecMainStartTimestampMonotonic $u); done"
        )
        return dict(line.split(" ", 1) for line in told.splitlines())

    @contextlib.contextmanager
    def load(self, *flags: str) -> Iterator[dict[str, Any]]:
        """Send requests all the while; the report is filled in at the end."""
        report = Path(tempfile.mkdtemp(prefix="embedrack-load-"), "report.json")
        told: dict[str, Any] = {}
        process = subprocess.Popen(
            [
                # Real clients are other machines: what the hosts do here must not hold them up. One
                # that learns late that a connection was closed sends into it.
                *("nice", "-n", "-10", sys.executable, str(ROOT / "molecule" / "load")),
                *("--url", f"http://{self.address}:8080", "--report", str(report)),
                *("--connections", "8", "--rate", "30", *flags),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            time.sleep(3)
            yield told
            time.sleep(3)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=90)
        told.update(json.loads(report.read_text()))
        shutil.rmtree(report.parent)
        self.log.append(
            f"load: {told['requests']} requests, {told['inputs']} inputs, failed {told['failed']} "
            f"{told['kinds'] or ''}, p99 {told['p99_ms']} ms, longest {told['max_ms']} ms"
        )

    def say(self, line: str) -> None:
        """Keep a line for the scenario's report."""
        self.log.append(line)


@dataclass
class Play:
    """One run of ansible-playbook."""

    status: int
    output: str
    seconds: float

    @property
    def changed(self) -> int:
        """How many tasks changed something."""
        recap = self.output.rsplit("PLAY RECAP", 1)[-1]
        return sum(int(word[8:]) for word in recap.split() if word.startswith("changed="))

    @property
    def changes(self) -> list[str]:
        """The names of the tasks that changed something."""
        named, task = [], ""
        for line in self.output.splitlines():
            if line.startswith(("TASK [", "RUNNING HANDLER [")):
                task = line.partition("[")[2].partition("]")[0]
            elif line.startswith("changed: ["):
                named.append(task)
        return named


def check(condition: bool, told: str) -> None:
    """Fail the scenario with a sentence, unless the condition holds."""
    if not condition:
        raise Failed(told)


def touched(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Return the units that started, restarted or stopped between two looks."""
    return sorted(
        unit for unit in before.keys() | after.keys() if before.get(unit) != after.get(unit)
    )
