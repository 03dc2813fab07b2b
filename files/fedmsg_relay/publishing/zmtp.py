"""ZMTP 3.0 as far as a DEALER needs it to talk to one ROUTER. It does no input or output itself.

A script hands over one message and ends, and importing pyzmq takes it three times as long as the
start of Python. So for this one way, TCP without encryption, the protocol is spoken here.

RFC 23 (ZMTP 3.0): greeting, NULL mechanism, READY and ERROR, frames. RFC 28: a DEALER talks to a
ROUTER or a REP. PING and PONG are RFC 37's (ZMTP 3.1); libzmq takes and sends them in 3.0 as well.
https://rfc.zeromq.org/
"""

from __future__ import annotations

_MORE, _LONG, _COMMAND = 1, 2, 4  # flags of a frame
_SHORT = 255  # the most bytes that a frame without _LONG has

_MECHANISM = b"NULL".ljust(20, b"\0")
# Signature, version 3.0, mechanism, "as-server" (NULL has none), filler. The length in the
# signature is what libzmq sends: that of an empty identity, for peers before ZMTP 2.0.
GREETING = b"\xff" + b"\0" * 7 + b"\x01\x7f" + b"\x03\x00" + _MECHANISM + b"\0" * 32

_PEERS = (b"ROUTER", b"REP")
# Bytes of answers to PINGs that nobody sends on, before the peer is no peer.
_MOST_ANSWERS = 1 << 16


class ProtocolError(Exception):
    """The peer does not speak this, or has said ERROR: the connection is of no more use."""


def message(frames: list[bytes]) -> bytes:
    """The bytes of one message."""
    last = len(frames) - 1
    return b"".join(_frame(_MORE if i < last else 0, frame) for i, frame in enumerate(frames))


class Peer:
    """What the other end of one connection says.

    `messages` are its messages, each a list of frames, until they are taken from there. `answers`
    are bytes to be sent to it, likewise. GREETING goes first, and a message may follow once it
    `is_ready`. One message or command of it may have `largest` bytes, headers included.
    """

    def __init__(self, largest: int) -> None:
        self.is_ready = False
        self.messages: list[list[bytes]] = []
        self.answers = bytearray()
        self._largest = largest
        self._is_greeted = False
        self._received = bytearray()  # and not understood yet
        self._frames: list[bytes] = []  # of a message that is not whole yet
        self._size = 0

    def receive(self, received: bytes) -> None:
        """Take what has come, however it is cut. Raises ProtocolError."""
        self._received += received
        if not self._is_greeted:
            self._take_greeting()
        if self._is_greeted:
            self._take_frames()

    def _take_greeting(self) -> None:
        came = self._received
        # As soon as it shows: a peer before ZMTP 3.0 sends no more until it is answered in its way.
        is_ours = b"\xff".startswith(came[:1]) and (len(came) < 10 or came[9] & 1)
        if not is_ours or (len(came) > 10 and came[10] < 3):
            raise ProtocolError("no greeting of ZMTP 3")
        if len(came) < len(GREETING):
            return
        if came[12:32] != _MECHANISM:
            raise ProtocolError("another mechanism than NULL")
        del came[: len(GREETING)]
        self._is_greeted = True
        ready = b"\x05READY" + _property(b"Socket-Type", b"DEALER") + _property(b"Identity", b"")
        self.answers += _frame(_COMMAND, ready)

    def _take_frames(self) -> None:
        came, position = self._received, 0
        while len(came) - position >= 2:
            flags = came[position]
            if flags & ~(_MORE | _LONG | _COMMAND) or (flags & _COMMAND and flags & _MORE):
                raise ProtocolError(f"a frame with flags {flags:#x}")
            header = 9 if flags & _LONG else 2
            if len(came) - position < header:
                break
            start = position + header
            size = int.from_bytes(came[position + 1 : start], "big")
            if self._size + header + size > self._largest:
                raise ProtocolError("a message that is too large")
            if len(came) - start < size:
                break
            position = start + size
            body = bytes(came[start:position])
            if flags & _COMMAND:
                self._take_command(body)
            elif self.is_ready:
                self._take_frame(body, header, bool(flags & _MORE))
            else:
                raise ProtocolError("a message before READY")
        del came[:position]

    def _take_frame(self, body: bytes, header: int, more: bool) -> None:
        self._frames.append(body)
        self._size += header + len(body)
        if not more:
            self.messages.append(self._frames)
            self._frames, self._size = [], 0

    def _take_command(self, command: bytes) -> None:
        name, content = _split(command, 1)
        if name == b"ERROR":
            raise ProtocolError(f"ERROR: {_split(content, 1)[0]!r}")
        if not self.is_ready:
            if name != b"READY":
                raise ProtocolError(f"{name!r} before READY")
            kind = _properties(content).get(b"socket-type")
            if kind not in _PEERS:
                raise ProtocolError(f"a peer of type {kind!r}")
            self.is_ready = True
        elif name == b"READY":
            raise ProtocolError("READY again")
        elif name == b"PING":
            # Two bytes say for how long the peer is content; up to 16 come back to it.
            if not 2 <= len(content) <= 18:
                raise ProtocolError("a PING that is none")
            self.answers += _frame(_COMMAND, b"\x04PONG" + content[2:])
            if len(self.answers) > _MOST_ANSWERS:
                raise ProtocolError("more PINGs than can be answered")
        # What is not known here is of no consequence: libzmq passes over it, too.


def _frame(flags: int, body: bytes) -> bytes:
    if len(body) <= _SHORT:
        return bytes((flags, len(body))) + body
    return bytes((flags | _LONG,)) + len(body).to_bytes(8, "big") + body


def _property(name: bytes, value: bytes) -> bytes:
    return bytes((len(name),)) + name + len(value).to_bytes(4, "big") + value


def _properties(content: bytes) -> dict[bytes, bytes]:
    """READY's metadata. Names are in lower case, since their case is of no consequence."""
    found = {}
    while content:
        name, content = _split(content, 1)
        value, content = _split(content, 4)
        found[name.lower()] = value
    return found


def _split(content: bytes, octets: int) -> tuple[bytes, bytes]:
    """The bytes whose length the first `octets` give, and what follows. Raises ProtocolError."""
    end = octets + int.from_bytes(content[:octets], "big")
    if len(content) < max(octets, end):
        raise ProtocolError("a command that is cut off")
    return content[octets:end], content[end:]
