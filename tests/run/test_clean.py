import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from local_stack.run.folder import MARKER
from tests.run.launch import ROOT, attempt, environment


def clean(folder: Path) -> tuple[int, str, str]:
    return attempt("local_stack.run.clean", DATA_DIR=folder)


def fill(folder: Path, marker: str) -> None:
    (folder / "qdrant").mkdir()
    (folder / "qdrant" / "points").touch()
    (folder / MARKER).write_text(marker)


def test_a_folder_that_is_ours(tmp_path: Path) -> None:
    fill(tmp_path, json.dumps({"program": "embedrack local stack", "pid": 1, "url": ""}))
    assert clean(tmp_path) == (0, f"dropped the cache in {tmp_path}\n", "")
    assert not tmp_path.exists()


@pytest.mark.parametrize("marker", ["{", "[]", '{"program": "other"}'])
def test_a_marker_that_is_not_ours(tmp_path: Path, marker: str) -> None:
    fill(tmp_path, marker)
    code, output, errors = clean(tmp_path)
    assert (code, output) == (1, "")
    assert "holds files that are not this stack's" in errors
    assert (tmp_path / "qdrant" / "points").exists()


def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    fill(tmp_path, "")
    (tmp_path / "letter.txt").touch()
    assert clean(tmp_path)[0] == 0
    assert os.listdir(tmp_path) == ["letter.txt"]


def test_a_folder_with_nothing_in_it(tmp_path: Path) -> None:
    assert clean(tmp_path) == (0, f"no cache in {tmp_path}\n", "")
    assert clean(tmp_path / "absent") == (0, f"no cache in {tmp_path}/absent\n", "")
    assert tmp_path.exists()


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_make_clean_refuses_a_foreign_folder(tmp_path: Path) -> None:
    (tmp_path / "qdrant").mkdir()
    (tmp_path / "qdrant" / "letter.txt").touch()
    ended = subprocess.run(
        ["make", "clean", f"DATA_DIR={tmp_path}"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert f"failed: {tmp_path} holds files that are not this stack's" in ended.stderr
    assert (tmp_path / "qdrant" / "letter.txt").exists()
