"""What a client of one address of a relay offers, whichever kind of address it is.

Type checking alone needs this module: `SubmitClient` and `InboundClient` have all of it, and
`Delivery` knows nothing else of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from .polling import Poller


class Client(Protocol):
    """A connection to one address of a relay, which may or may not answer. It connects again by
    itself until it is closed, and does so only while it is asked or watched."""

    endpoint: str
    # Keys of what was sent and not replied to. Empty where nothing is acknowledged.
    in_flight: set[int]
    # The moment of the monotonic clock at which to ask again, though nothing happened.
    due: float

    def is_ready(self) -> bool:
        """Whether a relay is there to take messages now."""

    def is_lost(self) -> bool:
        """Whether a connection has ended since `forget_losses`, and with it what was in flight."""

    def forget_losses(self) -> None:
        """Before the first message: attempts that failed until then concern nobody."""

    def send(self, key: int, topic: bytes, body: bytes) -> bool:
        """Have one message leave, by `flush` at the latest. False: there is no room for it."""

    def flush(self) -> None:
        """Let go what was sent, as far as there is room."""

    def replies(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Key and reply of every answer that is here. Never waits."""

    def left(self) -> int:
        """Bytes that the relay's host has taken, as far as that is known: 0 where it is not."""

    def watch(self, poller: Poller) -> None:
        """Have `poller` end its wait when there is something to see to."""

    def close(self, linger: int = 0) -> None:
        """End it; what was sent may leave for `linger` milliseconds, in the background."""

    def abandon(self) -> None:
        """In a forked child: let go of what is the parent's, and leave it open there."""
