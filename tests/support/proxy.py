"""A way between two programs that a test makes worse: slow, late, silent, cut."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections import deque
from dataclasses import dataclass, field

from . import ports

CHUNK = 1 << 16


@dataclass
class _Direction:
    """What goes from one end to the other."""

    source: socket.socket
    target: socket.socket
    # With the time from which on it may go on.
    held: deque[tuple[float, memoryview]] = field(default_factory=deque)
    size: int = 0
    # When the next byte may leave, by the rate.
    due: float = 0.0
    passed: int = 0
    has_ended: bool = False
    is_closed: bool = False


class Proxy:
    """A TCP proxy in front of `endpoint`; whoever shall go through it connects to its `endpoint`.

    `rate`: bytes a second each way, 0 for as many as there are. `delay`, `delay_back`: seconds that
    all bytes take on the way to the endpoint, and back. All three may be set at any time. `bound`:
    how many bytes of each direction may be under way here; beyond that the sender has to wait.
    `most`: bytes on the way to the endpoint after which a connection is reset, 0: never.

    Use it in a `with` statement.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        rate: float = 0.0,
        delay: float = 0.0,
        delay_back: float = 0.0,
        bound: int = 1 << 20,
        most: int = 0,
        port: int | None = None,
    ) -> None:
        host, _, far_port = endpoint.removeprefix("tcp://").rpartition(":")
        self._far = (host.strip("[]"), int(far_port))
        self.rate, self.delay, self.delay_back = rate, delay, delay_back
        self._bound = bound
        self._most = most
        self._listening = ports.server(port=port)
        self._listening.setblocking(False)
        self.port: int = self._listening.getsockname()[1]
        self.endpoint = f"tcp://127.0.0.1:{self.port}"
        self.accepted = 0
        self._pairs: list[tuple[_Direction, _Direction]] = []
        self._stalled = False
        self._refuses = False
        self._lock = threading.RLock()
        self._waker, self._woken = socket.socketpair()
        self._ends = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._ends = True
        self._wake()
        self._thread.join()
        self.cut()
        for each in (self._listening, self._waker, self._woken):
            each.close()

    @property
    def connections(self) -> int:
        """How many there are now."""
        with self._lock:
            return len(self._pairs)

    @property
    def passed(self) -> int:
        """Bytes that have gone to the endpoint, on the connections there are."""
        with self._lock:
            return sum(there.passed for there, _ in self._pairs)

    def stall(self) -> None:
        """Pass nothing on, and read nothing: the connections stay as they are."""
        self._stalled = True
        self._wake()

    def go_on(self) -> None:
        """After `stall` or `refuse`."""
        self._stalled = self._refuses = False
        self._wake()

    def cut(self) -> None:
        """Reset all connections, as a firewall or a host's crash and boot does."""
        with self._lock:
            for there, _ in self._pairs:
                _reset(there.source)
                _reset(there.target)
            self._pairs.clear()
        self._wake()

    def refuse(self) -> None:
        """Reset every new connection at once."""
        self._refuses = True

    def half_close(self) -> None:
        """Tell the endpoint that the other side will send no more; the way back stays."""
        with self._lock:
            for there, _ in self._pairs:
                with contextlib.suppress(OSError):
                    there.target.shutdown(socket.SHUT_WR)
                there.is_closed = True
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            self._waker.send(b"x")

    def _run(self) -> None:
        self._woken.setblocking(False)
        while not self._ends:
            with selectors.DefaultSelector() as selector:
                selector.register(self._woken, selectors.EVENT_READ)
                selector.register(self._listening, selectors.EVENT_READ)
                with self._lock:
                    wait = self._register(selector)
                selector.select(wait)
            with contextlib.suppress(BlockingIOError):
                self._woken.recv(CHUNK)
            with self._lock:
                self._accept()
                if not self._stalled:
                    self._pump()

    def _register(self, selector: selectors.BaseSelector) -> float | None:
        """What to wait for; for how many seconds at most."""
        wait: float | None = None
        if self._stalled:
            return wait
        now = time.monotonic()
        events: dict[socket.socket, int] = {}
        for pair in self._pairs:
            for way in pair:
                if way.is_closed:
                    continue
                if not way.has_ended and way.size < self._bound:
                    events[way.source] = events.get(way.source, 0) | selectors.EVENT_READ
                if way.held:
                    later = max(way.held[0][0], way.due) - now
                    if later > 0:
                        wait = later if wait is None else min(wait, later)
                    else:
                        events[way.target] = events.get(way.target, 0) | selectors.EVENT_WRITE
        for each, wanted in events.items():
            selector.register(each, wanted)
        return wait

    def _accept(self) -> None:
        try:
            near, _ = self._listening.accept()
        except OSError:
            return
        self.accepted += 1
        if self._refuses:
            _reset(near)
            return
        try:
            far = socket.create_connection(self._far, 5)
        except OSError:
            _reset(near)
            return
        for each in (near, far):
            each.setblocking(False)
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._pairs.append((_Direction(near, far), _Direction(far, near)))

    def _pump(self) -> None:
        for pair in list(self._pairs):
            there, back = pair
            try:
                self._pass_on(there, self.delay)
                if 0 < self._most < there.passed:
                    raise ConnectionResetError
                self._pass_on(back, self.delay_back)
            except OSError:
                for way in pair:
                    _reset(way.source)
                self._pairs.remove(pair)
                continue
            if there.is_closed and back.is_closed and there.has_ended and back.has_ended:
                there.source.close()
                there.target.close()
                self._pairs.remove(pair)

    def _pass_on(self, way: _Direction, delay: float) -> None:
        now = time.monotonic()
        while not way.has_ended and way.size < self._bound:
            try:
                received = way.source.recv(min(CHUNK, self._bound - way.size))
            except BlockingIOError:
                break
            if not received:
                way.has_ended = True
                break
            if not way.is_closed:
                way.held.append((now + delay, memoryview(received)))
                way.size += len(received)
        while way.held and not way.is_closed:
            due, chunk = way.held[0]
            if max(due, way.due) > now:
                break
            rate = self.rate
            # A hundredth of a second's worth at a time.
            part = chunk[: max(1, int(rate / 100))] if rate else chunk
            try:
                sent = way.target.send(part)
            except BlockingIOError:
                break
            way.size -= sent
            way.passed += sent
            if rate:
                way.due = max(way.due, now - 0.01) + sent / rate
            if sent < len(chunk):
                way.held[0] = (due, chunk[sent:])
            else:
                way.held.popleft()
        if way.has_ended and not way.held and not way.is_closed:
            way.is_closed = True
            way.target.shutdown(socket.SHUT_WR)


def _reset(end: socket.socket) -> None:
    """Close so that the other side gets a reset."""
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    end.close()
