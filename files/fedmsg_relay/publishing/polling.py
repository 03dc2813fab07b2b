"""Wait for the first of several things to happen, with pyzmq only where it has to be."""

from __future__ import annotations

import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    import zmq


class Poller:
    """File descriptors and sockets of libzmq, to `wait` for once."""

    def __init__(self) -> None:
        self._descriptors: dict[int, bool] = {}
        self._sockets: list[tuple[zmq.Socket[bytes], int]] = []

    def descriptor(self, descriptor: int, to_write: bool = False) -> None:
        """End the wait when it can be read or, with `to_write`, written, or has ended."""
        self._descriptors[descriptor] = to_write

    def socket(self, socket: zmq.Socket[bytes], flags: int) -> None:
        """End the wait by `flags`: zmq.POLLIN, zmq.POLLOUT."""
        self._sockets.append((socket, flags))

    def wait(self, milliseconds: int | None) -> set[int]:
        """The descriptors for which the wait ended, if it was for any; None: without limit."""
        if self._sockets:
            return self._wait_with_libzmq(milliseconds)
        poll = select.poll()
        for descriptor, to_write in self._descriptors.items():
            poll.register(descriptor, select.POLLIN | (select.POLLOUT if to_write else 0))
        return {descriptor for descriptor, _ in poll.poll(milliseconds)}

    def _wait_with_libzmq(self, milliseconds: int | None) -> set[int]:
        import zmq

        poller = zmq.Poller()
        for descriptor, to_write in self._descriptors.items():
            poller.register(descriptor, zmq.POLLIN | (zmq.POLLOUT if to_write else 0))
        for socket, flags in self._sockets:
            poller.register(socket, flags)
        return {ready for ready, _ in poller.poll(milliseconds) if isinstance(ready, int)}
