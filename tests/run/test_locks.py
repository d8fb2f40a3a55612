import re
from pathlib import Path

import pytest

from tests.run.launch import ROOT

LOCKS = sorted(path for path in (ROOT / "locks").glob("*.txt") if "overrides" not in path.name)


def pins(path: Path) -> set[str]:
    text = path.read_text().replace("\\\n", "")
    return {line.split(" --hash")[0].strip() for line in text.splitlines() if "==" in line}


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
def test_every_package_is_pinned_by_version_and_hash(path: Path) -> None:
    text = path.read_text().replace("\\\n", "")
    lines = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    assert lines
    for line in lines:
        assert re.match(r"[a-z0-9-]+==\S+( ; [^-]+?)?( +--hash=sha256:[0-9a-f]{64})+$", line), line


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
def test_no_lock_says_where_from(path: Path) -> None:
    assert not re.search(r"://|^-|--index|--find-links|@ ", path.read_text(), re.MULTILINE)


def test_one_environment_serves_both() -> None:
    run, test = (pins(ROOT / "locks" / f"{name}.txt") for name in ("run", "test"))
    run_pins, test_pins = ({pin.split(" ;")[0] for pin in some} for some in (run, test))
    assert run_pins <= test_pins
