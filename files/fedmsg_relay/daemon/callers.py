"""Who connects to publish: how often, in all and by host, and a name for whoever does all the time.

libzmq's monitor of a socket says that a connection was made. A script connects once for what it
has to say; one that does so in a circle costs the relay as much as hundreds of messages.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from functools import partial
from typing import Callable

import zmq

from .. import log, sockets, tcp_progress
from .loop import Loop

# Seconds over which connections of a host are counted, and how many of them are worth a line.
PERIOD = 60.0
MANY = 600
# Hosts that are counted by themselves in one period, and those that are told of.
HOSTS = 1000
OTHERS = "other hosts"
TOLD = 10

# Connections that are looked at in one turn of the loop: messages must have theirs.
AT_ONCE = 100

logger = logging.getLogger(log.NAME)


class Callers:
    """Counts connections to sockets that publishers connect to, by their sides' names."""

    def __init__(self, loop: Loop) -> None:
        self.sides: Counter[str] = Counter()
        self._loop = loop
        self._began = time.monotonic()
        self._hosts: Counter[str] = Counter()
        self._before: Counter[str] = Counter()
        self._watched: list[tuple[zmq.Socket[bytes], zmq.Socket[bytes]]] = []
        loop.every(PERIOD, self._summarise)

    def watch(
        self,
        watched: zmq.Socket[bytes],
        side: str,
        on_accepted: Callable[[int, str], object] = lambda fd, address: None,
    ) -> None:
        """Count who connects to this socket, from its next bind on.

        `on_accepted` is called with the descriptor of each connection and its peer's address.
        """
        monitor = sockets.monitor(watched, zmq.EVENT_ACCEPTED)
        self._watched.append((watched, monitor))
        self.sides[side] += 0
        self._loop.on_input(monitor, partial(self._accepted, monitor, side, on_accepted))

    def state(self) -> dict[str, object]:
        """For health and metrics: `sides`, and `hosts` that connect all the time, by a minute's."""
        most = (self._hosts | self._before).most_common(TOLD)
        hosts = [{"address": host, "connections": number} for host, number in most if number > MANY]
        return {"sides": dict(self.sides), "hosts": hosts}

    def close(self) -> None:
        for watched, monitor in self._watched:
            watched.disable_monitor()
            monitor.close()

    def _accepted(
        self, monitor: zmq.Socket[bytes], side: str, on_accepted: Callable[[int, str], object]
    ) -> None:
        for _ in range(AT_ONCE):
            try:
                _, fd = sockets.monitor_event(monitor, zmq.NOBLOCK)
            except zmq.Again:
                return
            self.sides[side] += 1
            address = tcp_progress.peer_address(fd)
            if address is None:
                continue  # it has gone by itself
            self._enter(tcp_progress.host_of(address))
            on_accepted(fd, address)

    def _enter(self, host: str) -> None:
        if len(self._hosts) >= HOSTS and host not in self._hosts:
            host = OTHERS
        self._hosts[host] += 1
        if self._hosts[host] == MANY:
            logger.warning(
                "publishers of %s have connected %d times within a minute; each time costs the"
                " relay more than a message does", host, MANY,
            )  # fmt: skip

    def _summarise(self) -> None:
        for host, number in self._hosts.most_common(TOLD):
            if number > MANY:
                logger.warning(
                    "publishers of %s connected %d times in the last minute", host, number
                )
        self._before, self._hosts = self._hosts, Counter()
