"""Settings are read from the environment, and what is wrong there is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from code_search.errors import CodeSearchError
from code_search.settings import Settings


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings.from_environment({})
    assert settings.endpoint == "http://127.0.0.1:8080"
    assert settings.max_file_bytes == 5_000_000
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert settings.folder == Path("/state/embedrack-code-search")


def test_the_environment_sets_them() -> None:
    environment = {"CODE_SEARCH_BATCH": "7", "CODE_SEARCH_DATA_DIR": "/data", "BATCH": "9"}
    settings = Settings.from_environment(environment)
    assert (settings.batch, settings.folder) == (7, Path("/data"))


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("CODE_SEARCH_BATCHES", "7", "CODE_SEARCH_BATCHES is no setting"),
        ("CODE_SEARCH_BATCH", "many", "CODE_SEARCH_BATCH is 'many': a whole number"),
        ("CODE_SEARCH_BATCH", "0", "CODE_SEARCH_BATCH is '0'"),
        ("CODE_SEARCH_CLONE_BYTES", "-1", "CODE_SEARCH_CLONE_BYTES is '-1'"),
    ],
)
def test_wrong_ones_are_named(name: str, value: str, sentence: str) -> None:
    with pytest.raises(CodeSearchError, match=sentence):
        Settings.from_environment({name: value})
