"""Look up a name without waiting for the name service, which takes long when it has failed."""

from __future__ import annotations

import _thread
import os
import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    # Family, type, protocol, canonical name, address: what getaddrinfo gives.
    Found = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[Any, ...]]


class Lookup:
    """The addresses of `host` in the resolver's order, once it `is_done`; empty: there is none.

    `descriptor` can be read then. An address in numbers is there at once. A name means IPv4, as it
    does to libzmq, by which everybody on the bus goes.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host.encode(), port
        self.found: list[Found] = []
        self.is_done = False
        self.descriptor = self._write_end = -1
        try:
            self._look_up(socket.AF_UNSPEC, socket.AI_NUMERICHOST)
        except OSError:
            self._start()

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
        self.descriptor = -1

    def _start(self) -> None:
        self.descriptor, self._write_end = os.pipe()
        # Not `threading`, which takes a while to import, and would wait for this one at exit.
        try:
            _thread.start_new_thread(self._run, ())
        except RuntimeError:  # this user may have no more threads
            self._run()

    def _run(self) -> None:
        try:
            self._look_up(socket.AF_INET, 0)
        except OSError:
            pass
        finally:
            self.is_done = True
            os.close(self._write_end)

    def _look_up(self, family: int, flags: int) -> None:
        kind = socket.SOCK_STREAM
        self.found = list(socket.getaddrinfo(self._host, self._port, family, kind, 0, flags))
        self.is_done = True
