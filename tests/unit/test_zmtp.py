"""ZMTP as zmtp.py speaks it: every frame as RFC 23 has it, however it is cut, whatever comes."""

from __future__ import annotations

from contextlib import suppress

import pytest
from fedmsg_relay.publishing import zmtp
from fedmsg_relay.publishing.zmtp import Peer, ProtocolError
from hypothesis import given
from hypothesis import strategies as st

LARGEST = 1 << 16

# As RFC 23 writes them, not as the module makes them.
GREETING = (
    b"\xff\x00\x00\x00\x00\x00\x00\x00\x00\x7f" + b"\x03\x00" + b"NULL" + b"\0" * 16 + b"\0" * 32
)
READY = b"\x04\x1c\x05READY\x0bSocket-Type\x00\x00\x00\x06ROUTER"


def command(name: bytes, content: bytes = b"") -> bytes:
    body = bytes([len(name)]) + name + content
    return bytes([4, len(body)]) + body


def ready_peer() -> Peer:
    peer = Peer(LARGEST)
    peer.receive(GREETING + READY)
    assert peer.is_ready
    peer.answers.clear()
    return peer


def test_the_greeting() -> None:
    assert len(zmtp.GREETING) == 64
    assert (zmtp.GREETING[:1], zmtp.GREETING[9:12]) == (b"\xff", b"\x7f\x03\x00")
    assert zmtp.GREETING[12:] == GREETING[12:]


def test_a_dealer_answers_the_greeting_and_is_ready_when_the_peer_is() -> None:
    peer = Peer(LARGEST)
    peer.receive(GREETING)
    assert peer.answers == (
        b"\x04\x29\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER\x08Identity\x00\x00\x00\x00"
    )
    assert not peer.is_ready
    peer.receive(READY)
    assert peer.is_ready


@pytest.mark.parametrize(
    ("frames", "encoded"),
    [
        ([b""], b"\x00\x00"),
        ([b"1", b"", b"ab"], b"\x01\x011" + b"\x01\x00" + b"\x00\x02ab"),
        ([b"x" * 255], b"\x00\xff" + b"x" * 255),
        ([b"x" * 256, b"y"], b"\x03\0\0\0\0\0\0\x01\x00" + b"x" * 256 + b"\x00\x01y"),
    ],
)
def test_frames_on_the_wire(frames: list[bytes], encoded: bytes) -> None:
    assert zmtp.message(frames) == encoded
    peer = ready_peer()
    peer.receive(encoded)
    assert peer.messages == [frames]


a_frame = st.one_of(st.binary(max_size=20), st.integers(250, 260).map(lambda n: b"x" * n))
a_message = st.lists(a_frame, min_size=1, max_size=5)
cuts = st.lists(st.integers(1, 80), max_size=30)


def pieces(stream: bytes, sizes: list[int]) -> list[bytes]:
    found = []
    for size in sizes:
        found.append(stream[:size])
        stream = stream[size:]
    return [*found, stream]


@given(st.lists(a_message, max_size=5), cuts)
def test_messages_come_out_as_they_went_in_however_the_stream_is_cut(
    messages: list[list[bytes]], sizes: list[int]
) -> None:
    peer = Peer(LARGEST)
    stream = GREETING + READY + b"".join(map(zmtp.message, messages))
    for piece in pieces(stream, sizes):
        peer.receive(piece)
    assert peer.is_ready
    assert peer.messages == messages


@given(st.binary(max_size=300), st.binary(max_size=300), cuts, st.booleans())
def test_garbage_is_a_protocol_error_or_nothing_yet(
    start: bytes, rest: bytes, sizes: list[int], is_greeted: bool
) -> None:
    peer = ready_peer() if is_greeted else Peer(LARGEST)
    try:
        for piece in pieces(start + rest, sizes):
            peer.receive(piece)
    except ProtocolError:
        pass


@given(st.sampled_from([b"READY", b"PING", b"ERROR", b"PONG", b""]), st.binary(max_size=40))
def test_commands_that_are_garbage_too(name: bytes, content: bytes) -> None:
    for peer in (ready_peer(), Peer(LARGEST)):
        if not peer.is_ready:
            peer.receive(GREETING)
        with suppress(ProtocolError):
            peer.receive(command(name, content))
        assert peer.messages == []


