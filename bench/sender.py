"""The sender of a measurement: complete messages, numbered, to a subject's inbound address.

    python -m bench.sender '{"address": "tcp://...", "counters": "PATH", "size": 400, ...}'

Without `rate` as fast as it goes, but never more than `window` messages ahead of the listener, so
that no queue on the way overflows. With `rate` so many a second by the clock, whatever becomes of
them: each carries the time at which it was due.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from dataclasses import dataclass

import zmq

from . import counters, messages
from .messages import RANDOM_PARTS, TOPIC

# Seconds of sleep while there is no room, and while there is nothing to send.
NAP = 0.0002
REST = 0.002
# Seconds from one message of the preparation to the next.
STEP = 0.01

PR_SET_TIMERSLACK = 29

# Milliseconds from one attempt to connect to the next: at first, and at most (0: the same).
RECONNECT = (10, 0)


@dataclass
class Order:
    address: str
    counters: str
    size: int
    listeners: int
    window: int = 0
    block: int = 1
    rate: float = 0.0
    # Messages, after which it rests; 0: none.
    limit: int = 0
    reconnect: tuple[int, int] = RECONNECT
    # Send as programs do, and not in the quickest way there is.
    ordinary: bool = False


class Sender:
    def __init__(self, order: Order) -> None:
        self._order = order
        self._shared = counters.attach(order.counters)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        # As PUB on the wire, and knows when the subject has subscribed.
        self._socket = self._context.socket(zmq.XPUB)
        self._socket.setsockopt(zmq.SNDHWM, 0)
        self._socket.setsockopt(zmq.RECONNECT_IVL, order.reconnect[0])
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, order.reconnect[1])
        self._socket.connect(order.address)
        # What pyzmq's own class adds takes as long as the sending.
        self._send = super(zmq.Socket, self._socket).send
        self._number = 0

    def run(self) -> None:
        if not self._socket.poll(30_000):
            sys.exit(f"nobody subscribes at {self._order.address}")
        self._socket.recv()
        # What is read from now on is of no interest: subscriptions of a subject that came back.
        self._prepare()
        if self._order.rate:
            self._send_by_the_clock()
        else:
            self._send_by_the_window()
        self._socket.close(linger=5000)
        self._context.term()

    def _prepare(self) -> None:
        number = first = messages.PREPARING
        while not self._shared[counters.READY] and not self._shared[counters.STOP]:
            number += 1
            self._send_one(number)
            time.sleep(STEP)
        self._shared[counters.PREPARED] = number - first + 1
        self._send_one(messages.LAST_OF_PREPARATION)

    def _send_one(self, number: int) -> None:
        self._send(TOPIC, _MORE)
        self._send(messages.single(self._order.size, number), 0)

    def _send_by_the_window(self) -> None:
        shared, order, send = self._shared, self._order, self._send
        before, _, random, after = messages.unstamped(order.size)
        window = order.window * order.listeners
        ahead = order.block * order.listeners
        sent, mask = 0, RANDOM_PARTS - 1
        limit = order.limit or 1 << 62
        while not shared[counters.STOP]:
            if not shared[counters.GO] or sent == limit:
                shared[counters.PAUSED] = 1
                time.sleep(REST)
                continue
            shared[counters.PAUSED] = 0
            if sent * order.listeners + ahead - shared[counters.RECEIVED] > window:
                time.sleep(NAP)
                continue
            if order.ordinary:
                for number in range(sent, sent + order.block):
                    body = b"%b%b%012d%b" % (before, random[number & mask], number, after)
                    self._socket.send_multipart([TOPIC, body])
            else:
                for number in range(sent, sent + order.block):
                    send(TOPIC, _MORE)
                    send(b"%b%b%012d%b" % (before, random[number & mask], number, after), 0)
            sent += order.block
            shared[counters.SENT] = sent

    def _send_by_the_clock(self) -> None:
        shared, send = self._shared, self._send
        before, between, random, after = messages.parts(self._order.size)
        sent, mask = 0, RANDOM_PARTS - 1
        interval = 1e9 / self._order.rate
        # The kernel may wake a sleeper fifty microseconds late; not this one.
        ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1)
        while not shared[counters.STOP]:
            shared[counters.PAUSED] = 1
            if not shared[counters.GO]:
                time.sleep(REST)
                continue
            shared[counters.PAUSED] = 0
            started, first = time.monotonic_ns(), sent
            while shared[counters.GO]:
                now = time.monotonic_ns()
                due = started + int((sent - first) * interval)
                if due > now:
                    time.sleep((due - now) / 1e9)
                    continue
                send(TOPIC, _MORE)
                part = random[sent & mask]
                send(b"%b%020d%b%b%012d%b" % (before, due, between, part, sent, after), 0)
                sent += 1
                shared[counters.SENT] = sent


_MORE = int(zmq.SNDMORE)


def main() -> None:
    Sender(Order(**json.loads(sys.argv[1]))).run()


if __name__ == "__main__":
    main()
