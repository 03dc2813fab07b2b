"""fedmsg-amqp-verify: whether what passes on the bus passes on RabbitMQ, too, by the messages' ids.

It listens on both for a stretch of time, as any listener and any consumer does: to the outbound
addresses of the config, and with a queue of its own that ends with it. It does not ask the bridge,
whichever bridge that is.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Iterator
from typing import Any

from . import __version__
from . import config as global_config
from .bridge import settings as bridge_settings
from .bridge.patterns import Patterns, problem
from .errors import ConfigError, FedmsgRelayError

NAME = "fedmsg-amqp-verify"

DESCRIPTION = """\
Listen on the bus and on RabbitMQ for some time, and compare what passed on both, by id. Prints one
line, and one for each message that is missing on one side."""

EPILOG = """\
exit status:
  0 the same messages passed on both   1 some are missing on one side, or one side cannot be
  listened to   2 usage   3 no message passed: nothing is known"""

BUS, AMQP = "bus", "RabbitMQ"

# Seconds at the beginning in which what passes counts only where the other side has it as well: one
# of them is listened to before the other.
SETTLE = 2.0
# Messages that are named one by one.
NAMED = 20

_YEAR = re.compile(r"\d{4}-(?=[0-9a-f]{8}-)")


class Seen:
    """What passed on the two sides. Times are those of one clock, in seconds."""

    def __init__(self, patterns: Patterns) -> None:
        self._patterns = patterns
        self.first: dict[str, dict[str, tuple[float, str]]] = {BUS: {}, AMQP: {}}
        self.doubles = {BUS: 0, AMQP: 0}

    def note(self, side: str, msg_id: str, topic: str, now: float) -> None:
        """A message passed on a side, `now`."""
        if not self._patterns.match(topic):
            return
        key = _YEAR.sub("", msg_id)
        if key in self.first[side]:
            self.doubles[side] += 1
        else:
            self.first[side][key] = (now, topic)

    def missing(self, side: str, since: float, until: float) -> list[tuple[str, str]]:
        """Id and topic of what passed on the other side in that time, and not on this one."""
        other = self.first[AMQP if side == BUS else BUS]
        return [
            (key, topic)
            for key, (at, topic) in other.items()
            if since <= at <= until and key not in self.first[side]
        ]


def id_on_bus(body: bytes) -> str | None:
    """The id of a message of the bus, or None if it has none."""
    return _msg_id(_read(body))


def id_on_amqp(headers: Any, message_id: str | None, body: bytes) -> str | None:
    """The same of a message of RabbitMQ, whichever bridge or publisher has sent it."""
    if headers and headers.get("fedmsg_msg_id"):
        return str(headers["fedmsg_msg_id"])
    # fedmsg-migration-tools: the body is the whole message, and the message id is a new one.
    return _msg_id(_read(body)) or message_id


def _read(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _msg_id(message: Any) -> str | None:
    if isinstance(message, dict) and "topic" in message and isinstance(message.get("msg_id"), str):
        return str(message["msg_id"])
    return None


def listen(
    config: global_config.Config, settings: bridge_settings.Settings, seen: Seen, seconds: float,
    grace: float,
) -> tuple[float, float]:  # fmt: skip
    """Listen on both sides. Returns when what counts began, and when it ended.

    Ends early, after `seconds`, if nothing is missing. Raises ConfigError if RabbitMQ cannot be
    listened to.
    """
    import zmq

    from . import sockets

    context = zmq.Context()
    bus = sockets.make(context, zmq.SUB, config)
    bus.subscribe(b"")
    for addresses in config["endpoints"].values():
        for address in addresses:
            sockets.connect(bus, address)
    try:
        with_broker = _broker(settings)
        next(with_broker)
        since = time.monotonic() + SETTLE
        until = since + seconds
        while (now := time.monotonic()) < until + grace:
            for key, topic in with_broker.send(now) or ():
                seen.note(AMQP, key, topic, now)
            for key, topic in _received(bus, zmq):
                seen.note(BUS, key, topic, time.monotonic())
            if now > until and not (
                seen.missing(BUS, since, until) or seen.missing(AMQP, since, until)
            ):
                break
        with_broker.close()
    finally:
        bus.close(linger=0)
        context.term()
    return since, until


def _received(bus: Any, zmq: Any) -> Iterator[tuple[str, str]]:
    for _ in range(1000):
        try:
            topic, body = bus.recv_multipart(zmq.NOBLOCK)[:2]
        except zmq.Again:
            return
        except ValueError:  # another number of frames is no message
            continue
        msg_id = id_on_bus(body)
        if msg_id is not None:
            yield msg_id, topic.decode(errors="backslashreplace")


def _broker(settings: bridge_settings.Settings) -> Any:
    """A generator that takes the time, and yields id and topic of what has come since."""
    import pika
    from pika import exceptions

    from .bridge import broker

    node = settings.brokers[0]
    found: list[tuple[str, str]] = []

    def take(_: Any, method: Any, properties: Any, body: bytes) -> None:
        msg_id = id_on_amqp(properties.headers, properties.message_id, body)
        if msg_id is not None:
            found.append((msg_id, method.routing_key))

    try:
        connection = pika.BlockingConnection(broker.parameters(node, settings, "verify"))
        try:
            channel = connection.channel()
            queue = channel.queue_declare("", exclusive=True).method.queue
            channel.queue_bind(queue, settings.exchange, "#")
            channel.basic_consume(queue, take, auto_ack=True)
            while True:
                yield list(found)
                found.clear()
                connection.process_data_events(0.05)
        finally:
            if connection.is_open:
                connection.close()
    except (exceptions.AMQPError, OSError) as error:
        raise ConfigError(broker.why(error, node)[1]) from error


def told(seen: Seen, since: float, until: float) -> tuple[int, list[str]]:
    """The exit status, and the lines to print."""
    passed = {
        side: sum(since <= at <= until for at, _ in first.values())
        for side, first in seen.first.items()
    }
    missing = {side: seen.missing(side, since, until) for side in (BUS, AMQP)}
    if not any(passed.values()):
        return 3, [f"no message passed in {until - since:.0f} s: nothing is known"]
    lines = [
        f"{passed[BUS]} messages on the bus, {passed[AMQP]} on RabbitMQ;"
        f" missing on RabbitMQ: {len(missing[AMQP])}, on the bus: {len(missing[BUS])};"
        f" doubles on RabbitMQ: {seen.doubles[AMQP]}, on the bus: {seen.doubles[BUS]}"
    ]
    for side, found in missing.items():
        lines += [f"not on {_the(side)}: {key} {topic!a}" for key, topic in found[:NAMED]]
        if len(found) > NAMED:
            lines.append(f"not on {_the(side)}: {len(found) - NAMED} more")
    return int(any(missing.values())), lines


def _the(side: str) -> str:
    return "the bus" if side == BUS else side


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog=NAME,
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--config-filename", metavar="PATH", help="a file or a directory, not /etc")
    made.add_argument("--version", action="version", version=f"{NAME} {__version__}")
    made.add_argument(
        "--seconds", type=float, default=60.0, metavar="N", help="listen for so long (60)"
    )
    made.add_argument(
        "--grace", type=float, default=10.0, metavar="N",
        help="wait so long for the last ones to pass on the other side (10)",
    )  # fmt: skip
    made.add_argument(
        "--topic", action="append", metavar="PATTERN", help="compare these topics only, as amqp_out"
    )
    return made


def main(argv: list[str] | None = None) -> int:
    made = parser()
    args = made.parse_args(argv)
    for pattern in args.topic or []:
        if (why := problem(pattern)) is not None:
            made.error(f"--topic {pattern}: {why}")
    seen = Seen(Patterns(args.topic or ["#"]))
    try:
        config = global_config.load(args.config_filename)
        settings = bridge_settings.of(config)
        since, until = listen(config, settings, seen, args.seconds, args.grace)
    except FedmsgRelayError as error:
        print(f"{NAME}: {error}", file=sys.stderr)
        return 1
    status, lines = told(seen, since, until)
    for line in lines:
        print(f"{NAME}: {line}")
    return status


if __name__ == "__main__":
    sys.exit(main())
