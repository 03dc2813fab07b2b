"""Trouble with the journal: it never stops the bus, it is said, and it ends by itself."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
import zmq

from tests.conftest import Bus, Listener, Process, Sender, Submitter, numbered, wait_for

MakeListener = Callable[..., Listener]


@contextlib.contextmanager
def full_disk(relay: Process) -> Iterator[None]:
    """No file of the process may grow: what the kernel says then, EFBIG, is SQLite's disk error.

    Needs no rights; Molecule does the same with a full tmpfs.
    """
    _, hard = resource.prlimit(relay.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(relay.pid, resource.RLIMIT_FSIZE, (1, hard))
    try:
        yield
    finally:
        resource.prlimit(relay.pid, resource.RLIMIT_FSIZE, (hard, hard))


def received(listening: Listener, count: int) -> list[int]:
    return [json.loads(listening.receive()[1])["msg"]["n"] for _ in range(count)]


class TestDiskFull:
    def test_submit_is_refused_with_retry_legacy_goes_on_and_it_recovers(
        self, bus: Bus, context: zmq.Context[Any], listener: MakeListener
    ) -> None:
        bus.with_journal()
        relay = bus.relay()
        listening, sender = listener(relay), Sender(context, bus.inbound)
        client = Submitter(context, bus.submit)
        assert client.submit(*numbered(0))["ok"]
        with full_disk(relay):
            # The first is emitted before the disk has its say; later ones are not.
            first = client.submit(*numbered(1))
            assert first["ok"] is False and first["retry"] is True
            assert "journal" in first["error"]
            # The log is a file that may not grow, either: the replies say it.
            wait_for(lambda: "cannot be written" in client.submit(*numbered(1))["error"])
            for number in range(2, 20):
                reply = client.submit(*numbered(number))
                assert reply["ok"] is False and reply["retry"] is True
            for number in range(100, 200):
                sender.send(*numbered(number))
            assert received(listening, 102) == [0, 1, *range(100, 200)]
        relay.wait_for_line("journal: written again")
        # What came meanwhile was kept, the first of all, which its sender will submit again.
        wait_for(lambda: len(bus.journaled()) == 102)
        for number in range(20):
            assert client.submit(*numbered(number))["ok"]
        assert received(listening, 18) == list(range(2, 20))
        journaled = bus.journaled()
        assert sorted(journaled) == sorted(f"id-{n}" for n in [*range(20), *range(100, 200)])

    def test_it_recovers_without_any_message(self, bus: Bus, context: zmq.Context[Any]) -> None:
        bus.with_journal()
        relay = bus.relay()
        client = Submitter(context, bus.submit)
        with full_disk(relay):
            assert client.submit(*numbered(1))["retry"] is True
        relay.wait_for_line("journal: written again")

    def test_what_waits_for_the_disk_is_bounded_and_what_is_missing_is_counted(
        self, bus: Bus, context: zmq.Context[Any], listener: MakeListener
    ) -> None:
        bus.with_journal()
        relay = bus.relay()
        listening, sender = listener(relay), Sender(context, bus.inbound)
        with full_disk(relay):
            for number in range(100):
                sender.send(*numbered(number, padding="x" * (1 << 20)))
            assert received(listening, 100) == list(range(100))
        relay.wait_for_line("journal: written again")
        sender.send(*numbered(100))
        wait_for(lambda: bus.journaled()[-1] == "id-100")
        kept = len(bus.journaled()) - 1
        assert 20 < kept < 60
        assert bus.journaled()[:kept] == [f"id-{number}" for number in range(kept)]
        assert f"{100 - kept} messages are missing from it" in relay.output


def damage(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0" + os.urandom(8000))


def foreign(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE somebody_elses (x)")


def text(path: Path) -> None:
    path.write_text("these are not the bytes of a journal\n" * 100)


@pytest.mark.parametrize("spoil", [damage, foreign, text])
def test_a_file_that_is_no_journal_is_moved_aside(
    bus: Bus, context: zmq.Context[Any], spoil: Callable[[Path], None]
) -> None:
    bus.with_journal()
    spoil(bus.journal)
    content = bus.journal.read_bytes()
    relay = bus.relay()
    client = Submitter(context, bus.submit)
    assert client.submit(*numbered(1)) == {"ok": True, "seq": 1, "msg_id": "id-1"}
    (aside,) = [p for p in bus.directory.glob("journal.db.broken-*") if "-wal" not in p.name
                and "-shm" not in p.name]  # fmt: skip
    assert aside.read_bytes() == content
    assert f"{bus.journal} is not a usable journal" in relay.output
    assert f"moved to {aside}, started a new one" in relay.output


def test_damage_met_while_it_runs_is_moved_aside_too(
    bus: Bus, context: zmq.Context[Any], listener: MakeListener
) -> None:
    bus.with_journal()
    relay = bus.relay()
    listening, sender = listener(relay), Sender(context, bus.inbound)
    client = Submitter(context, bus.submit)
    for number in range(100):
        assert client.submit(*numbered(number))["ok"]
    with sqlite3.connect(bus.journal) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    size = bus.journal.stat().st_size
    with bus.journal.open("r+b") as stream:
        for page in range(1, size // 4096):
            stream.seek(page * 4096)
            stream.write(os.urandom(4096))
    # Neither thread may trust what it has read before; whichever meets the damage says so.
    sent = 1000

    def is_moved() -> bool:
        nonlocal sent
        sent += 1
        sender.send(*numbered(sent))
        return "moved to" in relay.output

    wait_for(is_moved, what="the damage to be met")
    wait_for(lambda: client.submit(*numbered(5000 + sent)).get("ok"), what="a new journal")
    got = [json.loads(listening.receive()[1])["msg"]["n"] for _ in range(100 + sent - 1000)]
    assert got == [*range(100), *range(1001, sent + 1)]


def test_a_journal_that_was_removed_is_started_anew(bus: Bus, context: zmq.Context[Any]) -> None:
    bus.with_journal()
    relay = bus.relay()
    client = Submitter(context, bus.submit)
    assert client.submit(*numbered(1))["ok"]
    for path in bus.directory.glob("journal.db*"):
        path.unlink()
    relay.wait_for_line("was removed or replaced")
    wait_for(lambda: client.submit(*numbered(2)).get("ok"), what="a new journal")
    assert bus.journaled() == ["id-2"]


def test_a_directory_that_is_not_there_stops_the_start(bus: Bus) -> None:
    bus.with_journal()
    bus.configure("z", relay_journal=str(bus.directory / "nowhere" / "journal.db"))
    relay = bus.relay(ready=False)
    assert relay.child.wait(20) == 1
    assert f"relay_journal: cannot create {bus.directory}/nowhere/journal.db" in relay.output


def test_the_journal_is_private(bus: Bus, context: zmq.Context[Any]) -> None:
    bus.with_journal()
    bus.relay()
    assert Submitter(context, bus.submit).submit(*numbered(1))["ok"]
    assert {p.stat().st_mode & 0o777 for p in bus.directory.glob("journal.db*")} == {0o600}
