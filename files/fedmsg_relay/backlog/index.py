"""Which messages of the journal have a topic, a category or a user: found without reading them.

The process of the backlog makes the index, and not the relay: writing to the journal costs nothing
more for it, and a journal of any release has one soon after the start. It is a file beside the
journal, and holds nothing that is not in there: whatever is wrong with it, it is made anew.

The journal's seqs are divided into segments. Of each the file has, for each word, how many of its
messages have that word, and which. Those that came after the last segment are kept in memory. The
newest are done first.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
import time
from array import array
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Optional
from urllib.parse import quote

from ..errors import FedmsgRelayError
from ..journal.store import JournalError, JournalReader
from . import postings, words
from .postings import PLACES
from .words import Words

SUFFIX = "-index"
APPLICATION_ID = 0x66656469  # "fedi"
VERSION = 1
SCHEMA = (
    # `last_row` is the last seq that there was in it, and `msg_id` that one's: by it the journal is
    # known again.
    "CREATE TABLE segment (first INTEGER PRIMARY KEY, last INTEGER NOT NULL,"
    " last_row INTEGER NOT NULL, msg_id TEXT NOT NULL)",
    "CREATE TABLE posting (first INTEGER NOT NULL, word TEXT NOT NULL, number INTEGER NOT NULL,"
    " places BLOB NOT NULL, PRIMARY KEY (first, word)) WITHOUT ROWID",
)

# Bytes of bodies after which a segment ends, however few they are: what has to be read again after
# a restart.
SEGMENT_BYTES = 32 << 20
# Different words after which it ends, too: a bound on the memory of what is being made.
SEGMENT_WORDS = 50_000

# Seqs, and bytes of bodies, that are read at once.
STRETCH = 200
STRETCH_BYTES = 2 << 20

# Seconds from one look at the journal to the next, and after a failure; the share of the time that
# the making takes while nobody waits for it; and seconds that somebody waits.
LOOK = 0.5
RETRY = 5.0
SHARE = 0.1
SOON = 0.02
LONGEST_WAIT = 50.0


class NoIndex(FedmsgRelayError):
    """There is none at present: the text says why."""


class NotYet(FedmsgRelayError):
    """It does not reach as far as was asked, yet."""


# Whether the message of that seq, which is too large to have been read, names one of these users.
IsOf = Callable[[int, Collection[str]], bool]


@dataclass
class Part:
    """The messages found in a segment: how many, and, when asked, which. That raises NoIndex."""

    first: int
    number: int
    bits: Callable[[], int]

    def seqs(self) -> list[int]:
        return [self.first + place for place in postings.places_of(self.bits())]


# Of a message: seq, topic, msg_id, bytes of the body, and that, unless it is too large.
_Row = tuple[int, str, str, int, Optional[bytes]]


@dataclass
class _Segment:
    """One that is being made: of the seqs from `first` to `last`."""

    first: int
    last: int
    words: dict[str, array[int]] = field(default_factory=dict)
    bytes: int = 0
    last_row: int = 0
    msg_id: str = ""

    def add(self, row: _Row) -> None:
        seq, topic, msg_id, size, body = row
        place = seq - self.first
        for word in words.words_of(topic, body):
            places = self.words.get(word)
            if places is None:
                places = self.words[word] = array("H")
            places.append(place)
        self.bytes += size
        if seq > self.last_row:
            self.last_row, self.msg_id = seq, msg_id

    def begin_at(self, first: int) -> None:
        """Leave out the places below: there is nothing in them. Of all others, in order."""
        shift = first - self.first
        self.words = {
            word: array("H", (place - shift for place in sorted(places)))
            for word, places in self.words.items()
        }
        self.first = first

    def is_full(self) -> bool:
        return self.bytes >= SEGMENT_BYTES or len(self.words) >= SEGMENT_WORDS


class Index:
    """The index of the journal at `path`. `start` has a thread make it; all may ask it."""

    def __init__(self, path: str) -> None:
        self._journal = path
        self.path = path + SUFFIX
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._hurry = threading.Event()
        self._end = threading.Event()
        self._waiting = 0
        self._db: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        # Both included; all of it is in segments or in the tail.
        self._low, self._high = 1, 0
        self._tail = _Segment(1, 0)
        self._error: str | None = None
        # Whoever asked has met something in the file that cannot be read.
        self._is_broken = False

    def start(self) -> None:
        threading.Thread(target=self._make, name="index", daemon=True).start()

    def stop(self) -> None:
        """Have the thread end, soon."""
        self._end.set()
        self._hurry.set()

    def wait_for(self, reader: JournalReader, first: int, last: int) -> None:
        """Wait until it has the seqs from `first` to `last`. Raises NoIndex and NotYet."""
        end = time.monotonic() + LONGEST_WAIT
        with self._changed:
            self._waiting += 1
            try:
                while not self._has(reader, first, last):
                    if self._error is not None:
                        raise NoIndex(self._error)
                    self._hurry.set()
                    self._changed.wait(min(1.0, max(0.0, end - time.monotonic())))
                    if time.monotonic() > end:
                        raise NotYet(
                            "the index of the backlog is being made, from the newest message to the"
                            f" oldest, and has got to {self._low} of {first}: ask again soon"
                        )
            finally:
                self._waiting -= 1

    def find(self, first: int, last: int, wanted: Words, is_of: IsOf) -> list[Part]:
        """The messages from `first` to `last` that have these words, by segments, ascending.

        Call `wait_for` before. Raises NoIndex.
        """
        asked = wanted.all() | {words.ANY, words.UNREAD}
        with self._errors(), self._lock:
            segments = self._segments(first, last)
            found = {word: self._postings(word, first, last) for word in asked}
        only = wanted.only()
        parts = []
        for begin, end in segments:
            here = {word: parts[begin] for word, parts in found.items() if begin in parts}
            is_read = words.UNREAD not in here or not wanted.users
            if only is not None and is_read and first <= begin and end <= last:
                part = here.get(only)
            else:
                bits = _matching(wanted, here, begin, is_of)
                bits &= postings.between(first - begin, last - begin)
                part = Part(begin, postings.count(bits), partial(int, bits))
            if part is not None and part.number:
                parts.append(part)
        return parts

    # All below with the lock.

    def _has(self, reader: JournalReader, first: int, last: int) -> bool:
        if self._db is None or reader.identity != self._identity:
            return False
        return first > last or (self._low <= first and last <= self._high)

    def _segments(self, first: int, last: int) -> list[tuple[int, int]]:
        found = self._execute(
            "SELECT first, last FROM segment WHERE last >= ? AND first <= ? ORDER BY first",
            first, last,
        )  # fmt: skip
        if self._tail.last >= self._tail.first and self._tail.first <= last:
            found.append((self._tail.first, self._tail.last))
        return found

    def _postings(self, word: str, first: int, last: int) -> dict[int, Part]:
        """By the segments' first seqs."""
        parts = {}
        for begin, number, places in self._execute(
            "SELECT segment.first, number, places FROM segment CROSS JOIN posting"
            " ON posting.first = segment.first AND word = ? WHERE last >= ? AND segment.first <= ?",
            word, first, last,
        ):  # fmt: skip
            parts[begin] = Part(begin, number, partial(self._decode, number, places))
        tail = self._tail.words.get(word)
        if tail:
            begin = self._tail.first
            parts[begin] = Part(begin, len(tail), partial(postings.bits_of, tail[:]))
        return parts

    def _decode(self, number: int, places: bytes) -> int:
        with self._errors():
            return postings.decode(number, places)

    def _execute(self, query: str, *parameters: object) -> list[Any]:
        if self._db is None:
            raise NoIndex(self._error or "the index of the backlog is not open yet")
        return self._db.execute(query, parameters).fetchall()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, ValueError) as error:
            self._is_broken = True
            self._hurry.set()
            raise NoIndex(f"the index of the backlog cannot be read: {error}") from error

    # The thread that makes it.

    def _make(self) -> None:
        reader: JournalReader | None = None
        while not self._end.is_set():
            is_behind, pause = False, LOOK
            try:
                if reader is None or self._is_broken:
                    _close(reader)
                    reader = JournalReader(self._journal)
                    self._open(reader)
                is_behind = self._go_on(reader)
                self._say(None)
            except JournalError:  # of which others tell
                _close(reader)
                reader = None
            except (sqlite3.Error, OSError, ValueError) as error:
                self._is_broken = type(error) is sqlite3.DatabaseError
                self._say(f"the index of the backlog cannot be written: {error}")
                _close(reader)
                reader, pause = None, RETRY
            if not is_behind:
                self._rest(SOON if self._waiting and reader is not None else pause)
        _close(reader)
        with self._lock:
            self._forget()

    def _rest(self, seconds: float) -> None:
        """Leave the time to others, unless somebody waits for this."""
        self._hurry.clear()
        if not self._waiting or seconds == SOON:
            self._hurry.wait(seconds)

    def _say(self, error: str | None) -> None:
        with self._changed:
            if error is not None and self._error is None:
                print(f"http: {error}", file=sys.stderr, flush=True)
            self._error = error
            if error is not None:
                self._forget()
            self._changed.notify_all()

    def _forget(self) -> None:
        if self._db is not None:
            self._db.close()
        self._db = None
        self._low, self._high, self._tail = 1, 0, _Segment(1, 0)

    def _open(self, reader: JournalReader) -> None:
        """Open the file, and keep what it has of this journal."""
        with self._lock:
            self._forget()
            if self._is_broken:
                self._unlink()
            try:
                db = self._connect()
            except (sqlite3.DatabaseError, _Foreign) as error:
                if isinstance(error, sqlite3.OperationalError):
                    raise
                self._unlink()
                db = self._connect()
            self._is_broken = False
            first, last = reader.bounds()
            kept: list[tuple[int, int]] = []
            query = "SELECT first, last, last_row, msg_id FROM segment ORDER BY first DESC"
            for begin, end, last_row, msg_id in db.execute(query).fetchall():
                is_next = not kept or end + 1 == kept[-1][0]
                is_there = last_row < first or reader.msg_id(last_row) == msg_id
                if not (is_next and is_there and end <= last):
                    _remove(db, 0)
                    kept = []
                    break
                kept.append((begin, end))
            self._db = db
            self._identity = reader.identity
            if kept:
                self._low, self._high = kept[-1][0], kept[0][1]
            else:
                self._low, self._high = last + 1, last
            self._tail = _Segment(self._high + 1, self._high)

    def _unlink(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                os.unlink(self.path + suffix)

    def _connect(self) -> sqlite3.Connection:
        os.close(os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        db = sqlite3.connect(
            f"file:{quote(self.path)}", uri=True, isolation_level=None, check_same_thread=False
        )
        try:
            found = db.execute("SELECT sql FROM sqlite_master WHERE sql NOT NULL").fetchall()
            [(application,)] = db.execute("PRAGMA application_id").fetchall()
            [(version,)] = db.execute("PRAGMA user_version").fetchall()
            if found and ((application, version) != (APPLICATION_ID, VERSION)):
                raise _Foreign
            db.execute("PRAGMA page_size = 4096")
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            db.execute("PRAGMA journal_mode = WAL").fetchall()
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("PRAGMA journal_size_limit = 4194304")
            db.execute("PRAGMA cache_size = -2048")  # KiB
            if not found:
                db.execute("BEGIN")
                for statement in SCHEMA:
                    db.execute(statement)
                db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                db.execute(f"PRAGMA user_version = {VERSION}")
                db.execute("COMMIT")
        except BaseException:
            db.close()
            raise
        return db

    def _go_on(self, reader: JournalReader) -> bool:
        """Read a few more messages: newer ones, or else older ones. Whether there may be more."""
        first, last = reader.bounds()
        if last < self._high and last >= first:  # put back from a copy, perhaps
            raise JournalError("journal: it ends before its index")
        self._drop_before(first)
        if self._high < last:
            end = self._upward(reader, first, last)
            return end < last or self._low > first
        if self._low > first and last >= first:
            self._downward(reader, first)
            return self._low > first
        return False

    def _upward(self, reader: JournalReader, first: int, last: int) -> int:
        began = time.monotonic()
        tail = self._tail
        begin = self._high + 1
        if begin < first:  # all that it has was trimmed meanwhile
            with self._lock:
                assert self._db is not None
                _remove(self._db, 0)
                self._low, self._high = first, first - 1
                tail = self._tail = _Segment(first, first - 1)
            begin = first
        end, rows = _read(reader, begin, min(last, begin + STRETCH - 1, tail.first + PLACES - 1))
        with self._changed:
            for row in rows:
                tail.add(row)
            tail.last = self._high = end
            if end - tail.first + 1 >= PLACES or tail.is_full():
                self._store(tail)
                self._tail = _Segment(end + 1, end)
            self._changed.notify_all()
        if end < last:
            self._rest((time.monotonic() - began) * (1 / SHARE - 1))
        return end

    def _downward(self, reader: JournalReader, first: int) -> None:
        """A whole segment of older messages."""
        segment = _Segment(max(first, self._low - PLACES), self._low - 1)
        at = segment.last
        while at >= segment.first and not segment.is_full():
            if self._end.is_set():
                return
            began = time.monotonic()
            begin, rows = _read_back(reader, max(segment.first, at - STRETCH + 1), at)
            for row in rows:
                segment.add(row)
            at = begin - 1
            self._rest((time.monotonic() - began) * (1 / SHARE - 1))
        segment.begin_at(at + 1)
        with self._changed:
            self._store(segment)
            self._low = segment.first
            self._changed.notify_all()

    def _store(self, segment: _Segment) -> None:
        assert self._db is not None
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.execute(
                "INSERT INTO segment VALUES (?, ?, ?, ?)",
                (segment.first, segment.last, segment.last_row, segment.msg_id),
            )
            self._db.executemany(
                "INSERT INTO posting VALUES (?, ?, ?, ?)",
                (
                    (segment.first, word, len(places), postings.encode(places))
                    for word, places in sorted(segment.words.items())
                ),
            )
            self._db.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise

    def _drop_before(self, first: int) -> None:
        """Forget segments of messages that have been trimmed, all of them."""
        if self._low >= first:
            return
        with self._lock:
            assert self._db is not None
            if not self._execute("SELECT 1 FROM segment WHERE last < ? LIMIT 1", first):
                return
            _remove(self._db, first)
            found = self._execute("SELECT min(first) FROM segment")[0][0]
            self._low = self._tail.first if found is None else found


class _Foreign(Exception):
    """It is another program's file, or of another version."""


def _matching(wanted: Words, here: dict[str, Part], begin: int, is_of: IsOf) -> int:
    """The places of a segment whose messages match."""

    def having(kind: str, texts: Collection[str]) -> int:
        bits = 0
        for text in texts:
            part = here.get(words.word(kind, text))
            bits |= 0 if part is None else part.bits()
        return bits

    def naming(users: Collection[str], among: int) -> int:
        bits = having(words.USER, users) & among
        unread = here.get(words.UNREAD)
        left = 0 if unread is None else unread.bits() & among & ~bits
        for place in postings.places_of(left):
            if is_of(begin + place, users):
                bits |= 1 << place
        return bits

    bits = here[words.ANY].bits() if words.ANY in here else 0
    if wanted.topics:
        bits &= having(words.TOPIC, wanted.topics)
    if wanted.categories:
        bits &= having(words.CATEGORY, wanted.categories)
    bits &= ~having(words.TOPIC, wanted.not_topics)
    bits &= ~having(words.CATEGORY, wanted.not_categories)
    if wanted.users:
        bits &= naming(wanted.users, bits)
    if wanted.not_users:
        bits &= ~naming(wanted.not_users, bits)
    return bits


def _read(reader: JournalReader, first: int, last: int) -> tuple[int, Sequence[_Row]]:
    """Some messages from `first` on, and the seq up to which that is all of them."""
    sizes = reader.sizes_between(first, last)
    total = 0
    for seq, size in sizes:
        total += size if size <= words.LARGEST else 0
        if total > STRETCH_BYTES:
            last = max(first, seq - 1)
            break
    return last, reader.between(first, last, words.LARGEST)


def _read_back(reader: JournalReader, first: int, last: int) -> tuple[int, Sequence[_Row]]:
    """Some messages up to `last`, and the seq from which that is all of them."""
    total = 0
    for seq, size in reversed(reader.sizes_between(first, last)):
        total += size if size <= words.LARGEST else 0
        if total > STRETCH_BYTES:
            first = min(last, seq + 1)
            break
    return first, reader.between(first, last, words.LARGEST)


def _remove(db: sqlite3.Connection, before: int) -> None:
    """Take away the segments that end before that seq; all with 0."""
    where = "WHERE last < ?" if before else "WHERE ? = 0"
    db.execute("BEGIN IMMEDIATE")
    try:
        db.execute(
            f"DELETE FROM posting WHERE first IN (SELECT first FROM segment {where})", (before,)
        )
        db.execute(f"DELETE FROM segment {where}", (before,))
        db.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise


def _close(reader: JournalReader | None) -> None:
    if reader is not None:
        reader.close()
