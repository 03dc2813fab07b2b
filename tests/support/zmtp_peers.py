"""Peers that speak ZMTP byte by byte: of each version, and of none.

Frames and greetings by the RFCs: ZMTP 1.0 (13), 2.0 (15), 3.0 (23), 3.1 (37). A `Peer` says what
it is told to say, well-formed or not, stops wherever it is told to, and reads when it is asked to.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator

MORE, LONG, COMMAND = 1, 2, 4  # flags of a frame, from ZMTP 2.0 on

# The numbers of socket types in the greeting of ZMTP 2.0, and their names in READY of 3.0.
TYPES = {"PUB": 1, "SUB": 2, "REQ": 3, "DEALER": 5, "XPUB": 9, "XSUB": 10}

VERSIONS = ("1.0", "2.0", "3.0", "3.1")
SIGNATURE = b"\xff" + b"\0" * 7 + b"\x01\x7f"


def greeting(version: str, kind: str = "SUB") -> bytes:
    """All that a peer says before its READY or, before ZMTP 3.0, its first message."""
    if version == "1.0":
        return b"\x01\x00"  # an empty identity
    if version == "2.0":
        return SIGNATURE + bytes((1, TYPES[kind])) + frame(b"")
    return SIGNATURE + bytes((3, int(version[-1]))) + b"NULL".ljust(20, b"\0") + b"\0" * 32


def ready(kind: str = "SUB") -> bytes:
    """The READY of a peer of ZMTP 3."""
    name = kind.encode()
    content = b"\x0bSocket-Type" + struct.pack(">I", len(name)) + name
    return command(b"READY", content + b"\x08Identity" + struct.pack(">I", 0))


def frame(body: bytes, flags: int = 0) -> bytes:
    """A frame of ZMTP 2.0 or later."""
    if len(body) < 256:
        return bytes((flags, len(body))) + body
    return bytes((flags | LONG,)) + struct.pack(">Q", len(body)) + body


def old_frame(body: bytes, flags: int = 0) -> bytes:
    """A frame of ZMTP 1.0."""
    size = len(body) + 1
    head = bytes((size,)) if size < 255 else b"\xff" + struct.pack(">Q", size)
    return head + bytes((flags,)) + body


def command(name: bytes, content: bytes = b"") -> bytes:
    """A command of ZMTP 3."""
    return frame(bytes((len(name),)) + name + content, COMMAND)


def subscription(version: str, topic: bytes, *, cancel: bool = False) -> bytes:
    """SUBSCRIBE or CANCEL of ZMTP 3.1; before that a message. ZMTP 1.0 has none on the wire."""
    if version == "3.1":
        return command(b"CANCEL" if cancel else b"SUBSCRIBE", topic)
    body = (b"\0" if cancel else b"\1") + topic
    return old_frame(body) if version == "1.0" else frame(body)


class Peer:
    """One connection to `endpoint`, `tcp://host:port`, from `source` if given.

    `receive_buffer`: bytes that its kernel takes while nobody reads.
    """

    def __init__(
        self,
        endpoint: str,
        version: str = "3.0",
        kind: str = "SUB",
        *,
        source: str | None = None,
        receive_buffer: int | None = None,
    ) -> None:
        host, _, port = endpoint.rpartition("//")[2].rpartition(":")
        self.version, self.kind = version, kind
        self.socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if source is not None:
            self.socket.bind((source, 0))
        self.socket.settimeout(20)
        self.socket.connect((host.strip("[]"), int(port)))
        self._rest = b""
        self._is_greeted = False

    @property
    def address(self) -> str:
        """As the relay names it."""
        host, port = self.socket.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def greet(self) -> Peer:
        """Say all that comes before the first message.

        In ZMTP 3 the other end's READY comes first: a message before that is an error to libzmq.
        """
        self.send(greeting(self.version, self.kind))
        if self.version >= "3":
            self.send(ready(self.kind))
            next(self.frames())
        return self

    def subscribe(self, topic: bytes = b"") -> Peer:
        if self.version != "1.0":  # whose publishers send everything
            self.send(subscription(self.version, topic))
        return self

    def message(self, *frames: bytes) -> None:
        """Send one message of these frames."""
        make = old_frame if self.version == "1.0" else frame
        last = len(frames) - 1
        self.send(b"".join(make(body, MORE * (i < last)) for i, body in enumerate(frames)))

    def send(self, sent: bytes) -> bool:
        """Send all of it. False if the other end has ended the connection meanwhile."""
        try:
            self.socket.sendall(sent)
        except (ConnectionError, OSError):
            return False
        return True

    def flood(self, sent: bytes, seconds: float) -> int:
        """Send this until the other end ends it, or takes nothing for so long: the bytes sent."""
        view, done = memoryview(sent), 0
        self.socket.settimeout(seconds)
        with contextlib.suppress(OSError):
            while done < len(view):
                done += self.socket.send(view[done : done + (1 << 18)])
        return done

    def is_ended(self, seconds: float = 20.0) -> bool:
        """Whether the other end ends the connection within this time. Reads all that comes."""
        self.socket.settimeout(seconds)
        try:
            while self.socket.recv(1 << 16):
                pass
        except TimeoutError:
            return False
        except OSError:
            return True
        return True

    def frames(self, seconds: float = 20.0) -> Iterator[tuple[int, bytes]]:
        """Flags and body of each frame that comes, after the greeting, until the end."""
        self.socket.settimeout(seconds)
        if not self._is_greeted:
            # What says ZMTP 1.0 to libzmq is its signature: an identity with a long head.
            self._take({"1.0": 10, "2.0": 12 + 2}.get(self.version, 64))
            self._is_greeted = True
        while True:
            if self.version == "1.0":
                size = self._take(1)[0]
                size = struct.unpack(">Q", self._take(8))[0] if size == 255 else size
                flags = self._take(1)[0]
                yield flags, self._take(size - 1)
            else:
                flags = self._take(1)[0]
                size = struct.unpack(">Q", self._take(8))[0] if flags & LONG else self._take(1)[0]
                yield flags, self._take(size)

    def messages(self, seconds: float = 20.0) -> Iterator[list[bytes]]:
        """The messages that come. Commands are passed over."""
        whole: list[bytes] = []
        for flags, body in self.frames(seconds):
            if flags & COMMAND and self.version != "1.0":
                continue
            whole.append(body)
            if not flags & MORE:
                yield whole
                whole = []

    def reset(self) -> None:
        """End the connection with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        self.socket.close()

    def _take(self, size: int) -> bytes:
        while len(self._rest) < size:
            came = self.socket.recv(1 << 16)
            if not came:
                raise ConnectionError("the other end has ended it")
            self._rest += came
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken
