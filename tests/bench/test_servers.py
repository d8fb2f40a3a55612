"""What the benchmark measures beside the proxy."""

from __future__ import annotations

import shutil

import orjson
import pytest

from bench import servers


def test_the_balancer_has_the_deployments_own_configuration() -> None:
    if not shutil.which("nginx"):
        pytest.skip("no nginx")
    with servers.instances() as [upstream], servers.balancer([upstream]) as url:
        _, reply = servers.fetch(url + "/embed", {"inputs": ["a"]})
    assert len(orjson.loads(reply)) == 1
