"""Empty the spool: `fedmsg-logger --drain`, which a systemd unit runs as the spool's owner.

Users take turns, and the oldest of each go first: see spooled.py. A file is removed once a relay
has acknowledged its message or, where a relay does not acknowledge, once all of it has left this
host.
One that can never be delivered is moved to `failed/` with the reason beside it, and holds up no
other. Nor does one that takes long: a large message goes when all others that were there have gone.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from ..checks.wire import Checker
from ..config import Config
from ..errors import SpoolError
from . import quota, spooled
from .delivery import ACKED, HANDED, REFUSED, Delivery, Outcome
from .delivery import FAILED as NOT_DELIVERED
from .spool import BLOCK, FAILED, decoded
from .spooled import Spooled

# Seconds for which no relay may take anything before the rest is left for the next time.
TIMEOUT = 20
# Milliseconds for messages to leave for a relay that does not acknowledge, and more for large ones.
LINGER = 10_000

# Seconds for which what is listed is sent before it is listed anew, with what others have added.
# And for large messages, of which one at least is sent.
ROUND = 10.0
LARGE_ROUND = 1.0
# Large messages of which a relay took a part only, before the rest is left for the next time.
MOST_FAILED = 3
# Files that are sent at a time to a relay that does not acknowledge.
UNACKNOWLEDGED = 500
UNACKNOWLEDGED_BYTES = 8 << 20

STALE = 3600  # seconds after which a file that is still being written never will be

# What failed/ may hold. The oldest are removed for new ones.
FAILED_FILES = 10_000
FAILED_PART = 10  # of publisher_spool_max_bytes: one in so many

REASON = ".reason"
LOCK = ".lock"
SHOWN = 10  # files of failed/ that are named one by one
_LONGEST_NAME = 200  # bytes: room for what is added


class Drained(NamedTuple):
    """Messages `delivered`, files `failed`, and why files were `left`, or None."""

    delivered: int
    failed: int
    left: str | None


def drain(config: Config, timeout: float = TIMEOUT) -> Drained:
    """Deliver what is in `publisher_spool`, until it is empty or no relay takes any for `timeout`.

    As root this process becomes the spool's owner first, for good. Raises SpoolError.
    """
    path = config["publisher_spool"]
    if path is None:
        raise SpoolError("config key publisher_spool is not set: there is no spool")
    _become_owner(path)
    try:
        with (
            _opened(path) as directory,
            _opened_failed(path, directory) as failed,
            _locked(failed) as is_ours,
        ):
            if not is_ours:
                return Drained(0, 0, "another process is draining it")
            limited = {**config, "timeout": timeout, "zmq_linger": LINGER}
            return _Drain(limited, directory, failed).run()
    except OSError as error:
        raise SpoolError(f"spool {path}: {error.strerror}") from error


class _Drain:
    """One run over the spool. `directory` and `failed` are descriptors of its directories."""

    def __init__(self, config: Config, directory: int, failed: int) -> None:
        self._config = config
        self._directory = directory
        self._failed = failed
        self._max_message = config["relay_max_message_bytes"]
        self._checker = Checker(self._max_message)
        self._delivery: Delivery | None = None
        self._handed: list[str] = []  # to a relay that does not acknowledge, and not known to leave
        self._handed_bytes = 0
        # What cannot even be moved to failed/, and large messages that a relay took a part of only.
        self._passed_over: set[str] = set()
        self._last_large = -1  # the owner of the one that was sent last
        self._parts = 0
        self._delivered = 0
        self._failures = 0
        self._left: str | None = None
        self._why: str | None = None  # some were passed over

    def run(self) -> Drained:
        try:
            while self._left is None:
                rest, large = spooled.parted(self._scan())
                if not rest and not large:
                    break
                self._send(rest, ROUND)
                self._send(self._others_first(large), LARGE_ROUND)
        finally:
            if self._delivery is not None:
                self._delivery.close(leaving=True)
        self._prune_failed()
        return Drained(self._delivered, self._failures, self._left or self._why)

    def _scan(self) -> dict[int, list[Spooled]]:
        """What waits, by owner; on the way, see to what is not messages."""
        found = spooled.scan(self._directory, self._passed_over, self._tidy)
        about, most = os.fstat(self._directory), self._config["publisher_spool_max_bytes"]
        with suppress(OSError):  # it may be the disk itself that is full
            quota.mark(
                self._directory,
                {user for user in found.used if quota.room(about, found.used, most, user) < BLOCK},
            )
        return found.waiting

    def _others_first(self, large: list[Spooled]) -> list[Spooled]:
        """Whoever sent the last large message waits until another user has had a turn."""
        return sorted(large, key=lambda each: each.owner == self._last_large)

    def _send(self, files: list[Spooled], seconds: float) -> None:
        """Send what was listed, one file at least, and stop after so many seconds."""
        end = time.monotonic() + seconds
        for each in files:
            if each.size > spooled.LARGE:
                self._last_large = each.owner
                self._deliver(each.name)
                self._finish()  # by itself: nothing is to wait behind it
            else:
                self._deliver(each.name)
            if self._left is not None or time.monotonic() > end:
                break
        self._finish()

    def _finish(self) -> None:
        if self._delivery is not None:
            self._delivery.finish()
        self._flush()

    def _tidy(self, name: str, about: os.stat_result) -> None:
        # Not the time of modification, which its owner may set as he likes.
        stale = time.time() - about.st_ctime > STALE
        if stale and not stat.S_ISDIR(about.st_mode):
            self._remove(name)

    def _deliver(self, name: str) -> None:
        try:
            topic, body = self._read(name)
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            self._fail(name, getattr(error, "strerror", None) or str(error))
            return
        if self._delivery is None:
            self._delivery = Delivery(self._config, None, self._take, is_patient=True)
        self._delivery.put(topic, body, (name, len(topic) + len(body)))
        full = self._handed_bytes >= UNACKNOWLEDGED_BYTES or len(self._handed) >= UNACKNOWLEDGED
        if full:
            self._flush()

    def _read(self, name: str) -> tuple[bytes, bytes]:
        """Topic and body of a file, which may be anything: any user can put one here.

        Raises OSError, or ValueError with the reason why it is not a message.
        """
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(name, flags, dir_fd=self._directory)
        try:
            about = os.fstat(descriptor)
            if not stat.S_ISREG(about.st_mode):
                raise ValueError("it is not a regular file")
            if about.st_nlink != 1:
                # A link to what only we may read would have us publish that.
                raise ValueError("the file has another name elsewhere")
            if about.st_size > self._max_message + 1:
                raise ValueError(
                    f"it is {about.st_size} bytes, relays take {self._max_message}"
                    " (relay_max_message_bytes)"
                )
            with open(descriptor, "rb", closefd=False) as stream:
                content = stream.read(self._max_message + 2)
        finally:
            os.close(descriptor)
        topic, body = decoded(content)
        checked = self._checker.check([topic, body])
        if checked.cause is not None:
            raise ValueError(f"it is not a message as publishers write it: {checked.cause}")
        return topic, body

    def _take(self, tag: tuple[str, int], outcome: Outcome) -> None:
        name, size = tag
        if outcome.kind == ACKED:
            self._remove(name)
            self._delivered += 1
        elif outcome.kind == HANDED:
            self._handed.append(name)
            self._handed_bytes += size
        elif outcome.kind == REFUSED:
            self._fail(name, f"{outcome.where} refused it: {outcome.why}")
        elif outcome.kind == NOT_DELIVERED and outcome.where and size > spooled.LARGE:
            # It may be that one and no other: it takes too long for a line that does not hold.
            self._passed_over.add(name)
            self._parts += 1
            self._why = outcome.why
            if self._parts >= MOST_FAILED:
                self._left = outcome.why
        else:
            self._left = outcome.why

    def _flush(self) -> None:
        """Wait until all of what was handed to a relay that does not acknowledge has left."""
        if self._delivery is None or not self._handed:
            return
        has_left = self._delivery.close()
        self._delivery = None
        if has_left:
            for name in self._handed:
                self._remove(name)
            self._delivered += len(self._handed)
        else:
            self._left = "a relay that does not acknowledge did not take all of it in time"
        self._handed, self._handed_bytes = [], 0

    def _fail(self, name: str, reason: str) -> None:
        kept = os.fsdecode(os.fsencode(name)[:_LONGEST_NAME])
        try:
            os.rename(name, kept, src_dir_fd=self._directory, dst_dir_fd=self._failed)
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(kept + REASON, flags, 0o600, dir_fd=self._failed)
            try:
                os.write(descriptor, reason.encode(errors="backslashreplace") + b"\n")
            finally:
                os.close(descriptor)
        except FileNotFoundError:
            return
        except OSError as error:
            self._passed_over.add(name)
            reason = f"{reason}; and it cannot be moved to {FAILED}/: {error.strerror}"
        self._failures += 1
        if self._failures <= SHOWN:
            more = "; more of these are only counted" * (self._failures == SHOWN)
            print(f"fedmsg-logger: {name!a} goes to {FAILED}/: {reason}{more}", file=sys.stderr)

    def _prune_failed(self) -> None:
        """Remove the oldest of failed/ where it holds more than it may."""
        with os.scandir(self._failed) as entries:
            found = sorted(
                (entry.name, entry.stat(follow_symlinks=False))
                for entry in entries
                if entry.name != LOCK and not entry.name.endswith(REASON)
            )
        used = sum(about.st_blocks * 512 for _, about in found)
        most = self._config["publisher_spool_max_bytes"] // FAILED_PART
        removed = 0
        for name, about in found:
            if used <= most and len(found) - removed <= FAILED_FILES:
                break
            for one in (name, name + REASON):
                with suppress(FileNotFoundError):
                    os.unlink(one, dir_fd=self._failed)
            used -= about.st_blocks * 512
            removed += 1
        if removed:
            print(f"fedmsg-logger: {FAILED}/ was full: {removed} files removed", file=sys.stderr)

    def _remove(self, name: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._directory)


def _become_owner(path: str) -> None:
    """Only the owner may list the spool; root takes its place, and can then do no harm by it."""
    try:
        about = os.stat(path)
    except OSError as error:
        raise SpoolError(f"spool {path}: {error.strerror}") from error
    if about.st_uid == os.geteuid():
        return
    if os.geteuid() != 0:
        raise SpoolError(
            f"spool {path} belongs to {_user_name(about.st_uid)}:"
            " only that user or root may drain it"
        )
    os.setgroups([])
    os.setgid(about.st_gid)
    os.setuid(about.st_uid)


def _user_name(uid: int) -> str:
    import pwd

    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user number {uid}"


@contextmanager
def _opened(path: str, flags: int = 0, dir_fd: int | None = None) -> Iterator[int]:
    flags |= os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    descriptor = os.open(path, flags, dir_fd=dir_fd)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _opened_failed(path: str, directory: int) -> Iterator[int]:
    # Anyone can take the name where there is none: whoever has, shall not stop the delivery.
    with suppress(FileNotFoundError):
        there = os.stat(FAILED, dir_fd=directory, follow_symlinks=False)
        if there.st_uid != os.geteuid():
            quota.set_aside(directory, FAILED)
    with suppress(FileExistsError):
        os.mkdir(FAILED, 0o700, dir_fd=directory)
    try:
        with _opened(FAILED, os.O_NOFOLLOW, directory) as failed:
            about = os.fstat(failed)
            if about.st_uid != os.geteuid() or stat.S_IMODE(about.st_mode) & 0o077:
                raise SpoolError(
                    f"{os.path.join(path, FAILED)} must belong to the owner of {path}, with mode"
                    " 0700: correct it or remove it"
                )
            yield failed
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        raise SpoolError(f"{os.path.join(path, FAILED)} is not a directory: remove it") from error


@contextmanager
def _locked(failed: int) -> Iterator[bool]:
    """Whether the lock is ours until the end: two that drain would each send all of it."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(LOCK, flags, 0o600, dir_fd=failed)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
