"""The relay killed in the middle of it all: what was acknowledged is on disk, and once."""

from __future__ import annotations

import json
import random
import sqlite3
import threading
import time
from collections import Counter
from contextlib import closing
from typing import Any, Callable

import zmq

from tests.conftest import Bus, Listener, Process, Sender, Submitter, numbered, wait_for
from tests.support.waiting import patient

KILLS = 50

Figure = Callable[[str, object], None]


class Load:
    """A client that submits numbered messages in a pipeline, and again what was not answered."""

    def __init__(self, bus: Bus, first: int, step: int) -> None:
        self.acknowledged: dict[int, int] = {}  # number to seq
        self.errors: list[object] = []
        self._bus = bus
        self._numbers = iter(range(first, 10**9, step))
        self._wanted: set[int] = set()
        self._end = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def finish(self) -> None:
        """Stop making new messages; return once all are acknowledged."""
        self._end.set()
        self.thread.join(patient(60))
        assert not self.thread.is_alive(), f"{len(self._wanted)} messages were not acknowledged"

    def _run(self) -> None:
        context: zmq.Context[Any] = zmq.Context()
        client = Submitter(context, self._bus.submit)
        sent: dict[int, int] = {}
        heard = time.monotonic()
        while self._wanted or not self._end.is_set():
            while len(self._wanted) < 50 and not self._end.is_set():
                number = next(self._numbers)
                self._wanted.add(number)
                sent[client.send(*numbered(number))] = number
            if client.socket.poll(50):
                heard = time.monotonic()
                correlation, reply = client.reply()
                number = sent[correlation]
                if reply["ok"]:
                    first = self.acknowledged.setdefault(number, reply["seq"])
                    if first != reply["seq"]:
                        self.errors.append((number, first, reply["seq"]))
                    self._wanted.discard(number)
                elif not reply["retry"]:
                    self.errors.append(reply)
            elif time.monotonic() - heard > 0.3:  # it was killed: again, all of them
                heard = time.monotonic()
                for number in sorted(self._wanted):
                    sent[client.send(*numbered(number))] = number
        context.destroy(linger=0)


def acknowledged_by(loads: list[Load]) -> int:
    return sum(len(load.acknowledged) for load in loads)


def test_killed_at_random_moments_under_load(
    bus: Bus, context: zmq.Context[Any], figure: Figure
) -> None:
    bus.with_journal(relay_hold_max=0)
    relay = bus.relay()
    loads = [Load(bus, first, 2) for first in range(2)]
    legacy = Sender(context, bus.inbound)
    moments = random.Random(7)
    legacy_number = 10**9
    for _ in range(KILLS):
        # By what has been acknowledged, so that there is a load at each on any machine.
        enough = acknowledged_by(loads) + moments.randrange(20, 200)
        while acknowledged_by(loads) < enough:
            legacy_number += 1
            legacy.send(*numbered(legacy_number))
            time.sleep(0.001)
        # Acknowledgements come many at once, and the moment shall not be theirs.
        time.sleep(moments.uniform(0.0, 0.02))
        relay.child.kill()
        relay.child.wait()
        relay = bus.relay()
    for load in loads:
        load.finish()
        assert load.errors == []
    assert relay.terminate() == 0
    journaled = bus.journaled()
    seqs = {msg_id: seq for seq, msg_id in _rows(bus)}
    acknowledged = {n: seq for load in loads for n, seq in load.acknowledged.items()}
    missing = [n for n, seq in acknowledged.items() if seqs.get(f"id-{n}") != seq]
    twice = [msg_id for msg_id, count in Counter(journaled).items() if count > 1]
    figure("kill-kills", KILLS)
    figure("kill-acknowledged", len(acknowledged))
    figure("kill-missing", len(missing))
    figure("kill-twice", len(twice))
    assert len(acknowledged) >= KILLS * 20
    assert missing == []
    assert twice == []


def test_at_most_what_was_in_flight_is_relayed_twice(
    bus: Bus, context: zmq.Context[Any], figure: Figure
) -> None:
    """The rule for listeners: twice only if the relay died after emitting it, before writing it."""
    bus.with_journal()
    relay = bus.relay()
    listening = Listener(context, bus.outbound)
    relay.wait_for_line("1 now")
    got: list[int] = []

    def listen() -> None:
        while listening.socket.poll(0):
            got.append(json.loads(listening.socket.recv_multipart()[1])["msg"]["n"])

    doubled = 0
    number = 0
    for _ in range(10):
        client = Submitter(context, bus.submit)
        pending = set(range(number, number + 100))
        number += 100
        sent = {client.send(*numbered(n)): n for n in sorted(pending)}
        while len(pending) > 50:
            correlation, _ = client.reply()
            pending.discard(sent[correlation])
            listen()
        relay.child.kill()
        relay.child.wait()
        in_flight = set(pending)
        relay = _restarted(bus, listening, listen)
        # What was written was emitted before. The kill may have caught it on its way: the listener
        # gets it from the backlog, and never from here.
        to_come = {n for n in pending if f"id-{n}" not in set(bus.journaled())}
        again = Submitter(context, bus.submit)
        for n in sorted(pending):
            assert again.submit(*numbered(n))["ok"]
            listen()
        wait_for(lambda: listen() or set(got) >= to_come, what="what was submitted again")  # type: ignore[func-returns-value] # noqa: B023
        twice = {n for n, count in Counter(got).items() if count > 1}
        assert twice <= in_flight
        doubled += len(twice)
        got.clear()
        client.socket.close(linger=0)
        again.socket.close(linger=0)
    figure("doubled-messages", number)
    figure("doubled-by-kills", doubled)
    assert sorted(bus.journaled()) == sorted(f"id-{n}" for n in range(number))


def _restarted(bus: Bus, listening: Listener, listen: Any) -> Process:
    relay = bus.relay(ready=False)
    # A SUB subscribes anew only when its thread comes by.
    wait_for(lambda: listen() or "1 now" in relay.output)
    relay.wait_for_line("] ready")
    return relay


def _rows(bus: Bus) -> list[tuple[int, str]]:
    with closing(sqlite3.connect(bus.journal)) as db:
        return db.execute("SELECT seq, msg_id FROM message").fetchall()
