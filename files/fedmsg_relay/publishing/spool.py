"""The spool: messages on this host's disk that no relay has taken yet, one file each.

Any user may add a file to the directory; none but its owner, who drains it, can list it or read the
files (mode 3733: others may create, not list; the sticky bit keeps them from removing what is not
theirs; the files, mode 0640, are of the directory's group by its setgid bit). The owner keeps a
subdirectory `failed`, and one of marks for users whose share of the spool is used up: see quota.py.

A file is the topic, a newline, and the body, which is JSON in one line. Its name sorts by time.
"""

from __future__ import annotations

import os
import stat
import time

from ..errors import SpoolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

TEMPORARY = ".tmp-"  # begins the name of a file that is being written
FAILED = "failed"
BLOCK = 4096  # bytes of the disk: the least that a message takes

# Files that are written together: they are open meanwhile, of 1,024 that a process may have.
_TOGETHER = 100
# So many are worth the threads that wait for the disk beside each other.
_MANY = 8
_THREADS = 32

# What is left free on the file system for others: this part of it, or so much if that is less.
_RESERVED = 0.05
_RESERVED_BYTES = 256 << 20
_RESERVED_FILES = 10_000


class Spool:
    """Writes to the spool `directory`, which may take `max_bytes` of the disk."""

    def __init__(self, directory: str, max_bytes: int) -> None:
        self.directory = directory
        self._max_bytes = max_bytes
        self._room: int | None = None  # where this user may count
        self._last = 0

    def write(self, topic: bytes, body: bytes) -> str:
        """Add one message and return the file's path: it is on disk then. Raises SpoolError."""
        [written] = self.write_all([(topic, body)])
        if isinstance(written, SpoolError):
            raise written
        return written

    def write_all(self, messages: Iterable[tuple[bytes, bytes]]) -> list[str | SpoolError]:
        """Add messages, each a topic and a body: of each its path, or why it is not there.

        They are on disk then. Together they wait for it as long as a few of them would.
        """
        found: list[str | SpoolError] = []
        waiting = list(messages)
        for start in range(0, len(waiting), _TOGETHER):
            found += self._write_some(waiting[start : start + _TOGETHER])
        return found

    def _write_some(self, messages: list[tuple[bytes, bytes]]) -> list[str | SpoolError]:
        files: list[_File | SpoolError] = []
        for topic, body in messages:
            try:
                files.append(self._begin(encoded(topic, body)))
            except FileNotFoundError:
                files.append(SpoolError(f"there is no spool {self.directory} (publisher_spool)"))
            except OSError as error:
                files.append(SpoolError(f"spool {self.directory}: {error.strerror}"))
            except SpoolError as error:
                files.append(error)
        try:
            # What is written, and then the names. Who cannot read a directory cannot fsync it; a
            # file's own fsync brings its renaming to disk with ext4, XFS and Btrfs.
            for step in (_File.sync, _File.put_in_place, _File.sync):
                open_files = [file for file in files if not isinstance(file, SpoolError)]
                for opened, fault in zip(open_files, _each(step, open_files)):
                    if fault is not None:
                        opened.abandon()
                        text = f"spool {self.directory}: {fault.strerror}"
                        files[files.index(opened)] = SpoolError(text)
        except BaseException:
            for file in files:
                if not isinstance(file, SpoolError):
                    file.abandon()
            raise
        for file in files:
            if not isinstance(file, SpoolError):
                os.close(file.descriptor)
        return [file if isinstance(file, SpoolError) else file.path for file in files]

    def _begin(self, content: bytes) -> _File:
        """Write a file that is not in place yet."""
        directory = os.stat(self.directory)
        self._check_room(directory, len(content))
        file = _File(self.directory, self._new_name())
        try:
            # The group is the drainer's if the directory sets it, and else this user's own.
            if directory.st_mode & stat.S_ISGID:
                os.fchmod(file.descriptor, 0o640)
            left = memoryview(content)
            while left:
                left = left[os.write(file.descriptor, left) :]
        except BaseException:
            file.abandon()
            raise
        if self._room is not None:
            self._room -= _blocks(len(content))
        return file

    def _new_name(self) -> str:
        # One process's messages keep their order even if the clock is set back.
        self._last = max(self._last + 1, time.time_ns())
        return f"{self._last:020d}-{os.urandom(8).hex()}"

    def _check_room(self, directory: os.stat_result, size: int) -> None:
        from . import quota  # most messages are never spooled

        if not self._has_room(directory, _blocks(size)):
            whose = " for this user's messages" if quota.is_shared(directory) else ""
            raise SpoolError(
                f"spool {self.directory} is full{whose}: it may take {self._max_bytes} bytes of the"
                " disk (publisher_spool_max_bytes)"
            )
        room = os.statvfs(self.directory)
        reserved = min(_RESERVED_BYTES, int(room.f_blocks * room.f_frsize * _RESERVED))
        files = min(_RESERVED_FILES, int(room.f_files * _RESERVED))
        if room.f_bavail * room.f_frsize < reserved + size or (
            room.f_files and room.f_favail < files
        ):
            raise SpoolError(f"spool {self.directory}: its file system is nearly full")

    def _has_room(self, directory: os.stat_result, size: int) -> bool:
        """Whether this user may add so many bytes."""
        from . import quota

        user = os.geteuid()
        if not os.access(self.directory, os.R_OK):
            return not quota.is_marked(self.directory, directory, user)
        if self._room is None or self._room < size:  # it may have been drained meanwhile
            used = quota.used_by_owner(self.directory)
            self._room = quota.room(directory, used, self._max_bytes, user)
        return self._room >= size


class _File:
    """A file of the spool, first by a name that says that it is being written."""

    def __init__(self, directory: str, name: str) -> None:
        self.path = os.path.join(directory, name)
        self._written = os.path.join(directory, TEMPORARY + name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self.descriptor = os.open(self._written, flags, 0o600)

    def sync(self) -> None:
        os.fsync(self.descriptor)

    def put_in_place(self) -> None:
        os.rename(self._written, self.path)
        self._written = self.path

    def abandon(self) -> None:
        """Close it and take it away, whatever it is called by now."""
        from contextlib import suppress

        with suppress(OSError):
            os.unlink(self._written)
        with suppress(OSError):
            os.close(self.descriptor)


def _each(step: Callable[[_File], None], files: list[_File]) -> list[OSError | None]:
    """Take a step with each file; of each, what it raised.

    With many at the same time: a disk has them all together at a fraction of the cost.
    """

    def take(file: _File) -> OSError | None:
        try:
            step(file)
        except OSError as error:
            return error
        return None

    if step is _File.sync and len(files) >= _MANY:
        return _with_threads(take, files)
    return [take(file) for file in files]


def _with_threads(
    take: Callable[[_File], OSError | None], files: list[_File]
) -> list[OSError | None]:
    """What `take` returns for each file, by several threads and this one.

    Not by concurrent.futures: whoever forks meanwhile would fork while that is imported, or with
    its hooks, see `importing`.
    """
    import threading

    raised: list[OSError | None] = [None] * len(files)
    left = iter(range(len(files)))

    def work() -> None:
        for number in left:
            raised[number] = take(files[number])

    threads = [threading.Thread(target=work) for _ in range(_THREADS - 1)]
    started = []
    for thread in threads:
        try:
            thread.start()
        except RuntimeError:  # this user may have no more threads
            break
        started.append(thread)
    work()
    for thread in started:
        thread.join()
    return raised


def encoded(topic: bytes, body: bytes) -> bytes:
    """The content of a message's file."""
    return topic + b"\n" + body


def decoded(content: bytes) -> tuple[bytes, bytes]:
    """Topic and body from a file's content. Raises ValueError."""
    topic, newline, body = content.rpartition(b"\n")
    if not newline:
        raise ValueError("it is not a topic, a newline and a body")
    return topic, body


def _blocks(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
