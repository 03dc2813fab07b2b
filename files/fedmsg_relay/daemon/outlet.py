"""The outbound socket, and a second thread that uses it where that may take long.

What has happened to its connections libzmq tells a socket in commands, and works them off, however
many there are, within whatever call comes next. When a listener leaves, it looks through the topics
of all: of thousands that leave at once each call would take seconds. So before each use the socket
is asked, by its descriptor, whether there are commands. Where there are some, another thread uses
it. If that takes long, the thread of the sockets goes on without: until it is given back, what is
to go out waits.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar, cast

import zmq

T = TypeVar("T")

# Seconds that the thread of the sockets waits for the other one.
PATIENCE = 0.005

# Seconds for which a socket without commands is taken to have none: where batches are small, asking
# costs a tenth of relaying. Few listeners can leave in that time, see docs/delivery.adoc.
FREE = 0.0001


class Outlet:
    """Lends `socket` to a thread of its own. Use it by `run` alone, or when it `is_free`.

    `wakeup` can be read from when it was given back late, and after `again()`: call `take()` then.
    """

    def __init__(self, lent: zmq.Socket[bytes]) -> None:
        self._socket = lent
        self._commands = select.poll()
        self._commands.register(lent.fileno(), select.POLLIN)
        self._free_until = 0.0
        self._action: Callable[[], Any] | None = None
        self._later: Callable[[Any], object] = lambda result: None
        self._result: list[Any] = []
        self._failure: BaseException | None = None
        self._due, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self.is_lent = False
        # Called when it comes to be lent for long, or is given back.
        self.on_lent: Callable[[bool], object] = lambda lent: None
        # How often the thread has begun or ended something.
        self.turns = 0
        self.wakeup, self._waker = socket.socketpair()
        for end in (self.wakeup, self._waker):
            end.setblocking(False)
        self.thread = threading.Thread(target=self._run, name="outlet", daemon=True)
        self.thread.start()

    def is_free(self) -> bool:
        """Whether the socket has no commands, so that it can be used here and now, at no risk.

        Not to be called while it is lent.
        """
        now = time.monotonic()
        if now < self._free_until:
            return True
        if self._commands.poll(0):
            return False
        self._free_until = now + FREE
        return True

    def run(
        self, action: Callable[[], T], later: Callable[[T], object], patience: float = PATIENCE
    ) -> T | None:
        """What `action` returns, if it does so soon. Otherwise None, and `take` calls `later`.

        Not to be called while the socket is lent.
        """
        assert not self.is_lent
        if self.is_free():
            return action()
        self._action = action
        self._due.release()
        if self._done.acquire(timeout=patience):
            return cast(T, self._taken())
        self.is_lent, self._later = True, later
        if self._done.acquire(blocking=False):  # since then: the thread may not have seen that
            self.is_lent = False
            return cast(T, self._taken())
        self.on_lent(True)
        return None

    def take(self, longest: float | None = 0.0) -> bool:
        """Take the socket back, within so many seconds or None: whether it is not lent now."""
        with suppress(BlockingIOError):
            while self.wakeup.recv(4096):
                pass
        if not self.is_lent:
            return True
        if not self._done.acquire(timeout=longest):
            return False
        self.is_lent = False
        self.on_lent(False)
        self._later(self._taken())
        return True

    def again(self) -> None:
        """Have `wakeup` be readable: there is more to be done."""
        with suppress(OSError):  # full: it is readable
            self._waker.send(b"\0")

    def close(self) -> None:
        """Wait for the thread to end. The socket is left open."""
        self.take(None)
        self._action = None
        self._due.release()
        self.thread.join()
        self.wakeup.close()
        self._waker.close()

    def _taken(self) -> Any:
        """What was done while it was lent. Raises what that has raised."""
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        return self._result.pop()

    def _run(self) -> None:
        while True:
            self._due.acquire()
            if self._action is None:
                return
            self.turns += 1
            try:
                self._result.append(self._action())
            except BaseException as error:
                self._failure = error
            self.turns += 1
            self._done.release()
            if self.is_lent:
                self.again()
