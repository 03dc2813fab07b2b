"""The journal: the relay's durable, bounded history of what it relayed, in one SQLite file.

Each message has a sequence number, `seq`: consecutive, and never used again. The oldest messages go
first, always, so that what is stored is one unbroken run of them, in the order they were received.
Everything below counts on that: a position in time is found by halving, and pages by subtraction.

The file is written by one thread of the relay, and read by others at the same time (SQLite's WAL
mode). It is private to the user it belongs to.
"""

from __future__ import annotations

import json
import math
import os
import sqlite3
import time
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import accumulate, chain
from operator import attrgetter
from typing import Any, Callable, NamedTuple, cast
from urllib.parse import quote

from ..errors import FedmsgRelayError

# In the header of the file: whose it is, and which of our schemas.
APPLICATION_ID = 0x66656465  # "fede"
SCHEMA_VERSION = 2
SCHEMA = (
    "CREATE TABLE message (seq INTEGER PRIMARY KEY AUTOINCREMENT, received REAL NOT NULL,"
    " topic TEXT NOT NULL, msg_id TEXT NOT NULL, body BLOB NOT NULL,"
    " known INTEGER NOT NULL DEFAULT 1)",
    # Not all rows are known by their msg_id: see KNOWN_GROUP.
    "CREATE INDEX message_known ON message (msg_id) WHERE known",
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
)
# In version 1 all rows were. SQLite writes the new column into the table's statement just as it
# stands above.
INDEX_OF_VERSION_1 = "CREATE INDEX message_msg_id ON message (msg_id)"
FROM_VERSION_1 = (
    "DROP INDEX message_msg_id",
    "ALTER TABLE message ADD COLUMN known INTEGER NOT NULL DEFAULT 1",
    SCHEMA[1],
)

# Rows that one INSERT takes. Every step of SQLite gives the interpreter's lock away and has to get
# it back from the thread of the sockets, which under load takes milliseconds each time. A smaller
# rest goes by halves of this, so that there are few different statements, all of them prepared.
ROWS_A_STATEMENT = 1024
COLUMNS = 5

# Rows stored at once up to which all of them can be found by their msg_id; of more only those that
# were submitted, which may be submitted again. msg_ids are random, so each entry is on a page of
# its own: in a flood that would be three quarters of the work of writing, and the next ones wait.
KNOWN_GROUP = 50

# Rows deleted at once, at most: about a tenth of a second.
TRIMMED_AT_ONCE = 20_000

# Bytes removed at once beyond what has to be: a few thousand small rows, some milliseconds.
SPARE_BYTES = 1 << 20

# Free pages given back at once to the file system, where the file is larger than its bound.
GIVEN_BACK_AT_ONCE = 500

# Bytes a row takes in the file beside its columns, index included, and what a page holds.
ROW_OVERHEAD = 64
PAGE = 4096

# A file up to this size, in bytes, is checked whole when it is opened; in a larger one damage is
# met when the damaged part is.
CHECKED_WHOLE = 32 << 20

# Pages in the write-ahead log before they are copied into the file, and the bytes it keeps then.
CHECKPOINT_PAGES = 4000
WAL_BYTES = 64 << 20

# Rows, and bytes of them, whose times are corrected in one transaction.
RESTAMPED_AT_ONCE = 2_000
RESTAMPED_BYTES = 4 << 20

# In `meta`: jumps of the clock as [seq, seconds] each, and what is left of correcting times.
JUMPS = "clock-jumps"
RESTAMP = "clock-restamp"

# What SQLite keeps beside the file.
BESIDE = ("-wal", "-shm")

# Seconds to wait for another process that holds the file, such as somebody's sqlite3.
BUSY = 5.0


class JournalError(FedmsgRelayError):
    """The journal cannot be opened, written or read: the text says why. Nothing was stored."""


class DamageError(JournalError):
    """The file is there, and is no longer what was written to it."""


class Row(NamedTuple):
    """What is journaled of a message. `received` is in seconds since 1970."""

    received: float
    topic: str
    msg_id: str
    body: bytes
    submitted: bool = False


# As Row(*fields), in a third of the time: a NamedTuple's own constructor is a function in Python.
make_row = cast(Callable[[tuple[float, str, str, bytes, bool]], Row], partial(tuple.__new__, Row))


_RECEIVED, _TOPIC = attrgetter("received"), attrgetter("topic")
_MSG_ID, _BODY = attrgetter("msg_id"), attrgetter("body")


