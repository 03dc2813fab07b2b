"""From a queue of the broker to the relay: each message is acknowledged to the broker only once the
relay has it on disk.

One thread with a connection of its own. It takes deliveries as they come, submits them together and
acknowledges those that the relay did. A relay that does not answer is waited for, with the
deliveries in hand: to give them back would count as a delivery, of which RabbitMQ 4 allows 20.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from typing import Any

import pika
from pika import exceptions

from .. import log
from ..config import Config
from ..errors import PublishError
from ..publishing.delivery import ACKED, REFUSED, Delivery, Outcome
from ..rate_limit import RateLimit
from . import broker, convert, kinds
from .patterns import Patterns
from .settings import Settings
from .status import Status
from .store import StateError, Store

# Deliveries in hand, at most; and of a broker that counts them, how many each message may have.
PREFETCH = 500
DELIVERIES = 1_000_000

# Seconds: until the next attempt, and the one after many; to wait for a delivery; without a relay
# until the next attempt, while which the broker is told that we live.
AGAIN, AGAIN_MAX = 0.2, 5.0
WAIT = 0.1
RELAY_AGAIN = 0.5
TIMEOUT = 5.0

# What a relay says of a message that differs from the one it has under the same msg_id.
OTHER_MESSAGE = "another message has this msg_id"

logger = logging.getLogger(log.NAME)


class Inward(threading.Thread):
    """The queue, submitted by `config`. Begins with `start()`; `stop()`, then `join()`."""

    def __init__(self, settings: Settings, config: Config, store: Store, status: Status) -> None:
        super().__init__(name="in", daemon=True)
        self._settings = settings
        # Submitted and acknowledged, or not at all: an inbound address acknowledges nothing.
        self._config = {**config, "relay_inbound": [], "timeout": TIMEOUT}
        self._store = store
        self._status = status
        self._side = status.into
        self._side.is_wanted = True
        self._exclude = Patterns(settings.not_in)
        self._stopping = threading.Event()
        self._node = 0
        self._limit = RateLimit()
        self._delivery: Delivery | None = None
        self._waiting: list[tuple[int, convert.Incoming | None, bool]] = []
        self._outcomes: dict[int, Outcome] = {}

    def stop(self) -> None:
        """Make the thread end soon. What is in hand then, the broker delivers again."""
        self._stopping.set()

    def run(self) -> None:
        """Bridge until `stop()`."""
        pause = AGAIN
        while not self._stopping.is_set():
            node = self._settings.brokers[self._node % len(self._settings.brokers)]
            self._side.node = str(node)
            try:
                connection = pika.BlockingConnection(broker.parameters(node, self._settings, "in"))
                try:
                    self._bridge(connection)
                finally:
                    if connection.is_open:
                        connection.close()
            except (exceptions.AMQPError, OSError) as error:
                self._side.in_trouble(*broker.why(error, node))
            except StateError as error:
                self._side.in_trouble(kinds.OTHER, str(error))
            except Exception as error:  # the bridge goes on, whatever a message has in it
                logger.exception("in: internal error")
                self._side.in_trouble(kinds.OTHER, f"internal error: {error!r}")
            if self._side.is_connected:
                pause = AGAIN
            self._side.is_connected = False
            self._node += 1
            self._stopping.wait(pause)
            pause = min(2 * pause, AGAIN_MAX)
        if self._delivery is not None:
            self._delivery.close()

    def _bridge(self, connection: Any) -> None:
        channel = connection.channel()
        self._declare(channel)
        channel.basic_qos(prefetch_count=PREFETCH)
        self._side.connections += 1
        self._side.is_connected = True
        logger.info("in: consuming %s of %s", self._settings.queue, self._side.node)
        self._side.all_well()
        # A consumer's generator would hand on what a lost connection has delivered: this does not.
        delivered: list[Any] = []
        channel.add_on_cancel_callback(lambda frame: delivered.append(None))
        channel.basic_consume(
            self._settings.queue, lambda _, method, properties, body: delivered.append(
                (method, properties, body)
            ),
        )  # fmt: skip
        while not self._stopping.is_set():
            connection.process_data_events(WAIT if not delivered else 0)
            if None in delivered:
                queue = self._settings.queue
                self._side.in_trouble(
                    kinds.QUEUE, f"{self._side.node}: the queue {queue} was deleted"
                )
                return
            if delivered:
                self._take(delivered)
                delivered.clear()
                self._submit(connection, channel)

    def _declare(self, channel: Any) -> None:
        """The queue as it is to be, with its bindings: those that are there already stay."""
        channel.queue_declare(
            self._settings.queue,
            durable=True,
            arguments={"x-queue-type": "quorum", "x-delivery-limit": DELIVERIES},
        )
        for pattern in self._settings.bindings:
            channel.queue_bind(self._settings.queue, self._settings.exchange, pattern)

    def _take(self, delivered: list[Any]) -> None:
        for method, properties, body in delivered:
            self._side.counts["received"] += 1
            tag, key = method.delivery_tag, method.routing_key
            try:
                made: convert.Incoming | None = self._incoming(key, properties, body)
            except convert.UnfitError as error:
                self._set_aside(key, body, str(error), properties.message_id)
                made = None
            # One that needs no relay is acknowledged together with those around it.
            self._waiting.append((tag, made, method.redelivered))

    def _incoming(self, key: str, properties: Any, body: bytes) -> convert.Incoming | None:
        if self._exclude.match(key):
            self._side.counts["excluded"] += 1
            return None
        try:
            text = body.decode(properties.content_encoding or "utf-8")
            said = json.loads(text)
        except (ValueError, LookupError, RecursionError) as error:
            raise convert.UnfitError(f"it is not JSON: {error}") from None
        if convert.is_from_fedmsg(properties.headers, said):
            self._side.counts["loop"] += 1
            return None
        stamp = properties.timestamp
        return convert.incoming(
            key, said, properties.message_id, properties.headers,
            stamp if isinstance(stamp, (int, float)) else time.time(),
        )  # fmt: skip

    def _submit(self, connection: Any, channel: Any) -> None:
        """Have the relay take what is in hand, however long that takes; then acknowledge it."""
        waiting, self._waiting = self._waiting, []
        left = {tag: each for tag, each, _ in waiting if each is not None}
        again = {tag for tag, _, redelivered in waiting if redelivered}
        while left and not self._stopping.is_set():
            self._try(left)
            for tag, outcome in self._outcomes.items():
                self._settle(left, tag, outcome, tag in again)
            self._outcomes.clear()
            # The broker is told that we live; raises when it does not.
            connection.process_data_events(RELAY_AGAIN if left else 0)
        if not left:
            self._store.sync()
            channel.basic_ack(waiting[-1][0], multiple=True)
            self._side.all_well()

    def _try(self, left: dict[int, convert.Incoming]) -> None:
        try:
            if self._delivery is None:
                self._delivery = Delivery(self._config, None, self._outcomes.__setitem__)
            for tag, each in list(left.items()):
                self._delivery.put(each.topic, each.body, tag)
            self._delivery.finish()
        except PublishError as error:
            self._side.in_trouble(kinds.OTHER, f"no relay: {error}")

    def _settle(
        self, left: dict[int, convert.Incoming], tag: int, outcome: Outcome, is_again: bool
    ) -> None:
        if outcome.kind == ACKED:
            del left[tag]
            self._side.counts["acknowledged"] += 1
        elif outcome.kind == REFUSED:
            each = left.pop(tag)
            if outcome.why == OTHER_MESSAGE and is_again:
                # It has no time of its own, and so got another one at its first delivery.
                self._side.counts["acknowledged"] += 1
                return
            self._set_aside(
                each.topic.decode(), each.body, f"the relay refuses it: {outcome.why}", each.msg_id
            )
        else:
            self._side.in_trouble(kinds.OTHER, f"no relay takes messages: {outcome.why}")

    def _set_aside(self, topic: str, body: bytes, reason: str, msg_id: str | None) -> None:
        self._store.keep(topic, body, reason, msg_id=msg_id, side="in")
        self._status.note_set_aside(self._side, self._store.set_aside)
        if self._limit.allows("set aside"):
            more = "; more of these are only counted" * self._limit.is_last("set aside")
            logger.warning("in: topic %.200a is set aside: %s%s", topic, reason, more)
