"""Sets of places, from 0 to PLACES - 1: as integers whose bits are the places, and as bytes.

A set of few is written as its places, 16 bits each; a larger one as a compressed bitmap. So a word
that is rare takes a few bytes, and one that every message has takes not much more.
"""

from __future__ import annotations

import sys
import zlib
from array import array
from collections.abc import Iterable

PLACES = 1 << 14

# Places up to which a set is a list of them.
FEW = 64

# Of so many or more, looking at each bit is quicker than taking one after the other off.
MANY = 512


def encode(places: array[int]) -> bytes:
    """The bytes of a set of different places, in 16 bits each."""
    if len(places) <= FEW:
        if sys.byteorder != "little":
            places = places[:]
            places.byteswap()
        return places.tobytes()
    return zlib.compress(bits_of(places).to_bytes(PLACES // 8, "little"), 1)


def decode(number: int, encoded: bytes) -> int:
    """The set of so many places that `encode` has written. Raises ValueError for anything else."""
    if number > FEW:
        try:
            bitmap = zlib.decompress(encoded)
        except zlib.error as error:
            raise ValueError(f"no set of places: {error}") from error
        if len(bitmap) != PLACES // 8:
            raise ValueError(f"a bitmap of {len(bitmap)} bytes")
        return int.from_bytes(bitmap, "little")
    places = array("H")
    places.frombytes(encoded)
    if sys.byteorder != "little":
        places.byteswap()
    if len(places) != number or any(place >= PLACES for place in places):
        raise ValueError("no list of places")
    return bits_of(places)


def bits_of(places: Iterable[int]) -> int:
    digits = bytearray(b"0") * PLACES
    for place in places:
        digits[PLACES - 1 - place] = 49  # "1"
    return int(digits, 2)


def between(first: int, last: int) -> int:
    """The set of all places from `first` to `last`, both included, as far as there are such."""
    first, last = max(first, 0), min(last, PLACES - 1)
    return 0 if first > last else (1 << last + 1) - (1 << first)


def count(bits: int) -> int:
    return bin(bits).count("1")


def places_of(bits: int) -> list[int]:
    """The places, ascending."""
    if count(bits) >= MANY:
        return [place for place, bit in enumerate(reversed(bin(bits)[2:])) if bit == "1"]
    places = []
    while bits:
        lowest = bits & -bits
        places.append(lowest.bit_length() - 1)
        bits ^= lowest
    return places
