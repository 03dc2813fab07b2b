"""Numbered messages: each tells which one it is, so that none can be lost or doubled unseen."""

from __future__ import annotations

import json
from typing import Any


def numbered(number: int, **more: Any) -> list[bytes]:
    """Topic and body of a complete message with `number` in its msg_id, `id-17`."""
    body = {"topic": "t", "timestamp": 1, "msg_id": f"id-{number}", "msg": {"n": number}, **more}
    return [b"t", json.dumps(body).encode()]


def number_of(frames: list[bytes]) -> int:
    """The number of a message that `numbered` made."""
    return int(json.loads(frames[-1])["msg"]["n"])
