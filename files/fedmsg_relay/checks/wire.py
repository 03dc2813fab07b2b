"""What may leave the relay, and what becomes of the rest.

Every listener gets two frames, `[topic, body]`, both UTF-8, the body a JSON object with a string
`topic`, a `timestamp` that can be shown as a date, and a `msg_id`. A message that is so already
goes out byte for byte. One that is not is repaired where that loses nothing, or else dropped:
upstream's `fedmsg-tail --pretty` and the AMQP bridge die of a message without these keys, and
`fedmsg-tail` itself of one or three frames.
"""

from __future__ import annotations

import json
import re
from codecs import getincrementaldecoder
from collections.abc import Generator, Sequence
from functools import partial
from itertools import count
from json.decoder import scanstring  # type: ignore[attr-defined]  # public, but not in typeshed
from typing import Any, Callable, NamedTuple, cast

from .. import message
from . import credentials
from .scan import NotJSON, Scanned, Scanner, TooDeep, TooMuch


class _NotStrictError(ValueError):
    """NaN or Infinity, which are no JSON."""


def _refuse_not_strict(word: str) -> Any:
    raise _NotStrictError(word)


_strict = json.JSONDecoder(parse_constant=_refuse_not_strict)


def _loads_by_json(body: bytes, /) -> Any:
    return _strict.decode(body.decode())


try:
    from orjson import loads as _loads  # in a third of the time; the relay works without it
except ImportError:
    _loads = _loads_by_json  # type: ignore[assignment]  # only ever called with bytes

# Causes, as they stand in the log and in the counts. Dropped:
FRAMES = "not two frames"
TOO_LARGE = "too large"
TOPIC_NOT_UTF8 = "topic not UTF-8"
BODY_NOT_UTF8 = "body not UTF-8"
INTERNAL_ERROR = "internal error"
# Repaired:
NO_KEYS = "keys filled in"
BAD_TIMESTAMP = "timestamp replaced"
WRAPPED = "wrapped"
UNREADABLE = "wrapped for an unreadable signature"
NULL = "wrapped null"
UNSEEN = "wrapped unseen"
# Passed on as it came, and worth a count:
NOT_STRICT = "NaN or Infinity"

# How deep lists and objects may nest. Measured with fedmsg 1.1.7 on Python 3.11: `fedmsg-tail
# --pretty` dies of RecursionError in pprint from a depth of 330, any parser of Python near 1,000.
MAX_DEPTH = 100

# Up to how many bytes a message is looked at in one go: with a quick parser if it looks as it
# should, and else closely. What is larger is read a little at a time, see `Checker.slowly`. The
# worst messages of these sizes take ten milliseconds or so.
AT_A_GLANCE = 256 << 10
CLOSELY = 16 << 10

# Characters that are known of the topic in a body, or all: escaped, one takes up to twelve bytes.
LEAST_KNOWN = CLOSELY // 12 - 1

# Bytes of a topic. Those of a bus have some dozens; listeners subscribe to them by their beginning.
LARGEST_TOPIC = 64 << 10

# Steps that a message may take while there is a hurry: in all, and for a MiB of it. One of commits
# takes 330, one of numbers 280, one of text 50; one of brackets takes thousands. It is judged when
# it has taken HURRIED_LEAST: what takes no more is never wrapped for it.
HURRIED_STEPS = 2500
HURRIED_STEPS_OF_A_MIB = 1000
HURRIED_LEAST = 64

# Characters of a large message that are escaped in one step, when it is wrapped.
PIECE = 1 << 16

# What the quick way to tell depth is for. It pairs off brackets in up to MAX_DEPTH passes, and cuts
# the text at quotes: a hostile message must not take more than some milliseconds or megabytes.
MOST_BRACKETS = 10_000
MOST_QUOTES = 100_000

# `time.ctime` and `datetime` take the years 1 to 9999. A day less at each end, for the time zones.
_FIRST_TIMESTAMP = -62135510400
_LAST_TIMESTAMP = 253402214400

# Takes an unfinished string to the end rather than failing on it: it would start again at every
# quote in it, and a hostile message of some megabytes could stop the relay for minutes.
_STRING_OR_BRACKET = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*(?P<closed>"?)|[][{}]', re.DOTALL)

_AS_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))

