"""What one sender can cost the others: whatever it sends, they are served meanwhile."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import zmq

from tests.conftest import Bus, Listener, Process, Sender, Submitter, numbered, wait_for
from tests.support.zmtp_peers import LONG, MORE, Peer, frame

# Seconds that nobody may be without an answer for, on a machine with nothing else to do.
PAUSE = 0.3
# Bytes of memory, of the relay's process.
MEMORY = 256 << 20
LIMIT = 16 << 20

BEGIN = b'{"topic":"t","timestamp":1,"msg_id":"large","msg":'


def filled(begin: bytes, unit: bytes, end: bytes) -> bytes:
    """`unit` as often as a message may have it."""
    return begin + unit * ((LIMIT - len(begin) - len(end) - 1) // len(unit)) + end


class Others:
    """Somebody who submits one message after the other, and how long each takes."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._end = threading.Event()
        self.longest = 0.0
        self.number = 0
        self.failed: list[object] = []
        self._thread = threading.Thread(target=self._submit)

    def _submit(self) -> None:
        with zmq.Context() as context:
            client = Submitter(context, self._bus.submit)
            try:
                while not self._end.is_set():
                    self.number += 1
                    started = time.monotonic()
                    reply = client.submit(*numbered(self.number), timeout=60)
                    self.longest = max(self.longest, time.monotonic() - started)
                    if not reply["ok"]:
                        self.failed.append(reply)
            except BaseException as error:
                self.failed.append(error)
            finally:
                client.socket.close()

    def __enter__(self) -> Others:
        self._thread.start()
        wait_for(lambda: self.number > 10)
        return self

    def __exit__(self, *_: object) -> None:
        seen = self.number
        wait_for(lambda: self.number > seen + 10 or self.failed, 60)
        self._end.set()
        self._thread.join()
        assert not self.failed

    def calm(self, seconds: float = 1.0) -> float:
        """How long the longest takes while nothing else happens."""
        self.longest = 0.0
        time.sleep(seconds)  # to measure
        longest, self.longest = self.longest, 0.0
        return longest


@contextmanager
def others(bus: Bus) -> Iterator[Others]:
    """Others, whose longest wait is to be less than PAUSE and what it is in calm times threefold."""
    with Others(bus) as made:
        calm = made.calm()
        yield made
    print(f"calm {calm:.3f} s, longest {made.longest:.3f} s")
    assert made.longest < PAUSE + 3 * calm


def peak(relay: Process) -> int:
    """The most memory that the process has had, in bytes."""
    with open(f"/proc/{relay.pid}/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM"))


@pytest.fixture
def relay(bus: Bus) -> Process:
    bus.with_journal(http=True)
    return bus.relay()


def one_shots(bus: Bus, number: int) -> None:
    """So many scripts come, publish one message each and go, as upstream's do."""
    for i in range(number):
        with zmq.Context() as context:
            script = context.socket(zmq.PUB)
            script.setsockopt(zmq.LINGER, 2000)
            script.connect(bus.inbound)
            time.sleep(0.5)  # upstream's post_init_sleep: it is all that such a script knows
            script.send_multipart(numbered(f"shot-{i}"))  # type: ignore[arg-type]
            script.close()


HEAVY = {
    "lists": filled(BEGIN + b"[", b"[],", b"1]}"),
    "keys": filled(BEGIN + b"{", b'"k":{},', b'"z":1}}'),
    "no message": filled(b"[", b"[],", b"1]"),
    "nested": filled(BEGIN + b"[", b"[" * 60 + b"]" * 60 + b",", b"1]}"),
    "no keys": filled(b'{"topic":"t",', b'"k":0,', b'"z":1}'),
    "not strict": filled(BEGIN + b"[", b"NaN,", b"1]}"),
    "text": filled(b"", b"\0[", b""),
}


@pytest.mark.parametrize("kind", HEAVY)
def test_one_message_that_takes_long_to_read(
    kind: str, relay: Process, bus: Bus, context: zmq.Context[Any], listener: Callable[..., Listener]
) -> None:
    receiving = listener(relay)
    sender = Sender(context, bus.inbound)
    with others(bus):
        sender.send(b"heavy", HEAVY[kind])
        wait_for(lambda: receiving.receive()[0] == b"heavy", 60)
    assert peak(relay) < MEMORY
