"""The proxy: what goes through it is what was sent, and it makes a way as bad as it is told to."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.support import ports
from tests.support.proxy import Proxy
from tests.support.waiting import nothing_comes, patient, wait_for

SENT = os.urandom(300_000)


class Echo:
    """Sends back what it gets, until the other side will send no more."""

    def __init__(self) -> None:
        self._listening = ports.server()
        self.endpoint = f"tcp://127.0.0.1:{self._listening.getsockname()[1]}"
        self.received = 0
        self.reads = threading.Event()
        self.reads.set()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.reads.set()
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()

    def _run(self) -> None:
        while True:
            try:
                end, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(end,), daemon=True).start()

    def _serve(self, end: socket.socket) -> None:
        with end:
            try:
                while self.reads.wait() and (received := end.recv(1 << 16)):
                    self.received += len(received)
                    end.sendall(received)
            except OSError:
                pass


@pytest.fixture
def echo() -> Iterator[Echo]:
    made = Echo()
    yield made
    made.close()


def connected(proxy: Proxy) -> socket.socket:
    end = socket.create_connection(("127.0.0.1", proxy.port), patient(10))
    wait_for(lambda: proxy.connections)
    return end


def read(end: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count and (received := end.recv(1 << 16)):
        found += received
    return found


def is_reset(proxy: Proxy) -> None:
    """Now and then it is before the connection is known to be one."""
    with pytest.raises(ConnectionResetError):
        socket.create_connection(("127.0.0.1", proxy.port), patient(10)).recv(1)


def send(end: socket.socket) -> threading.Thread:
    thread = threading.Thread(target=end.sendall, args=(SENT,), daemon=True)
    thread.start()
    return thread


def test_all_that_is_sent_arrives_and_the_end_of_it_too(echo: Echo) -> None:
    with Proxy(echo.endpoint) as proxy, connected(proxy) as end:
        sending = send(end)
        assert read(end, len(SENT)) == SENT
        sending.join()
        end.shutdown(socket.SHUT_WR)
        assert end.recv(1) == b""
        wait_for(lambda: proxy.connections == 0)


def test_a_rate(echo: Echo) -> None:
    with Proxy(echo.endpoint, rate=600_000) as proxy, connected(proxy) as end:
        started = time.monotonic()
        send(end)
        assert read(end, len(SENT)) == SENT
        assert time.monotonic() - started > 0.4


def test_a_delay_is_of_all_that_is_under_way_at_once(echo: Echo) -> None:
    with Proxy(echo.endpoint, delay=0.2, delay_back=0.1) as proxy, connected(proxy) as end:
        started = time.monotonic()
        for _ in range(5):
            end.sendall(b"x")
        assert read(end, 5) == b"xxxxx"
        assert time.monotonic() - started >= 0.3


def test_it_holds_no_more_than_its_bound(echo: Echo) -> None:
    with Proxy(echo.endpoint, bound=1000) as proxy, connected(proxy) as end:
        echo.reads.clear()
        proxy.delay = 3600.0
        sending = send(end)
        wait_for(lambda: proxy._pairs[0][0].size == 1000)
        nothing_comes(0.1, lambda: proxy._pairs[0][0].size > 1000)
        proxy.cut()
        with pytest.raises(OSError):
            read(end, 1)
        sending.join(patient(10))


def test_stalled_and_going_on(echo: Echo) -> None:
    with Proxy(echo.endpoint) as proxy, connected(proxy) as end:
        proxy.stall()
        end.sendall(b"abc")
        nothing_comes(0.2, lambda: echo.received)
        proxy.go_on()
        assert read(end, 3) == b"abc"


def test_cut(echo: Echo) -> None:
    with Proxy(echo.endpoint) as proxy, connected(proxy) as end:
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            end.recv(1)
        with connected(proxy) as again:
            again.sendall(b"abc")
            assert read(again, 3) == b"abc"


def test_half_closed(echo: Echo) -> None:
    with Proxy(echo.endpoint) as proxy, connected(proxy) as end:
        end.sendall(b"abc")
        assert read(end, 3) == b"abc"
        proxy.half_close()
        assert end.recv(1) == b""  # the echo ends when it has heard all


def test_refused(echo: Echo) -> None:
    with Proxy(echo.endpoint) as proxy:
        proxy.refuse()
        is_reset(proxy)
        proxy.go_on()
        with connected(proxy) as end:
            end.sendall(b"abc")
            assert read(end, 3) == b"abc"


def test_nobody_there() -> None:
    with Proxy(ports.free_address()) as proxy:
        is_reset(proxy)
        assert proxy.connections == 0
