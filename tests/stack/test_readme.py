"""The README's snippets run as they stand, against a running stack."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text()
SNIPPETS = re.findall(r"```(python|sh)\n(.*?127\.0\.0\.1:8080.*?)```", README, re.DOTALL)


@pytest.mark.parametrize(("language", "snippet"), SNIPPETS)
def test_snippet(proxy_url: str, language: str, snippet: str) -> None:
    code = snippet.replace("http://127.0.0.1:8080", proxy_url)
    command = [sys.executable, "-c", code] if language == "python" else ["sh", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "384" in done.stdout or "X-Cache: " in done.stdout


def test_there_are_three() -> None:
    assert [language for language, _ in SNIPPETS] == ["sh", "python", "python"]
