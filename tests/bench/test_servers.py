"""What the benchmark measures beside the proxy."""

from __future__ import annotations

import orjson

from bench import servers
from tests.not_run import needs


def test_the_balancer_has_the_deployments_own_configuration() -> None:
    needs("nginx")
    with servers.instances() as [upstream], servers.balancer([upstream]) as url:
        _, reply = servers.fetch(url + "/embed", {"inputs": ["a"]})
    assert len(orjson.loads(reply)) == 1
