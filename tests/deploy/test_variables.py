"""Specifications, defaults and the page say the same."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir())


def options(role: str) -> dict[str, Any]:
    text = (ROOT / "roles" / role / "meta" / "argument_specs.yml").read_text()
    return dict(yaml.safe_load(text)["argument_specs"]["main"]["options"])


@pytest.mark.parametrize("role", ROLES)
def test_specifications_equal_defaults(role: str) -> None:
    defaults = yaml.safe_load((ROOT / "roles" / role / "defaults" / "main.yml").read_text())
    assert {name: option["default"] for name, option in options(role).items()} == defaults


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_has_the_role_s_prefix_and_a_meaning(role: str) -> None:
    for name, option in options(role).items():
        assert name.startswith(f"{role}_")
        assert option["description"].endswith(".")
        assert "type" in option


def test_the_page_is_as_generated() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "variables.py"), "--check"]
    done = subprocess.run(command, check=False)
    assert done.returncode == 0, "run `python scripts/variables.py` and commit docs/variables.md"


def test_the_shipped_variables_are_known() -> None:
    shipped = yaml.safe_load((ROOT / "inventory" / "group_vars" / "all.yml").read_text())
    known = {name for role in ROLES for name in options(role)}
    assert set(shipped) <= known
