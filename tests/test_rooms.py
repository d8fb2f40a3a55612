"""Every import of the proxy runs down: a folder imports from the floors below it alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "proxy_app"

#: The floors from the top: folders, and the files that stand beside them. Those of one floor know
#: nothing of each other.
FLOORS = (
    ("__main__",),
    ("commands",),
    ("server",),
    ("app",),
    ("routes",),
    ("embedding",),
    ("cache",),
    ("upstream", "http"),
    ("workers",),
    ("telemetry", "entries", "net"),
    ("errors", "settings"),
    ("__init__",),
)
#: From the bottom, 0 is the lowest.
HEIGHTS = {room: height for height, floor in enumerate(reversed(FLOORS)) for room in floor}
#: Files beside the folders, apart from Python's.
BESIDE = {"py.typed"}


def files_of(package: Path) -> dict[str, Path]:
    """Find a package's modules, by name; a folder's own file has the folder's name."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = (package.name, *path.relative_to(package).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(name: str, path: Path, names: set[str]) -> Iterator[str]:
    """Name the modules of the package that a file imports, wherever in it an import stands."""
    package = name.split(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name}, line {node.lineno}: a name from the top is wanted"
            imported = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for one in imported:
            parts = one.split(".")
            if parts[0] == package:
                # What is no module is a name of the module before it.
                while ".".join(parts) not in names:
                    parts.pop()
                yield ".".join(parts)


def arrows_of(package: Path) -> dict[str, set[str]]:
    """Return what each module imports of the package."""
    files = files_of(package)
    return {name: set(imported(name, path, set(files))) for name, path in files.items()}


def room_of(name: str) -> str:
    """Return the folder that a module is in, or its own name where it is in none."""
    return (*name.split("."), "__init__")[1]


def wrong_arrows(arrows: dict[str, set[str]]) -> list[str]:
    """List the imports that run up, or across a floor."""
    return [
        f"{name} imports {target}"
        for name, targets in sorted(arrows.items())
        for target in sorted(targets)
        if room_of(name) != room_of(target) and HEIGHTS[room_of(name)] <= HEIGHTS[room_of(target)]
    ]


def strangers(package: Path) -> set[str]:
    """Name the files and folders that no floor has."""
    found = {path for path in package.iterdir() if path.name != "__pycache__"}
    rooms = {path for path in found if path.is_dir() or path.suffix == ".py"}
    unknown = {path.stem for path in rooms} - set(HEIGHTS)
    return unknown | {path.name for path in found - rooms} - BESIDE


def cycle(arrows: dict[str, set[str]]) -> list[str]:
    """Return the modules of a cycle, if there is one."""
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return [str(name) for name in error.args[1]]
    return []


def test_every_file_has_its_place() -> None:
    assert strangers(PACKAGE) == set()


def test_every_import_runs_down() -> None:
    assert wrong_arrows(arrows_of(PACKAGE)) == []


def test_no_cycle() -> None:
    assert cycle(arrows_of(PACKAGE)) == []


def test_a_folders_own_file_says_what_it_is_about_and_imports_nothing() -> None:
    for room in HEIGHTS:
        if (PACKAGE / room).is_dir():
            body = ast.parse((PACKAGE / room / "__init__.py").read_text()).body
            assert [type(node) for node in body] == [ast.Expr], room


def test_what_is_wrong_is_found(tmp_path: Path) -> None:
    package = tmp_path / "proxy_app"
    for name, text in {
        "__init__.py": "",
        "settings.py": "",
        "helpers.py": "",
        "page.html": "",
        "cache/__init__.py": "",
        "cache/memory.py": "from proxy_app import settings\nfrom proxy_app.cache import store",
        "cache/store.py": "def late():\n    from proxy_app.cache.memory import Memory",
        "http/__init__.py": "",
        "http/lane.py": "import proxy_app.upstream.client",
        "upstream/__init__.py": "",
        "upstream/client.py": (
            "from typing import TYPE_CHECKING\n"
            "if TYPE_CHECKING:\n    from proxy_app.cache.memory import Memory"
        ),
    }.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    arrows = arrows_of(package)
    assert strangers(package) == {"helpers", "page.html"}
    assert wrong_arrows(arrows) == [
        "proxy_app.http.lane imports proxy_app.upstream.client",
        "proxy_app.upstream.client imports proxy_app.cache.memory",
    ]
    assert set(cycle(arrows)) == {"proxy_app.cache.memory", "proxy_app.cache.store"}