_SIGNED = ("signature", "certificate")


class Checked(NamedTuple):
    """What to do with one message: emit `frames`, or drop it if that is None.

    `cause` says why it was dropped or what was repaired and is None for a message left untouched.
    `topic` is the sender's, undecodable bytes escaped, for the log. `msg_id` and `body_topic` are
    those in the body that goes out; JSON may hold what UTF-8 cannot, half of a surrogate pair. Of
    a very large message `body_topic` may be the first LEAST_KNOWN characters or more of it.
    """

    frames: list[bytes] | None
    cause: str | None
    topic: str
    msg_id: str = ""
    body_topic: str = ""


# As Checked(*fields), in a third of the time: a NamedTuple's own constructor is a function in
# Python.
_checked = cast(
    Callable[[tuple[list[bytes], None, str, str, str]], Checked], partial(tuple.__new__, Checked)
)


class Checker:
    """Checks messages for one relay.

    `max_bytes` bounds all frames of a message together. `validated` says that the listeners of this
    bus validate signatures: then one that cannot be read is not let through, for it ends them.
    `on_not_strict` is called with the topic of a message that has NaN or Infinity in it.
    """

    def __init__(
        self,
        max_bytes: int,
        validated: bool = False,
        on_not_strict: Callable[[str], object] = lambda topic: None,
    ) -> None:
        self._max_bytes = max_bytes
        self._validated = validated
        self._on_not_strict = on_not_strict
        self._filled_in = 0

    def check(self, frames: list[bytes]) -> Checked:
        """Decide about one message as it was received, one element a frame. Never raises."""
        checked = self.check_quickly(frames)
        if checked is not None:
            return checked
        steps = self.check_slowly(frames)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return cast(Checked, end.value)

    def check_quickly(self, frames: list[bytes]) -> Checked | None:
        """Decide within some milliseconds, or not: None, then it is one for `check_slowly`."""
        return self._complete([frames])[0] or self._examined(frames)

    def check_slowly(
        self, frames: list[bytes], in_a_hurry: Callable[[], bool] = lambda: False
    ) -> Generator[None, None, Checked]:
        """Decide about a large message, in steps of a few milliseconds: the generator's value.

        While `in_a_hurry()` one that takes long is wrapped, whatever it is.
        """
        topic, body = _topic_and_body(frames)
        topic_text = topic.decode()
        if not (yield from _is_utf8(body)):
            return Checked(None, BODY_NOT_UTF8, topic_text)
        scanner = Scanner(body, _LOOKED_AT, MAX_DEPTH)
        cause: str = WRAPPED
        try:
            steps = scanner.run()
            for number in count(1):
                next(steps)
                # By what it has taken so far.
                most = min(HURRIED_STEPS / len(body), HURRIED_STEPS_OF_A_MIB / (1 << 20))
                if number > HURRIED_LEAST and number > most * scanner.position and in_a_hurry():
                    raise TooMuch
                yield
        except StopIteration as end:
            judged = self._judged(frames, topic_text, end.value)
            if isinstance(judged, Checked):
                return judged
            # It is JSON, so it can stand as it is.
            return self._wrapped(topic_text, topic, body.strip(_BLANKS), judged)
        except TooMuch:
            cause = UNSEEN
        except (NotJSON, TooDeep):
            pass
        escaped = yield from _escaped(body, 2 * self._max_bytes)
        if escaped is None:
            return Checked(None, TOO_LARGE, topic_text)
        return self._wrapped(topic_text, topic, escaped, cause)

    def _judged(self, frames: list[bytes], topic_text: str, scanned: Scanned) -> Checked | str:
        """The message if it may go out, or with keys filled in; or else why it is to be wrapped."""
        topic, body = _topic_and_body(frames)
        spans = scanned.members
        # The last one counts, as for every parser of Python.
        raw = {key: body[slice(*spans[key][-1])].strip(_BLANKS) for key in spans}
        if not scanned.is_object or raw.get("topic", b"")[:1] != b'"':
            return WRAPPED
        parsed = {key: _atom(raw[key]) for key in _NEEDED if key in raw}
        if self._validated and not credentials.are_readable(
            {key: _atom(raw[key]) for key in _SIGNATURE if key in raw}
        ):
            return UNREADABLE
        bad = [key for key, is_good in _NEEDED.items() if not is_good(parsed.get(key))]
        if bad and any(key in raw for key in _SIGNED):
            return WRAPPED
        if not scanned.is_strict:
            self._on_not_strict(topic_text)
        body_topic = _beginning_of(raw["topic"])
        if not bad:
            whole = frames if len(frames) == 2 else [topic, body]
            return Checked(whole, None, topic_text, parsed["msg_id"], body_topic)
        completed = self._completed(topic_text, topic, body, scanned, bad)
        return completed._replace(body_topic=body_topic)

    def _completed(
        self, topic_text: str, topic: bytes, body: bytes, scanned: Scanned, bad: list[str]
    ) -> Checked:
        """With what is unusable replaced where it stands, and what is missing at the end."""
        self._filled_in += 1
        standard = {
            key: message.dumps(value).encode()
            for key, value in message.build("", None, self._filled_in).items()
        }
        pieces, at = [], 0
        replaced = ((*span, key) for key in bad for span in scanned.members.get(key, ()))
        for begin, end, name in sorted(replaced):
            pieces += [body[at:begin], standard[name]]
            at = end
        pieces.append(body[at : scanned.closing])
        more = [
            b'"%s":%s' % (k.encode(), v) for k, v in standard.items() if k not in scanned.members
        ]
        if more:
            pieces += [b"," * (not scanned.is_empty), b",".join(more)]
        pieces.append(b"}")
        whole = b"".join(pieces)
        cause = BAD_TIMESTAMP if "timestamp" in bad and "timestamp" in scanned.members else NO_KEYS
        msg_id = (
            standard["msg_id"]
            if "msg_id" in bad or "msg_id" not in scanned.members
            else (body[slice(*scanned.members["msg_id"][-1])])
        )
        return Checked([topic, whole], cause, topic_text, json.loads(msg_id))

    def check_all_quickly(self, messages: Sequence[list[bytes]]) -> list[Checked | None]:
        """As `check_quickly` for each."""
        found = self._complete(messages)
        if all(found):
            return found
        return [each or self._examined(frames) for each, frames in zip(found, messages)]

    def _complete(self, messages: Sequence[list[bytes]]) -> list[Checked | None]:
        """Let messages through that are as they should be, which nearly all are; else None.

        That is decided on what both parsers agree about. orjson takes nothing that json refuses,
        and where the two see different values, in integers of more than 64 bits, it is no value
        that is looked at here. What it refuses json may still take: see `_examined`.
        """
        # One call for many of them, and names that are at hand: a tenth of what all of it takes.
        most, validated = self._max_bytes, self._validated
        found: list[Checked | None] = []
        for frames in messages:
            complete = None
            try:
                topic, body = frames
                if (
                    len(body) <= AT_A_GLANCE
                    and len(topic) <= LARGEST_TOPIC
                    and len(topic) + len(body) <= most
                    and (
                        body.count(b"[") + body.count(b"{") <= MAX_DEPTH
                        or not _may_be_too_deep(body)
                    )
                ):
                    parsed = _loads(body)
                    if (
                        type(body_topic := parsed["topic"]) is str
                        and type(msg_id := parsed["msg_id"]) is str
                        and type(timestamp := parsed["timestamp"]) in _NUMBERS
                        and _FIRST_TIMESTAMP <= timestamp <= _LAST_TIMESTAMP
                        and not (validated and not credentials.are_readable(parsed))
                    ):
                        complete = _checked((frames, None, topic.decode(), msg_id, body_topic))
            except (ValueError, KeyError, TypeError, RecursionError):
                pass
            found.append(complete)
        return found

    def _examined(self, frames: list[bytes]) -> Checked | None:
        if len(frames) == 1 and b"\0" in frames[0]:
            # txZMQ publishes `topic NUL body` in one frame, and its subscribers take it apart.
            frames = frames[0].split(b"\0", 1)
        if len(frames) != 2:
            return Checked(None, FRAMES, _shown(frames[0]) if frames else "")
        topic, body = frames
        if len(topic) > LARGEST_TOPIC or len(topic) + len(body) > self._max_bytes:
            return Checked(None, TOO_LARGE, _shown(topic))
        try:
            topic_text = topic.decode()
        except UnicodeDecodeError:
            return Checked(None, TOPIC_NOT_UTF8, _shown(topic))
        if len(body) > CLOSELY:
            return None
        try:
            text = body.decode()
        except UnicodeDecodeError:
            return Checked(None, BODY_NOT_UTF8, topic_text)
        if _too_deep(text):
            # As a string its depth is hidden from the parsers of listeners.
            return self._wrapped(topic_text, topic, json.dumps(text).encode())
        not_strict: list[str] = []

        def noted(word: str) -> float:
            not_strict.append(word)
            return float(word)

        try:
            parsed = json.loads(text, parse_constant=noted)
        except (ValueError, RecursionError):
            return self._wrapped(topic_text, topic, json.dumps(text).encode())
        if not_strict:
            self._on_not_strict(topic_text)
        if parsed is None:
            return self._wrapped(topic_text, topic, b"null", NULL)
        if not isinstance(parsed, dict) or not isinstance(parsed.get("topic"), str):
            return self._wrapped(topic_text, topic, body.strip(_BLANKS))
        if self._validated and not credentials.are_readable(parsed):
            return self._wrapped(topic_text, topic, body.strip(_BLANKS), UNREADABLE)
        bad = [key for key, is_good in _NEEDED.items() if not is_good(parsed.get(key))]
        if not bad:
            return Checked(frames, None, topic_text, parsed["msg_id"], parsed["topic"])
        if any(key in parsed for key in _SIGNED):
            # A signed message cannot be completed: any key that is added breaks its signature.
            return self._wrapped(topic_text, topic, body.strip(_BLANKS))
        # Only what is there and unusable is replaced; the rest stays, digit for digit.
        members = {key: raw for key, raw in _members(text) if key not in bad}
        cause = BAD_TIMESTAMP if "timestamp" in bad and "timestamp" in parsed else NO_KEYS
        return self._repaired(topic_text, topic, members, cause)

    def _wrapped(self, topic_text: str, topic: bytes, raw: bytes, cause: str = WRAPPED) -> Checked:
        """`raw`, which is JSON, as the content of a message. Not as text: it may be large."""
        if len(topic) + len(raw) > 2 * self._max_bytes:
            return Checked(None, TOO_LARGE, topic_text)
        wrapped = self._repaired(
            topic_text, topic, {"topic": json.dumps(topic_text), "msg": "0"}, cause
        )
        assert wrapped.frames is not None
        # Keys are sorted, and before this one are those that are ours: no text of a sender.
        before, _, after = wrapped.frames[1].partition(b'"msg":0')
        return wrapped._replace(frames=[topic, b"".join((before, b'"msg":', raw, after))])

    def _repaired(
        self, topic_text: str, topic: bytes, members: dict[str, str], cause: str
    ) -> Checked:
        """A JSON object of raw `members`, with every standard key that is missing filled in."""
        self._filled_in += 1
        standard = message.build("", None, self._filled_in)
        for key, value in standard.items():
            members.setdefault(key, message.dumps(value))
        body = "{{{}}}".format(
            ",".join(f"{json.dumps(key)}:{raw}" for key, raw in sorted(members.items()))
        ).encode()
        msg_id, body_topic = json.loads(members["msg_id"]), json.loads(members["topic"])
        return Checked([topic, body], cause, topic_text, msg_id, body_topic)


