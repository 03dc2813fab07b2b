"""The spool: messages on this host's disk that no relay has taken yet, one file each.

Any user may add a file to the directory; none but its owner, who drains it, can list it or read the
files (mode 3733: others may create, not list; the sticky bit keeps them from removing what is not
theirs; the files, mode 0640, are of the directory's group by its setgid bit). The owner keeps a
subdirectory `failed` and, while the spool is full, a file `.full`, since others cannot count.

A file is the topic, a newline, and the body, which is JSON in one line. Its name sorts by time.
"""

from __future__ import annotations

import os
import stat
import time

from .errors import SpoolError

TEMPORARY = ".tmp-"  # begins the name of a file that is being written
FULL = ".full"
FAILED = "failed"

# What is left free on the file system for others: this part of it, or so much if that is less.
_RESERVED = 0.05
_RESERVED_BYTES = 256 << 20
_RESERVED_FILES = 10_000


class Spool:
    """Writes to the spool `directory`, which may take `max_bytes` of the disk."""

    def __init__(self, directory: str, max_bytes: int) -> None:
        self.directory = directory
        self._max_bytes = max_bytes
        self._used: int | None = None
        self._last = 0

    def write(self, topic: bytes, body: bytes) -> str:
        """Add one message and return the file's path: it is on disk then. Raises SpoolError."""
        content = encoded(topic, body)
        try:
            directory = os.stat(self.directory)
            self._check_room(directory, len(content))
            path = self._write(directory, content)
        except FileNotFoundError:
            raise SpoolError(f"there is no spool {self.directory} (publisher_spool)") from None
        except OSError as error:
            raise SpoolError(f"spool {self.directory}: {error.strerror}") from error
        if self._used is not None:
            self._used += _blocks(len(content))
        return path

    def _write(self, directory: os.stat_result, content: bytes) -> str:
        name = self._new_name()
        path = os.path.join(self.directory, name)
        written = os.path.join(self.directory, TEMPORARY + name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(written, flags, 0o600)
        try:
            # The group is the drainer's if the directory sets it, and else this user's own.
            if directory.st_mode & stat.S_ISGID:
                os.fchmod(descriptor, 0o640)
            left = memoryview(content)
            while left:
                left = left[os.write(descriptor, left) :]
            os.fsync(descriptor)
            os.rename(written, path)
            written = path
            # The name, too. Who cannot read a directory cannot fsync it; a file's own fsync brings
            # its renaming to disk with ext4, XFS and Btrfs.
            os.fsync(descriptor)
        except BaseException:
            from contextlib import suppress

            with suppress(OSError):
                os.unlink(written)
            raise
        finally:
            os.close(descriptor)
        return path

    def _new_name(self) -> str:
        # One process's messages keep their order even if the clock is set back.
        self._last = max(self._last + 1, time.time_ns())
        return f"{self._last:020d}-{os.urandom(8).hex()}"

    def _check_room(self, directory: os.stat_result, size: int) -> None:
        if self._is_full(directory, size):
            raise SpoolError(
                f"spool {self.directory} is full: it may take {self._max_bytes} bytes of the disk"
                " (publisher_spool_max_bytes)"
            )
        room = os.statvfs(self.directory)
        reserved = min(_RESERVED_BYTES, int(room.f_blocks * room.f_frsize * _RESERVED))
        files = min(_RESERVED_FILES, int(room.f_files * _RESERVED))
        if room.f_bavail * room.f_frsize < reserved + size or (
            room.f_files and room.f_favail < files
        ):
            raise SpoolError(f"spool {self.directory}: its file system is nearly full")

    def _is_full(self, directory: os.stat_result, size: int) -> bool:
        try:
            # Anyone could have made one. The owner's says what only the owner can know.
            if os.lstat(os.path.join(self.directory, FULL)).st_uid == directory.st_uid:
                return True
        except FileNotFoundError:
            pass
        if not os.access(self.directory, os.R_OK):
            return False
        if self._used is None or self._used + _blocks(size) > self._max_bytes:
            self._used = used_bytes(self.directory)  # it may have been drained meanwhile
        return self._used + _blocks(size) > self._max_bytes


def encoded(topic: bytes, body: bytes) -> bytes:
    """The content of a message's file."""
    return topic + b"\n" + body


def decoded(content: bytes) -> tuple[bytes, bytes]:
    """Topic and body from a file's content. Raises ValueError."""
    topic, newline, body = content.rpartition(b"\n")
    if not newline:
        raise ValueError("it is not a topic, a newline and a body")
    return topic, body


def used_bytes(directory: str) -> int:
    """What the spool's files take of the disk. For who may list it; raises OSError."""
    used = 0
    with os.scandir(directory) as entries:
        for entry in entries:
            try:
                used += entry.stat(follow_symlinks=False).st_blocks * 512
            except FileNotFoundError:  # drained meanwhile
                continue
    return used


def _blocks(size: int) -> int:
    return -(-size // 4096) * 4096
