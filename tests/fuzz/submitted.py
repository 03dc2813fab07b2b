"""The submit protocol, at both ends: requests at a relay's socket, and replies at a script's."""

from __future__ import annotations

import functools
import json
import socket
from types import SimpleNamespace
from typing import Any, cast

import zmq
from fedmsg_relay import message
from fedmsg_relay.checks.wire import Checker
from fedmsg_relay.config import complete
from fedmsg_relay.daemon.desk import Desk
from fedmsg_relay.daemon.submit import ENVELOPE_BYTES, Submit
from fedmsg_relay.journal.recorder import Found, Stored
from fedmsg_relay.publishing.submit_client import SubmitClient
from fedmsg_relay.publishing.zmtp import GREETING
from fedmsg_relay.publishing.zmtp import message as on_the_wire

from tests.support.ports import server

from .zmtp import READY

LARGEST = 1 << 12
BETWEEN = b"\n--frame--\n"
WORDS = (
    BETWEEN, BETWEEN * 2, BETWEEN * 30, b"x" * 1100, b"1", b"-1", b"1_0", b" 1", b"9" * 5000, b"{}",
    b'{"ok": true}', b'{"ok": false, "retry": "no"}', b"[" * 2000, b'"msg_id":"",', b'"msg_id":1,',
    b"NaN",
    b"\xff", b"\0", b'{"ok": true, "seq": {}}',
)  # fmt: skip


def seeds() -> list[bytes]:
    made = message.build("org.a.dev.x", {"n": 1}, 1)
    made |= {"timestamp": 1, "msg_id": "2023-1", "username": "ann"}
    request = [b"1", b"", b"org.a.dev.x", message.encode(made)]
    reply = [
        b"1",
        b"",
        json.dumps({"ok": True, "seq": 1, "msg_id": "2023-1", "time": 1.5}).encode(),
    ]
    refusal = [b"2", b"", json.dumps({"ok": False, "error": "why", "retry": True}).encode()]
    return [BETWEEN.join(each) for each in (request, [b"", *request[2:]], reply, refusal)]


def check(octets: bytes) -> None:
    frames = octets.split(BETWEEN)
    _request(frames)
    _reply(frames)


class _Shelf:
    """What stores for Submit here: it answers when it is asked to."""

    refusal = None

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.stored: list[tuple[str, int]] = []

    def now(self) -> float:
        return 1.0

    def ask(self, msg_id: str, body: bytes) -> None:
        self.asked.append(msg_id)

    def add_submitted(self, row: Any) -> None:
        self.stored.append((row.msg_id, 1 + len(self.stored)))


class _Relay:
    """A ROUTER, and a DEALER that is connected to it."""

    def __init__(self) -> None:
        config = complete({"relay_max_message_bytes": LARGEST})
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self.shelf = _Shelf()
        self.emitted: list[list[bytes]] = []
        self.errors: list[str] = []
        desk = Desk(Checker(LARGEST), lambda: self.errors.append("in the checker"))
        senders = SimpleNamespace(took=lambda heads: None, cut_off=lambda head: None)
        self.submit = Submit(
            context, config, cast(Any, self.shelf), desk, self.emitted.extend, cast(Any, senders)
        )
        self.desk = desk
        self.submit.socket.bind("inproc://fuzz-submit")
        self.script = context.socket(zmq.DEALER)
        self.script.connect("inproc://fuzz-submit")

    def ask(self, frames: list[bytes]) -> list[bytes]:
        self.script.send_multipart(frames)
        assert self.submit.socket.poll(60_000)
        while self.submit.socket.poll(0):  # one turn may be over before it has begun
            self.submit.receive()
        self.desk.finish()
        asked, self.shelf.asked = self.shelf.asked, []
        for msg_id in asked:
            self.submit.take(Found({msg_id: None}))
        stored, self.shelf.stored = self.shelf.stored, []
        self.submit.take(Stored(stored))
        assert self.script.poll(60_000), "no reply"
        return self.script.recv_multipart()


@functools.cache
def _relay() -> _Relay:
    return _Relay()


def _request(frames: list[bytes]) -> None:
    """One reply to each, that says what became of it, and nothing is kept of it afterwards."""
    relay = _relay()
    relay.emitted.clear()
    if len(frames) > 19:  # it is skipped from here on, and its sender may be cut off
        return
    *envelope, delimiter, body = relay.ask(frames)
    reply = json.loads(body)
    assert delimiter == b"" and envelope == frames[: len(envelope)], (envelope, delimiter, reply)
    assert sum(map(len, envelope)) <= ENVELOPE_BYTES
    assert reply["ok"] in (True, False) and len(relay.emitted) == reply["ok"]
    assert reply["ok"] or (reply["error"] and reply["retry"] is False)
    for emitted in relay.emitted:
        assert Checker(LARGEST).check(emitted).cause is None and emitted == frames[-2:]
    assert not relay.script.poll(0) and len(relay.submit) == 0 and not relay.errors


def _reply(frames: list[bytes]) -> None:
    """A script takes an answer to what it asked, once, and passes over what is none."""
    with server() as listening:
        client = SubmitClient(f"tcp://127.0.0.1:{listening.getsockname()[1]}", complete({}))
        try:
            client.is_ready()
            connection, _ = listening.accept()
            with connection:
                sent = on_the_wire(frames)
                connection.sendall(GREETING + READY + sent + sent)
                connection.shutdown(socket.SHUT_WR)
                client.in_flight |= {1, 2}
                found: list[tuple[int, dict[str, Any]]] = []
                while not client.is_lost():
                    found += client.replies()
                found += client.replies()
        finally:
            client.close()
    assert len(found) <= 1 and all(key in (1, 2) for key, _ in found)
    assert len(client.in_flight) == 2 - len(found)
    for key, reply in found:
        assert int(frames[0]) == key
        assert json.loads(frames[-1]) == reply or b"NaN" in frames[-1]
