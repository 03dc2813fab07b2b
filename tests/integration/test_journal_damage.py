"""The journal's files are damaged or removed while the relay runs: nothing acknowledged is lost."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zmq

from tests.conftest import Bus, Process, Submitter, numbered, wait_for


def remove_log(bus: Bus) -> None:
    Path(f"{bus.journal}-wal").unlink()


def remove_index(bus: Bus) -> None:
    Path(f"{bus.journal}-shm").unlink()


def remove_both(bus: Bus) -> None:
    remove_index(bus)
    remove_log(bus)


def replace_log(bus: Bus) -> None:
    other = bus.directory / "other"
    other.write_bytes(b"nothing that SQLite knows" * 1000)
    other.rename(f"{bus.journal}-wal")


def submit(bus: Bus, client: Submitter, first: int, last: int, acknowledged: set[str]) -> None:
    """Submit, each until it is acknowledged."""
    for number in range(first, last):
        wait_for(lambda n=number: client.submit(*numbered(n))["ok"], pause=0.05)  # type: ignore[misc]
        acknowledged.add(f"id-{number}")


def kill(relay: Process) -> None:
    os.kill(relay.pid, signal.SIGKILL)
    relay.child.wait(20)


@pytest.mark.parametrize("spoil", [remove_log, remove_index, remove_both, replace_log])
def test_a_file_beside_the_journal_is_gone(
    bus: Bus, context: zmq.Context[Any], spoil: Callable[[Bus], None]
) -> None:
    bus.with_journal()
    relay = bus.relay()
    client = Submitter(context, bus.submit)
    acknowledged: set[str] = set()
    submit(bus, client, 0, 100, acknowledged)
    spoil(bus)
    submit(bus, client, 100, 300, acknowledged)
    assert "-wal or -shm was removed or replaced" in relay.output
    kill(relay)
    assert acknowledged == {f"id-{n}" for n in range(300)}
    assert set(bus.journaled()) == acknowledged
    bus.relay()
    client = Submitter(context, bus.submit)
    assert client.submit(*numbered(7)) == {"ok": True, "seq": 8, "msg_id": "id-7"}


def pages(bus: Bus) -> int:
    """The whole journal is in its file afterwards."""
    with sqlite3.connect(bus.journal) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return bus.journal.stat().st_size // 4096


def overwrite(bus: Bus, which: range) -> None:
    with bus.journal.open("r+b") as stream:
        for page in which:
            stream.seek(page * 4096)
            stream.write(os.urandom(4096))


@pytest.mark.parametrize(("begin", "end"), [(1, None), (2, 3), (4, 5), (-3, None), (-1, None)])
def test_pages_are_damaged(
    bus: Bus, context: zmq.Context[Any], begin: int, end: int | None
) -> None:
    """It is met without a message, and what can be read is in the new journal."""
    bus.with_journal(http=True)
    relay = bus.relay()
    client = Submitter(context, bus.submit)
    for number in range(500):
        client.send(*numbered(number, padding="x" * 500))
    for _ in range(500):
        assert client.reply()[1]["ok"]
    whole = range(pages(bus))
    overwrite(bus, whole[begin:end])
    relay.wait_for_line("is not a usable journal")
    acknowledged: set[str] = set()
    submit(bus, client, 1000, 1100, acknowledged)
    relay.wait_for_line("could not be read")
    kill(relay)
    journaled = bus.journaled()
    assert acknowledged <= set(journaled) and len(journaled) == len(set(journaled))
    with sqlite3.connect(bus.journal) as db:
        seqs = [row[0] for row in db.execute("SELECT seq FROM message WHERE msg_id LIKE 'id-1___'")]
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    # Numbers go on, and those of before are as they were.
    assert seqs == list(range(501, 601))
    if end is not None and begin > 1:
        assert len(journaled) > 550


def test_what_is_in_the_journal_that_was_moved_aside_is_known(
    bus: Bus, context: zmq.Context[Any]
) -> None:
    bus.with_journal()
    relay = bus.relay()
    client = Submitter(context, bus.submit)
    acknowledged: set[str] = set()
    submit(bus, client, 0, 200, acknowledged)
    overwrite(bus, range(pages(bus) - 1, pages(bus)))
    relay.wait_for_line("could not be read")
    kept = bus.journaled()
    assert len(kept) > 150
    for msg_id in (kept[0], kept[-1]):
        number = int(msg_id[3:])
        assert client.submit(*numbered(number)) == {"ok": True, "seq": number + 1, "msg_id": msg_id}


def test_numbers_go_on_after_the_journal_was_removed(bus: Bus, context: zmq.Context[Any]) -> None:
    bus.with_journal()
    relay = bus.relay()
    client = Submitter(context, bus.submit)
    submit(bus, client, 0, 3, set())
    for path in bus.directory.glob("journal.db*"):
        path.unlink()
    relay.wait_for_line("was removed or replaced")
    reply = wait_for(
        lambda: next((r for r in [client.submit(*numbered(9))] if r["ok"]), None), what="a new one"
    )
    assert reply["seq"] == 4
