"""How the tests are dealt out to processes, and that on CI a test that did not run is a failure."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from xdist.scheduler import Scheduling


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Scheduling:
    # Not at the top: the example's tests import this file, and have no pytest-xdist.
    from tests.dealing import Dealing

    return Dealing(config, log)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    # The processes of `pytest -n` have no reporter of their own.
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = len(reporter.stats.get("skipped", [])) if reporter is not None else 0
    if skipped and os.environ.get("CI") and exitstatus == pytest.ExitCode.OK:
        print(f"\nNOT RUN: {skipped} tests; on CI that is a failure")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
