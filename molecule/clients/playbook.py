"""Runs a playbook of the project on one host of the bed: `playbook.py PLAYBOOK [FLAG …]`.

As an operator does: in a process of its own, with the project's ansible.cfg and the inventory in
the folder BED_INVENTORY, and without the settings that Molecule gives to its own playbooks. What
the run printed goes to the output; how long it took, and what it changed, into the notes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from notes import keep, keep_last

PROJECT = Path(__file__).resolve().parents[2]


@dataclass
class Play:
    """One run of ansible-playbook: exit status, what it printed, seconds."""

    status: int
    output: str
    seconds: float

    @classmethod
    def run(cls, playbook: str, *flags: str) -> Play:
        """Run a playbook; its output is returned, whether it failed or not."""
        words = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("ANSIBLE_", "MOLECULE_"))
        }
        began = time.monotonic()
        done = subprocess.run(
            [
                str(Path(sys.executable).with_name("ansible-playbook")),
                *("-i", os.environ["BED_INVENTORY"], playbook, *flags),
            ],
            check=False,
            cwd=PROJECT,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=words | {"ANSIBLE_NOCOLOR": "1"},
        )
        return cls(done.returncode, done.stdout, time.monotonic() - began)

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


def main(playbook: str, *flags: str) -> int:
    """Run it; returns its exit status."""
    play = Play.run(playbook, *flags)
    print(play.output)
    shown = [word for word in flags if word != "--extra-vars" and not word.startswith("{")]
    keep(f"{' '.join([playbook, *shown])}: {play.seconds:.0f} s, {play.changed} changed")
    keep_last(
        {
            "status": play.status,
            "changed": play.changed,
            "changes": play.changes,
            "check": "--check" in flags,
        }
    )
    return play.status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
