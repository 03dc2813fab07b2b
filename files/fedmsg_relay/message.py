"""Messages: how one is made and how it is encoded, key for key as fedmsg 1.1.7 does.

On the wire a message is two frames, `[topic, body]`: the topic in UTF-8, and a JSON object in UTF-8
with the keys `topic`, `msg`, `timestamp` (whole seconds), `msg_id` (`YYYY-` and a UUID, the year in
local time), `i` (counter of the publishing process, from 1) and `username`.
"""

from __future__ import annotations

import json
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

Message: TypeAlias = "dict[str, Any]"

# What a probe's topic has after topic_prefix and environment. fedmsg-tail hides `_heartbeat`.
PROBE_TOPIC = "_heartbeat.fedmsg-probe"


class Encoder(json.JSONEncoder):
    """JSON as fedmsg.encoding writes it: `__json__()`, dates as seconds since the epoch, sets."""

    def default(self, o: Any) -> Any:
        if hasattr(o, "__json__"):
            return o.__json__()
        if hasattr(o, "timetuple"):  # datetime.datetime, datetime.date
            # Upstream reads every clock as if it were the local one, and is wrong where it is not.
            if getattr(o, "tzinfo", None) is not None and o.utcoffset() is not None:
                return o.replace(microsecond=0).timestamp()
            return time.mktime(o.timetuple())
        if isinstance(o, time.struct_time):
            return time.mktime(o)
        if isinstance(o, (set, frozenset)):
            return list(o)
        if hasattr(type(o), "__mapper__"):  # as SQLAlchemy's declarative classes are told
            from . import rows

            return rows.as_dict(o)
        return super().default(o)


# Canonical: what a signature is made over. Sorted keys, no blanks, ASCII.
_canonical = Encoder(sort_keys=True, separators=(",", ":"))
# The same, of what every listener can read.
_strict = Encoder(sort_keys=True, separators=(",", ":"), allow_nan=False)
_pretty = Encoder(indent=2)


def dumps(message: Any) -> str:
    """Canonical JSON. Raises TypeError or ValueError for what JSON cannot hold."""
    return _canonical.encode(message)


def encode(message: Any) -> bytes:
    """Canonical JSON, as it is published: of numbers that JSON has. Raises as `dumps` does."""
    try:
        return _strict.encode(message).encode()
    except ValueError as error:
        if "not JSON compliant" in str(error):
            raise ValueError(
                "the message holds NaN or Infinity, which JSON has not: listeners cannot read it"
            ) from None
        raise


# Takes NaN and Infinity as every fedmsg listener does. Raises ValueError, or RecursionError.
loads = json.loads


def pretty_dumps(message: Any) -> str:
    """Indented JSON, keys in the order they came, as fedmsg-tail --really-pretty prints it."""
    return _pretty.encode(message)


def full_topic(topic: str, modname: str, topic_prefix: str, environment: str) -> str:
    """`topic_prefix.environment.modname.topic`, unless `modname.topic` begins with the prefix."""
    topic = f"{modname}.{topic}"
    if topic.startswith(topic_prefix):
        return topic
    return f"{topic_prefix}.{environment}.{topic}"


def build(topic: str, msg: Any, i: int) -> Message:
    """A message on the full `topic`, the `i`-th of this process. A falsy `msg` becomes `{}`."""
    return {
        "topic": topic,
        "msg": msg or {},
        "timestamp": int(time.time()),
        "msg_id": new_msg_id(),
        "i": i,
        "username": username(),
    }


def new_msg_id() -> str:
    """`YYYY-` and a random UUID. `uuid` itself costs more to import than the rest of this file."""
    random = bytearray(os.urandom(16))
    random[6] = random[6] & 0x0F | 0x40  # version 4
    random[8] = random[8] & 0x3F | 0x80  # the variant of RFC 4122
    digits = random.hex()
    parts = (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
    return f"{time.localtime().tm_year}-{'-'.join(parts)}"


def username() -> str:
    """The user this process runs as, by getpass's rules; a user without a name is its number."""
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        name = os.environ.get(variable)
        if name:
            return name
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
