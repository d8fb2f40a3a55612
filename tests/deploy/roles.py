"""The roles as files: their tasks, their variables, and what they write to a host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from jinja2 import TemplateError, meta
from jinja2.nativetypes import NativeEnvironment

ROOT = Path(__file__).parents[2]
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir())
TEMPLATES = ROOT / "templates"
#: What stands for the host and its facts where a path is worked out.
STAND_INS: dict[str, Any] = {
    "role_path": "/roles/any",
    "__tei_instances": [{"name": "instance"}],
    "ansible_check_mode": False,
}


def load(path: Path) -> Any:
    """Read a YAML file."""
    return yaml.safe_load(path.read_text())


def task_files() -> list[Path]:
    """Return every file of tasks of every role."""
    return sorted((ROOT / "roles").glob("*/tasks/*.yml"))


def tasks(entries: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Go through tasks, those in blocks too."""
    for entry in entries:
        yield entry
        for part in ("block", "rescue", "always"):
            yield from tasks(entry.get(part, []))


def variables() -> dict[str, Any]:
    """Return the defaults and internal variables of all roles."""
    found: dict[str, Any] = {}
    for part in ("defaults", "vars"):
        for path in sorted((ROOT / "roles").glob(f"*/{part}/main.yml")):
            found |= load(path)
    return found | STAND_INS


class Resolver:
    """Works out values with the roles' defaults; a template's content is its place."""

    def __init__(self, local: dict[str, Any]) -> None:
        self.known = variables() | local
        self.environment = NativeEnvironment()
        self.environment.globals["lookup"] = self.lookup

    @staticmethod
    def lookup(plugin: str, term: str, **_: object) -> str:
        """Stand in for Ansible's lookups."""
        return f"template {term}" if plugin.endswith(".template") else "a lookup"

    def value(self, given: Any) -> Any:
        """Return a value with everything in it worked out."""
        if isinstance(given, dict):
            return {name: self.value(part) for name, part in given.items()}
        if isinstance(given, list):
            return [self.value(part) for part in given]
        if not isinstance(given, str) or ("{{" not in given and "{%" not in given):
            return given
        names = meta.find_undeclared_variables(self.environment.parse(given))
        known = {name: self.value(self.known[name]) for name in names if name in self.known}
        return self.environment.from_string(given).render(known)


def written() -> Iterator[tuple[str, str]]:
    """Go through what is written from a template: (path on the host, place of the template)."""
    for path in task_files():
        for task in tasks(load(path)):
            files = task.get("embedrack_files", {}).get("files", [])
            yield from from_templates(files, task.get("vars", {}))


def from_templates(files: Any, local: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Go through those of a task's files that come from a template."""
    if "template" not in str(files) and "__" not in str(files):
        return
    try:
        entries = Resolver(local).value(files)
    except TemplateError:  # what is put back, or made of facts: no template
        return
    for entry in entries if isinstance(entries, list) else []:
        kind, _, place = str(entry["content"]).partition(" ")
        if kind == "template":
            yield entry["path"], place.strip().partition("/templates")[2]
