"""The roles' own order: templates and their places, names of tasks, entry points, modules."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.roles import ROLES, ROOT, TEMPLATES, load, task_files, tasks, written

#: A template that others include, and that no task writes.
PART = ".part.j2"
#: Words that name nothing: a name has to say what is done to what.
VAGUE = re.compile(r"\b(it|its|them|they|this|that one)$|^(say|see|let|know|undo$)", re.IGNORECASE)


def templates() -> list[str]:
    found = [path for path in TEMPLATES.rglob("*") if path.is_file()]
    return sorted(f"/{path.relative_to(TEMPLATES)}" for path in found)


def test_no_role_has_templates_of_its_own() -> None:
    assert [path for path in (ROOT / "roles").glob("*/templates") if any(path.iterdir())] == []


def test_every_template_is_written_and_every_written_one_is_there() -> None:
    named = set(re.findall(r"__common_templates ~ '([^']+)'", everything()))
    assert named == {place for place in templates() if not place.endswith(PART)}
    assert named == {place for _, place in written()}


def test_every_template_lies_where_it_lands() -> None:
    for path, place in written():
        assert place == f"{path}.j2"


def test_every_part_is_included() -> None:
    for place in templates():
        if place.endswith(PART):
            beside = (TEMPLATES / place[1:]).parent.glob("*.j2")
            include = f"{{% include '{Path(place).name}' +%}}"
            users = [path for path in beside if include in path.read_text()]
            assert len(users) > 1, f"{place} is shared by {len(users)}"


def test_no_file_is_written_by_content_in_a_task() -> None:
    for path in task_files():
        for task in tasks(load(path)):
            assert "content" not in task.get("ansible.builtin.copy", {}), (path, task["name"])
            assert "ansible.builtin.template" not in task, (path, task["name"])


def everything() -> str:
    """Return the text of all tasks, variables and templates."""
    files = [*task_files(), *(ROOT / "roles").glob("*/vars/main.yml"), *TEMPLATES.rglob("*.j2")]
    return "\n".join(path.read_text() for path in files)


@pytest.mark.parametrize("role", ROLES)
def test_the_names_of_a_role_s_tasks_are_unique_and_say_what_is_done(role: str) -> None:
    files = sorted((ROOT / "roles" / role).glob("*/*.yml"))
    lists = [load(path) for path in files if path.parent.name in ("tasks", "handlers")]
    names = [task["name"] for entries in lists for task in tasks(entries)]
    assert [name for name, count in Counter(names).items() if count > 1] == []
    assert [name for name in names if VAGUE.search(name)] == []


def includes() -> set[tuple[str, str]]:
    """Return (role, entry point) of every tasks_from in roles and playbooks."""
    found = set()
    books = [ROOT / "site.yml", *(ROOT / "playbooks").glob("*.yml")]
    lists: list[Any] = [play.get("tasks", []) for book in books for play in load(book)]
    lists += [load(path) for path in task_files()]
    for task in (task for entries in lists for task in tasks(entries)):
        for kind in ("include_role", "import_role"):
            call = task.get(f"ansible.builtin.{kind}", {})
            if "tasks_from" in call:
                names = task["loop"] if "{{" in call["name"] else [call["name"]]
                found |= {(name, Path(call["tasks_from"]).stem) for name in names}
    return found


def test_every_entry_point_is_specified_and_every_specified_one_is_there() -> None:
    assert ("nginx", "mark") in includes()
    assert ("common", "remove") in includes()
    specified = set()
    for role in ROLES:
        folder = ROOT / "roles" / role
        for name, entry in load(folder / "meta" / "argument_specs.yml")["argument_specs"].items():
            assert entry["short_description"]
            assert (folder / "tasks" / f"{name}.yml").exists()
            specified.add((role, name))
    assert specified == includes() | {(role, "main") for role in ROLES}


@pytest.mark.parametrize("path", sorted((ROOT / "library").glob("*.py")), ids=lambda p: p.stem)
def test_a_module_runs_with_the_hosts_python_and_describes_itself(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 8))
    names = [target.id for node in tree.body for target in named(node)]
    assert {"DOCUMENTATION", "EXAMPLES", "RETURN"} <= set(names)
    assert "supports_check_mode=True" in path.read_text()
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in modules_of(node)
    }
    assert imported & {"yaml", "requests", "aiohttp"} == set()


def modules_of(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.ImportFrom):
        return [node.module or ""]
    return [alias.name for alias in node.names]


def named(node: ast.stmt) -> list[ast.Name]:
    targets = node.targets if isinstance(node, ast.Assign) else []
    return [target for target in targets if isinstance(target, ast.Name)]


@pytest.mark.parametrize("path", sorted((ROOT / "library").glob("*.py")), ids=lambda p: p.stem)
def test_nothing_is_handed_to_a_host_as_a_string_of_python(path: Path) -> None:
    books = [*task_files(), *(ROOT / "playbooks").glob("*.yml")]
    assert [book for book in books if re.search(r"^\s*- -c$", book.read_text(), re.M)] == []
    assert any(path.stem in book.read_text() for book in books), f"{path.stem} is used nowhere"
