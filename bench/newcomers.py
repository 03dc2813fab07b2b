"""How long the relay leaves its inbound socket alone, as publishers see it that come and go.

    python -m bench.newcomers '{"address": "tcp://...", "stop": "PATH", "report": "PATH"}'

A bound SUB or XSUB sends its subscription to a newcomer only when its thread runs, and a publisher
throws away what it sends before that. So one publisher after the other connects, is subscribed to
and leaves; the longest wait is the longest time for which the socket was left alone, less the time
since the one before. Ends when the file `stop` is there.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import zmq

# Seconds from one newcomer to the next, and for one to give up.
INTERVAL = 0.005
PATIENCE = 30.0


@dataclass
class Order:
    address: str
    stop: str
    report: str


def waits(order: Order) -> list[float]:
    """Milliseconds from the attempt to connect to the subscription, of each newcomer."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    found: list[float] = []
    while not (found and Path(order.stop).exists()):
        started = time.monotonic()
        newcomer = context.socket(zmq.XPUB)
        newcomer.connect(order.address)
        if not newcomer.poll(int(PATIENCE * 1000)):
            sys.exit(f"nobody subscribes at {order.address} within {PATIENCE:g} s")
        waited = time.monotonic() - started
        found.append(waited * 1000)
        newcomer.close(linger=0)
        time.sleep(max(0.0, INTERVAL - waited))
    context.term()
    return found


def main() -> None:
    order = Order(**json.loads(sys.argv[1]))
    found = waits(order)
    Path(order.report).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
