"""The message checker: frames of strangers, on their way to every listener."""

from __future__ import annotations

import json
from collections.abc import Generator

from fedmsg_relay import message
from fedmsg_relay.checks.wire import Checked, Checker

LARGEST = 1 << 12
BETWEEN = b"\n--frame--\n"  # of two frames of an input
WORDS = (
    BETWEEN, b"\0", b"\xff", b"null", b"NaN", b"-Infinity", b"1e400",
    b"\\ud800", b'"topic":1,', b"{}",
    b'"timestamp":1e300,', b'"timestamp":true,', b'"msg_id":null,', b'"signature":"x",', b"[" * 101,
    b'{"a":' * 60, b",", b'"', b"\\", b" ", b'"crypto":"x509",', b'"certificate":5,',
)  # fmt: skip


def seeds() -> list[bytes]:
    good = message.build("org.a.dev.x", {"list": [1, 2.5, None], "text": 'ä"\\'}, 1)
    good |= {"timestamp": 1_700_000_000, "msg_id": "2023-1", "username": "ann"}
    signed = {**good, "signature": "c2ln", "certificate": "Y2VydA==", "crypto": "x509"}
    bodies = [message.encode(each) for each in (good, signed, good["msg"], {}, "text")]
    return [b"org.a.dev.x" + BETWEEN + body for body in bodies] + [b"org.a\0" + bodies[0]]


def check(octets: bytes) -> None:
    frames = octets.split(BETWEEN)
    for validated in (False, True):
        checked = Checker(LARGEST, validated).check(frames)
        _check_what_leaves(checked, frames, validated)
    if len(frames) == 2 and _is_text(frames[0]):
        _check_slowly(frames)


def _check_what_leaves(checked: Checked, frames: list[bytes], validated: bool) -> None:
    if checked.frames is None:
        assert checked.cause
        return
    topic, body = checked.frames
    assert topic.decode() == checked.topic
    # A wrapped text may take twice as much, and a message's own keys.
    assert len(topic) + len(body) <= 2 * LARGEST + len(topic) + 1000
    left = json.loads(body)
    assert isinstance(left["topic"], str) and left["msg_id"] == checked.msg_id
    assert isinstance(left["timestamp"], (int, float))
    if checked.cause is None:
        assert [topic, body] == frames or b"\0".join([topic, body]) == frames[0]
    # The next relay has nothing to do any more.
    again = Checker(4 * LARGEST, validated).check([topic, body])
    assert (again.frames, again.cause) == ([topic, body], None)


def _check_slowly(frames: list[bytes]) -> None:
    """What is looked at a piece at a time becomes a message as well."""
    steps = Checker(LARGEST).check_slowly(frames)
    _check_what_leaves(_end_of(steps), frames, False)


def _end_of(steps: Generator[None, None, Checked]) -> Checked:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            assert isinstance(end.value, Checked)
            return end.value


def _is_text(topic: bytes) -> bool:
    try:
        topic.decode()
    except UnicodeDecodeError:
        return False
    return True
