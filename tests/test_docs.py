"""What the documentation says is what the program does."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

from proxy_app import __version__
from proxy_app.commands.load_test.command import fill

ROOT = Path(__file__).parents[1]


def test_every_setting_is_documented_as_it_is() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "proxy_app", "check", "--list"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"```\n{done.stdout}```" in (ROOT / "docs/proxy.md").read_text()


def test_every_option_of_the_load_test_is_documented() -> None:
    parser = argparse.ArgumentParser()
    fill(parser)
    docs = (ROOT / "docs/load_test.md").read_text()
    names = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", parser.format_help())) - {"-h", "--help"}
    assert len(names) > 20
    for name in names:
        assert f"`{name}`" in docs, name


def test_every_route_is_documented() -> None:
    files = [ROOT / "proxy_app/routes/handlers.py", ROOT / "proxy_app/routes/status.py"]
    code = "".join(file.read_text() for file in files)
    routes = re.findall(r'web\.(?:get|post)\("([^"]+)"', code)
    assert len(routes) > 5
    docs = (ROOT / "docs/proxy.md").read_text()
    for route in (re.sub(r":[^}]*}", "}", route) for route in routes):  # {id:.+} is {id}
        assert f"`GET {route}`" in docs or f"`{route}`" in docs or f"`POST {route}`" in docs, route


def test_one_version() -> None:
    assert f'version = "{__version__}"' in (ROOT / "pyproject.toml").read_text()
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_models_hashes_are_those_of_the_lock_file() -> None:
    lock = (ROOT / "locks/run.txt").read_text()
    hashes = re.findall(r"sha256 `([0-9a-f]{64})`", (ROOT / "README.md").read_text())
    assert len(hashes) == 2
    for digest in hashes:
        assert digest in lock


def test_links_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *ROOT.glob("docs/*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), (page.name, target)
