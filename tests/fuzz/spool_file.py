"""The spool's files: whatever a user of the host puts there, read by the one who drains."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from fedmsg_relay import message
from fedmsg_relay.checks.wire import Checker
from fedmsg_relay.config import complete
from fedmsg_relay.publishing.drain import _Drain
from fedmsg_relay.publishing.spool import decoded, encoded

LARGEST = 1 << 12
WORDS = (b"\n", b"\0", b"\r\n", b"\xff", b"{", b"}", b'"topic":', b"NaN", b"[" * 120, b"\\ud800")


def seeds() -> list[bytes]:
    made = [message.build("org.a.dev.x", {"n": n}, n) | {"timestamp": 1, "msg_id": "2023-1",
            "username": "ann"} for n in range(2)]  # fmt: skip
    return [encoded(b"org.a.dev.x", message.encode(each)) for each in made]


def check(octets: bytes) -> None:
    config = complete({"relay_max_message_bytes": LARGEST})
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "file").write_bytes(octets)
        opened = os.open(directory, os.O_RDONLY)
        try:
            topic, body = _Drain(config, opened, opened)._read("file")
        except ValueError as error:
            assert str(error)
            return
        finally:
            os.close(opened)
    # It leaves as it came, and a relay has nothing to mend in it.
    assert encoded(topic, body) == octets and decoded(octets) == (topic, body)
    assert len(octets) <= LARGEST + 1
    assert Checker(LARGEST).check([topic, body]).frames == [topic, body]
