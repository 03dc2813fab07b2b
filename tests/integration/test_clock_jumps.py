"""A host's clock that jumps far takes nothing from the backlog, and the times are right again."""

from __future__ import annotations

import json
import sqlite3
import time
import urllib.request
from typing import Any, Callable

import pytest
import zmq

from tests.conftest import Bus, Listener, Submitter, numbered, wait_for

from .test_clock import Clock

MakeListener = Callable[..., Listener]
YEAR = 365 * 24 * 3600


def times(bus: Bus) -> list[float]:
    with sqlite3.connect(bus.journal) as db:
        return [row[0] for row in db.execute("SELECT received FROM message ORDER BY seq")]


def health(bus: Bus) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(f"http://{bus.http}/health", timeout=20) as answer:
            return dict(json.load(answer))
    except OSError:
        return {"warnings": []}


def about_clock(bus: Bus) -> list[str]:
    return [text for text in health(bus)["warnings"] if "clock" in text]


def test_a_year_ahead_for_a_moment(
    bus: Bus, context: zmq.Context[Any], listener: MakeListener
) -> None:
    clock = Clock(bus.directory)
    bus.with_journal(http=True)
    relay = bus.relay(**clock.environment)
    listening, client = listener(relay), Submitter(context, bus.submit)
    for number in range(300):
        client.send(*numbered(number))
    for _ in range(300):
        assert client.reply()[1]["ok"]
    clock.step(YEAR)
    assert client.submit(*numbered(300))["ok"]
    relay.wait_for_line("clock: it jumped 31536000 s ahead")
    assert client.submit(*numbered(301))["ok"]
    clock.step(0)
    relay.wait_for_line("clock: it jumped 31536000 s back")
    wait_for(lambda: times(bus)[-1] <= time.time(), what="the times to be corrected")
    assert client.submit(*numbered(302))["ok"]
    # All are there and known, and nothing was relayed twice.
    assert bus.journaled() == [f"id-{n}" for n in range(303)]
    assert client.submit(*numbered(0)) == {"ok": True, "seq": 1, "msg_id": "id-0"}
    got = [json.loads(listening.receive()[1])["msg"]["n"] for _ in range(303)]
    assert got == list(range(303)) and not listening.socket.poll(100)
    found = times(bus)
    assert found == sorted(found) and found[-1] <= time.time()
    wait_for(lambda: about_clock(bus), what="health to tell of it")


def test_ahead_for_good(bus: Bus, context: zmq.Context[Any]) -> None:
    """It was behind before: what is in the backlog is as old as it was."""
    clock = Clock(bus.directory)
    bus.with_journal(relay_journal_max_age=3600)
    relay = bus.relay(**clock.environment)
    client = Submitter(context, bus.submit)
    assert client.submit(*numbered(0))["ok"]
    clock.step(YEAR)
    relay.wait_for_line("clock: it jumped")
    assert client.submit(*numbered(1))["ok"]
    # And for the next process, which knows that clock only.
    assert relay.terminate() == 0
    bus.relay(**clock.environment)
    client = Submitter(context, bus.submit)
    assert client.submit(*numbered(2))["ok"]
    assert bus.journaled() == ["id-0", "id-1", "id-2"]


def test_ahead_while_the_relay_is_away(bus: Bus, context: zmq.Context[Any]) -> None:
    clock = Clock(bus.directory)
    bus.with_journal()
    relay = bus.relay(**clock.environment)
    assert Submitter(context, bus.submit).submit(*numbered(0))["ok"]
    assert relay.terminate() == 0
    clock.step(YEAR)
    relay = bus.relay(**clock.environment)
    assert Submitter(context, bus.submit).submit(*numbered(1))["ok"]
    assert "clock: 365.0 days ahead of when this relay last ran" in relay.output
    assert bus.journaled() == ["id-0", "id-1"]
    clock.step(0)
    relay.wait_for_line("s back")
    wait_for(lambda: times(bus)[-1] <= time.time(), what="the times to be corrected")


@pytest.mark.parametrize("seconds", [-3600, -YEAR])
def test_back_for_a_moment(bus: Bus, context: zmq.Context[Any], seconds: int) -> None:
    """The times go on: who asks for all since a moment meanwhile gets what came since."""
    clock = Clock(bus.directory)
    bus.with_journal()
    relay = bus.relay(**clock.environment)
    client = Submitter(context, bus.submit)
    assert client.submit(*numbered(0))["ok"]
    clock.step(seconds)
    relay.wait_for_line("s back; the backlog's times go on")
    before = time.time()
    assert client.submit(*numbered(1))["ok"]
    assert before - 1 < times(bus)[-1] <= time.time() + 1
    clock.step(0)
    assert client.submit(*numbered(2))["ok"]
    assert times(bus) == sorted(times(bus)) and times(bus)[-1] <= time.time() + 1