class Stored(NamedTuple):
    """A message of the journal; `received` never decreases as `seq` grows."""

    seq: int
    received: float
    topic: str
    msg_id: str
    body: bytes


class Journal:
    """The journal as the relay writes it. One thread at a time may use an instance.

    `max_age` is in seconds, `max_bytes` bounds the file; the write-ahead log beside it takes up to
    WAL_BYTES more. The newest message stays, however old and large. Both bounds hold again after
    each `append`, unless more than TRIMMED_AT_ONCE rows were over them: then after the next ones.

    A file that is damaged, of another program or of a newer version is moved aside, with a line in
    `moved_aside`, and a new one is started. Raises JournalError when that cannot be, either.

    A new file counts on from `after`, the last seq that was used before it.
    """

    def __init__(self, path: str, max_age: float, max_bytes: int, after: int = 0) -> None:
        self.path = path
        self.moved_aside: str | None = None
        # The file that was moved aside, once it has been.
        self.aside: str | None = None
        self._after = after
        self._undermined = False
        # Which files are beside it, once it is open.
        self._beside: list[tuple[int, int] | None] = []
        # Jumps of the clock, ahead: rows up to that seq were received that much less long ago than
        # their times say.
        self._jumps: list[tuple[int, float]] = []
        # The next seq whose time is to be corrected, by how much, and the least that it may be.
        self._restamp: tuple[int, float, float] | None = None
        self._max_age = max_age
        self._max_bytes = max_bytes
        # Of the message stored last, even if it has been trimmed since; 0 if there was none.
        self.last_seq = 0
        self._last_received = 0.0
        # Rows that went for want of room, and so before their age.
        self.trimmed_early = 0
        # Bytes up to the bound, and when the oldest row was received, as of the last look.
        self._room = 0
        self._oldest = math.inf
        with _errors(path):
            try:
                self._open()
            except (_Unusable, sqlite3.DatabaseError) as error:
                if not _is_damage(error):
                    raise
                self.moved_aside = f"{self._move_aside(error)}, started a new one"
                self._beside = []
                self._open()

    def append(self, rows: Sequence[Row]) -> list[int]:
        """Store `rows` in one transaction, on disk when this returns. Returns their seqs.

        A `received` before that of the row stored last becomes the same: a clock that was set back
        must not hide messages from whoever asks for all since some moment. Raises JournalError;
        nothing of `rows` is stored then.
        """
        if not rows:
            return []
        now = rows[-1].received
        rows = _storable_rows(rows, self._last_received)
        incoming = _bytes_in_file(rows)
        with self._transaction():
            # Each look at the file gives the interpreter's lock away a dozen times.
            is_due = incoming > self._room or self._oldest < now - self._max_age
            if is_due:
                self._make_room(now, incoming, TRIMMED_AT_ONCE)
            last = self._insert(list(chain.from_iterable(rows)))
            self._room -= incoming
            self._oldest = min(self._oldest, rows[0].received)
            if is_due:  # `incoming` is an estimate; nearly always there is nothing left to do
                self._make_room(now, 0, TRIMMED_AT_ONCE)
        self._last_received = rows[-1].received
        self.last_seq = last
        return list(range(last - len(rows) + 1, last + 1))

    def find(self, msg_ids: Sequence[str]) -> dict[str, int]:
        """The first seq of each of `msg_ids` that is known. Raises JournalError.

        Known is what was submitted, and what was stored in a group of at most KNOWN_GROUP.
        """
        with self._errors():
            return _find(self._db, msg_ids)

    def trim(self, now: float, most: int = TRIMMED_AT_ONCE) -> int:
        """Delete what is over the bounds, at most `most` rows. Returns how many.

        Raises JournalError.
        """
        with self._transaction():
            return self._make_room(now, 0, most)

    def remember(self, key: str, value: str) -> None:
        """Keep `value` under `key`, on disk when this returns. Raises JournalError."""
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def recall(self, key: str) -> str | None:
        """What was last remembered under `key`. Raises JournalError."""
        with self._errors():
            found = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchall()
        return str(found[0][0]) if found else None

    def is_replaced(self) -> bool:
        """Whether the path leads to another file by now, or to none: open a new Journal then.

        This one refuses to write.
        """
        return _identity(self.path) != self._identity

    def check_files(self) -> None:
        """Raise JournalError if a file was removed or replaced: open a new Journal then.

        Where it was the write-ahead log or the index of that, what they held is saved before: it is
        still open here.
        """
        if self.is_replaced():
            # SQLite would go on writing to a file that nobody can find any more.
            raise JournalError(f"journal: {self.path} was removed or replaced")
        if self._undermined or self._is_undermined():
            self._save_log()
            self.close()
            raise JournalError(
                f"journal: {self.path}-wal or -shm was removed or replaced: what they held is in"
                " the journal now"
            )

    def save_log(self) -> None:
        """Copy the write-ahead log into the file, as far as readers allow. Raises JournalError."""
        with self._errors():
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def condemn(self, error: Exception) -> JournalError:
        """Move the file aside, since it is damaged. Returns what to raise."""
        self.close()
        with _errors(self.path):
            return DamageError(self._move_aside(error))

    @property
    def last_jump(self) -> float:
        """Seconds of the clock's last jump ahead which was not undone, or 0."""
        return self._jumps[-1][1] if self._jumps else 0.0

    def note_jump(self, seconds: float, seq: int) -> None:
        """The clock has jumped `seconds` ahead: it makes nothing up to `seq` older.

        Raises JournalError.
        """
        with self._transaction():
            self._write_jumps([*self._jumps, (seq, seconds)])

    def set_back(self, seconds: float, now: float) -> None:
        """The clock was set back by so many seconds, to `now`: correct what it stamped before.

        That is what came since the jump ahead that this one undoes, or else what has a time that is
        still to come. `restamp_some` does it. Raises JournalError.
        """
        with self._transaction():
            first = self._first_after(now)
            if self._jumps and abs(self.last_jump - seconds) <= max(60.0, seconds / 10):
                # Those that came just before the jump was seen are stamped by it, too.
                first = min(first, self._jumps[-1][0] + 1)
                self._write_jumps(self._jumps[:-1])
            low = self._value(
                "SELECT received FROM message WHERE seq < ? ORDER BY seq DESC LIMIT 1", 0.0,
                (first,),
            )  # fmt: skip
            self._write_restamp((first, -seconds, min(low, now)))

    def restamp_some(self, now: float) -> int:
        """Correct some of the times that `set_back` told of. Returns how many rows' that were.

        Until all are, what is appended gets the time of what is last. Raises JournalError.
        """
        if self._restamp is None:
            return 0
        first, shift, low = self._restamp
        with self._transaction():
            sizes = self._db.execute(
                "SELECT seq, length(body) FROM message WHERE seq >= ? ORDER BY seq LIMIT ?",
                (first, RESTAMPED_AT_ONCE),
            ).fetchall()
            totals = accumulate(size for _, size in sizes)
            some = [seq for (seq, _), total in zip(sizes, totals) if total <= RESTAMPED_BYTES]
            some = some or [seq for seq, _ in sizes[:1]]
            if some:
                self._db.execute(
                    "UPDATE message SET received = min(?, max(?, received + ?))"
                    " WHERE seq BETWEEN ? AND ?",
                    (now, low, shift, first, some[-1]),
                )
            is_over = len(some) == len(sizes) < RESTAMPED_AT_ONCE
            self._write_restamp(None if is_over else (some[-1] + 1, shift, low))
            if is_over:
                self._last_received = self._value(
                    "SELECT received FROM message ORDER BY seq DESC LIMIT 1", 0.0
                )
            self._room = 0  # look again at what is the oldest
        return len(some)

    @property
    def is_restamping(self) -> bool:
        """Whether times are still to be corrected."""
        return self._restamp is not None

    @property
    def last_received(self) -> float:
        """When the message stored last was received."""
        return self._last_received

    def reach(self, now: float) -> float:
        """Seconds that it reaches back, as of the last look at its oldest row."""
        return max(0.0, now - self._oldest) if math.isfinite(self._oldest) else 0.0

    def largest_topic(self, most: int) -> str:
        """The topic with the most bytes among so many of the newest rows. Raises JournalError."""
        with self._errors():
            return str(
                self._value(
                    "SELECT topic FROM (SELECT topic, length(body) AS size FROM message"
                    " ORDER BY seq DESC LIMIT ?) GROUP BY topic ORDER BY sum(size) DESC LIMIT 1",
                    "", (most,),
                )
            )  # fmt: skip

    def put_back(self, rows: Sequence[tuple[object, ...]]) -> bool:
        """Store rows under the seqs they had: seq, received, topic, msg_id, body, known.

        False if there is no room for them. Raises JournalError.
        """
        size = sum(len(cast(bytes, row[4])) + PAGE for row in rows)
        with self._transaction():
            if self._used_bytes() + size > self._max_bytes:
                return False
            self._db.executemany(
                "INSERT OR IGNORE INTO message (seq, received, topic, msg_id, body, known)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                rows,
            )
            self._room = 0
            self._oldest = -math.inf
            last = self._value("SELECT received FROM message ORDER BY seq DESC LIMIT 1", 0.0)
        self._last_received = max(self._last_received, last)
        return True

    def check_writable(self) -> None:
        """Write something small to the disk. Raises JournalError."""
        self.remember("checked", f"{time.time():.3f}")

    def close(self) -> None:
        """Close the file. What was appended is on disk already, so this raises nothing."""
        with suppress(sqlite3.Error):
            self._db.close()

    def _open(self) -> None:
        if not os.path.exists(self.path):
            # SQLite gives the files beside it the same mode. A file that is there is not opened
            # here: closing it again would take back the locks of this process's other connections.
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        elif not os.path.isfile(self.path):
            raise JournalError(f"journal: {self.path} is not a file")
        self._db = sqlite3.connect(
            self.path, timeout=BUSY, isolation_level=None, check_same_thread=False
        )
        try:
            self._identity = _identity(self.path)
            self._set_up()
            if _identity(f"{self.path}-wal") is None:
                with self._transaction():  # it is made by the first one
                    self._db.execute("DELETE FROM meta WHERE key = ''")
            self._beside = [_identity(self.path + suffix) for suffix in BESIDE]
            self._read_clock()
            self.last_seq = self._value("SELECT seq FROM sqlite_sequence WHERE name = 'message'", 0)
            self._last_received = self._value(
                "SELECT received FROM message ORDER BY seq DESC LIMIT 1", 0.0
            )
        except BaseException:
            self.close()
            raise

    def _set_up(self) -> None:
        found = {row[0] for row in self._db.execute("SELECT sql FROM sqlite_master") if row[0]}
        # SQLite's own, made by AUTOINCREMENT.
        found.discard("CREATE TABLE sqlite_sequence(name,seq)")
        application = self._value("PRAGMA application_id")
        version = self._value("PRAGMA user_version")
        is_new = not found and not application and not version
        is_old = version == 1 and INDEX_OF_VERSION_1 in found
        if not is_new:
            if application != APPLICATION_ID:
                raise _Unusable("it belongs to another program")
            if not is_old and (version != SCHEMA_VERSION or found != set(SCHEMA)):
                raise _Unusable(f"its schema is version {version}, this needs {SCHEMA_VERSION}")
            if os.path.getsize(self.path) <= CHECKED_WHOLE:
                verdict = self._value("PRAGMA quick_check(1)")
                if verdict != "ok":
                    raise _Unusable(str(verdict).replace("\n", " "))
        # Before anything is in the file, or they have no effect.
        self._db.execute(f"PRAGMA page_size = {PAGE}")
        self._db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        mode = self._value("PRAGMA journal_mode = WAL")
        if mode != "wal":
            raise JournalError(f"journal: {self.path}: its file system has no shared memory maps")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        self._db.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
        self._db.execute("PRAGMA cache_size = -16384")  # KiB
        # Debian's SQLite overwrites what is deleted with zeros: twice the writing.
        self._db.execute("PRAGMA secure_delete = OFF")
        if is_new or is_old:
            with self._transaction():
                for statement in FROM_VERSION_1 if is_old else SCHEMA:
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
                if is_new and self._after:
                    count_on = "INSERT INTO sqlite_sequence VALUES ('message', ?)"
                    self._db.execute(count_on, (self._after,))

    def _read_clock(self) -> None:
        try:
            jumps = json.loads(self.recall(JUMPS) or "[]")
            self._jumps = [(int(seq), float(seconds)) for seq, seconds in jumps]
            restamp = json.loads(self.recall(RESTAMP) or "null")
            if restamp is not None:
                seq, shift, low = restamp
                self._restamp = int(seq), float(shift), float(low)
        except (ValueError, TypeError) as error:
            raise _Unusable(f"what it remembers of the clock cannot be read: {error}") from error

    def _write_jumps(self, jumps: list[tuple[int, float]]) -> None:
        self._write_meta(JUMPS, jumps)
        self._jumps = jumps

    def _write_restamp(self, restamp: tuple[int, float, float] | None) -> None:
        self._write_meta(RESTAMP, restamp)
        self._restamp = restamp

    def _write_meta(self, key: str, value: object) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(value)))

    def _first_after(self, moment: float) -> int:
        """The first seq received later than that; one past the last when there is none."""
        low = self._value("SELECT min(seq) FROM message") or 1
        high = (self._value("SELECT max(seq) FROM message") or 0) + 1
        query = "SELECT received FROM message WHERE seq >= ? ORDER BY seq LIMIT 1"
        while low < high:
            middle = (low + high) // 2
            at = self._value(query, None, (middle,))
            low, high = (middle + 1, high) if at is not None and at <= moment else (low, middle)
        return int(low)

    def _insert(self, parameters: list[object]) -> int:
        """Insert rows of COLUMNS parameters each. Returns the seq of the last."""
        done, last, count = 0, 0, ROWS_A_STATEMENT
        while done < len(parameters):
            while COLUMNS * count > len(parameters) - done:
                count //= 2
            values = ", ".join(["(?, ?, ?, ?, ?)"] * count)
            cursor = self._db.execute(
                f"INSERT INTO message (received, topic, msg_id, body, known) VALUES {values}",
                parameters[done : done + COLUMNS * count],
            )
            last = cursor.lastrowid or 0
            done += COLUMNS * count
        return last

    def _make_room(self, now: float, incoming: int, most: int) -> int:
        """Delete what is too old, and what is too much once `incoming` bytes are added."""
        removed = self._remove_expired(now - self._max_age, most)
        while removed < most:
            excess = self._used_bytes() + incoming - self._max_bytes
            # A little more, for the next ones.
            spare = min(SPARE_BYTES, self._max_bytes // 64)
            count = self._remove_bytes(excess + spare, most - removed) if excess > 0 else 0
            if not count:
                break
            removed += count
            self.trimmed_early += count
        # Free pages are used again before the file grows: this is for a bound that was lowered.
        surplus = self._value("PRAGMA page_count") - self._max_bytes // PAGE
        free = self._value("PRAGMA freelist_count")
        for _ in range(min(surplus, free, GIVEN_BACK_AT_ONCE)):
            # One at a time: Python's module leaves this statement after its first step.
            self._db.execute("PRAGMA incremental_vacuum(1)")
        self._room = self._max_bytes - self._used_bytes()
        oldest = self._oldest_row()
        self._oldest = math.inf if oldest is None else oldest[1]
        if self._jumps and (oldest is None or oldest[0] > self._jumps[0][0]):
            first = math.inf if oldest is None else oldest[0]
            self._write_jumps([jump for jump in self._jumps if jump[0] >= first])
        return removed

    def _oldest_row(self) -> tuple[int, float] | None:
        """Its seq, and when it was received: later than it says if the clock has jumped since."""
        found = self._db.execute(
            "SELECT seq, received FROM message ORDER BY seq LIMIT 1"
        ).fetchall()
        if not found:
            return None
        [(seq, received)] = found
        return seq, received + sum(seconds for last, seconds in self._jumps if last >= seq)

    def _remove_expired(self, before: float, most: int) -> int:
        oldest = self._oldest_row()
        if oldest is None or oldest[1] >= before or most <= 0:
            return 0
        # Each jump of the clock makes all that came before it younger than it looks.
        jumps = [jump for jump in self._jumps if jump[0] >= oldest[0]]
        before -= sum(seconds for _, seconds in jumps)
        last = min((seq for seq, _ in jumps), default=(1 << 63) - 1)
        # Not the newest: its time is what later ones are measured by.
        return self._remove_to(
            "SELECT max(seq) FROM (SELECT seq, received FROM message ORDER BY seq LIMIT ?)"
            " WHERE received < ? AND seq <= ? AND seq < (SELECT max(seq) FROM message)",
            (most, before, last),
        )

    def _remove_bytes(self, excess: int, most: int) -> int:
        """Delete about so many bytes of the oldest rows, one at least, and never the newest."""
        return self._remove_to(
            "SELECT coalesce(min(seq) FILTER (WHERE total >= ?), max(seq)) FROM ("
            " SELECT seq, sum(size) OVER (ORDER BY seq) AS total FROM ("
            f" SELECT seq, length(topic) + length(msg_id) + length(body) + {ROW_OVERHEAD}"
            " AS size FROM message WHERE seq < (SELECT max(seq) FROM message)"
            " ORDER BY seq LIMIT ?))",
            (excess, most),
        )

    def _remove_to(self, chosen: str, parameters: tuple[object, ...]) -> int:
        seq = self._value(chosen, None, parameters)
        if seq is None:
            return 0
        return self._db.execute("DELETE FROM message WHERE seq <= ?", (seq,)).rowcount

    def _used_bytes(self) -> int:
        used = self._value("PRAGMA page_count") - self._value("PRAGMA freelist_count")
        return int(used) * PAGE

    def _value(self, query: str, default: Any = None, parameters: tuple[object, ...] = ()) -> Any:
        # To the end, and not just one row: a statement that is not at its end goes on reading.
        found = self._db.execute(query, parameters).fetchall()
        return found[0][0] if found else default

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        if self._beside:
            self.check_files()
        with self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
                if self._beside and self._is_undermined():
                    # It went into a log that is not there any more. Now it is safe.
                    self._save_log()
            except BaseException:
                self._room = 0
                with suppress(sqlite3.Error):  # a full disk has rolled it back already
                    self._db.execute("ROLLBACK")
                raise

    def _is_undermined(self) -> bool:
        return [_identity(self.path + suffix) for suffix in BESIDE] != self._beside

    def _save_log(self) -> None:
        """Write into the file what is in the log that this connection has open."""
        self._undermined = True
        with _errors(self.path):
            for suffix, own in zip(BESIDE, self._beside):
                # Somebody else's must not be taken for this file's when that is opened again.
                if _identity(self.path + suffix) not in (None, own):
                    os.rename(self.path + suffix, f"{self._free_name()}{suffix}")
            [(busy, pages, saved)] = self._db.execute("PRAGMA wal_checkpoint(FULL)").fetchall()
            if busy or pages != saved:
                raise JournalError(f"journal: {self.path}-wal is gone, and its pages are in use")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Raise JournalError for SQLite's errors. A file that proves damaged is moved aside."""
        with _errors(self.path):
            try:
                yield
            except sqlite3.DatabaseError as error:
                if _is_damage(error) and not self.is_replaced():
                    raise self.condemn(error) from error
                raise

    def _move_aside(self, reason: Exception) -> str:
        target = self._free_name()
        for suffix in BESIDE:  # first, or a new journal could take them for its own
            with suppress(FileNotFoundError):
                os.rename(self.path + suffix, target + suffix)
        os.rename(self.path, target)
        self.aside = target
        return f"journal: {self.path} is not a usable journal ({reason}): moved to {target}"

    def _free_name(self) -> str:
        stem = f"{self.path}.broken-{time.strftime('%Y%m%dT%H%M%S')}"
        target, count = stem, 1
        while any(os.path.lexists(target + suffix) for suffix in ("", *BESIDE)):
            count += 1
            target = f"{stem}-{count}"
        return target


class JournalReader:
    """The journal as everybody else reads it: read-only, and never long.

    No statement is left unfinished: one that is would keep the write-ahead log from being reset,
    and so let it grow. Every method raises JournalError, also when the path leads to another file
    by now, or to none: then open a new one.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        with _errors(path):
            if not os.path.exists(path):
                raise JournalError(f"journal: there is no file {path}")
            self._identity = _identity(path)
            self._db = sqlite3.connect(
                f"file:{quote(path)}?mode=ro",
                uri=True,
                timeout=BUSY,
                isolation_level=None,
                check_same_thread=False,
            )
            try:
                self._db.execute("PRAGMA query_only = ON")
                if self._rows("PRAGMA application_id") != [(APPLICATION_ID,)]:
                    raise JournalError(f"journal: {path} is not a journal")
            except BaseException:
                self._db.close()
                raise

    def bounds(self) -> tuple[int, int]:
        """The first and the last seq there is; `(1, 0)` when there is none."""
        found = self._rows(
            "SELECT (SELECT min(seq) FROM message), (SELECT max(seq) FROM message)",
        )
        first, last = found[0]
        return (1, 0) if first is None else (int(first), int(last))

    def first_from(self, received: float) -> int:
        """The first seq received at that moment or later; one past the last when there is none."""
        first, last = self.bounds()
        low, high = first, last + 1
        while low < high:
            middle = (low + high) // 2
            at = self._rows("SELECT received FROM message WHERE seq >= ? LIMIT 1", middle)
            if at and at[0][0] < received:
                low = middle + 1
            else:
                high = middle
        return low

    def get(self, seq: int) -> Stored | None:
        """One message, or None if it is gone by now."""
        found = self._rows(
            "SELECT seq, received, topic, msg_id, body FROM message WHERE seq = ?", seq
        )
        return Stored(*found[0]) if found else None

    def sizes(self, seqs: Sequence[int]) -> dict[int, int]:
        """The bytes of the bodies of a few messages, by seq; without those that are gone by now."""
        return dict(self._some("SELECT seq, length(body) FROM message", seqs))

    def bodies(self, seqs: Sequence[int]) -> dict[int, bytes]:
        """The bodies of a few messages, by seq; without those that are gone by now."""
        return dict(self._some("SELECT seq, body FROM message", seqs))

    def topics(self, seqs: Sequence[int]) -> list[tuple[float, int, str]]:
        """When each of a few messages was received, its seq, and the first 256 of its topic."""
        found = self._some("SELECT received, seq, substr(topic, 1, 256) FROM message", seqs)
        return sorted(found, key=lambda row: int(row[1]))

    def msg_id(self, seq: int) -> str | None:
        """The msg_id of a message, or None if it is gone by now."""
        found = self._rows("SELECT msg_id FROM message WHERE seq = ?", seq)
        return str(found[0][0]) if found else None

    def sizes_between(self, first: int, last: int) -> list[tuple[int, int]]:
        """The seqs from `first` to `last`, both included, and the bytes of the bodies."""
        return self._rows(
            "SELECT seq, length(body) FROM message WHERE seq BETWEEN ? AND ? ORDER BY seq",
            first, last,
        )  # fmt: skip

    def between(
        self, first: int, last: int, largest: int
    ) -> list[tuple[int, str, str, int, bytes | None]]:
        """The messages from `first` to `last`: seq, topic, msg_id, bytes of the body, and that.

        In place of a body of more than `largest` bytes there is None.
        """
        return self._rows(
            "SELECT seq, topic, msg_id, length(body), CASE WHEN length(body) <= ? THEN body END"
            " FROM message WHERE seq BETWEEN ? AND ? ORDER BY seq",
            largest, first, last,
        )  # fmt: skip

    def after(self, seq: int, most: int, most_bytes: int) -> list[Stored]:
        """The messages that follow `seq`: so many and so many bytes at most, or else one."""
        sizes = self._rows(
            "SELECT seq, length(body) FROM message WHERE seq > ? ORDER BY seq LIMIT ?", seq, most
        )
        totals = accumulate(size for _, size in sizes)
        fitting = [at for (at, _), total in zip(sizes, totals) if total <= most_bytes]
        last = fitting[-1] if fitting else sizes[0][0] if sizes else seq
        query = "SELECT seq, received, topic, msg_id, body FROM message WHERE seq > ? AND seq <= ?"
        return [Stored(*row) for row in self._rows(f"{query} ORDER BY seq", seq, last)]

    def recall(self, key: str) -> str | None:
        """What was last remembered under `key`."""
        found = self._rows("SELECT value FROM meta WHERE key = ?", key)
        return str(found[0][0]) if found else None

    def find(self, msg_ids: Sequence[str]) -> dict[str, int]:
        """The first seq of each of `msg_ids` that is known, see Journal."""
        self._check()
        with _errors(self.path):
            return _find(self._db, msg_ids)

    def has_body(self, seq: int, body: bytes) -> bool:
        """Whether that is the message's. One that is gone by now counts as the same."""
        return self._rows("SELECT body = ? FROM message WHERE seq = ?", body, seq) in ([], [(1,)])

    def look_through(self, seq: int, msg_id: str, most: int) -> tuple[int, str]:
        """Read some messages beyond `seq`, and some entries of the index beyond `msg_id`.

        Returns where to go on, from the beginning after the end. Raises DamageError where they
        cannot be read.
        """
        [(last, _)] = self._rows(
            "SELECT max(seq), total(length(body)) FROM"
            " (SELECT seq, body FROM message WHERE seq > ? ORDER BY seq LIMIT ?)", seq, most
        )  # fmt: skip
        [(last_id,)] = self._rows(
            "SELECT max(msg_id) FROM (SELECT msg_id FROM message INDEXED BY message_known"
            " WHERE known AND msg_id > ? ORDER BY msg_id LIMIT ?)", msg_id, most
        )  # fmt: skip
        return last or 0, last_id or ""

    def oldest(self) -> float | None:
        """When the oldest message was received, in seconds since 1970."""
        found = self._rows("SELECT received FROM message ORDER BY seq LIMIT 1")
        return float(found[0][0]) if found else None

    def search(
        self,
        first: int,
        last: int,
        topics: Sequence[str],
        containing: Sequence[bytes],
        msg_id: str | None = None,
    ) -> array[int]:
        """The seqs from `first` to `last`, both included, by what a quick look at them says.

        The topic is one of `topics`, the body has one of `containing` in it; an empty sequence
        lets all through, and so does None for `msg_id`. Meant for a limited stretch at a time:
        SQLite reads all of it.
        """
        query = "SELECT seq FROM message WHERE seq BETWEEN ? AND ?"
        parameters: list[object] = [first, last]
        if topics:
            query += f" AND topic IN ({', '.join('?' * len(topics))})"
            parameters += map(storable, topics)
        if msg_id is not None:
            query += " AND msg_id = ?"
            parameters.append(storable(msg_id))
        if containing:
            query += f" AND ({' OR '.join(['instr(body, ?)'] * len(containing))})"
            parameters += containing
        return array("q", (row[0] for row in self._rows(f"{query} ORDER BY seq", *parameters)))

    def close(self) -> None:
        """Close the file."""
        with suppress(sqlite3.Error):
            self._db.close()

    @property
    def identity(self) -> tuple[int, int] | None:
        """Which file this is: device and inode."""
        return self._identity

    def _check(self) -> None:
        if _identity(self.path) != self._identity:
            raise JournalError(f"journal: {self.path} was removed or replaced")

    def _some(self, query: str, seqs: Sequence[int]) -> list[Any]:
        return self._rows(f"{query} WHERE seq IN ({', '.join('?' * len(seqs))})", *seqs)

    def _rows(self, query: str, *parameters: object) -> list[Any]:
        self._check()
        with _errors(self.path):
            return self._db.execute(query, parameters).fetchall()


class _Unusable(Exception):
    """The file is not a journal of ours."""


def _find(db: sqlite3.Connection, msg_ids: Sequence[str]) -> dict[str, int]:
    stored = {storable(msg_id): msg_id for msg_id in msg_ids}
    asked = list(stored)
    found: dict[str, int] = {}
    for start in range(0, len(asked), ROWS_A_STATEMENT):
        some = asked[start : start + ROWS_A_STATEMENT]
        # Filled up to a power of two, for few different statements.
        size = 1 << (len(some) - 1).bit_length()
        some += some[:1] * (size - len(some))
        rows = db.execute(
            "SELECT msg_id, min(seq) FROM message WHERE known"
            f" AND msg_id IN ({', '.join('?' * size)}) GROUP BY msg_id",
            some,
        ).fetchall()
        found.update((stored[msg_id], seq) for msg_id, seq in rows)
    return found


def storable(text: str) -> str:
    """`text` as SQLite takes it. JSON may hold half of a surrogate pair, and UTF-8 may not."""
    if text.isascii():
        return text
    return text.encode("utf-8", "backslashreplace").decode()


def _storable_rows(rows: Sequence[Row], last_received: float) -> Sequence[Row]:
    """Rows as they can be stored after `last_received`: those of a large group mostly as they are.

    Of what is returned `submitted` says whether it is to be known.
    """
    times = list(map(_RECEIVED, rows))
    texts = chain(map(_TOPIC, rows), map(_MSG_ID, rows))
    is_small = len(rows) <= KNOWN_GROUP
    is_in_order = times[0] >= last_received and times == sorted(times)
    if is_in_order and not is_small and "".join(texts).isascii():
        return rows
    increasing = list(accumulate(times, max, initial=last_received))[1:]
    return [
        Row(
            received,
            storable(row.topic),
            storable(row.msg_id),
            row.body,
            row.submitted or is_small,
        )
        for received, row in zip(increasing, rows)
    ]


def _bytes_in_file(rows: Sequence[Row]) -> int:
    """What rows take in the file, rather too much: a page has room for whole rows only."""
    bodies = list(map(len, map(_BODY, rows)))
    if max(bodies) <= PAGE // 4:
        texts = sum(map(len, map(_TOPIC, rows))) + sum(map(len, map(_MSG_ID, rows)))
        return (sum(bodies) + texts + ROW_OVERHEAD * len(rows)) * 5 // 4
    sizes = [len(row.topic) + len(row.msg_id) + len(row.body) + ROW_OVERHEAD for row in rows]
    return sum((size // PAGE + 1) * PAGE if size > PAGE // 2 else size * 5 // 4 for size in sizes)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _is_damage(error: Exception) -> bool:
    # SQLITE_CORRUPT and SQLITE_NOTADB have no class of their own in Python, and their codes only
    # from 3.11 on; all that a full disk or missing rights cause is an OperationalError.
    return isinstance(error, _Unusable) or type(error) is sqlite3.DatabaseError


@contextmanager
def _errors(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise JournalError(f"journal: {path}: {error.strerror}") from error
    except (sqlite3.Error, sqlite3.Warning, OverflowError) as error:
        kind = DamageError if _is_damage(error) else JournalError
        raise kind(f"journal: {path}: {error}") from error
