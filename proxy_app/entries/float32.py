"""A vector's JSON text as float32 bytes, each number rounded once.

Python reads a number as float64, and rounding that to float32 rounds a second time. For a few texts
the first rounding lands in the very middle of two float32, and the second goes wrong: 7.038531e-26,
which is how a float32 is printed, would come out as its neighbour.
"""

from __future__ import annotations

import math
import re
import sys
from array import array
from fractions import Fraction

import msgspec

_numbers = msgspec.json.Decoder(list[float])
_texts = msgspec.json.Decoder(list[msgspec.Raw])

#: The low 29 bits of a float64 in the middle of two normal float32, as little-endian bytes.
_MIDDLE = re.compile(rb"\0\0\0[\x10\x30\x50\x70\x90\xb0\xd0\xf0]")
#: What a number has to hold to be below the normal float32, whose middles look otherwise.
_TINY = re.compile(rb"[eE]-(?:3[89]|[4-9])")


def packed(raw: bytes) -> bytes:
    """Return a vector (JSON of float32 numbers) as little-endian float32, 4 bytes a number."""
    numbers = array("d", _numbers.decode(raw))
    doubtful = range(len(numbers)) if _TINY.search(raw) else _middles(numbers)
    if doubtful:
        texts = _texts.decode(raw)
        for index in doubtful:
            numbers[index] = _beside(numbers[index], bytes(texts[index]))
    singles = array("f", numbers)
    if sys.byteorder == "big":
        singles.byteswap()
    return singles.tobytes()


def _middles(numbers: array[float]) -> list[int]:
    if sys.byteorder == "big":
        numbers = numbers[:]
        numbers.byteswap()
    found = _MIDDLE.finditer(numbers.tobytes())
    return [match.start() // 8 for match in found if match.start() % 8 == 0]


def _beside(number: float, text: bytes) -> float:
    """Move a float64 that is the middle of two float32 to the side on which its text lies."""
    single = _rounded(number)
    other = 2 * number - single  # the neighbour beyond the middle, if this is a middle
    if other == single or _rounded(other) != other:
        return number
    exact = Fraction(text.decode())
    if exact == number:
        return number
    return math.nextafter(number, math.inf if exact > number else -math.inf)


def _rounded(number: float) -> float:
    return array("f", [number])[0]
