"""libzmq's own proxy, the practical limit: XSUB bound inbound, XPUB bound outbound.

    python -m bench.proxy INBOUND OUTBOUND

Queues are as long as the relay's, and as there none of them drops: it waits for the slowest.
"""

from __future__ import annotations

import sys

import zmq

INBOUND_QUEUE = 10_000
OUTBOUND_QUEUE = 50_000
LISTEN_BACKLOG = 4096


def bound_sockets() -> tuple[zmq.Socket[bytes], zmq.Socket[bytes]]:
    """XSUB and XPUB, bound to the addresses of the command line."""
    inbound_address, outbound_address = sys.argv[1:]
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    inbound, outbound = context.socket(zmq.XSUB), context.socket(zmq.XPUB)
    inbound.setsockopt(zmq.RCVHWM, INBOUND_QUEUE)
    outbound.setsockopt(zmq.SNDHWM, OUTBOUND_QUEUE)
    outbound.setsockopt(zmq.XPUB_NODROP, 1)
    for bound, address in ((inbound, inbound_address), (outbound, outbound_address)):
        bound.setsockopt(zmq.BACKLOG, LISTEN_BACKLOG)
        bound.bind(address)
    return inbound, outbound


def main() -> None:
    zmq.proxy(*bound_sockets())


if __name__ == "__main__":
    main()
