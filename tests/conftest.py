"""Which tests of `pytest -n` run in the same process."""

from __future__ import annotations

from pathlib import PurePath

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# What could not run counts as a failure on CI.
from tests.not_run import pytest_sessionfinish as pytest_sessionfinish

#: The tests of each of these folders share processes that are slow to start, and their state.
TOGETHER = ("clients", "embedder", "stack")


class Dealing(LoadScopeScheduling):  # type: ignore[misc]  # pytest-xdist has no types
    """Deals the tests of some folders to one process each, and every other test to any."""

    def _split_scope(self, nodeid: str) -> str:
        folder = PurePath(nodeid.split("::")[0]).parent.name
        return folder if folder in TOGETHER else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Dealing:
    return Dealing(config, log)
