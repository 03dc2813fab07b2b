"""What the bridge keeps on disk: how far it is, and messages that it could not pass on.

The cursor is one small file, replaced whole. It has the msg_id of the last confirmed message beside
its seq, so that another journal is told from the one it belongs to. What is set aside is a JSON
object a line: many may come at once, and they must not hold up the others.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from ..errors import FedmsgRelayError

CURSOR = "cursor.json"
SET_ASIDE = "set-aside.jsonl"
FORMER = SET_ASIDE + ".1"
LOCK = ".lock"

# Bytes of the file before it becomes the former one, and of a body that is kept in it.
MOST_BYTES = 32 << 20
MOST_BODY = 1 << 20


class StateError(FedmsgRelayError):
    """The state directory cannot be read or written: the text says why."""


class Cursor(NamedTuple):
    """`seq` and `msg_id` of the last message up to which the broker has confirmed all."""

    seq: int
    msg_id: str


class Store:
    """The state directory. One bridge has it; others are refused. Raises StateError."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._saved: Cursor | None = None
        self._unsynced = False
        self._turn = threading.Lock()  # both directions set messages aside
        with _errors(path):
            os.makedirs(path, mode=0o700, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            self._lock = os.open(os.path.join(path, LOCK), flags, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise StateError(f"{path}: another bridge runs with this state directory") from None
        # Messages that are set aside, in the files that are there.
        self.set_aside = sum(1 for _ in set_aside(path))
        with _errors(path):
            self._file = self._open()

    def load(self) -> Cursor | None:
        """The cursor, or None if none was saved yet."""
        return load(self.path)

    def save(self, cursor: Cursor) -> None:
        """Keep the cursor, and what was set aside before, on disk when this returns."""
        self.sync()
        if cursor != self._saved:
            save(self.path, cursor)
            self._saved = cursor

    def sync(self) -> None:
        """Have on disk what was set aside."""
        with self._turn, _errors(self.path):
            if self._unsynced:
                self._unsynced = False
                os.fsync(self._file)

    def keep(self, topic: str, body: bytes, reason: str, **more: Any) -> None:
        """Set a message aside with its reason. It is on disk when `sync` or `save` returns."""
        told = {"reason": reason, "topic": topic, "set_aside": round(time.time(), 3), **more}
        if len(body) > MOST_BODY:
            told["body_bytes"] = len(body)
        else:
            try:
                told["body"] = body.decode()
            except UnicodeDecodeError:
                told["body_base64"] = base64.b64encode(body).decode()
        line = json.dumps(told).encode() + b"\n"
        with self._turn, _errors(self.path):
            if os.fstat(self._file).st_size + len(line) > MOST_BYTES:
                os.replace(os.path.join(self.path, SET_ASIDE), os.path.join(self.path, FORMER))
                os.close(self._file)
                self._file = self._open()
                self.set_aside = sum(1 for _ in set_aside(self.path))
            self._unsynced = True
            if os.write(self._file, line) != len(line):
                raise OSError(28, "No space left on device")
        self.set_aside += 1

    def close(self) -> None:
        """Let another bridge have it."""
        os.close(self._file)
        os.close(self._lock)

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        return os.open(os.path.join(self.path, SET_ASIDE), flags, 0o600)


def load(directory: str) -> Cursor | None:
    """The cursor of a state directory, or None if there is none. Raises StateError."""
    path = os.path.join(directory, CURSOR)
    try:
        with open(path, encoding="utf-8") as stream:
            found = json.load(stream)
        return Cursor(int(found["seq"]), str(found["msg_id"]))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateError(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise StateError(f"{path} is no cursor: {error}: write one with --set-cursor") from error


def save(directory: str, cursor: Cursor) -> None:
    """Replace the cursor of a state directory, on disk when this returns. Raises StateError."""
    path = os.path.join(directory, CURSOR)
    told = {"seq": cursor.seq, "msg_id": cursor.msg_id, "saved": round(time.time(), 3)}
    with _errors(path):
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        with open(os.open(path + ".new", flags, 0o600), "w", encoding="utf-8") as stream:
            stream.write(json.dumps(told) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(path + ".new", path)
        entry = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(entry)
        finally:
            os.close(entry)


def set_aside(directory: str) -> Iterator[dict[str, Any]]:
    """What is set aside in a state directory, the oldest first. Raises StateError."""
    for name in (FORMER, SET_ASIDE):
        path = os.path.join(directory, name)
        with _errors(path):
            if not os.path.exists(path):
                continue
            with open(path, "rb") as stream:
                for line in stream:
                    with contextlib.suppress(ValueError):  # a last one that was cut off
                        yield json.loads(line)


@contextlib.contextmanager
def _errors(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StateError(f"{path}: {error.strerror}") from error
