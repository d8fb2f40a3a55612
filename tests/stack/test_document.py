"""The proxy's OpenAPI document is true: schemathesis sends what it allows and what it forbids."""

from __future__ import annotations

import os
import subprocess
import sysconfig
from pathlib import Path

SCHEMATHESIS = Path(sysconfig.get_path("scripts")) / "schemathesis"
CONFIG = """
# A text that is too long without truncation, a prompt that the model has not, and another model's
# task are refused with 422 and 424. No document can say which those are.
[checks.positive_data_acceptance]
expected-statuses = ["2xx", 422, 424]

# Another model's task is refused with 424 whatever else is wrong.
[checks.negative_data_rejection]
expected-statuses = [400, 413, 415, 422, 424]

# Only one name is served.
[[operations]]
include-path = "/v1/models/{id}"
[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", 404]

# Other methods of the proxy's own routes are passed on, and TEI knows no such path: 404, not 405.
[[operations]]
include-path-regex = "^/(docs|livez|readyz|status|status.json|v1/models(/.id.)?)$"
[operations.checks.unsupported_method]
enabled = false
"""


def test_schemathesis_finds_nothing(proxy_url: str, tmp_path: Path) -> None:
    """The same requests at every run; another SCHEMATHESIS_SEED sends others."""
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    document = f"{proxy_url}/api-doc/openapi.json"
    options = (
        *("--max-examples", "10", "--continue-on-failure", "--generation-database", "none"),
        *("--suppress-health-check", "filter_too_much"),  # most texts are no part of a path
        *("--seed", os.environ.get("SCHEMATHESIS_SEED", "1")),
    )
    done = subprocess.run(
        [SCHEMATHESIS, "--no-color", "run", document, *options],
        cwd=tmp_path,
        env=os.environ | {"COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout
    assert "Seed: " in done.stdout
