"""A message on either bus: fedmsg's, and fedora-messaging's.

Outwards the routing key is the topic and the body is `msg`, byte for byte as it stands in the
fedmsg message, so that a consumer of fedora-messaging finds what its sender said. The text around
it goes into two headers: before + body + after is the fedmsg message again, with the signature that
was made over it. Properties and headers are those that fedora-messaging 3.9 sets and expects.

    fedmsg_msg_id                 the fedmsg message's id: it says that the message is fedmsg's
    fedmsg_before, fedmsg_after   the text around `msg`; left out where they do not fit
    fedmsg_msg                    object; or wrapped: the body is {"msg": msg}, for fedora-messaging
                                  lets objects through only; or missing: the body is {}

Inwards the message is the one that upstream's bridge makes, `username` included. All of it is made
from what the broker delivers, so that a message that is delivered again is the same message.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any, NamedTuple

from ..errors import FedmsgRelayError
from ..message import encode

# Whose messages come from AMQP, on every fedmsg bus with a bridge (fedmsg-migration-tools 0.1.2).
USERNAME = "amqp-bridge"

# Headers of ours.
MSG_ID, BEFORE, AFTER, MSG = "fedmsg_msg_id", "fedmsg_before", "fedmsg_after", "fedmsg_msg"
OBJECT, WRAPPED, MISSING = "object", "wrapped", "missing"
WRAP = b'{"msg": ', b"}"

# fedora-messaging's, of a message without a schema of its own, at level INFO.
SCHEMA = "base.message"
INFO = 20

# Bytes of a routing key and of a message id: AMQP's short strings.
SHORT = 255
# Bytes of a content header frame that are none of our headers' text: names, types, properties.
FRAME_OVERHEAD = 2048

# Keys that every fedmsg message has.
ENVELOPE = {"topic", "msg", "msg_id", "timestamp", "username"}

# A value at a place in a text, and where it ends. Types do not know of it.
_scan: Callable[[str, int], tuple[Any, int]] = vars(json.JSONDecoder())["scan_once"]
_blank = re.compile(r"[ \t\n\r]*").match
_YEAR_AND_UUID = re.compile(r"\d{4}-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_NAMESPACE = uuid.UUID("3f1f6c52-9f0b-5f7c-9a2e-8d6b1f1c7a10")


class UnfitError(FedmsgRelayError):
    """This message cannot be on the other bus, now or later: the text says why."""


class Outgoing(NamedTuple):
    """A message for the broker."""

    routing_key: str
    body: bytes
    headers: dict[str, Any]
    message_id: str


class Incoming(NamedTuple):
    """A message for the relay: its frames, and the msg_id that is in the second."""

    topic: bytes
    body: bytes
    msg_id: str


class Parsed(NamedTuple):
    """A fedmsg message, and where in its text `msg` is; both are -1 where it has none."""

    text: str
    message: dict[str, Any]
    start: int
    end: int


def parse(body: bytes) -> Parsed:
    """Read a fedmsg message. Raises UnfitError."""
    try:
        text = body.decode()
        message, start, end = _object(text)
    except (ValueError, IndexError, RecursionError) as error:
        raise UnfitError(f"it is not a JSON object: {error}") from None
    return Parsed(text, message, start, end)


def is_from_amqp(message: Mapping[str, Any]) -> bool:
    """Whether a bridge has brought this fedmsg message from AMQP."""
    return message.get("username") == USERNAME


def outgoing(topic: str, parsed: Parsed, sent: float, frame: int, schema: str = SCHEMA) -> Outgoing:
    """What is published for a fedmsg message.

    `sent` is when it was received, in seconds since 1970, for a message whose own time is none;
    `frame` is the largest frame that the broker takes, in bytes. Raises UnfitError.
    """
    if not topic.isascii() or len(topic) > SHORT:
        size = len(topic.encode(errors="surrogatepass"))
        if size > SHORT:
            raise UnfitError(f"its topic has {size} bytes, a routing key of AMQP at most {SHORT}")
    text, message, start, end = parsed
    # JSON may hold half of a surrogate pair, and UTF-8 may not.
    msg_id = str(message.get("msg_id", "")).encode(errors="backslashreplace").decode()
    headers: dict[str, Any] = {
        "fedora_messaging_schema": schema,
        "fedora_messaging_severity": INFO,
        "sent-at": _iso(message.get("timestamp"), sent),
        MSG_ID: msg_id,
    }
    if start < 0:
        headers[MSG], body, before, after = MISSING, b"{}", text, ""
    else:
        body, before, after = text[start:end].encode(), text[:start], text[end:]
        headers[MSG] = OBJECT
        if not isinstance(message["msg"], dict):
            headers[MSG], body = WRAPPED, WRAP[0] + body + WRAP[1]
    room = frame - FRAME_OVERHEAD - _size(msg_id)
    if room < 0:
        raise UnfitError("its msg_id is larger than a frame of the broker")
    if _size(before) + _size(after) <= room:
        headers[BEFORE], headers[AFTER] = before, after
    return Outgoing(topic, body, headers, message_id(msg_id))


def message_id(msg_id: str) -> str:
    """The id on AMQP of the fedmsg message `msg_id`: the same, or a checksum of a long one."""
    if len(msg_id) <= SHORT and _size(msg_id) <= SHORT:
        return msg_id
    return f"sha256-{hashlib.sha256(_bytes(msg_id)).hexdigest()}"


def original(headers: Mapping[str, Any] | None, body: bytes) -> bytes | None:
    """The fedmsg message that was published as `body`, byte for byte.

    None: it is none, or the text around it did not fit.
    """
    if not headers or BEFORE not in headers or AFTER not in headers:
        return None
    before, after = str(headers[BEFORE]).encode(), str(headers[AFTER]).encode()
    if headers.get(MSG) == MISSING:
        return before
    if headers.get(MSG) == WRAPPED:
        body = body[len(WRAP[0]) : -len(WRAP[1])]
    return before + body + after


def is_from_fedmsg(headers: Mapping[str, Any] | None, body: object) -> bool:
    """Whether a bridge has brought this message from a fedmsg bus: ours, or upstream's.

    Upstream's has no header, and its body is the whole fedmsg message.
    """
    if headers and MSG_ID in headers:
        return True
    return isinstance(body, dict) and body.keys() >= ENVELOPE


def incoming(
    routing_key: str,
    body: object,
    message_id: str | None,
    headers: Mapping[str, Any] | None,
    timestamp: float | None,
) -> Incoming:
    """What is submitted for a message from AMQP, `body` being what its JSON says.

    `timestamp` is when it was received, in seconds since 1970: for one that does not say when it
    was sent. Raises UnfitError.
    """
    sent = _sent(headers)
    moment = sent if sent is not None else timestamp or 0.0
    msg_id = _incoming_id(routing_key, body, message_id, sent)
    message = {
        "topic": routing_key,
        "msg": body,
        "timestamp": int(moment),
        "msg_id": msg_id,
        "i": 1,
        "username": USERNAME,
    }
    try:
        return Incoming(routing_key.encode(), encode(message), msg_id)
    except (ValueError, TypeError, RecursionError) as error:
        raise UnfitError(str(error)) from None


def _object(text: str) -> tuple[dict[str, Any], int, int]:
    """A JSON object, and where in its text the value of its last `msg` begins and ends.

    Raises ValueError, IndexError or RecursionError.
    """
    message: dict[str, Any] = {}
    start = end = -1
    try:
        at = _blank(text, 0).end()  # type: ignore[union-attr]  # it matches nothing, too
        if text[at] != "{":
            raise ValueError("it does not begin with {")
        at = _blank(text, at + 1).end()  # type: ignore[union-attr]
        if text[at] != "}":
            while True:
                key, at = _scan(text, at)
                if not isinstance(key, str):
                    raise ValueError(f"a key that is no string, before character {at}")
                at = _blank(text, at).end()  # type: ignore[union-attr]
                if text[at] != ":":
                    raise ValueError(f"no colon at character {at}")
                first = _blank(text, at + 1).end()  # type: ignore[union-attr]
                message[key], at = _scan(text, first)
                if key == "msg":
                    start, end = first, at
                at = _blank(text, at).end()  # type: ignore[union-attr]
                if text[at] == "}":
                    break
                if text[at] != ",":
                    raise ValueError(f"no comma at character {at}")
                at = _blank(text, at + 1).end()  # type: ignore[union-attr]
        if _blank(text, at + 1).end() != len(text):  # type: ignore[union-attr]
            raise ValueError(f"more follows after character {at}")
    except StopIteration as error:
        raise ValueError(f"no value at character {error.value}") from None
    return message, start, end


def _iso(timestamp: object, otherwise: float) -> str:
    for moment in (timestamp, otherwise):
        if isinstance(moment, (int, float)) and not isinstance(moment, bool):
            try:
                return datetime.fromtimestamp(int(moment), timezone.utc).isoformat()
            except (ValueError, OverflowError, OSError):
                continue
    return datetime.fromtimestamp(0, timezone.utc).isoformat()


def _sent(headers: Mapping[str, Any] | None) -> float | None:
    sent = (headers or {}).get("sent-at")
    if not isinstance(sent, str):
        return None
    try:
        # Python before 3.11 does not know the Z.
        moment = datetime.fromisoformat(re.sub("Z$", "+00:00", sent))
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=timezone.utc)
        return max(0.0, moment.timestamp())
    except (ValueError, OverflowError):
        return None


def _incoming_id(routing_key: str, body: object, message_id: str | None, sent: float | None) -> str:
    """`YYYY-` and a UUID, as every fedmsg message has: the same for each delivery."""
    if message_id and _YEAR_AND_UUID.fullmatch(message_id):
        return message_id
    year = datetime.fromtimestamp(sent or 0, timezone.utc).year
    if message_id and _UUID.fullmatch(message_id):
        return f"{year}-{message_id}"
    # Without an id it is told by all that is in it.
    told = message_id or json.dumps([routing_key, body, sent], sort_keys=True)
    return f"{year}-{uuid.uuid5(_NAMESPACE, _bytes(told).hex())}"


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(_bytes(text))
