"""The messages that are sent: complete ones, of an exact size, each with a msg_id of its own.

Their content is that of a commit, the most frequent message of Fedora's bus. Bytes are those that
upstream's publishers make and its relay makes again, so that every subject emits the same.

The msg_id is a UUID whose first digits are random, so that an index meets it at a random place,
and whose last twelve are the number of the message.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any, NamedTuple

TOPIC = b"org.fedoraproject.dev.bench.git.receive"

# Before the numbered ones come some until they are heard, and then a last one.
PREPARING = 500_000_000_000
LAST_OF_PREPARATION = 999_999_999_999
# Such as are sent beside the numbered ones, and counted by nobody.
BESIDE = 700_000_000_000

# Different random parts of msg_ids: as many as an index of a million rows has pages, and more.
RANDOM_PARTS = 1 << 16

NUMBER_DIGITS = 12
STAMP_DIGITS = 20

_NUMBER = re.compile(rb'"msg_id": ?"2026-[0-9a-f-]{24}(\d{12})"')
_STAMP = re.compile(rb'"sent": ?"(\d{20})"')


class Parts(NamedTuple):
    """A message is before, stamp, between, one of `random`, number, after."""

    before: bytes
    between: bytes
    random: list[bytes]
    after: bytes


def parts(size: int) -> Parts:
    """Of messages whose body has `size` bytes."""
    body = _sized(size)
    before, between = body.split(b"S" * STAMP_DIGITS)
    between, after = between.split(b"R" * 24 + b"N" * NUMBER_DIGITS)
    digits = os.urandom(10 * RANDOM_PARTS).hex()
    random = [_uuid_part(digits[at : at + 20]) for at in range(0, len(digits), 20)]
    return Parts(before, between, random, after)


def single(size: int, number: int) -> bytes:
    """The body of one of them."""
    before, _, random, after = unstamped(size)
    return b"%b%b%0*d%b" % (before, random[0], NUMBER_DIGITS, number, after)


def unstamped(size: int) -> Parts:
    """The same, with the stamp filled in: before and between are one."""
    before, between, random, after = parts(size)
    return Parts(before + b"0" * STAMP_DIGITS + between, b"", random, after)


def place_of_number(body: bytes) -> slice:
    """Where in all bodies of this size, from this subject, the number is."""
    found = _NUMBER.search(body)
    assert found, body[:1000]
    return slice(*found.span(1))


def place_of_stamp(body: bytes) -> slice:
    found = _STAMP.search(body)
    assert found, body[:1000]
    return slice(*found.span(1))


def _uuid_part(digits: str) -> bytes:
    return f"{digits[:8]}-{digits[8:12]}-4{digits[12:15]}-8{digits[15:18]}-".encode()


def _sized(size: int) -> bytes:
    """As many files as go in, and the rest as the summary's length."""
    one, two = len(_body(1, "")), len(_body(2, ""))
    files = max(0, (size - one) // (two - one) + 1) if size >= one else 0
    return _body(files, "x" * (size - len(_body(files, ""))))


def _body(files: int, summary: str) -> bytes:
    commit = {"branch": "f44", "name": "Ralph", "repo": "guake", "rev": "8ff9" * 10}
    msg: dict[str, Any] = {"commit": {**commit, "summary": summary}, "sent": "S" * STAMP_DIGITS}
    if files:
        stats = {"additions": 3, "deletions": 7, "lines": 9}
        msg["files"] = {f"sources/part-{number:04}/main.spec": stats for number in range(files)}
    complete = {
        "i": 1,
        "msg": msg,
        "msg_id": "2026-" + "R" * 24 + "N" * NUMBER_DIGITS,
        "timestamp": 1795478400,
        "topic": TOPIC.decode(),
        "username": "bench",
    }
    return json.dumps(complete, sort_keys=True, separators=(",", ":")).encode()