def _is_usable(timestamp: Any) -> bool:
    """Whether a listener can show it as a date. `true` is a number in Python, not in JSON."""
    if isinstance(timestamp, bool) or not isinstance(timestamp, (int, float)):
        return False
    return _FIRST_TIMESTAMP <= timestamp <= _LAST_TIMESTAMP  # never true of NaN


def _topic_and_body(frames: list[bytes]) -> list[bytes]:
    # txZMQ publishes `topic NUL body` in one frame, and its subscribers take it apart.
    return frames[0].split(b"\0", 1) if len(frames) == 1 else frames


def _is_utf8(body: bytes) -> Generator[None, None, bool]:
    """Whether it is, a piece at a time."""
    decode = getincrementaldecoder("utf-8")().decode
    view = memoryview(body)
    try:
        for begin in range(0, len(body), PIECE):
            decode(view[begin : begin + PIECE], begin + PIECE >= len(body))
            yield
    except UnicodeDecodeError:
        return False
    return True


def _escaped(body: bytes, most: int) -> Generator[None, None, bytes | None]:
    """A text in UTF-8 as a JSON string, a piece at a time. None if that has more bytes than `most`.

    As a string its depth is hidden from the parsers of listeners, and so is what takes them long.
    """
    decode = getincrementaldecoder("utf-8")().decode
    view, pieces, size = memoryview(body), [b'"'], 2
    for begin in range(0, len(body), PIECE):
        text = decode(view[begin : begin + PIECE], begin + PIECE >= len(body))
        pieces.append(json.dumps(text)[1:-1].encode())
        size += len(pieces[-1])
        if size > most:
            return None
        yield
    return b"".join([*pieces, b'"'])


