"""The backlog of another relay is taken in by one that runs, behind what passes meanwhile."""

from __future__ import annotations

import json
import os
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import zmq
from fedmsg_relay.journal import handover
from fedmsg_relay.journal.store import Journal, Row

from tests.conftest import Bus, Submitter, numbered, wait_for
from tests.integration.test_journal_faults import full_disk
from tests.support.waiting import at_most, patient

OLD = 3000


@pytest.fixture
def handed_over(bus: Bus, tmp_path: Path) -> Path:
    """A file with OLD messages of an hour ago, not yet where the relay looks for it."""
    bus.with_journal(http=True)
    source = tmp_path / "old.db"
    old = Journal(str(source), 1e6, 1 << 30)
    begun = time.time() - 3600
    old.append(
        [
            Row(begun + n / 100, "t", f"old-{n}", numbered(n, msg_id=f"old-{n}")[1])
            for n in range(OLD)
        ]
    )
    old.close()
    directory = tmp_path / handover.DIRECTORY
    directory.mkdir()
    hidden = directory / ".old.db"
    handover.export(str(source), str(hidden), "app01", 0)
    return hidden


def hand_over(hidden: Path) -> None:
    hidden.rename(hidden.with_name("old.db"))


def expected(live: int) -> list[str]:
    """Of so many live messages, however many there are, and of those handed over."""
    return sorted([*(f"id-{n}" for n in range(live)), *(f"old-{n}" for n in range(OLD))])


def test_live_messages_are_acknowledged_meanwhile_and_all_are_in_the_backlog(
    bus: Bus, handed_over: Path, context: zmq.Context[Any]
) -> None:
    relay = bus.relay()
    client = Submitter(context, bus.submit)
    hand_over(handed_over)
    live = 0
    while "handed over: 3000 messages of app01 are in the backlog now" not in relay.output:
        started = time.monotonic()
        assert client.submit(*numbered(live))["ok"]
        # No longer than the disk takes for a group, and certainly not for all of them.
        at_most(2, since=started)
        live += 1
    journaled = bus.journaled()
    assert sorted(journaled) == expected(live)
    # They came one after the other, not all of one before the other.
    old = [at for at, msg_id in enumerate(journaled) if msg_id.startswith("old-")]
    assert old != list(range(old[0], old[0] + OLD))
    wait_for(lambda: not list(handed_over.parent.iterdir()))
    url = f"http://{bus.http}/raw?rows_per_page=100&order=asc&delta=86400&page="
    found: list[str] = []
    for page in range(1, 2 + (OLD + live) // 100):
        with urllib.request.urlopen(f"{url}{page}", timeout=patient(10)) as answer:
            found += [message["msg_id"] for message in json.load(answer)["raw_messages"]]
    assert found == journaled


def test_a_relay_that_is_killed_meanwhile_begins_anew_and_has_none_twice(
    bus: Bus, handed_over: Path
) -> None:
    bus.configure("z", relay_http=[])  # its process ends a moment after the relay is killed
    relay = bus.relay()
    hand_over(handed_over)

    def wait_until_taken(at_least: int) -> None:
        wait_for(lambda: len(bus.journaled()) >= at_least)

    for at_least in (50, OLD // 2):
        wait_until_taken(at_least)
        relay.child.kill()
        relay.child.wait()
        relay = bus.relay()
    relay.wait_for_line("messages of app01 are in the backlog now")
    assert sorted(bus.journaled()) == expected(0)


def test_while_the_disk_is_full_it_waits(
    bus: Bus, handed_over: Path, context: zmq.Context[Any]
) -> None:
    relay = bus.relay()
    client = Submitter(context, bus.submit)
    assert client.submit(*numbered(0))["ok"]
    with full_disk(relay):
        hand_over(handed_over)
        assert client.submit(*numbered(1))["retry"] is True
        assert relay.is_running()
        assert os.path.exists(handed_over.with_name("old.db"))
    relay.wait_for_line("messages of app01 are in the backlog now")
    assert client.submit(*numbered(1))["ok"]
    assert sorted(bus.journaled()) == expected(2)


def test_garbage_disturbs_nothing(bus: Bus, handed_over: Path, context: zmq.Context[Any]) -> None:
    relay = bus.relay()
    garbage = handed_over.with_name("a.db")
    garbage.write_bytes(b"garbage" * 1000)
    relay.wait_for_line("cannot be used")
    assert garbage.with_name("a.db.broken").exists()
    assert Submitter(context, bus.submit).submit(*numbered(0))["ok"]
    hand_over(handed_over)
    relay.wait_for_line("messages of app01 are in the backlog now")
