"""The inbound side: take what scripts publish, many messages at a time."""

from __future__ import annotations

import time

import zmq

from .. import sockets
from ..checks.wire import CLOSELY
from ..config import Config
from .skipping import Skipping

# Messages taken from one publisher ahead of their turn. A PUB socket that is left as it is made
# throws away what does not fit its queue of 1,000, so there is room for a burst.
QUEUE_MESSAGES = 10_000

# One batch: some hundred microseconds of small messages, so that none waits long for the others,
# and some ten milliseconds of the worst ones there are.
BATCH_MESSAGES = 100
BATCH_BYTES = 1 << 16

# Bytes a message may have beyond the limit, to be counted; what has more, and could fill the
# memory, ends its sender's connection instead.
A_LITTLE = 1 << 20

# Frames of a message that are kept: with a third it is none of ours, whatever follows.
KEPT = 3
# Seconds for the others in one go.
AT_ONCE = 0.01

# A number: the arithmetic of enumerations takes longer than the receiving.
_NOBLOCK = int(zmq.NOBLOCK)


class Inbound:
    """The XSUB socket that scripts connect to. It is to be bound by whoever makes it.

    XSUB rather than SUB: the wire is the same, and it can take its subscription back without
    discarding what has already arrived, which is how publishers that stay are stopped.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], config: Config) -> None:
        self.socket = sockets.make(context, zmq.XSUB, config)
        self.socket.setsockopt(zmq.MAXMSGSIZE, largest_frame(config))
        self.socket.setsockopt(zmq.RCVHWM, QUEUE_MESSAGES)
        self.socket.send(b"\x01")
        # The first frame of each message of the last batch: it knows who has sent it. Of small
        # ones, which are checked at once, that of the first only, unless `keeps_heads`.
        self.heads: list[zmq.Frame | None] = []
        self.keeps_heads = False
        # What is left of a message of very many frames: there is more to be received at once.
        self.skipping = Skipping()

    def receive(self) -> list[list[bytes]]:
        """The next messages, each a list of its frames; empty if there are none. Never waits.

        Of a message of more than KEPT frames these alone.
        """
        receive = self.socket.recv
        batch: list[list[bytes]] = []
        heads: list[zmq.Frame | None] = []
        self.heads = heads
        # What is larger has its head kept: of all, that is what -1 says. See `heads`.
        others = -1 if self.keeps_heads else CLOSELY
        small, size = -1, 0
        try:
            if not self.skipping.go_on(self.socket, time.monotonic() + AT_ONCE):
                return batch
            for number in range(BATCH_MESSAGES):
                # Not recv_multipart: it asks the socket after each frame whether there are more,
                # which takes three times as long as the receiving. A frame knows.
                head = receive(_NOBLOCK, False)
                topic = head.bytes
                if head.more:
                    frame = receive(_NOBLOCK, False)
                    body = frame.bytes
                    frames = [topic, body]
                    length = len(topic) + len(body)
                    if frame.more:
                        length += self._take_more(head, frames)
                else:
                    frames = [topic]
                    length = len(topic)
                batch.append(frames)
                if length > small:
                    if length > CLOSELY:
                        others = -1  # what follows may be the same sender's: it waits behind it
                    small = others
                    heads += [None] * (number - len(heads))
                    heads.append(head)
                size += length
                if size >= BATCH_BYTES or self.skipping.head is not None:
                    break
        except zmq.Again:
            pass
        heads += [None] * (len(batch) - len(heads))
        return batch

    def _take_more(self, head: zmq.Frame, frames: list[bytes]) -> int:
        """Add the third frame of a message, and skip what follows. Its bytes."""
        frame = self.socket.recv(_NOBLOCK, False)
        frames.append(frame.bytes)
        if frame.more:
            self.skipping.begin(head, KEPT)
            self.skipping.go_on(self.socket, time.monotonic() + AT_ONCE)
        return len(frames[-1])

    def refuse_more(self) -> None:
        """Tell publishers to send no more. What they had sent can still be received.

        Not by unbinding: libzmq ends all connections of an address with it, and what they hold.
        """
        self.socket.send(b"\x00")

    def close(self) -> None:
        self.socket.close(linger=0)


def largest_frame(config: Config) -> int:
    """Bytes of one frame that libzmq takes from a publisher."""
    most: int = config["relay_max_message_bytes"]
    return most + min(most, A_LITTLE)
