"""A msg_id is one message's: what is submitted under that of another is refused."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest
import zmq

from tests.conftest import Bus, Process, Sender, Submitter, numbered, wait_for

REFUSAL = {"ok": False, "error": "another message has this msg_id", "retry": False}


@pytest.fixture
def relay(bus: Bus) -> Process:
    bus.with_journal()
    return bus.relay()


def test_submitted_before(bus: Bus, relay: Process, context: zmq.Context[Any]) -> None:
    client = Submitter(context, bus.submit)
    first = client.submit(*numbered(1))
    assert client.submit(*numbered(1, more="other")) == {**REFUSAL, "msg_id": "id-1"}
    assert client.submit(*numbered(1)) == first
    # Not by the topic's frame either, which is no part of what is stored: the body has it.
    assert client.submit(b"other", numbered(1)[1]) == first
    assert relay.terminate() == 0
    bus.relay()
    client = Submitter(context, bus.submit)
    assert client.submit(*numbered(1, more="other")) == {**REFUSAL, "msg_id": "id-1"}


def test_in_flight(bus: Bus, relay: Process, context: zmq.Context[Any]) -> None:
    client = Submitter(context, bus.submit)
    for number in range(100):
        client.send(*numbered(number))
        client.send(*numbered(number, more="other"))
    replies = dict(client.reply() for _ in range(200))
    assert all(replies[2 * n + 1]["ok"] for n in range(100))
    assert all(replies[2 * n + 2]["retry"] is False for n in range(100))
    assert len(bus.journaled()) == 100


def test_on_the_legacy_side_before(bus: Bus, relay: Process, context: zmq.Context[Any]) -> None:
    Sender(context, bus.inbound).send(*numbered(1, more="a stranger's"))
    wait_for(lambda: bus.journaled() == ["id-1"])
    client = Submitter(context, bus.submit)
    assert client.submit(*numbered(1)) == {**REFUSAL, "msg_id": "id-1"}


def test_looks_alike_when_it_is_stored(bus: Bus, relay: Process, context: zmq.Context[Any]) -> None:
    client = Submitter(context, bus.submit)
    body = b'{"topic":"t","timestamp":1,"msg_id":"%s","msg":{}}'
    assert client.submit(b"t", body % rb"x\ud800")["ok"]
    assert client.submit(b"t", body % rb"x\\ud800")["retry"] is False


def test_empty(bus: Bus, relay: Process, context: zmq.Context[Any]) -> None:
    client = Submitter(context, bus.submit)
    body = b'{"topic":"t","timestamp":1,"msg_id":"","msg":{}}'
    Sender(context, bus.inbound).send(b"t", body)
    wait_for(lambda: bus.journaled() == [""])
    for _ in range(2):
        reply = client.submit(b"t", body)
        assert reply == {"ok": False, "error": "an empty msg_id", "retry": False}
    with sqlite3.connect(bus.journal) as db:
        assert db.execute("SELECT count(*) FROM message").fetchone() == (1,)
