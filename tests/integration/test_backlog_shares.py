"""Large pages of the backlog for many at once: each gets its own, whatever the others do."""

from __future__ import annotations

import socket
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.waiting import patient, wait_for

from .test_backlog import Backlog, backlog, many

__all__ = ["backlog"]

MESSAGES = 100
REQUEST = b"GET /raw?rows_per_page=100&order=asc HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def fill(backlog: Backlog, size: int) -> None:
    backlog.append(*(b'{"n": %d, "x": "%s"}' % (n, b"x" * size) for n in range(MESSAGES)))


def connect(backlog: Backlog, source: str) -> socket.socket:
    made = socket.create_connection(backlog.address, patient(30), source_address=(source, 0))
    made.sendall(REQUEST)
    return made


def read(connection: socket.socket) -> bytes:
    received = []
    while piece := connection.recv(1 << 20):
        received.append(piece)
    return b"".join(received)


@pytest.mark.parametrize("size", [15_000, 80_000])
def test_twelve_listeners_of_one_address_ask_at_once(backlog: Backlog, size: int) -> None:
    """None reads before all have asked; then one after the other. None is refused."""
    fill(backlog, size)
    with many([connect(backlog, "127.0.0.1") for _ in range(12)]) as connections:
        for _ in range(3):
            assert backlog.get("/health")[0] == 200
        left = list(connections)
        for connection in connections:
            connection.setblocking(False)
        got = {connection: bytearray() for connection in connections}

        def all_have_it() -> bool:
            for connection in list(left):
                try:
                    while piece := connection.recv(1 << 20):
                        got[connection] += piece
                    left.remove(connection)
                except BlockingIOError:
                    pass
            return not left

        wait_for(all_have_it, what="twelve pages", pause=0.001)
        for answer in got.values():
            assert answer.startswith(b"HTTP/1.1 200 OK")
            assert answer.count(b'{"n": ') == MESSAGES


def test_one_address_that_reads_nothing_leaves_a_turn_to_others(backlog: Backlog) -> None:
    fill(backlog, 200_000)
    with many([connect(backlog, "127.0.0.2") for _ in range(8)]):
        wait_for(lambda: backlog.get("/health")[0] == 200, what="the server to have them")
        started = time.monotonic()
        for _ in range(3):
            with closing(connect(backlog, "127.0.0.1")) as connection:
                answer = read(connection)
            assert answer.startswith(b"HTTP/1.1 200 OK"), answer[:500]
            assert answer.count(b'{"n": ') == MESSAGES
        # Not once the others have been cut.
        assert time.monotonic() - started < patient(8)


def test_pages_that_nobody_reads_are_bounded_in_memory(backlog: Backlog) -> None:
    fill(backlog, 35_000)
    with many([connect(backlog, "127.0.0.2") for _ in range(100)]):
        assert backlog.get("/health")[0] == 200
        status = Path(f"/proc/{backlog.child.pid}/status").read_text()
        peak = int(status.partition("VmHWM:")[2].split()[0])
        assert peak < 256 << 10
