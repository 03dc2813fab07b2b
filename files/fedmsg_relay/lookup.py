"""Look up a name without waiting for the name service, which takes long when it has failed.

What a name means is said here for all that connects: its IPv4 addresses or, where it has none, its
IPv6 ones, and of several the first that lets itself be connected to. To libzmq a name means the
first address, of IPv4 unless it is told otherwise.
"""

from __future__ import annotations

import _thread
import os
import select
import socket
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    # Family, type, protocol, canonical name, address: what getaddrinfo gives.
    Found = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[Any, ...]]

# Seconds after which a name's next address is tried beside those that have not answered (RFC 8305).
NEXT_ADDRESS = 0.25
# Seconds for which a connection to one of several is waited for.
CHOOSE_FOR = 2.0


class Lookup:
    """The addresses of `host` in the resolver's order, once it `is_done`; empty: there is none.

    `descriptor` can be read then. An address in numbers is there at once. `to_choose`: of several
    addresses the first that lets itself be connected to is looked for as well, as `chosen`.
    """

    def __init__(self, host: str, port: int, to_choose: bool = False) -> None:
        self._host, self._port = host.encode(), port
        self._to_choose = to_choose
        self.found: list[Found] = []
        self.chosen: Found | None = None
        self.is_done = False
        self.descriptor = self._write_end = -1
        try:
            self._look_up(socket.AF_UNSPEC, socket.AI_NUMERICHOST)
            self.is_done = True
        except OSError:
            self._start()

    def wait(self, seconds: float) -> None:
        """Until it is done, for so long at most."""
        if not self.is_done:
            poll = select.poll()
            poll.register(self.descriptor, select.POLLIN)
            poll.poll(int(seconds * 1000))

    def for_libzmq(self) -> tuple[str, bool]:
        """The host to give to libzmq, and whether it is one of IPv6.

        The name itself as long as there is nothing to choose: libzmq looks it up again whenever it
        connects again.
        """
        found = self.chosen or (self.found[0] if self.found else None)
        is_ipv6 = found is not None and found[0] == socket.AF_INET6
        if self.chosen is None:
            return self._host.decode(), is_ipv6
        return socket.getnameinfo(self.chosen[4], socket.NI_NUMERICHOST)[0], is_ipv6

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
            self._look_up_name()
            if self._to_choose and len(self.found) > 1:
                self.chosen = first_reached(self.found)
        finally:
            self.is_done = True
            os.close(self._write_end)

    def _look_up_name(self) -> None:
        for family in (socket.AF_INET, socket.AF_INET6):
            try:
                self._look_up(family, 0)
            except OSError:
                continue
            if self.found:
                return

    def _look_up(self, family: int, flags: int) -> None:
        kind = socket.SOCK_STREAM
        self.found = list(socket.getaddrinfo(self._host, self._port, family, kind, 0, flags))


def first_reached(found: list[Found]) -> Found | None:
    """The first of these addresses that lets itself be connected to, within CHOOSE_FOR seconds."""
    untried = list(found)
    trying: dict[int, tuple[socket.socket, Found]] = {}
    end = time.monotonic() + CHOOSE_FOR
    poll = select.poll()
    try:
        while untried or trying:
            if untried:
                one = untried.pop(0)
                try:
                    made = socket.socket(one[0], one[1], one[2])
                except OSError:  # a family that this machine has not
                    continue
                made.setblocking(False)
                trying[made.fileno()] = made, one
                made.connect_ex(one[4])
                poll.register(made, select.POLLOUT)
            left = end - time.monotonic()
            if left <= 0:
                break
            wait = min(left, NEXT_ADDRESS) if untried else left
            for descriptor, _ in poll.poll(int(wait * 1000) + 1):
                made, one = trying.pop(descriptor)
                poll.unregister(descriptor)
                with made:
                    if made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0 and _has_peer(made):
                        return one
    finally:
        for made, _ in trying.values():
            made.close()
    return None


def _has_peer(connected: socket.socket) -> bool:
    try:
        connected.getpeername()
    except OSError:
        return False
    return True
