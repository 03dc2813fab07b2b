"""The ZMTP client: what a relay, or whoever is at its address, sends to a script."""

from __future__ import annotations

import random
import zlib

from fedmsg_relay.publishing.zmtp import GREETING, Peer, ProtocolError, message

LARGEST = 1 << 12
# Answers that are kept, and the one that is too much; a frame's header.
MOST_ANSWERS, HEADER = (1 << 16) + 100, 9

READY = b"\x04\x1c\x05READY\x0bSocket-Type\x00\x00\x00\x06ROUTER"
PING = b"\x04\x0b\x04PING\x00\x0atext"
WORDS = (
    READY, PING, b"\xff", b"\x00\x00", b"\x01\x00", b"\x04\x07\x05ERROR\x00", b"\x02" + b"\xff" * 8,
    b"\x02" + b"\0" * 6 + b"\x10\x00", b"\x7f" * 8, b"\x03\x01", b"CURVE", b"\x06",
)  # fmt: skip


def seeds() -> list[bytes]:
    head = GREETING + READY
    reply = message([b"1", b"", b'{"ok": true, "seq": 1}'])
    return [
        head,
        head + reply,
        head + PING + reply * 3,
        head + message([b"x" * 300, b""]),
        GREETING,
    ]


def check(octets: bytes) -> None:
    whole, fault = _received([octets])
    pieces, fault_of_pieces = _received(_cut(octets))
    assert (whole.messages, fault) == (pieces.messages, fault_of_pieces)
    assert whole.answers == pieces.answers and whole.is_ready == pieces.is_ready
    # Nothing is made of nothing, and what no message is yet is no more than one may be.
    assert sum(len(frame) for frames in whole.messages for frame in frames) <= len(octets)
    assert len(whole.answers) <= MOST_ANSWERS
    assert fault is not None or len(whole._received) < LARGEST + HEADER
    for frames in whole.messages:
        again = Peer(LARGEST)
        again.receive(GREETING + READY + message(frames))
        assert again.messages == [frames]


def _received(pieces: list[bytes]) -> tuple[Peer, str | None]:
    peer = Peer(LARGEST)
    try:
        for piece in pieces:
            peer.receive(piece)
    except ProtocolError as error:
        return peer, str(error)
    return peer, None


def _cut(octets: bytes) -> list[bytes]:
    """Pieces as a network may bring them: the same for the same octets."""
    chosen = random.Random(zlib.crc32(octets))
    pieces, at = [], 0
    while at < len(octets):
        size = chosen.choice((1, 2, 7, 64, 1000))
        pieces.append(octets[at : at + size])
        at += size
    return pieces
