"""The backlog of one relay handed over to another: it is in the other one's, too, from then on.

A handed-over file is a journal by its schema, with the rows as the other relay has them, and in its
`meta` the `host` whose they are. A relay looks for such files in the directory `handed-over` beside
its journal. It takes them in a few rows at a time, behind what passes meanwhile, as if it received
them now: each gets the next seq, and no earlier time than what is there already, so whoever asks
for all since some moment misses none of them. What it has, by its msg_id, it leaves out; so a file
may come twice, and one that was half taken in is begun anew.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from contextlib import suppress
from urllib.parse import quote

from .. import log
from .store import (
    APPLICATION_ID,
    KNOWN_GROUP,
    PAGE,
    SCHEMA,
    SCHEMA_VERSION,
    Journal,
    JournalError,
    JournalReader,
    Row,
    _errors,
)

DIRECTORY = "handed-over"
SUFFIX = ".db"

# In a handed-over file: whose rows they are. In a journal, followed by that host: the last of its
# seqs that has been taken in.
HOST = "host"
TAKEN = "handed-over:"
# In a journal that began as a copy of another: the last seq of the copy.
COPIED = "copied"

# Rows and bytes of one transaction, small ones: those that pass meanwhile wait for it. All rows of
# such a group can be found by their msg_id.
GROUP = KNOWN_GROUP
GROUP_BYTES = 1 << 20

# Seconds from one look at the directory to the next, and after a failure to write.
LOOK = 1.0

# Rows that an export reads at once.
EXPORTED_AT_ONCE = 1000

logger = logging.getLogger(log.NAME)


class HandedOver:
    """The directory beside the journal at `path`. For the thread that writes the journal."""

    def __init__(self, path: str, max_age: float) -> None:
        self._directory = os.path.join(os.path.dirname(path), DIRECTORY)
        self._max_age = max_age
        self._due = 0.0
        self._failing = False
        self._file: str | None = None
        self._reader: JournalReader | None = None
        self._seq = self._taken = self._known = 0

    def take_some(self, journal: Journal) -> bool:
        """Take a few rows in, if there are any. Whether there may be more. Raises nothing."""
        if self._file is None and not self._next_file():
            return False
        assert self._file is not None
        try:
            self._reader = self._reader or JournalReader(self._file)
            host = self._reader.recall(HOST)
            if host is None:
                raise JournalError(f"journal: {self._file} does not say which host's it is")
            rows = self._reader.after(self._seq, GROUP, GROUP_BYTES)
        except JournalError as error:
            self._set_aside(error)
            return False
        try:
            if rows:
                self._store(journal, [Row(*stored[1:]) for stored in rows])
                self._seq = rows[-1].seq
            else:
                journal.remember(f"{TAKEN}{host}", str(self._seq))
        except JournalError as error:
            self._put_off(error)
            return False
        self._failing = False
        if not rows:
            logger.info(
                "handed over: %d messages of %s are in the backlog now, %d were there before",
                self._taken, host, self._known,
            )  # fmt: skip
            with suppress(OSError):
                os.unlink(self._file)
            self._close()
        return True

    def _next_file(self) -> bool:
        now = time.monotonic()
        if now < self._due:
            return False
        self._due = now + LOOK
        try:
            names = os.listdir(self._directory)
        except OSError:
            return False
        found = sorted(n for n in names if n.endswith(SUFFIX) and not n.startswith("."))
        if found:
            self._file = os.path.join(self._directory, found[0])
            self._seq = self._taken = self._known = 0
        return bool(found)

    def _store(self, journal: Journal, rows: list[Row]) -> None:
        now = time.time()
        first = {row.msg_id: row for row in reversed(rows) if row.received >= now - self._max_age}
        known = journal.find(list(first))
        # In their order; a clock that was ahead there must not have this one's stand still.
        new = [
            row._replace(received=min(row.received, now), submitted=True)
            for row in rows
            if first.get(row.msg_id) is row and row.msg_id not in known
        ]
        journal.append(new)
        self._taken += len(new)
        self._known += len(rows) - len(new)

    def _put_off(self, error: JournalError) -> None:
        if not self._failing:
            logger.error("handed over: what is in %s has to wait: %s", self._file, error)
        self._failing = True
        self._close()

    def _set_aside(self, error: JournalError) -> None:
        assert self._file is not None
        logger.error("handed over: %s cannot be used, renamed to .broken: %s", self._file, error)
        with suppress(OSError):
            os.rename(self._file, f"{self._file}.broken")
        self._close()

    def _close(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self._file = self._reader = None
        self._due = time.monotonic() + LOOK


def export(source: str, target: str, host: str, after: int, *, copy: bool = False) -> int:
    """Write the rows of the journal `source` beyond seq `after` to a new file `target`.

    `host` is whose they are. With `copy` the file is to be another relay's journal from its first
    start on. A journal that is younger than `after` was begun anew: then all of its rows. Returns
    the last seq. Raises JournalError.
    """
    reader = JournalReader(source)
    try:
        last = reader.bounds()[1]
    finally:
        reader.close()
    seq = after if after <= last else 0
    with _errors(target):
        with suppress(FileNotFoundError):
            os.unlink(target)
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        db = sqlite3.connect(f"file:{quote(target)}", uri=True, isolation_level=None)
        try:
            db.execute(f"PRAGMA page_size = {PAGE}")
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            db.execute("PRAGMA synchronous = OFF")  # until it is complete nobody reads it
            for statement in SCHEMA:
                db.execute(statement)
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            db.execute("ATTACH ? AS source", (f"file:{quote(source)}?mode=ro",))
            # A part at a time: a statement that reads for long would hold up the journal's upkeep.
            while True:
                done = db.execute(
                    "INSERT INTO message SELECT seq, received, topic, msg_id, body, known"
                    " FROM source.message WHERE seq > ? ORDER BY seq LIMIT ?",
                    (seq, EXPORTED_AT_ONCE),
                )
                if done.rowcount <= 0:
                    break
                seq = done.lastrowid or seq
            meta = [(HOST, host)]
            if copy:
                meta = [(f"{TAKEN}{host}", str(seq)), (COPIED, str(seq))]
            db.executemany("INSERT INTO meta VALUES (?, ?)", meta)
        finally:
            db.close()
    return seq
