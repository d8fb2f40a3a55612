"""JSON bodies read as TEI reads them: serde_json's rules, and its words when something is wrong.

A reader is a function from a ``Cursor`` to a value; small readers make up bigger ones, as serde's
derive does. The words matter because clients match on them, and the rules because they decide
between a 400 and a 422: a repeated field is refused, a lone surrogate is no text, and what follows
the body's object is not looked at.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn, TypeVar

import orjson

T = TypeVar("T")
Reader = Callable[["Cursor"], T]

MAX_DEPTH = 127  # nested arrays and objects; serde_json refuses the next
MAX_U32 = 2**32 - 1
MAX_U64 = 2**64 - 1
REQUIRED: Any = object()  # the default of a field that has none

_SPACE = re.compile(rb"[ \t\r\n]*")
_STRING = re.compile(rb'"[^"\\\x00-\x1f]*(?:\\.[^"\\\x00-\x1f]*)*"', re.DOTALL)
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]*')
_NUMBER = re.compile(rb"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_ID = rb"[ \t\r\n]*(?:0|[1-9][0-9]{0,8})[ \t\r\n]*"
_IDS = re.compile(rb"\[(" + _ID + rb"(?:," + _ID + rb")*)\]")
_HEX = re.compile(rb"[0-9a-fA-F]{4}")
_EOF = "EOF while parsing a value"
_LITERALS = {ord("n"): (b"null", None), ord("t"): (b"true", True), ord("f"): (b"false", False)}


class ReadError(Exception):
    """A body that cannot be read.

    ``syntax``: it is no JSON (a 400) rather than JSON of another shape (a 422). ``path`` is filled
    from the inside out while the error travels, as the readers that it passes know their place.
    """

    def __init__(self, message: str, line: int, column: int, *, syntax: bool) -> None:
        super().__init__(message)
        self.message, self.line, self.column, self.syntax = message, line, column, syntax
        self.path: list[str] = []

    def under(self, segment: str) -> ReadError:
        """The same error, one level further out."""
        self.path.append(segment)
        return self

    def __str__(self) -> str:
        path = ""
        for segment in reversed(self.path):
            path += segment if segment.startswith("[") or not path else f".{segment}"
        prefix = f"{path}: " if path else ""
        return f"{prefix}{self.message} at line {self.line} column {self.column}"


class Cursor:
    """A place in a body. ``at`` is the index of the next byte, ``depth`` the nesting around it."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.depth = 0

    def peek(self) -> int:
        """The next byte that is no white space, or -1; white space before it is eaten."""
        if self.at < len(self.data) and self.data[self.at] > 32:
            return self.data[self.at]
        match = _SPACE.match(self.data, self.at)
        if match is not None:
            self.at = match.end()
        return self.data[self.at] if self.at < len(self.data) else -1

    def error(self, message: str, at: int | None = None, *, syntax: bool = True) -> ReadError:
        """Say what is wrong with the bytes before ``at`` (by default all that were eaten)."""
        end = self.at if at is None else min(at, len(self.data))
        newline = self.data.rfind(b"\n", 0, end)
        line = 1 + self.data.count(b"\n", 0, end)
        return ReadError(message, line, end - newline - 1, syntax=syntax)

    def fail(self, message: str, at: int | None = None, *, syntax: bool = True) -> NoReturn:
        """Raise what ``error`` says."""
        raise self.error(message, at, syntax=syntax)

    def fail_next(self, message: str) -> NoReturn:
        """Raise for the next byte, which was looked at and not eaten."""
        self.fail(message, self.at + 1)

    def mismatch(self, expected: str) -> NoReturn:
        """Raise for a value of another type than ``expected``, in serde's words for what it is."""
        byte = self.peek()
        if byte == ord("["):
            self.fail(f"invalid type: sequence, expected {expected}", syntax=False)
        if byte == ord("{"):
            self.fail(f"invalid type: map, expected {expected}", syntax=False)
        self.fail(f"invalid type: {_described(anything(self))}, expected {expected}", syntax=False)

    def enter(self) -> None:
        """Eat an opening bracket; raises when the nesting is too deep."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self.fail_next("recursion limit exceeded")
        self.at += 1

    def leave(self) -> None:
        """Eat a closing bracket."""
        self.depth -= 1
        self.at += 1


def _described(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"boolean `{str(value).lower()}`"
    if isinstance(value, int):
        return f"integer `{value}`"
    if isinstance(value, float):
        return f"floating point `{value!r}`".replace("e+", "e")
    quoted = str(value).replace("\\", "\\\\").replace('"', '\\"')
    for char, escape in (("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t"), ("\0", "\\0")):
        quoted = quoted.replace(char, escape)
    return f'string "{quoted}"'


# ---------------------------------------------------------------- any value


def anything(cursor: Cursor) -> Any:
    """Read any value, as ``None``, bool, int, float, str, list or dict."""
    byte = cursor.peek()
    if byte == ord('"'):
        return _string(cursor)
    if byte == ord("["):
        return _ids(cursor) or elements(cursor, anything)
    if byte == ord("{"):
        return _object(cursor)
    if byte == ord("-") or ord("0") <= byte <= ord("9"):
        return _number(cursor)
    if byte in _LITERALS:
        return _literal(cursor, *_LITERALS[byte])
    return cursor.fail_next("expected value" if byte >= 0 else _EOF)


def elements(cursor: Cursor, read: Reader[T]) -> list[T]:
    """Read an array whose every element ``read`` reads; the cursor stands on its bracket."""
    cursor.enter()
    values: list[T] = []
    while _has_element(cursor, first=not values):
        try:
            values.append(read(cursor))
        except ReadError as error:
            raise error.under(f"[{len(values)}]") from None
    cursor.leave()
    return values


def _has_element(cursor: Cursor, *, first: bool) -> bool:
    byte = cursor.peek()
    if byte < 0:
        cursor.fail_next("EOF while parsing a list")
    if byte == ord("]"):
        return False
    if first:
        return True
    if byte != ord(","):
        cursor.fail_next("expected `,` or `]`")
    cursor.at += 1
    byte = cursor.peek()
    if byte < 0:
        cursor.fail_next(_EOF)
    if byte == ord("]"):
        cursor.fail_next("trailing comma")
    return True


def _has_key(cursor: Cursor, *, first: bool) -> bool:
    byte = cursor.peek()
    if byte < 0:
        cursor.fail_next("EOF while parsing an object")
    if byte == ord("}"):
        return False
    if not first:
        if byte != ord(","):
            cursor.fail_next("expected `,` or `}`")
        cursor.at += 1
        byte = cursor.peek()
        if byte < 0:
            cursor.fail_next(_EOF)
        if byte == ord("}"):
            cursor.fail_next("trailing comma")
    if byte != ord('"'):
        cursor.fail_next("key must be a string")
    return True


def _colon(cursor: Cursor) -> None:
    byte = cursor.peek()
    if byte != ord(":"):
        cursor.fail_next("expected `:`" if byte >= 0 else "EOF while parsing an object")
    cursor.at += 1


def _object(cursor: Cursor) -> dict[str, Any]:
    cursor.enter()
    values: dict[str, Any] = {}
    first = True
    while _has_key(cursor, first=first):
        first = False
        key = _string(cursor)
        try:
            _colon(cursor)
            values[key] = anything(cursor)
        except ReadError as error:
            raise error.under(key) from None
    cursor.leave()
    return values


def _ids(cursor: Cursor) -> list[int] | None:
    # Lists of token ids are the one long thing in a request besides texts: read them at C's speed.
    match = _IDS.match(cursor.data, cursor.at)
    if match is None:
        return None
    if cursor.depth >= MAX_DEPTH:
        cursor.fail_next("recursion limit exceeded")
    cursor.at = match.end()
    return list(map(int, match.group(1).split(b",")))


def _literal(cursor: Cursor, word: bytes, value: bool | None) -> bool | None:
    for byte in word:
        if cursor.at >= len(cursor.data):
            cursor.fail(_EOF)
        cursor.at += 1
        if cursor.data[cursor.at - 1] != byte:
            cursor.fail("expected ident")
    return value


def _number(cursor: Cursor) -> int | float:
    match = _NUMBER.match(cursor.data, cursor.at)
    if match is None:  # a minus sign and no digit
        _refuse_number(cursor, cursor.at + 1)
    cursor.at = match.end()
    following = cursor.data[cursor.at : cursor.at + 1]
    if following.isdigit():  # a zero before other digits
        _refuse_number(cursor, cursor.at)
    if following in (b".", b"e", b"E"):  # and no digit behind it
        _refuse_number(cursor, cursor.at + 1)
    text = match.group()
    # serde_json reads an integer that fits no 64 bits as a float.
    whole = match.lastindex is None and len(text) <= 20
    if whole and -(2**63) <= (value := int(text)) <= MAX_U64:
        return value
    number = float(text)
    if number in (float("inf"), float("-inf")):
        cursor.fail("number out of range")
    return number


def _refuse_number(cursor: Cursor, at: int) -> NoReturn:
    cursor.fail("invalid number" if at < len(cursor.data) else _EOF, at + 1)


# ---------------------------------------------------------------- strings


def _string(cursor: Cursor) -> str:
    match = _STRING.match(cursor.data, cursor.at)
    if match is not None:
        try:
            text: str = orjson.loads(match.group())
        except orjson.JSONDecodeError:
            return _refuse_string(cursor)
        cursor.at = match.end()
        return text
    return _refuse_string(cursor)


def _refuse_string(cursor: Cursor) -> NoReturn:
    """Find what is wrong with the string that the cursor stands on, and say it as serde_json."""
    data = cursor.data
    cursor.at += 1
    while True:
        plain = _PLAIN.match(data, cursor.at)
        cursor.at = plain.end() if plain is not None else cursor.at
        if cursor.at >= len(data):
            cursor.fail("EOF while parsing a string")
        byte = data[cursor.at]
        cursor.at += 1
        if byte == ord("\\"):
            _check_escape(cursor)
        elif byte == ord('"'):
            # The quotes match and every escape is right: what is left are bytes that are no UTF-8.
            cursor.fail("invalid unicode code point")
        else:
            cursor.fail("control character (\\u0000-\\u001F) found while parsing a string")


def _check_escape(cursor: Cursor) -> None:
    byte = _next_byte(cursor)
    if byte != ord("u"):
        if byte not in b'"\\/bfnrt':
            cursor.fail("invalid escape")
        return
    unit = _code_unit(cursor)
    if 0xDC00 <= unit <= 0xDFFF:
        cursor.fail("lone leading surrogate in hex escape")
    if 0xD800 <= unit <= 0xDBFF:
        for expected in b"\\u":
            if _next_byte(cursor) != expected:
                cursor.fail("unexpected end of hex escape")
        if not 0xDC00 <= _code_unit(cursor) <= 0xDFFF:
            cursor.fail("lone leading surrogate in hex escape")


def _next_byte(cursor: Cursor) -> int:
    if cursor.at >= len(cursor.data):
        cursor.fail("EOF while parsing a string")
    cursor.at += 1
    return cursor.data[cursor.at - 1]


def _code_unit(cursor: Cursor) -> int:
    digits = cursor.data[cursor.at : cursor.at + 4]
    cursor.at += len(digits)
    if len(digits) < 4:
        cursor.fail("EOF while parsing a string")
    if not _HEX.fullmatch(digits):
        cursor.fail("invalid escape")
    return int(digits, 16)


# ---------------------------------------------------------------- typed readers


def boolean(cursor: Cursor) -> bool:
    """Read ``true`` or ``false``."""
    if cursor.peek() in (ord("t"), ord("f")):
        return bool(anything(cursor))
    return cursor.mismatch("a boolean")


def string(cursor: Cursor) -> str:
    """Read a text."""
    if cursor.peek() == ord('"'):
        return _string(cursor)
    return cursor.mismatch("a string")


def usize(cursor: Cursor) -> int:
    """Read an unsigned integer of 64 bits."""
    byte = cursor.peek()
    if byte != ord("-") and not ord("0") <= byte <= ord("9"):
        cursor.mismatch("usize")
    value = _number(cursor)
    if isinstance(value, float):
        cursor.fail(f"invalid type: {_described(value)}, expected usize", syntax=False)
    if value < 0:
        cursor.fail(f"invalid value: integer `{value}`, expected usize", syntax=False)
    return value


def optional(read: Reader[T]) -> Reader[T | None]:
    """Read what ``read`` reads, or ``null``."""

    def reader(cursor: Cursor) -> T | None:
        if cursor.peek() == ord("n"):
            anything(cursor)
            return None
        return read(cursor)

    return reader


def sequence(read: Reader[T]) -> Reader[list[T]]:
    """Read an array whose every element ``read`` reads."""

    def reader(cursor: Cursor) -> list[T]:
        return (
            elements(cursor, read) if cursor.peek() == ord("[") else cursor.mismatch("a sequence")
        )

    return reader


def variant(*names: str) -> Reader[str]:
    """Read one of some words. ``null`` is no word, and serde_json calls it no value either."""
    quoted = [f"`{name}`" for name in names]
    listed = " or ".join(quoted) if len(quoted) == 2 else f"one of {', '.join(quoted)}"

    def reader(cursor: Cursor) -> str:
        if cursor.peek() != ord('"'):
            cursor.fail_next("expected value" if cursor.peek() >= 0 else _EOF)
        name = _string(cursor)
        if name not in names:
            cursor.fail(f"unknown variant `{name}`, expected {listed}", syntax=False)
        return name

    return reader


def untagged(name: str, convert: Callable[[Any], T | None]) -> Reader[T]:
    """Read any value and ``convert`` it; ``None`` means that no variant of ``name`` fits."""

    def reader(cursor: Cursor) -> T:
        value = convert(anything(cursor))
        if value is None:
            raise _Unplaced(f"data did not match any variant of untagged enum {name}")
        return value

    return reader


class _Unplaced(ReadError):
    """An error whose place serde_json finds only when the object around it has ended."""

    def __init__(self, message: str) -> None:
        super().__init__(message, 0, 0, syntax=False)


class Field(NamedTuple):
    """A field of an object: its name, how its value is read, and its value when it is absent."""

    name: str
    read: Reader[Any]
    default: Any = REQUIRED


def struct(name: str, make: Callable[..., T], *fields: Field) -> Reader[T]:
    """Read an object into ``make(**fields)``. Unknown fields are read and dropped."""
    by_name = {field.name: field for field in fields}

    def reader(cursor: Cursor) -> T:
        if cursor.peek() != ord("{"):
            cursor.mismatch(f"struct {name}")
        cursor.enter()
        try:
            values = _fields(cursor, by_name)
        except _Unplaced as error:
            raise _placed(error, cursor) from None
        cursor.leave()
        for field in fields:
            if values.setdefault(field.name, field.default) is REQUIRED:
                cursor.fail(f"missing field `{field.name}`", syntax=False)
        return make(**values)

    return reader


def _fields(cursor: Cursor, by_name: dict[str, Field]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    first = True
    while _has_key(cursor, first=first):
        first = False
        key = _string(cursor)
        field = by_name.get(key)
        if field is not None and key in values:
            cursor.fail(f"duplicate field `{key}`", syntax=False)
        try:
            _colon(cursor)
            value = anything(cursor) if field is None else field.read(cursor)
        except ReadError as error:
            raise error.under(key) from None
        if field is not None:
            values[key] = value
    return values


def _placed(error: _Unplaced, cursor: Cursor) -> ReadError:
    # serde_json gives such an error the place where it then stands: past the closing brace when
    # that comes next, else before the comma.
    if cursor.peek() == ord("}"):
        cursor.at += 1
    placed = cursor.error(error.message, syntax=False)
    placed.path = error.path
    return placed


def read(reader: Reader[T], body: bytes) -> T:
    """Read ``body`` with ``reader``. What follows the value is not looked at (axum 0.7 neither).

    Raises ``ReadError``.
    """
    return reader(Cursor(body))