def _beginning_of(raw: bytes) -> str:
    """A string of a valid text, or LEAST_KNOWN characters and more of it: it may have megabytes."""
    if len(raw) <= CLOSELY:
        return cast(str, json.loads(raw))
    text = raw[:CLOSELY].decode("utf-8", "ignore")  # what is cut through is one character
    while True:
        try:
            return cast(str, json.loads(f'{text}"'))
        except ValueError:  # cut within an escape
            text = text[:-1]


def _atom(raw: bytes) -> Any:
    """A value of a valid text, if it is neither a list nor an object."""
    try:
        return None if raw[:1] in (b"[", b"{") else json.loads(raw)
    except ValueError:
        return None


_BLANKS = b" \t\n\r"
_SIGNATURE = ("crypto", "signature", "certificate")
_LOOKED_AT = frozenset({"topic", "msg", "msg_id", "timestamp", "i", "username", *_SIGNATURE})

_NUMBERS = (int, float)

# What a message needs beside its topic to be shown by every listener, and how that must be.
_NEEDED: dict[str, Callable[[Any], bool]] = {
    "timestamp": _is_usable,
    "msg_id": lambda msg_id: isinstance(msg_id, str),
}


def _may_be_too_deep(body: bytes) -> bool:
    """Whether lists and objects nest deeper than MAX_DEPTH; True also where that takes too long."""
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return False
    if body.count(b'"') > MOST_QUOTES:
        return True
    if b"\\" in body:
        body = body.replace(rb"\\", b"").replace(rb"\"", b"")
    # Without these escapes every other part between quotes is a string, or it is not JSON anyway.
    brackets = b"".join(body.split(b'"')[::2]).translate(_AS_ONE_KIND, _NOT_BRACKETS)
    if len(brackets) > MOST_BRACKETS:
        return True
    for _ in range(MAX_DEPTH):
        # The innermost pairs: one level less of all that nests. Half a dozen levels are usual.
        brackets = brackets.replace(b"[]", b"")
        if not brackets:
            return False
    return True