@pytest.mark.parametrize(
    "start",
    [
        b"\x01\x00",  # ZMTP 1.0: an anonymous identity
        b"\xff\0\0\0\0\0\0\0\x01\x7e",  # a long identity of ZMTP 1.0
        b"\xff\0\0\0\0\0\0\0\x01\x7f\x01\x06\0\0",  # ZMTP 2.0, as libzmq 3.2 begins
        b"HTTP/1.1 400 Bad Request\r\n",
        b"SSH-2.0-OpenSSH_9.2p1\r\n",
        GREETING.replace(b"NULL\0", b"CURVE"),
        GREETING.replace(b"NULL", b"NULM"),
    ],
)
def test_what_is_no_peer_for_us(start: bytes) -> None:
    with pytest.raises(ProtocolError):
        Peer(LARGEST).receive(start)


def test_a_later_minor_version_and_a_later_major_one_are_ours() -> None:
    for version in (b"\x03\x01", b"\x04\x00"):
        peer = Peer(LARGEST)
        peer.receive(GREETING[:10] + version + GREETING[12:] + READY)
        assert peer.is_ready


@pytest.mark.parametrize(
    "wrong",
    [
        READY.replace(b"ROUTER", b"PUBSUB"),
        READY.replace(b"Socket-Type", b"Socket-Kind"),
        READY[:1] + b"\x1b" + READY[2:-1],  # the last value is cut off
        command(b"READY", b"\x0bSocket-T"),
        command(b"READY", READY[8:] + b"\x01x\x00\x00\x00\x02y"),  # one more, cut off
        command(b"PING", b"\0\0"),
        command(b"ERROR", b"\x02no"),
        zmtp.message([b"early"]),
        b"\x04\x00",
    ],
)
def test_no_handshake(wrong: bytes) -> None:
    peer = Peer(LARGEST)
    peer.receive(GREETING)
    with pytest.raises(ProtocolError):
        peer.receive(wrong)
    assert not peer.is_ready


def test_the_case_of_names_of_properties_is_of_no_consequence() -> None:
    peer = Peer(LARGEST)
    peer.receive(GREETING + READY.replace(b"Socket-Type", b"sOCKET-tYPE"))
    assert peer.is_ready


@pytest.mark.parametrize(
    "wrong",
    [
        b"\x08\x00",  # a reserved flag
        b"\x05\x01x",  # a command that goes on
        READY,
        command(b"ERROR", b"\x04gone"),
        command(b"PING", b"\x00"),
        command(b"PING", b"\x00\x00" + b"x" * 17),
        b"\x02" + (1 << 63).to_bytes(8, "big"),
        b"\x02" + (LARGEST - 8).to_bytes(8, "big"),
        (b"\x01\x00" * LARGEST),  # a message without an end
    ],
)
def test_no_zmtp_after_the_handshake(wrong: bytes) -> None:
    peer = ready_peer()
    with pytest.raises(ProtocolError):
        peer.receive(zmtp.message([b"before"]) + wrong)
    assert peer.messages == [[b"before"]]


def test_the_largest_message() -> None:
    peer = ready_peer()
    peer.receive(zmtp.message([b"x" * (LARGEST - 9)]) * 2)
    assert [len(frame) for [frame] in peer.messages] == [LARGEST - 9] * 2


def test_a_ping_is_answered_between_the_frames_of_a_message() -> None:
    peer = ready_peer()
    peer.receive(b"\x01\x01a" + command(b"PING", b"\x00\x0acontext") + b"\x00\x01b")
    assert peer.answers == command(b"PONG", b"context")
    assert peer.messages == [[b"a", b"b"]]


def test_commands_that_are_not_for_a_dealer_are_passed_over() -> None:
    peer = ready_peer()
    peer.receive(command(b"SUBSCRIBE", b"x") + command(b"PONG") + zmtp.message([b"a"]))
    assert peer.messages == [[b"a"]]
    assert not peer.answers


def test_answers_are_bounded() -> None:
    peer = ready_peer()
    with pytest.raises(ProtocolError, match="PING"):
        for _ in range(10_000):
            peer.receive(command(b"PING", b"\x00\x00context"))
