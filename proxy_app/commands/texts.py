"""The texts of a file: lines, JSON lines with a field, or Parquet with a column."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path


class FileError(Exception):
    """A file that cannot be read as texts; names the place and the remedy."""


Texts = Iterator[tuple[int, str]]


def read(path: Path, field: str) -> tuple[int, Texts]:
    """Return how many rows a file has, and its texts with the number of each one's row from 1.

    Its name's ending says what it is: ``.jsonl`` and ``.ndjson``, ``.parquet``, else a text a line.
    Empty texts are left out: there is nothing to embed. Raises FileError, also while iterating.
    """
    kind = path.suffix.lower()
    if kind == ".parquet":
        return _parquet(path, field)
    text_of = _field_of(path, field) if kind in (".jsonl", ".ndjson") else _line
    with path.open("rb") as lines:
        count = sum(1 for _ in lines)
    return count, _lines(path, text_of)


def _lines(path: Path, text_of: Callable[[int, str], str]) -> Texts:
    # As bytes: other characters that Python takes for ends of lines are a text's own.
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                text = text_of(number, line.rstrip(b"\r\n").decode())
            except UnicodeDecodeError:
                raise FileError(f"{path}, line {number}: no UTF-8 text") from None
            if text.strip():
                yield number, text


def _line(_: int, line: str) -> str:
    return line


def _field_of(path: Path, field: str) -> Callable[[int, str], str]:
    def text_of(number: int, line: str) -> str:
        if not line.strip():
            return ""
        try:
            row = json.loads(line)
        except ValueError as error:
            raise FileError(f"{path}, line {number}: no JSON: {error}") from None
        text = row if isinstance(row, str) else row.get(field) if isinstance(row, dict) else None
        if not isinstance(text, str):
            raise FileError(
                f"{path}, line {number}: no text in the field {field!r}; --field names another"
            )
        return text

    return text_of


def _parquet(path: Path, field: str) -> tuple[int, Texts]:
    try:
        from pyarrow import parquet  # type: ignore[import-not-found]
    except ImportError:
        raise FileError(
            f"{path}: Parquet needs pyarrow, which is not installed: `pip install pyarrow`"
        ) from None
    try:
        file = parquet.ParquetFile(path)
    except (OSError, ValueError) as error:
        raise FileError(f"{path}: no Parquet: {error}") from None
    if field not in file.schema_arrow.names:
        names = ", ".join(file.schema_arrow.names)
        raise FileError(f"{path}: no column {field!r}; --field names one of {names}")

    def texts() -> Texts:
        number = 0
        for batch in file.iter_batches(batch_size=1024, columns=[field]):
            for text in batch.column(0).to_pylist():
                number += 1
                if text is not None and not isinstance(text, str):
                    raise FileError(f"{path}, row {number}: {field!r} is no text")
                if text and text.strip():
                    yield number, text

    return file.metadata.num_rows, texts()
