"""What the scenarios measured: `report.py`; `report.py --complete` fails where one was not run.

Reads what the steps of the last `molecule test` left in build/molecule.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
NOTES = HERE.parent / "build" / "molecule"


def main(complete: bool) -> int:
    """Print the report; returns the exit status."""
    lines = (NOTES / "steps").read_text().splitlines() if (NOTES / "steps").exists() else []
    steps = [json.loads(line) for line in lines]
    for name in scenarios():
        mine = [step for step in steps if step["scenario"] == name]
        seconds = sum(step["seconds"] for step in mine)
        shown = ", ".join(f"{step['step']} {step['seconds']:.0f}" for step in mine)
        print(f"== {name}: {seconds:.0f} s ({shown or 'not run'})")
        for report in sorted(NOTES.glob(f"{name}/*/report")):
            print(*(f"   {report.parent.name}: {line}" for line in report_lines(report)), sep="\n")
    if not complete:
        return 0
    missing = [f"{name} on {host}" for name in scenarios() for host in not_run(name, steps)]
    if missing:
        print(f"NOT RUN: {', '.join(missing)}", file=sys.stderr)
    return 1 if missing else 0


def scenarios() -> list[str]:
    """Return the names of all scenarios, in the order in which Molecule runs them."""
    return sorted(path.parent.name for path in HERE.glob("*/molecule.yml"))


def not_run(name: str, steps: list[dict[str, object]]) -> list[str]:
    """Return the hosts on which a scenario's verification did not pass."""
    hosts = list(yaml.safe_load((HERE / "inventory.yml").read_text())["bed"]["hosts"])
    for step in steps:
        if step["scenario"] == name and step["step"] == "verify":
            passed = {*map(str, step["hosts"])} - {*map(str, step["failed"])}  # type: ignore[call-overload]
            hosts = [host for host in hosts if host not in passed]
    return hosts


def report_lines(report: Path) -> list[str]:
    """Return the lines of a scenario's report on one host."""
    return report.read_text().splitlines()


if __name__ == "__main__":
    sys.exit(main("--complete" in sys.argv[1:]))
