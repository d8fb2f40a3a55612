"""Cuts a text into chunks that the model reads whole, along the code's structure where it can.

A syntax tree is cut from the top: a node that fits is one piece, one that is too large is cut among
its children, and what has no children (or no grammar) by lines that overlap. Then small neighbours
are taken together. Chunks are whole lines, so that they can be shown and linked to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from code_search.files import File, Text
from code_search.syntax import Node, comes_before, holds_definitions, name_of, parse, rows

#: Characters of a chunk: MiniLM reads 256 tokens, and code has three to four characters a token.
LIMIT = 1000
#: A definition of this size stands alone.
ENOUGH = 300
#: Less than this is no chunk of its own beside a definition.
_TINY = 80
#: Lines that two pieces of one long text share.
OVERLAP = 3
#: Characters at a file's beginning in which it introduces itself, and how many are taken of that.
_HEAD, _ABOUT = 3000, 200
#: A docstring, or a comment of most languages, or Markdown's title.
_OPENING = re.compile(
    r"""\s*(?:[rRuU]?(?P<quotes>"{3}|'{3})|(?:#(?!!)|//|--(?!-)|/\*|<!--|\{\#|;))(?P<said>.*)"""
)
#: What may stand before it.
_NOT_YET = re.compile(r"\s*|#!.*|---|<\?.*")
_MARKS = " \t\r#/*-!{}<>;\"'"
_RIGHTS = re.compile(r"copyright|licen[cs]e|spdx", re.IGNORECASE)
#: Levels of a tree that are looked into.
_DEPTH = 60


@dataclass(frozen=True)
class Chunk:
    """Lines ``start`` to ``end`` of a file (from 1, inclusive), and what they define."""

    path: str
    language: str
    start: int
    end: int
    text: str
    symbol: str
    committed: bool = False
    about: str = ""

    @property
    def embedded(self) -> str:
        """What is embedded: the path, also in words, what the file is about, names, the text."""
        where = " ".join(self.path.split())
        spelt = " ".join(re.findall(r"[^\W_]+", self.path))
        return "\n".join(filter(None, (f"{where} {spelt}", self.about, self.symbol, self.text)))


@dataclass(frozen=True)
class _Piece:
    """Lines from ``first`` to ``last`` (from 0, inclusive) and the names they define.

    ``within`` has the names of the definitions around them, outermost first.
    """

    first: int
    last: int
    within: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def symbol(self) -> str:
        """The path of names, as in ``Outer.inner``; several that are defined side by side."""
        return ".".join(filter(None, (*self.within, ", ".join(self.names[:4]))))[:200]


def cut(file: File, text: Text, *, by_structure: bool = True) -> list[Chunk]:
    """Cut a file's text; every line that is not blank is in a chunk.

    The parsers are C and read what strangers wrote: one that breaks takes its process along, which
    is why `cutter` has one of its own.
    """
    lines = _Lines(text.content)
    root = parse(file.language, text.content) if by_structure else None
    summary = about(text.content)
    pieces = lines.split(0, lines.count - 1) if root is None else lines.cut(root, (), 0)
    chunks = []
    for piece in lines.merged(pieces):
        for part in _parts(lines.text(piece)):
            start, end = piece.first + 1, piece.last + 1
            chunks.append(
                Chunk(
                    *(file.shown, file.language, start, end, part, piece.symbol),
                    committed=text.committed,
                    about=summary,
                )
            )
    return chunks


def about(text: str) -> str:
    """Return how a file introduces itself, in one line; "" where it does not.

    That is its docstring's first line or its first comment, unless it is about rights.
    """
    found: list[str] = []
    for line in text[:_HEAD].split("\n"):
        opening = _OPENING.match(line)
        if opening is None and (found or not _NOT_YET.fullmatch(line)):
            break
        if opening is not None:
            found.append(opening["said"].strip(_MARKS))
            if opening["quotes"]:
                break
    summary = " ".join(filter(None, found))
    return "" if _RIGHTS.search(summary) else summary[:_ABOUT]


class _Lines:
    """A text's lines, and how they are cut."""

    def __init__(self, text: str) -> None:
        self._lines = text.split("\n")
        self.count = len(self._lines)
        self._ends = [0]
        for line in self._lines:
            self._ends.append(self._ends[-1] + len(line) + 1)

    def size(self, first: int, last: int) -> int:
        """Count the characters of these lines."""
        return self._ends[last + 1] - self._ends[first]

    def text(self, piece: _Piece) -> str:
        """Return a piece's lines."""
        return "\n".join(self._lines[piece.first : piece.last + 1])

    def cut(self, node: Node, within: tuple[str, ...], depth: int) -> Iterator[_Piece]:
        """Cut what a node's children hold; what stands before a definition goes with it."""
        before: int | None = None
        last = -1
        for child in node.children:
            former, (first, last) = last, rows(child)
            last = min(last, self.count - 1)
            if before is not None:
                first = min(before, first)
            # At the end of a line it belongs to that line.
            if comes_before(child) and first > former and self.size(first, last) < LIMIT // 2:
                before = first
                continue
            before = None
            name = name_of(child)
            if name in within[-1:]:  # given by a wrapper already, as `export` does
                name = ""
            inner = (*within, name) if name else within
            opened = self.size(first, last) > LIMIT or holds_definitions(child)
            if opened and child.child_count and first < last and depth < _DEPTH:
                for piece in self.cut(child, inner, depth + 1):
                    yield replace(piece, first=min(first, piece.first))
                    first = piece.last + 1
            elif opened:
                yield from self.split(first, last, inner)
            else:
                yield _Piece(first, last, within, (name,) if name else ())
        if before is not None:
            yield _Piece(before, last, within)

    def split(self, first: int, last: int, within: tuple[str, ...] = ()) -> Iterator[_Piece]:
        """Cut these lines so that each piece but the first begins with the last of the former."""
        while first <= last:
            end = first
            while end < last and self.size(first, end + 1) <= LIMIT:
                end += 1
            yield _Piece(first, end, within)
            if end == last:
                return
            first = max(end + 1 - OVERLAP, first + 1)

    def merged(self, pieces: Iterator[_Piece]) -> Iterator[_Piece]:
        """Take small neighbours together; blank lines around pieces go."""
        former: _Piece | None = None
        for piece in self._filled(pieces):
            if former and piece.last <= former.last:
                if piece.names and not former.names:
                    former = replace(former, names=piece.names)
            elif former and self._belong_together(former, piece):
                former = _joined(former, piece)
            else:
                if former:
                    yield from self._trimmed(former)
                former = piece
        if former:
            yield from self._trimmed(former)

    def _filled(self, pieces: Iterator[_Piece]) -> Iterator[_Piece]:
        """Add what no node of the tree holds, such as the lines of a text within YAML."""
        following = 0
        within: tuple[str, ...] = ()
        for piece in pieces:
            if self._written(following, piece.first - 1):
                yield from self.split(following, piece.first - 1, within)
            yield piece
            following = max(following, piece.last + 1)
            within = piece.within
        if self._written(following, self.count - 1):
            yield from self.split(following, self.count - 1, within)

    def _written(self, first: int, last: int) -> bool:
        return any(line.strip() for line in self._lines[first : last + 1])

    def _belong_together(self, former: _Piece, piece: _Piece) -> bool:
        if self.size(former.first, piece.last) > LIMIT:
            return False
        sizes = [self.size(one.first, one.last) for one in (former, piece)]
        if former.within != piece.within and not (former.names and piece.names):
            # What opens a definition goes with its beginning, what closes it with its end.
            opens = piece.within[: len(former.within)] == former.within
            closes = former.within[: len(piece.within)] == piece.within
            return (opens and sizes[0] < _TINY) or (closes and sizes[1] < _TINY)
        if any(
            one.names and size > ENOUGH for one, size in zip((former, piece), sizes, strict=True)
        ):
            return not piece.names and sizes[1] < _TINY
        return True

    def _trimmed(self, piece: _Piece) -> Iterator[_Piece]:
        first, last = piece.first, piece.last
        while first <= last and not self._lines[first].strip():
            first += 1
        while first <= last and not self._lines[last].strip():
            last -= 1
        if first <= last:
            yield replace(piece, first=first, last=last)


def _joined(former: _Piece, piece: _Piece) -> _Piece:
    shared = 0
    for ours, theirs in zip(former.within, piece.within, strict=False):
        if ours != theirs:
            break
        shared += 1
    # Of one that is deeper, the name around it is what it is known by.
    names = [
        name for one in (former, piece) for name in (one.within[shared : shared + 1] or one.names)
    ]
    return _Piece(former.first, piece.last, former.within[:shared], tuple(dict.fromkeys(names)))


def _parts(text: str) -> Iterator[str]:
    """Cut a text of one long line, at a space where there is one."""
    while len(text) > LIMIT + LIMIT // 4:
        at = text.rfind(" ", LIMIT // 2, LIMIT) + 1 or LIMIT
        yield text[:at]
        text = text[at:]
    yield text
