"""Writes a line for each playbook that Molecule runs, for the report: scenario, step, seconds."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from ansible import context
from ansible.executor.stats import AggregateStats
from ansible.playbook import Playbook
from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: steps
type: aggregate
short_description: times of Molecule's steps
description: Appends a JSON line per playbook to build/molecule/steps in the project.
requirements: [the environment of Molecule]
"""


class CallbackModule(CallbackBase):
    """Times one run of ansible-playbook."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "steps"
    CALLBACK_NEEDS_ENABLED = True

    def v2_playbook_on_start(self, playbook: Playbook) -> None:
        """Note what runs, and when it began."""
        self._began = time.monotonic()
        self._step = Path(playbook._file_name).stem

    def v2_playbook_on_stats(self, stats: AggregateStats) -> None:
        """Write the line."""
        line = {
            "scenario": os.environ["MOLECULE_SCENARIO_NAME"],
            "step": "check" if context.CLIARGS["check"] else self._step,
            "seconds": round(time.monotonic() - self._began, 1),
            "hosts": sorted(stats.processed),
            "failed": sorted({*stats.failures, *stats.dark}),
        }
        folder = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"], "build", "molecule")
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "steps").open("a") as steps:
            steps.write(json.dumps(line) + "\n")
