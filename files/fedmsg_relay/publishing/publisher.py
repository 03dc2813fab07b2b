"""Messages that go out by one config: made, signed where it says so, and delivered."""

from __future__ import annotations

from itertools import count

from .. import message as messages
from ..errors import MessageRefused, MessageTooLarge, PublishError
from .delivery import FAILED, REFUSED, Delivery, Outcome
from .spool import Spool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any, Callable

    from ..config import Config
    from ..message import Message


class Publisher:
    """A config, connections by it, and the count of what went over them.

    `on_outcome(message, outcome)` is told what became of each message that was `put`; without it
    use `publish`. `numbers` are those of the messages, from 1, or what another session has left.
    """

    def __init__(
        self,
        config: Config,
        on_outcome: Callable[[Message, Outcome], None] | None = None,
        numbers: Iterator[int] | None = None,
    ) -> None:
        self.config = config
        self.numbers = numbers or count(1)
        self._on_outcome = on_outcome
        self._outcomes: dict[int, Outcome] = {}  # by id of the message, for `publish`
        directory = config["publisher_spool"]
        spool = Spool(directory, config["publisher_spool_max_bytes"]) if directory else None
        self._delivery = Delivery(config, spool, self._take)
        self._signer = None
        if config.get("sign_messages"):
            from ..checks.signatures import Signer  # cryptography is slow to import

            self._signer = Signer(config)

    def put(
        self,
        topic: str,
        msg: Any,
        modname: str,
        pre_fire_hook: Callable[[Message], None] | None = None,
    ) -> Message:
        """Build, sign where the config says so, and begin to deliver one message. Returns it.

        Waits only while as much as may be is under way. Raises MessageTooLarge, SigningError, and
        TypeError or ValueError for what JSON cannot hold, NaN and Infinity among it.
        """
        full = messages.full_topic(
            topic, modname, self.config["topic_prefix"], self.config["environment"]
        )
        message = messages.build(full, msg, next(self.numbers))
        if self._signer is not None:
            message = self._signer.sign(message)
        if pre_fire_hook is not None:
            pre_fire_hook(message)
        encoded_topic, body = full.encode(), messages.encode(message)
        limit = self.config["relay_max_message_bytes"]
        if len(encoded_topic) + len(body) > limit:
            raise MessageTooLarge(
                f"the message is {len(encoded_topic) + len(body)} bytes,"
                f" relays take {limit} (relay_max_message_bytes)"
            )
        self._delivery.put(encoded_topic, body, message)
        return message

    def publish_all(self, topic: str, msgs: Iterable[Any], modname: str) -> Iterator[Outcome]:
        """`put` each, many under way at once, and yield what became of each, in their order.

        What `put` refuses is REFUSED. Whatever `msgs` raises is raised once all before is known.
        """
        known: dict[int, Outcome] = {}
        # By the id of a message, which is kept here so that no other one has it meanwhile.
        under_way: dict[int, tuple[int, Message]] = {}
        put = given = 0

        def begin(message: Message) -> None:
            under_way[id(message)] = (put, message)

        def take(message: Message, outcome: Outcome) -> None:
            known[under_way.pop(id(message))[0]] = outcome

        self._on_outcome = take
        iterator, error = iter(msgs), None
        while True:
            try:
                msg = next(iterator)
            except StopIteration:
                break
            except Exception as raised:
                error = raised
                break
            try:
                self.put(topic, msg, modname, begin)
            except (MessageTooLarge, TypeError, ValueError) as raised:
                known[put] = Outcome(REFUSED, why=str(raised))
            put += 1
            while given in known:
                yield known.pop(given)
                given += 1
        self.finish()
        for number in range(given, put):
            yield known.pop(number)
        if error is not None:
            raise error

    def publish(
        self,
        topic: str,
        msg: Any,
        modname: str,
        pre_fire_hook: Callable[[Message], None] | None = None,
    ) -> Message:
        """`put` one message and wait until it is acknowledged, handed over or spooled.

        Raises what `put` does, MessageRefused, and PublishError when nobody has it.
        """
        self._outcomes.clear()
        message = self.put(topic, msg, modname, pre_fire_hook)
        self._delivery.finish()
        outcome = self._outcomes[id(message)]
        if outcome.kind == REFUSED:
            raise MessageRefused(f"{outcome.where} refuses the message: {outcome.why}")
        if outcome.kind == FAILED:
            raise PublishError(outcome.why)
        return message

    @property
    def has_handed_over(self) -> bool:
        """Whether a relay that does not acknowledge was sent something: it may not have left."""
        return self._delivery.sent_unacknowledged

    def abandon(self) -> None:
        """In a forked child: let go of what is the parent's, without ending it there."""
        self._delivery.abandon()

    def wait_for_input(self, descriptor: int) -> None:
        """Go on delivering until the file descriptor can be read."""
        self._delivery.wait_for_input(descriptor)

    def finish(self) -> None:
        """Go on delivering until it is known of every message what became of it."""
        self._delivery.finish()

    def why(self) -> str:
        """Why messages had to be spooled: what the relays say, or a connection to them does."""
        return self._delivery.why()

    def close(self, leaving: bool = False) -> None:
        """Wait until what was handed to a relay that does not acknowledge has left.

        Raises PublishError after `zmq_linger` milliseconds. `leaving`: this process ends now.
        """
        if not self._delivery.close(leaving):
            raise PublishError(
                "some messages may be lost: a relay that does not acknowledge has not taken all"
                f" within {self.config['zmq_linger'] / 1000:g} s (zmq_linger)"
            )

    def _take(self, message: Message, outcome: Outcome) -> None:
        if self._on_outcome is not None:
            self._on_outcome(message, outcome)
        else:
            self._outcomes[id(message)] = outcome
