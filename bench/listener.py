"""The listener of a measurement, or many of them: connections to a subject's outbound address.

    python -m bench.listener '{"address": "tcp://...", "counters": "PATH", "listeners": 10, ...}'

An XSUB socket that connects so many times: seen from the subject, that is as many listeners, and
here it is one queue. At the end it writes what it has heard to `report`, as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import zmq

from . import counters, messages
from .sender import RECONNECT

# Milliseconds without a message after which what has been received so far is told.
SILENCE = 20
# Milliseconds without one after which, at the end, no more will come.
END = 200


@dataclass
class Order:
    address: str
    counters: str
    report: str
    listeners: int = 1
    # Messages, on all connections together, from one time that their number is told to the next.
    block: int = 1
    # Where to write when each message was due and when it arrived, as an array of int64:
    # nanoseconds of CLOCK_MONOTONIC, in pairs. None: messages are counted only.
    times: str | None = None
    reconnect: tuple[int, int] = RECONNECT
    # Receive as programs do, and not in the quickest way there is.
    ordinary: bool = False


class Listener:
    def __init__(self, order: Order) -> None:
        self._order = order
        self._shared = counters.attach(order.counters)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        # Not SUB: libzmq lets that connect to one address only once.
        self._socket = self._context.socket(zmq.XSUB)
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.setsockopt(zmq.RECONNECT_IVL, order.reconnect[0])
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, order.reconnect[1])
        self._socket.setsockopt(zmq.RCVTIMEO, SILENCE)
        for _ in range(order.listeners):
            self._socket.connect(order.address)
        self._socket.send(b"\x01")
        # What pyzmq's own class adds takes as long as the receiving.
        self._receive: Callable[[], bytes] = super(zmq.Socket, self._socket).recv
        self._numbers: list[bytes] = []

    def run(self) -> None:
        number, stamp = self._prepare()
        if self._order.times is None:
            self._count(number)
        else:
            self._clock(number, stamp)
        self._report()
        self._socket.close(linger=0)
        self._context.term()

    def _prepare(self) -> tuple[slice, slice]:
        """Until every connection has heard the last message of the preparation."""
        seen: Counter[bytes] = Counter()
        last = b"%d" % messages.LAST_OF_PREPARATION
        place: tuple[slice, slice] | None = None
        while seen[last] < self._order.listeners:
            try:
                self._receive()
                body = self._receive()
            except zmq.Again:
                self._end_if_stopped()
                continue
            if place is None:
                place = messages.place_of_number(body), messages.place_of_stamp(body)
            number = body[place[0]]
            seen[number] += 1
            if seen[number] == self._order.listeners:
                self._shared[counters.READY] = 1
        assert place is not None
        self._shared[counters.STARTED] = 1
        return place

    def _end_if_stopped(self) -> None:
        if self._shared[counters.STOP]:
            sys.exit("stopped before it had heard anything")

    def _count(self, place: slice) -> None:
        receive, keep, shared = self._receive, self._numbers.append, self._shared
        told, block = 0, self._order.block
        while True:
            try:
                if self._order.ordinary:
                    for _ in range(block):
                        keep(self._socket.recv_multipart()[1][place])
                else:
                    for _ in range(block):
                        receive()
                        keep(receive()[place])
            except zmq.Again:
                if len(self._numbers) == told:
                    if self._is_over():
                        return
                    continue
            told = len(self._numbers)
            shared[counters.STAMP] = time.monotonic_ns()
            shared[counters.RECEIVED] = told

    def _is_over(self) -> bool:
        """Whether it is to stop, and nothing more comes."""
        return bool(self._shared[counters.STOP]) and not self._socket.poll(END)

    def _clock(self, number: slice, stamp: slice) -> None:
        receive, keep, shared = self._receive, self._numbers.append, self._shared
        times = array("q")
        now = time.monotonic_ns
        while True:
            try:
                receive()
                body = receive()
            except zmq.Again:
                if self._is_over():
                    break
                continue
            arrived = now()
            times.append(int(body[stamp]))
            times.append(arrived)
            keep(body[number])
            shared[counters.RECEIVED] = len(self._numbers)
        assert self._order.times is not None
        Path(self._order.times).write_bytes(times.tobytes())

    def _report(self) -> None:
        """Count what is missing by its number: each shall be here once for each connection."""
        heard = Counter(self._numbers)
        listeners, sent = self._order.listeners, self._shared[counters.SENT]
        expected = [min(heard[b"%012d" % number], listeners) for number in range(sent)]
        report = {
            "received": len(self._numbers),
            "missing": sent * listeners - sum(expected),
            "doubled": len(self._numbers) - sum(expected),
        }
        Path(self._order.report).write_text(json.dumps(report), encoding="utf-8")


def main() -> None:
    Listener(Order(**json.loads(sys.argv[1]))).run()


if __name__ == "__main__":
    main()
