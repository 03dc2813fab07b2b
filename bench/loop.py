"""The least that a relay in Python does: receive with pyzmq, send with pyzmq, look at nothing.

    python -m bench.loop INBOUND OUTBOUND

What pyzmq's documentation has, `recv_multipart` and `send_multipart`, between the sockets of
proxy.py. The distance from there to here is Python's, and no relay's.
"""

from __future__ import annotations

from . import proxy


def main() -> None:
    inbound, outbound = proxy.bound_sockets()
    inbound.send(b"\x01")
    receive, send = inbound.recv_multipart, outbound.send_multipart
    while True:
        send(receive())


if __name__ == "__main__":
    main()
