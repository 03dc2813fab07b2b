"""Read a large JSON text a little at a time, and build nothing of it.

A parser takes a message whole. One of some megabytes that is nothing but brackets keeps it busy for
seconds, and the memory of what it builds is many times that of the text. `scan` takes a step of a
millisecond or so, and yields. It agrees with Python's json about what is JSON, NaN included, but
for numbers that Python will not read: those of thousands of digits.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Generator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

# Bytes that one call of the regular expressions may look at.
WINDOW = 1 << 15

# Steps between two yields, where each takes a token only.
STEPS = 256

# Steps until it is given up, some seconds' worth. 16 MiB of commits take a few thousand.
MOST_STEPS = 1_000_000

# Bytes that take long enough for a yield.
LONG = WINDOW // 8

# Bytes of a key that is looked at: all those that are asked for, should each letter be an escape.
LONGEST_KEY = 100

_VALUE, _KEY, _AFTER = range(3)
_LIST, _OBJECT = b"[{"
_CLOSING = {_LIST: b"]", _OBJECT: b"}"}
_BLANK = (b" ", b"\t", b"\n", b"\r")

# Python refuses to read more, and a listener dies of that.
MOST_DIGITS = 4300

# Levels of short lists and objects that one call takes as they come, and how short they are. Both
# bound what a failed attempt costs, which is made anew on each level.
_LEVELS = 3
_SHORT = 20

_WS = rb"[ \t\n\r]*"
_COMMA = _WS + rb"," + _WS
_STRING = rb'"[^"\\\x00-\x1f]*(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*)*"'
_PAIR = _STRING + _WS + rb":" + _WS
_NUMBER = rb"-?(?:0|[1-9][0-9]{0,%d}(?![0-9]))(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?" % (MOST_DIGITS - 1)
_WORDS = rb"true|false|null"
_NOT_STRICT = rb"NaN|-?Infinity"

_BLANKS = re.compile(_WS)
_ALONE = re.compile(_WORDS + rb"|" + _NUMBER)
_NOT_STRICT_ALONE = re.compile(_NOT_STRICT)
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]+')
_ESCAPES = re.compile(rb'(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})){1,2000}')


class _Runs:
    """Patterns of many elements or members, each with its comma, that one call takes.

    `within`: those for where lists and objects of _LEVELS may begin, and else of atoms only.
    """

    def __init__(self, words: bytes) -> None:
        atom = rb"(?:" + _STRING + rb"|" + words + rb"|" + _NUMBER + rb")"
        value = atom
        for _ in range(_LEVELS):
            value = rb"(?:" + atom + rb"|" + _flat(value) + rb")"
        self.elements = (_run(atom), _run(value))
        self.members = (_run(_PAIR + atom), _run(_PAIR + value))


def _flat(value: bytes) -> bytes:
    """A short list, or a short object, of such values."""
    return b"|".join((_closed(b"[", value, b"]"), _closed(b"{", _PAIR + value, b"}")))


def _closed(opening: bytes, each: bytes, closing: bytes) -> bytes:
    opening, closing = re.escape(opening), re.escape(closing)
    # A comma that nothing follows is none of JSON's.
    separated = rb"(?:,(?!" + _WS + closing + rb")" + _WS + rb"|(?=" + closing + rb"))"
    several = rb"(?:" + each + _WS + separated + rb"){0,%d}" % _SHORT
    return opening + _WS + several + closing


def _run(each: bytes) -> re.Pattern[bytes]:
    return re.compile(rb"(?:" + each + _COMMA + rb"){1,500}")


_STRICT_RUNS = _Runs(_WORDS)


@lru_cache(maxsize=1)
def _all_runs() -> _Runs:
    return _Runs(_WORDS + rb"|" + _NOT_STRICT)


class NotJSON(ValueError):
    """It is no JSON, or none that Python reads."""


class TooMuch(ValueError):
    """It is not known what it is: that would take too long."""


class TooDeep(ValueError):
    """Lists and objects nest deeper than was asked for."""


@dataclass
class Scanned:
    """What a JSON text is. Of an object: where its outermost `members` of the keys that were asked
    for have their values, in order, and where the closing bracket is.
    """

    is_object: bool = False
    is_empty: bool = True
    closing: int = 0
    is_strict: bool = True  # without NaN and Infinity
    members: dict[str, list[tuple[int, int]]] = field(default_factory=dict)


class Scanner:
    """Scans one `text`, which is UTF-8. `run()` is a generator whose value is the Scanned.

    `keys` are those to look for in the outermost object. Raises NotJSON, TooDeep or TooMuch.
    """

    def __init__(self, text: bytes, keys: Collection[str], most_depth: int) -> None:
        self._text = text
        self._keys = keys
        self._most_depth = most_depth
        self._found = Scanned()
        # Bytes that are seen to.
        self.position = 0
        self._runs = _STRICT_RUNS

    def run(self) -> Generator[None, None, Scanned]:
        # Each opening bracket that is still open.
        text, found, open_ = self._text, self._found, bytearray()
        at, steps, due, key, begin = (yield from self._skip(0)), 0, LONG, "", 0
        found.is_object = text[at : at + 1] == b"{"
        state = _VALUE
        while True:
            steps += 1
            if steps % STEPS == 0 or at > due:
                due = at + LONG
                self.position = at
                if steps > MOST_STEPS:
                    raise TooMuch
                yield
            if state == _VALUE:
                if open_ and open_[-1] == _LIST:
                    ran = self._run(self._runs.elements, at, open_)
                    if ran > at:
                        at = ran
                        continue
                if len(open_) == 1 and open_[0] == _OBJECT:
                    begin = at
                at, opened = yield from self._value(at)
                if opened:
                    if len(open_) >= self._most_depth:
                        raise TooDeep
                    open_.append(opened)
                    at = yield from self._skip(at)
                    if text[at : at + 1] == _CLOSING[opened]:
                        state = _AFTER
                    else:
                        state = _VALUE if opened == _LIST else _KEY
                    continue
                if not open_:
                    break
                state = _AFTER
            elif state == _KEY:
                if len(open_) > 1:
                    ran = self._run(self._runs.members, at, open_)
                    if ran > at:
                        at = ran
                        continue
                if text[at : at + 1] != b'"':
                    raise NotJSON("no key")
                end = yield from self._string(at)
                if len(open_) == 1:
                    found.is_empty = False
                    key = _meaning(text[at:end]) if end - at <= LONGEST_KEY else ""
                at = yield from self._skip(end)
                if text[at : at + 1] != b":":
                    raise NotJSON("no colon")
                at = yield from self._skip(at + 1)
                state = _VALUE
            else:
                at = yield from self._skip(at)
                character = text[at : at + 1]
                if character == b",":
                    if len(open_) == 1 and open_[0] == _OBJECT:
                        self._enter(key, begin, at)
                    at = yield from self._skip(at + 1)
                    state = _VALUE if open_[-1] == _LIST else _KEY
                elif character == _CLOSING[open_[-1]]:
                    if len(open_) == 1 and not found.is_empty:
                        self._enter(key, begin, at)
                    found.closing = at
                    open_.pop()
                    at += 1
                    if not open_:
                        break
                else:
                    raise NotJSON("neither a comma nor an end")
        at = yield from self._skip(at)
        if at != len(text):
            raise NotJSON("more follows")
        return found

    def _enter(self, key: str, begin: int, end: int) -> None:
        if key in self._keys:
            self._found.members.setdefault(key, []).append((begin, end))

    def _run(self, patterns: Sequence[re.Pattern[bytes]], at: int, open_: bytearray) -> int:
        """Behind as many members or elements, with their commas, as are easily seen to be some."""
        pattern = patterns[len(open_) <= self._most_depth - _LEVELS]
        matched = pattern.match(self._text, at, at + WINDOW)
        return at if matched is None else matched.end()

    def _value(self, at: int) -> Generator[None, None, tuple[int, int]]:
        """Behind a value; or behind the bracket that begins it, and which that is."""
        character = self._text[at : at + 1]
        if character == b'"':
            return (yield from self._string(at)), 0
        if character in (b"[", b"{"):
            return at + 1, character[0]
        matched = _ALONE.match(self._text, at, at + WINDOW)
        if matched is None:
            matched = _NOT_STRICT_ALONE.match(self._text, at)
            self._found.is_strict, self._runs = False, _all_runs()
        if matched is None:
            raise NotJSON("no value")
        return matched.end(), 0

    def _string(self, at: int) -> Generator[None, None, int]:
        text, at = self._text, at + 1
        while True:
            for pattern in (_PLAIN, _ESCAPES):
                matched = pattern.match(text, at, at + WINDOW)
                if matched is not None and matched.end() > at:
                    break
            else:
                break
            if matched.end() - at > LONG:
                self.position = at
                yield
            at = matched.end()
        if text[at : at + 1] != b'"':
            raise NotJSON("a string that does not end")
        return at + 1

    def _skip(self, at: int) -> Generator[None, None, int]:
        if self._text[at : at + 1] not in _BLANK:
            return at
        while True:
            matched = _BLANKS.match(self._text, at, at + WINDOW)
            if matched is None or matched.end() == at:
                return at
            if matched.end() - at > LONG:
                self.position = at
                yield
            at = matched.end()


def _meaning(key: bytes) -> str:
    try:
        return str(json.loads(key.decode()))
    except ValueError:
        return ""
