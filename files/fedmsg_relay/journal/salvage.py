"""What can still be read of a journal that was moved aside, for the one that follows it.

A damaged file has lost some of its pages, seldom all. The newest messages are read first, a few at
a time, behind what passes meanwhile, and keep their seqs. Where a part cannot be read, it is halved
until it is one message that cannot. The file itself is left as it is.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from .. import log
from .store import APPLICATION_ID, Journal

# Seqs looked at in one step, and bytes of bodies.
SEQS = 200
BYTES = 4 << 20

logger = logging.getLogger(log.NAME)


class Salvage:
    """What is in the file at `path`. For the thread that writes the journal."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._taken = self._lost = 0
        self._known = "1"
        self._db = sqlite3.connect(
            f"file:{quote(path)}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
        )
        # Ranges of seqs, both included, that are still to be read: the last one is next.
        self._ranges: list[tuple[int, int]] = []
        with suppress(sqlite3.Error):
            if self._rows("PRAGMA application_id") == [(APPLICATION_ID,)]:
                columns = {row[1] for row in self._rows("PRAGMA table_info(message)")}
                self._known = "known" if "known" in columns else "1"
                self._ranges = self._bounds()

    def take_some(self, journal: Journal) -> bool:
        """Take a few into `journal`. Whether there may be more. Raises JournalError."""
        if not self._ranges:
            self._finish("")
            return False
        first, last = self._ranges.pop()
        if last - first >= SEQS:
            self._ranges.append((first, last - SEQS))
            first = last - SEQS + 1
        try:
            rows = self._read(first, last)
        except sqlite3.Error:
            rows = None
        if rows is None:
            if first == last:
                self._lost += 1
            else:
                middle = (first + last) // 2
                self._ranges += [(first, middle), (middle + 1, last)]
            return True
        try:
            has_room = journal.put_back(rows)
        except BaseException:
            self._ranges.append((first, last))
            raise
        if not has_room:
            self._finish(", for older ones there is no room")
            return False
        self._taken += len(rows)
        return True

    def close(self) -> None:
        with suppress(sqlite3.Error):
            self._db.close()

    def _read(self, first: int, last: int) -> list[Any] | None:
        """None if it is too much at once."""
        between = "FROM message WHERE seq BETWEEN ? AND ?"
        if first < last:
            [(size,)] = self._rows(f"SELECT total(length(body)) {between}", first, last)
            if size > BYTES:
                return None
        columns = f"seq, received, topic, msg_id, body, {self._known}"
        return self._rows(f"SELECT {columns} {between} ORDER BY seq", first, last)

    def _bounds(self) -> list[tuple[int, int]]:
        try:
            last = self._rows("SELECT max(seq) FROM message")[0][0]
        except sqlite3.Error:  # the last page: the number of the last message is elsewhere, too
            last = last_seq(self.path)
        try:
            first = self._rows("SELECT min(seq) FROM message")[0][0]
        except sqlite3.Error:
            first = 1
        return [(first, last)] if last else []

    def _rows(self, query: str, *parameters: object) -> list[Any]:
        return self._db.execute(query, parameters).fetchall()

    def _finish(self, why: str) -> None:
        logger.warning(
            "journal: %d messages of %s are in the new one%s; %d could not be read",
            self._taken, self.path, why, self._lost,
        )  # fmt: skip
        self.close()


def last_seq(path: str) -> int:
    """The last seq that a journal has used, or 0 where that cannot be read any more."""
    if not os.path.exists(path):
        return 0
    with suppress(sqlite3.Error):
        db = sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True)
        try:
            if db.execute("PRAGMA application_id").fetchall() == [(APPLICATION_ID,)]:
                query = "SELECT seq FROM sqlite_sequence WHERE name = 'message'"
                return int(db.execute(query).fetchall()[0][0])
        except (IndexError, TypeError, ValueError):
            pass
        finally:
            db.close()
    return 0
