"""The chunks of a folder, as indexing cuts them."""

from __future__ import annotations

from pathlib import Path

from code_search.chunks import Chunk, cut
from code_search.files import File, Text, read, walk
from code_search.settings import Settings
from code_search.source import open_source


async def chunks_of(folder: Path, settings: Settings) -> list[Chunk]:
    """Read and cut every file that would be indexed."""
    found: list[Chunk] = []
    async with open_source(str(folder), settings) as source:
        for file in walk(source, settings):
            if isinstance(file, File) and isinstance(text := read(source, file, settings), Text):
                found += cut(file, text)
    return found