def _too_deep(text: str) -> bool:
    """Whether lists and objects nest deeper than MAX_DEPTH. Nearly always decided by counting."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return False
    depth = 0
    for token in _STRING_OR_BRACKET.finditer(text):
        kind = token[0][0]
        if kind == '"':
            if not token["closed"]:
                return False  # not JSON, so no depth to fear: json.loads will say so
        elif kind in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                return True
        else:
            depth -= 1
    return False


def _members(text: str) -> list[tuple[str, str]]:
    """The members of a JSON object, each value as it is written: `1e400` stays `1e400`.

    `text` is known to be a valid JSON object.
    """
    decode = json.JSONDecoder().raw_decode
    members = []
    position = _skip_blanks(text, text.index("{") + 1)
    while text[position] != "}":
        key, position = scanstring(text, position + 1, True)
        position = _skip_blanks(text, text.index(":", position) + 1)
        start = position
        _, position = decode(text, start)
        members.append((key, text[start:position]))
        position = _skip_blanks(text, position)
        if text[position] == ",":
            position = _skip_blanks(text, position + 1)
    return members


def _skip_blanks(text: str, position: int) -> int:
    while text[position] in " \t\n\r":
        position += 1
    return position


def _shown(topic: bytes) -> str:
    return topic[:200].decode("utf-8", "backslashreplace")
