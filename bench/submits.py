"""Acknowledged messages per second: one at a time, over a connection of its own, and pipelined."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import zmq

from . import journals, messages
from .plan import Plan, Row, alternated
from .processes import MeasurementError, cpu_seconds
from .spread import percentile
from .subjects import JOURNAL, JournaledRelay
from .throughput import MAIN

# Requests that wait for their reply at the same time, where they are pipelined.
WINDOW = 200

# Milliseconds.
PATIENCE = 20_000


def run(plan: Plan) -> list[Row]:
    rows: list[Row] = []
    kinds = [
        (size, replace(kind, prefilled=journals.prefilled(kind.checkout, size)))
        for kind in plan.kinds(JOURNAL)
        for size in plan.of((0, journals.FULL), (0,))
    ]
    for number, (size, kind) in alternated(plan.rounds_or(4, 2), kinds):
        with kind.start() as subject:
            assert isinstance(subject, JournaledRelay)
            place = {"subject": kind.name, "journal": size, "round": number}
            for way, submit in (("one-shot", one_shot), ("pipelined", pipelined)):
                figures = submit(subject, plan.seconds_or(3.0, 1.5))
                rows.append({**place, "way": way, **figures})
                plan.say(
                    f"{kind.name}, journal of {size >> 20} MiB, {way}: {figures['rate']:,.0f} /s"
                )
    return rows


def one_shot(subject: JournaledRelay, seconds: float) -> dict[str, Any]:
    """A new DEALER socket for each, and the next one after its reply. Times are microseconds."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    requests = _requests()
    taken: list[int] = []
    _submit_alone(context, subject, next(requests))
    cpu = cpu_seconds(subject.pid)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        started = time.monotonic_ns()
        _submit_alone(context, subject, next(requests))
        taken.append(time.monotonic_ns() - started)
    cpu = cpu_seconds(subject.pid) - cpu
    context.term()
    taken.sort()
    return {
        "rate": len(taken) / (sum(taken) / 1e9),
        "p50": percentile(taken, 0.5) / 1000,
        "p99": percentile(taken, 0.99) / 1000,
        "cpu": {"subject": cpu / len(taken) * 1e6},
    }


def pipelined(subject: JournaledRelay, seconds: float) -> dict[str, Any]:
    """Over one connection, WINDOW at a time."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    requests = _requests()
    client = _client(context, subject)
    for _ in range(WINDOW):
        client.send_multipart([b"", *next(requests)])
    _take_reply(client, subject)
    done, cpu = 0, cpu_seconds(subject.pid)
    started = time.monotonic()
    while time.monotonic() < started + seconds:
        client.send_multipart([b"", *next(requests)])
        _take_reply(client, subject)
        done += 1
    taken = time.monotonic() - started
    cpu = cpu_seconds(subject.pid) - cpu
    context.destroy(linger=0)
    return {"rate": done / taken, "cpu": {"subject": cpu / done * 1e6}}


def _submit_alone(
    context: zmq.Context[zmq.Socket[bytes]], subject: JournaledRelay, request: list[bytes]
) -> None:
    client = _client(context, subject)
    client.send_multipart([b"", *request])
    _take_reply(client, subject)
    client.close(linger=0)


def _client(context: zmq.Context[zmq.Socket[bytes]], subject: JournaledRelay) -> zmq.Socket[bytes]:
    client = context.socket(zmq.DEALER)
    client.setsockopt(zmq.RECONNECT_IVL, 10)
    client.setsockopt(zmq.RCVTIMEO, PATIENCE)
    client.connect(subject.submit)
    return client


def _take_reply(client: zmq.Socket[bytes], subject: JournaledRelay) -> None:
    try:
        reply = json.loads(client.recv_multipart()[-1])
    except zmq.Again:
        subject.program.fail("did not reply")
    if not reply["ok"]:
        raise MeasurementError(f"{subject.name}: {reply['error']}")


def _requests() -> Iterator[list[bytes]]:
    """Topic and body, without end; no two runs make the same."""
    before, _, random, after = messages.unstamped(MAIN.size)
    number = 0
    while True:
        part = random[number & (messages.RANDOM_PARTS - 1)]
        yield [messages.TOPIC, b"%b%b%012d%b" % (before, part, number, after)]
        number += 1
