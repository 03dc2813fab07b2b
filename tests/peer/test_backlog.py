"""A listener of upstream's that was away: it asks the backlog as it would ask datagrepper."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.ports import free_port
from tests.support.waiting import wait_for

from .bus import Bus, Publisher
from .processes import Hub

TOPIC = "org.fedoraproject.dev.peer.backlog"


@pytest.fixture
def bus(make_bus: Callable[..., Bus], tmp_path: Path) -> Bus:
    port = free_port()
    return make_bus(
        relay_journal=str(tmp_path / "journal.db"),
        relay_http=f"127.0.0.1:{port}",
        # What a hub needs to catch up; there is nothing else to set.
        datagrepper_url=f"http://127.0.0.1:{port}/raw",
        status_directory=str(tmp_path / "status"),
    )


def send(publisher: Publisher, numbers: range, **keys: Any) -> None:
    for number in numbers:
        body = {
            "topic": TOPIC,
            "timestamp": int(time.time()),
            "msg_id": f"2026-{number}",
            "i": number,
            "username": "ralph",
            "msg": {"n": number},
            **keys,
        }
        publisher.send(TOPIC.encode(), json.dumps(body).encode())


def numbers(hub: Hub) -> list[int]:
    return [message["msg"]["n"] for message in hub.messages()]


def wait_for_journal(bus: Bus, count: int) -> None:
    def stored() -> bool:
        with closing(sqlite3.connect(bus.config["relay_journal"])) as db:
            [found] = db.execute(
                "SELECT count(*) FROM message WHERE topic = ?", (TOPIC,)
            ).fetchone()
        return bool(found == count)

    wait_for(stored, what=f"the journal has {count} messages")


def test_a_hub_that_was_away_gets_all_it_missed(
    bus: Bus, figure: Callable[[str, object], None]
) -> None:
    """250 messages went by: three pages. Each is consumed once, in order, and then what is new."""
    relay = bus.relay()
    with bus.publisher() as publisher:
        hub = bus.hub("hub-before")
        bus.wait_for_listeners(relay, 1)
        send(publisher, range(1))
        wait_for(lambda: numbers(hub) == [0], what="the hub has the first one")
        hub.stop()
        bus.wait_for_listeners(relay, 0)
        # Not within the second of the one it has had: its start would be in the middle of them.
        first = hub.messages()[0]["timestamp"]
        wait_for(lambda: time.time() > first + 1, what="the clock has moved on")
        send(publisher, range(1, 251))
        wait_for_journal(bus, 251)
        hub = bus.hub("hub-after")
        wait_for(lambda: len(numbers(hub)) >= 250, what="the hub has what it missed")
        bus.wait_for_listeners(relay, 1)
        send(publisher, range(251, 252))
        wait_for(lambda: numbers(hub)[-1] == 251, what="the hub has the next one")
        figure("hub-published", 250)
        figure("hub-received", len(set(range(1, 251)) & set(numbers(hub))))
        assert numbers(hub) == list(range(1, 252))


def test_a_publisher_whose_clock_is_ahead(bus: Bus) -> None:
    """The hub asks for what comes after a moment that is yet to come."""
    relay = bus.relay()
    with bus.publisher() as publisher:
        hub = bus.hub("hub-before")
        bus.wait_for_listeners(relay, 1)
        ahead = int(time.time()) + 30
        send(publisher, range(1), timestamp=ahead)
        wait_for(lambda: numbers(hub) == [0], what="the hub has the first one")
        hub.stop()
        bus.wait_for_listeners(relay, 0)
        send(publisher, range(1, 11), timestamp=ahead)
        wait_for_journal(bus, 11)
        hub = bus.hub("hub-after")
        wait_for(lambda: numbers(hub) == list(range(1, 11)), what="the hub has what it missed")


def test_what_was_spooled_is_found_by_when_the_relay_received_it(bus: Bus) -> None:
    """Its own timestamp is of long before the hub went away."""
    relay = bus.relay()
    with bus.publisher() as publisher:
        hub = bus.hub("hub-before")
        bus.wait_for_listeners(relay, 1)
        send(publisher, range(1))
        wait_for(lambda: numbers(hub) == [0], what="the hub has the first one")
        hub.stop()
        bus.wait_for_listeners(relay, 0)
        send(publisher, range(1, 11), timestamp=int(time.time()) - 86_400)
        wait_for_journal(bus, 11)
        hub = bus.hub("hub-after")
        wait_for(lambda: numbers(hub) == list(range(1, 11)), what="the hub has what was spooled")


def test_a_hub_that_starts_while_messages_go_by_misses_none(bus: Bus) -> None:
    """The backlog has them until the bus does. Some come from both: at least once is the rule."""
    relay = bus.relay()
    sent = 1
    with bus.publisher() as publisher:
        hub = bus.hub("hub-before")
        bus.wait_for_listeners(relay, 1)
        send(publisher, range(1))
        wait_for(lambda: numbers(hub) == [0], what="the hub has the first one")
        hub.stop()
        hub = bus.hub("hub-after")
        while sent < 1000:
            send(publisher, range(sent, sent + 1))
            sent += 1
            time.sleep(0.005)
        wait_for(lambda: sent - 1 in numbers(hub), what="the hub has the last one")
        wait_for(lambda: set(numbers(hub)) >= set(range(1, sent)), what="the hub has all of them")
