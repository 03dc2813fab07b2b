"""Make a journal one that the release before can read, while the relay goes on writing to it.

    journal_back.py look|prepare|finish JOURNAL SCHEMA

A relay that meets a journal of a newer schema moves it aside and starts a new one: the backlog
would begin anew. `prepare` copies the messages into a file beside the journal while the relay runs.
`finish` runs while it does not, between its end and its next start: it adds those that came
meanwhile, and puts that file into the journal's place. `look` says whether it can be done.

Runs on a relay host as the user whose journal it is, on its own: neither release has to be there.
"""

import os
import sqlite3
import sys
from contextlib import closing, suppress

APPLICATION_ID = 0x66656465

# What the older of two releases wants to find, word for word, by its schema. Of each row the
# columns that it has are copied.
SCHEMAS = {
    1: (
        "CREATE TABLE message (seq INTEGER PRIMARY KEY AUTOINCREMENT, received REAL NOT NULL,"
        " topic TEXT NOT NULL, msg_id TEXT NOT NULL, body BLOB NOT NULL)",
        "CREATE INDEX message_msg_id ON message (msg_id)",
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    ),
}
COLUMNS = {1: "seq, received, topic, msg_id, body"}

# Rows that are copied in one transaction: the relay writes beside it, and is not held up for long.
ROWS = 5_000


class CannotBeDone(Exception):
    """The text says why."""


def main(action: str, path: str, schema: int) -> None:
    if not os.path.exists(path) or version(path) == schema:
        return
    if schema not in SCHEMAS:
        raise CannotBeDone(
            f"{path} is of schema {version(path)}, and there is no way from it to schema {schema}"
        )
    beside = f"{path}.schema-{schema}"
    if action == "look":
        check_room(path)
    elif action == "prepare":
        check_room(path)
        remove(beside)
        copy(path, beside, schema)
    else:
        copy(path, beside, schema)
        with closing(sqlite3.connect(path)) as journal:
            # So that nothing is left beside it, which the next one would take for its own.
            journal.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for suffix in ("-wal", "-shm"):
            with suppress(FileNotFoundError):
                os.unlink(path + suffix)
        os.rename(beside, path)
        # The older release knows of no index. One that does makes another.
        remove(f"{path}-index")


def version(path: str) -> int:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as journal:
        return int(journal.execute("PRAGMA user_version").fetchone()[0])


def check_room(path: str) -> None:
    size = sum(os.path.getsize(p) for p in (path, f"{path}-wal") if os.path.exists(p))
    found = os.statvfs(os.path.dirname(path))
    free = found.f_bavail * found.f_frsize
    if free < size * 3 // 2:
        raise CannotBeDone(
            f"{path} has to be copied: that takes {size * 3 // 2 >> 20} MiB, and"
            f" {free >> 20} MiB are free"
        )


def copy(path: str, beside: str, schema: int) -> None:
    """Copy what is in the journal and not in the file beside it."""
    is_new = not os.path.exists(beside)
    os.close(os.open(beside, os.O_CREAT | os.O_RDWR, 0o600))
    with closing(sqlite3.connect(beside, isolation_level=None, timeout=5)) as target:
        if is_new:
            target.execute("PRAGMA page_size = 4096")
            target.execute("PRAGMA auto_vacuum = INCREMENTAL")
            target.execute("PRAGMA journal_mode = WAL")
            target.execute("BEGIN")
            for statement in SCHEMAS[schema]:
                target.execute(statement)
            target.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            target.execute(f"PRAGMA user_version = {schema}")
            target.execute("COMMIT")
        target.execute("ATTACH ? AS journal", (path,))
        columns = COLUMNS[schema]
        while True:
            target.execute("BEGIN IMMEDIATE")
            count = target.execute(
                f"INSERT INTO message ({columns}) SELECT {columns} FROM journal.message"
                " WHERE seq > (SELECT coalesce(max(seq), 0) FROM message) ORDER BY seq LIMIT ?",
                (ROWS,),
            ).rowcount
            if count < ROWS:
                break
            target.execute("COMMIT")
        target.execute("DELETE FROM meta")
        target.execute("INSERT INTO meta SELECT key, value FROM journal.meta")
        # The number of the last message, which is used even if that has been trimmed since.
        target.execute("DELETE FROM sqlite_sequence")
        target.execute("INSERT INTO sqlite_sequence SELECT name, seq FROM journal.sqlite_sequence")
        target.execute("COMMIT")


def remove(path: str) -> None:
    for each in (path, f"{path}-wal", f"{path}-shm"):
        with suppress(FileNotFoundError):
            os.unlink(each)


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    except (CannotBeDone, OSError, sqlite3.Error) as error:
        sys.exit(f"journal: {error}")
