"""scripts/check.py: checks side by side, their output in blocks, and what they come to."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.run.launch import PATIENCE_S, ROOT
from tests.stand_ins.process import heeding_signals

PROGRAM = """
import json, sys
sys.path.insert(0, "scripts")
import check
check.CHECKS = json.loads(sys.argv.pop())
sys.exit(check.main())
"""


def start(checks: dict[str, list[str]]) -> subprocess.Popen[str]:
    """Run these programs as checks, in a process group of their own."""
    commands = {
        name: [[sys.executable, "-c", program] for program in programs]
        for name, programs in checks.items()
    }
    with heeding_signals():
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, json.dumps(commands)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )


def whole(checks: dict[str, list[str]]) -> tuple[int, str]:
    """Run checks to the end: the exit status and the output."""
    with start(checks) as process:
        said, _ = process.communicate(timeout=PATIENCE_S)
    return process.returncode, said


def meeting(mine: Path, other: Path) -> str:
    """A program that prints a line, waits until the other runs too, and prints another."""
    return (
        "import pathlib, sys, time\n"
        f"print('{mine.name} begins', flush=True); pathlib.Path({str(mine)!r}).touch()\n"
        f"while not pathlib.Path({str(other)!r}).exists(): time.sleep(0.02)\n"
        f"time.sleep(0.2); print('{mine.name} ends', file=sys.stderr)"
    )


def test_two_run_side_by_side_and_each_prints_a_block(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    code, said = whole({"one": [meeting(one, two)], "two": [meeting(two, one)]})
    assert code == 0
    for name in ("one", "two"):
        assert f"{name} begins\n{name} ends\n== {name}: ok, " in said
    assert said.splitlines()[-1].startswith("== all passed, ")


def test_a_failure_is_named_and_the_others_run() -> None:
    checks = {
        "good": ["print(1)"],
        "bad": ["raise SystemExit(2)", "print('after it')"],
        "last": [""],
    }
    code, said = whole(checks)
    assert code == 1
    assert "after it\n== bad: failed, " in said
    assert "== last: ok, " in said
    assert said.splitlines()[-1].startswith("== failed: bad, ")


def test_ctrl_c_begins_nothing_more(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    waits = f"import pathlib, time; pathlib.Path({str(begun)!r}).touch(); time.sleep(60)"
    process = start({"one": [waits, "print('more')"], "two": ["import time; time.sleep(60)"]})
    while not begun.exists():
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert "more" not in said
    assert said.endswith("== interrupted\n")
