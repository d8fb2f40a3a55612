"""What could not run is a failure where CI runs the tests."""

from __future__ import annotations

import os
import shutil

import pytest


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    # Only the first process of `pytest -n` has a reporter: it knows the results of all.
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = len(reporter.stats.get("skipped", [])) if reporter is not None else 0
    if skipped and os.environ.get("CI") and exitstatus == pytest.ExitCode.OK:
        print(f"\nNOT RUN: {skipped} tests; on CI that is a failure")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def needs(program: str) -> str:
    """Return a program's path; the test is skipped where there is none.

    Developers' machines may lack it. On CI a skip is a failure.
    """
    found = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if not found:
        pytest.skip(f"needs {program}")
    return found
