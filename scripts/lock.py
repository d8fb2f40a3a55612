"""Writes the locks anew from pyproject.toml: `make lock`, with Python 3.11 or newer and `uv`.

One lock serves every supported Python on Linux and macOS, by markers, and every line of it is
pinned by version and hashes.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import tomllib

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "locks"
OPTIONS = (
    *("--universal", "--python-version", "3.10", "--generate-hashes", "--quiet"),
    *("--no-emit-index-url", "--no-emit-find-links", "--custom-compile-command", "make lock"),
)


def main(upgrade: list[str]) -> int:
    """Write the locks; `--upgrade` takes the newest versions that pyproject.toml allows."""
    if shutil.which("uv") is None:
        sys.exit("lock: the command `uv` is needed: `pip install uv` brings it")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    own = project["dependencies"]
    # Taken from the lists rather than by extra's name: deploy.txt must not hold the proxy's own.
    resolve("run", own + extras["run"], "--overrides", "locks/run-overrides.txt", *upgrade)
    # Constrained by run.txt, so that one .venv serves both.
    every = own + extras["run"] + extras["test"]
    resolve("test", every, "--constraints", "locks/run.txt", *upgrade)
    resolve("clients", extras["clients"], *upgrade)
    resolve("peers", extras["peers"], *upgrade)
    resolve("example", extras["example"], *upgrade)
    resolve("deploy", extras["deploy"], *upgrade)
    # What the hosts install: the proxy with its collector, and what fetches models.
    resolve("proxy", own + extras["collector"], "--constraints", "locks/test.txt", *upgrade)
    resolve("hub", extras["hub"], *upgrade)
    return 0


def resolve(name: str, requirements: list[str], *options: str) -> None:
    """Write one lock."""
    target = LOCKS / f"{name}.txt"
    command = ["uv", "pip", "compile", "-", "--output-file", f"locks/{name}.txt", *OPTIONS]
    text = "\n".join(requirements)
    subprocess.run([*command, *options], input=text, text=True, check=True, cwd=ROOT)
    pins = sum("==" in line and line[0].isalnum() for line in target.read_text().splitlines())
    print(f"{target.relative_to(ROOT)}: {pins} pinned packages")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
