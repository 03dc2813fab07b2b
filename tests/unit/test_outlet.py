"""The socket that another thread uses while that takes long."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import zmq
from fedmsg_relay.daemon.outlet import Outlet

from tests.support.ports import free_address
from tests.support.waiting import wait_for


class Lent:
    """An XPUB socket with commands to work off, and what was given back late."""

    def __init__(self, context: zmq.Context[Any]) -> None:
        self._context = context
        self.socket = context.socket(zmq.XPUB)
        self.address = free_address()
        self.socket.bind(self.address)
        self.socket.poll(0)  # what the bind leaves to be done
        self.outlet = Outlet(self.socket)
        self.late: list[int] = []
        self.lent: list[bool] = []
        self.outlet.on_lent = self.lent.append
        self.go_on = threading.Event()

    def disturb(self) -> None:
        """A listener comes."""
        listener = self._context.socket(zmq.SUB)
        listener.subscribe(b"")
        listener.connect(self.address)
        commands = self.socket.fileno()
        poller = zmq.Poller()
        poller.register(commands, zmq.POLLIN)
        wait_for(lambda: poller.poll(0))

    def slow(self) -> int:
        self.go_on.wait()
        return threading.get_ident()


@pytest.fixture
def lent(context: zmq.Context[Any]) -> Iterator[Lent]:
    made = Lent(context)
    yield made
    made.go_on.set()
    made.outlet.close()


def test_without_commands_it_is_used_at_once(lent: Lent) -> None:
    lent.go_on.set()
    assert lent.outlet.run(lent.slow, lent.late.append) == threading.get_ident()
    assert not lent.lent


def test_with_commands_another_thread_uses_it(lent: Lent) -> None:
    lent.disturb()
    lent.go_on.set()
    assert lent.outlet.run(lent.slow, lent.late.append, 20) == lent.outlet.thread.ident
    assert not lent.lent and not lent.late


def test_what_takes_long_is_taken_later(lent: Lent) -> None:
    lent.disturb()
    assert lent.outlet.run(lent.slow, lent.late.append) is None
    assert lent.outlet.is_lent and not lent.outlet.take() and not lent.late
    lent.go_on.set()
    poller = zmq.Poller()
    poller.register(lent.outlet.wakeup, zmq.POLLIN)
    assert poller.poll(20_000)
    assert lent.outlet.take(20)
    assert lent.late == [lent.outlet.thread.ident]
    assert lent.lent == [True, False] and not lent.outlet.is_lent


def test_what_it_raises_is_raised(lent: Lent) -> None:
    lent.disturb()

    def fail() -> int:
        raise ValueError

    with pytest.raises(ValueError):
        lent.outlet.run(fail, lent.late.append, 20)
