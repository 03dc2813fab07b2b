"""How long a subject is away: from its start until it serves, and over a restart under load.

A restart of ours is systemd's: its sockets stay bound, and SIGTERM to the old process is followed
by the start of the next (tests/integration/socket_unit.py does what systemd does). Upstream knows
no such thing: its next process starts when the old one has ended.
"""

from __future__ import annotations

import signal
import socket
import sys
import time
from dataclasses import replace
from typing import Any

import zmq

from tests.support.programs import ROOT

from . import messages
from .load import Load
from .plan import Plan, Row, alternated
from .subjects import JOURNAL, KINDS, RELAY, UPSTREAM, JournaledRelay, Kind, Relay, Subject
from .throughput import MAIN

RATE = 1000.0
# Seconds of load before a restart, and after it.
BEFORE = 1.0
AFTER = 2.5
# Seconds after which a client submits again what was not acknowledged.
AGAIN = 0.3
# Milliseconds between attempts to connect: the config's defaults, which listeners and publishers
# of a bus have.
RECONNECT = (100, 1000)


def run(plan: Plan) -> list[Row]:
    rows: list[Row] = []
    for number, kind in alternated(plan.rounds_or(5, 2), plan.kinds(*KINDS)):
        rows.append({"subject": kind.name, "what": "cold start", "round": number, **cold(kind)})
        plan.say(f"{kind.name}: cold start {rows[-1]['serves']:.0f} ms")
    # As on a host: the relay waits for the listeners it had.
    kinds = [
        replace(kind, keys=(("relay_hold_max", None),))
        for kind in plan.kinds(RELAY, JOURNAL, UPSTREAM)
    ]
    for number, kind in alternated(plan.rounds_or(4, 1), kinds):
        for way in ("inbound", "submit"):
            if way == "inbound" or kind.kind == JOURNAL:
                figures = restart(kind, way)
                place = {"subject": kind.name, "what": f"restart, {way}", "round": number}
                rows.append({**place, **figures})
                plan.say(
                    f"{kind.name}: restart under load over {way}: {figures['gap']:.0f} ms,"
                    f" {figures['missing']} of {figures['sent']} lost"
                )
    return rows


def cold(kind: Kind) -> dict[str, float]:
    """Milliseconds from exec until a publisher is subscribed to, and until READY=1 where it is."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    publisher = context.socket(zmq.XPUB)
    publisher.setsockopt(zmq.RECONNECT_IVL, 1)
    # The proxy subscribes when somebody listens.
    listener = context.socket(zmq.SUB)
    listener.setsockopt(zmq.RECONNECT_IVL, 1)
    listener.setsockopt(zmq.SUBSCRIBE, b"")
    notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    poller = zmq.Poller()
    poller.register(publisher, zmq.POLLIN)
    poller.register(notified, zmq.POLLIN)
    found: dict[str, float] = {}
    with kind.start(launch=False) as subject:
        path = str(subject.directory / "notify")
        notified.bind(path)
        publisher.connect(subject.inbound)
        listener.connect(subject.outbound)
        started = time.monotonic()
        subject.launch(NOTIFY_SOCKET=path)
        while len(found) < 1 + isinstance(subject, Relay):
            ready = dict(poller.poll(30_000))
            passed = (time.monotonic() - started) * 1000
            if not ready:
                subject.program.fail("does not serve after 30 s")
            if publisher in ready:
                publisher.recv()
                found["serves"] = passed
            if notified.fileno() in ready and b"READY=1" in notified.recv(4096):
                found["ready"] = passed
    notified.close()
    context.destroy(linger=0)
    return found


def restart(kind: Kind, way: str) -> dict[str, Any]:
    """Milliseconds at the listener, from the last message before a restart to the first after."""
    with kind.start(launch=False) as subject:
        if isinstance(subject, Relay):
            unit = ROOT / "tests/integration/socket_unit.py"
            subject.launch(under=[sys.executable, unit, *subject.addresses(), "--"])
        else:
            subject.launch()
        with Load(subject, MAIN.size, rate=RATE, reconnect=RECONNECT) as load:
            if way == "submit":
                assert isinstance(subject, JournaledRelay)
                _submit_over_a_restart(subject, load)
            else:
                load.go()
                time.sleep(BEFORE)
                _restart(subject)
                time.sleep(AFTER)
            load.pause(stalled=0.5)
            sent, heard = load.sent, load.finish()
            _, arrived = load.times()
    gaps = [later - earlier for earlier, later in zip(arrived, arrived[1:])]
    figures = {"missing": heard["missing"], "doubled": heard["doubled"]}
    return {"gap": max(gaps) / 1e6, "sent": sent, **figures}


def _restart(subject: Subject) -> None:
    if isinstance(subject, Relay):
        subject.program.child.send_signal(signal.SIGHUP)
    else:
        subject.program.stop()
        subject.launch()


def _submit_over_a_restart(subject: JournaledRelay, load: Load) -> None:
    """RATE requests a second, and again what is not acknowledged soon, as protocol.adoc says."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    client = context.socket(zmq.DEALER)
    client.setsockopt(zmq.RECONNECT_IVL, RECONNECT[0])
    client.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT[1])
    client.connect(subject.submit)
    before, between, random, after = messages.parts(MAIN.size)
    waiting: dict[int, tuple[float, bytes]] = {}

    def submit(number: int, body: bytes) -> None:
        waiting[number] = time.monotonic(), body
        client.send_multipart([b"%d" % number, b"", messages.TOPIC, body])

    started, sent, restarted = time.monotonic(), 0, False
    while waiting or time.monotonic() < started + BEFORE + AFTER:
        now = time.monotonic()
        if now > started + BEFORE + AFTER + 30:
            subject.program.fail(f"has not acknowledged {len(waiting)} messages")
        if now > started + BEFORE and not restarted:
            restarted = True
            _restart(subject)
        while started + sent / RATE < min(now, started + BEFORE + AFTER):
            stamp = int((started + sent / RATE) * 1e9)
            part = random[sent % messages.RANDOM_PARTS]
            submit(sent, b"%b%020d%b%b%012d%b" % (before, stamp, between, part, sent, after))
            sent += 1
        load.sent = sent
        while client.poll(1):
            key, _, reply = client.recv_multipart()
            if b'"ok": true' in reply:
                waiting.pop(int(key), None)
        late = [number for number, (since, _) in waiting.items() if since < now - AGAIN]
        for number in late:
            submit(number, waiting[number][1])
    context.destroy(linger=0)
