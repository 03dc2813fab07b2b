"""A listener of very many topics: how many of them its own libzmq asks for, at a connection."""

from __future__ import annotations

from typing import Any

import pytest
import zmq

from ..conftest import Bus, Sender, wait_for

TOPICS = 1500


@pytest.mark.parametrize(("hwm", "heard"), [(None, 1000), (0, TOPICS)], ids=["default", "none"])
def test_no_more_than_the_listeners_high_water_mark(
    bus: Bus, context: zmq.Context[Any], hwm: int | None, heard: int
) -> None:
    bus.relay()
    sender = Sender(context, bus.inbound)
    with context.socket(zmq.SUB) as listener:
        listener.linger, listener.rcvhwm = 0, 0
        if hwm is not None:
            listener.sndhwm = hwm
        for number in range(TOPICS):
            listener.subscribe(b"topic.%04d." % number)
        listener.connect(bus.outbound)
        listener.subscribe(b"end")  # once connected: it may be lost, too

        def round_of_all() -> int:
            for number in range(TOPICS):
                sender.send(b"topic.%04d.x" % number, b'{"msg_id": "id", "msg": {}}')
            topics = set()
            while listener.poll(500):
                topics.add(listener.recv_multipart()[0])
            return len(topics)

        wait_for(lambda: round_of_all() >= heard, what="all that are asked for")
        assert round_of_all() == heard
