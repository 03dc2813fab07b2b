"""The inbound side: take what scripts publish, many messages at a time."""

from __future__ import annotations

import zmq

from . import sockets
from .config import Config

# Messages taken from one publisher ahead of their turn. A PUB socket that is left as it is made
# throws away what does not fit its queue of 1,000, so there is room for a burst.
QUEUE_MESSAGES = 10_000

# One batch: some hundred microseconds of small messages, so that none waits long for the others,
# and no more than that of memory.
BATCH_MESSAGES = 100
BATCH_BYTES = 1 << 20

# A number: the arithmetic of enumerations takes longer than the receiving.
_NOBLOCK = int(zmq.NOBLOCK)


class Inbound:
    """The XSUB socket that scripts connect to. It is to be bound by whoever makes it.

    XSUB rather than SUB: the wire is the same, and it can take its subscription back without
    discarding what has already arrived, which is how publishers that stay are stopped.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], config: Config) -> None:
        self.socket = sockets.make(context, zmq.XSUB, config)
        # Twice the limit: what is a little too large is counted, and what could fill the memory
        # ends its sender's connection instead.
        self.socket.setsockopt(zmq.MAXMSGSIZE, 2 * config["relay_max_message_bytes"])
        self.socket.setsockopt(zmq.RCVHWM, QUEUE_MESSAGES)
        self.socket.send(b"\x01")

    def receive(self) -> list[list[bytes]]:
        """The next messages, each a list of its frames; empty if there are none. Never waits."""
        receive = self.socket.recv
        batch: list[list[bytes]] = []
        size = 0
        try:
            while len(batch) < BATCH_MESSAGES and size < BATCH_BYTES:
                # Not recv_multipart: it asks the socket after each frame whether there are more,
                # which takes three times as long as the receiving. A frame knows.
                frame = receive(_NOBLOCK, False)
                frames = [frame.bytes]
                while frame.more:
                    frame = receive(_NOBLOCK, False)
                    frames.append(frame.bytes)
                batch.append(frames)
                size += len(frames[-1])
        except zmq.Again:
            pass
        return batch

    def refuse_more(self) -> None:
        """Tell publishers to send no more. What they had sent can still be received.

        Not by unbinding: libzmq ends all connections of an address with it, and what they hold.
        """
        self.socket.send(b"\x00")

    def close(self) -> None:
        self.socket.close(linger=0)
