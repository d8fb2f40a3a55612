"""Every scenario of Molecule is whole, documented, and found by the report that CI relies on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

MOLECULE = Path(__file__).parents[2] / "molecule"
#: The folders of molecule/ that are no scenarios.
SHARED = {"bed", "callback", "clients", "load", "tasks"}
SCENARIOS = sorted(
    path.name for path in MOLECULE.iterdir() if path.is_dir() and path.name[0] not in "._"
)
SCENARIOS = [name for name in SCENARIOS if name not in SHARED]


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_has_its_files(name: str) -> None:
    for file in ("molecule.yml", "converge.yml", "verify.yml"):
        assert (MOLECULE / name / file).exists(), file


def test_every_scenario_is_documented() -> None:
    page = (MOLECULE.parent / "docs" / "scenarios.md").read_text()
    assert [name for name in SCENARIOS if f"| `{name}` |" not in page] == []


def test_the_report_names_what_was_not_run(tmp_path: Path) -> None:
    """A copy of the report beside two scenarios: of one, a host's verification failed."""
    for name in ("first", "second"):
        (tmp_path / "molecule" / name).mkdir(parents=True)
        (tmp_path / "molecule" / name / "molecule.yml").touch()
    report = tmp_path / "molecule" / "report.py"
    for name in ("report.py", "inventory.yml"):
        (tmp_path / "molecule" / name).write_bytes((MOLECULE / name).read_bytes())
    steps = [
        {"scenario": "first", "step": "verify", "hosts": ["bookworm", "trixie"], "failed": []},
        {"scenario": "second", "step": "converge", "hosts": ["bookworm", "trixie"], "failed": []},
        {"scenario": "second", "step": "verify", "hosts": ["bookworm", "trixie"]}
        | {"failed": ["trixie"]},
    ]
    notes = tmp_path / "build" / "molecule"
    (notes / "first" / "trixie").mkdir(parents=True)
    (notes / "first" / "trixie" / "report").write_text("load: 100 requests\n")
    (notes / "steps").write_text("".join(json.dumps(s | {"seconds": 2.4}) + "\n" for s in steps))
    command = [sys.executable, str(report), "--complete"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        "== first: 2 s (verify 2)",
        "   trixie: load: 100 requests",
        "== second: 5 s (converge 2, verify 2)",
    ]
    assert (done.returncode, done.stderr) == (1, "NOT RUN: second on trixie\n")
