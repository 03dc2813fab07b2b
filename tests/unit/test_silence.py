"""Who reads nothing is told from who has vanished, whenever they were looked at."""

from __future__ import annotations

import time
from typing import Any

import pytest
import zmq
from fedmsg_relay import tcp_progress
from fedmsg_relay.daemon import listeners
from fedmsg_relay.daemon.outlet import Outlet


def test_one_look_after_a_long_pause_says_little(
    context: zmq.Context[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    socket = context.socket(zmq.XPUB)
    outlet = Outlet(socket)
    found = listeners.Listeners(socket, outlet, listeners.Emitted(), 100)
    listener = listeners.Listener(7, "10.0.0.3:7", "10.0.0.3", 0, 0, 0.0)
    found._accepted[7], found._by_fd[7] = listener.address, listener
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    asked = tcp_progress.Progress(0, False, silent=100.0, is_asked=True)
    monkeypatch.setattr(tcp_progress, "of", lambda fd: asked)
    now += 30  # in which nobody looked
    found.survey()
    assert listener.asked_for <= 1
    for _ in range(30):
        now += 0.5
        found.survey()
    assert 14 < listener.asked_for < 17
    monkeypatch.setattr(tcp_progress, "of", lambda fd: asked._replace(is_asked=False))
    found.survey()
    assert not listener.asked_for
    found.close()
    outlet.close()
