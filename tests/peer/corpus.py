"""Malformed input: what reaches a relay when scripts have bugs, and when somebody means harm.

`HAND_PICKED` says for each case what becomes of it; `GENERATED` are made by a seeded generator from
a real message. An outcome is `untouched`, `repaired: CAUSE` or `dropped: CAUSE`, with the causes
that the relay logs.
"""

from __future__ import annotations

import json
import random
from typing import Any, NamedTuple

# What the relay of these tests lets through: topic and body together.
MAX_BYTES = 65_536

UNTOUCHED = "untouched"
FILLED_IN = "repaired: keys filled in"
BAD_TIMESTAMP = "repaired: timestamp replaced"
WRAPPED = "repaired: wrapped"
NULL = "repaired: wrapped null"
NOT_TWO = "dropped: not two frames"
TOO_LARGE = "dropped: too large"
BAD_TOPIC = "dropped: topic not UTF-8"
BAD_BODY = "dropped: body not UTF-8"


class Case(NamedTuple):
    """Frames to send. `outcome` is None where only the relay can say: it must still add up."""

    name: str
    frames: list[bytes]
    outcome: str | None


# A message of Fedora's git hook, not in ASCII throughout.
REAL = {
    "topic": "org.fedoraproject.dev.git.receive",
    "timestamp": 1349109000,
    "msg_id": "2012-1f0d5c0e-9d3a-4ac1-8f30-6d2c8c2a3a66",
    "i": 7,
    "username": "ralph",
    "msg": {"commit": {"name": "Raphaël Groß", "message": "Fix \U0001f41b №9\n", "lines": 12}},
}
TOPIC = REAL["topic"].encode()  # type: ignore[attr-defined]
SIGNED = {"crypto": "x509", "signature": "c2lnbmF0dXJl\n", "certificate": "Y2VydGlmaWNhdGU=\n"}


def encoded(message: Any) -> bytes:
    return json.dumps(message, ensure_ascii=False).encode("utf-8", "surrogatepass")


def real(**changes: Any) -> bytes:
    return encoded({**REAL, **changes})


def without(*keys: str, **changes: Any) -> bytes:
    return encoded({k: v for k, v in {**REAL, **changes}.items() if k not in keys})


def raw(**texts: str) -> bytes:
    """The real message, with the JSON of some values written by hand."""
    members = {k: json.dumps(v) for k, v in REAL.items()}
    members.update(texts)
    joined = ",".join(f'"{key}":{text}' for key, text in members.items())
    return f"{{{joined}}}".encode()


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def of_size(total: int) -> bytes:
    """A real message that is, with its topic, `total` bytes long."""
    rest = total - len(TOPIC) - len(real(msg=""))
    return real(msg="x" * rest)


# name: (body, outcome), sent as two frames with the real message's topic.
_BODIES: dict[str, tuple[bytes, str]] = {
    "real": (real(), UNTOUCHED),
    "three keys": (b'{"topic":"t","timestamp":1,"msg_id":"m"}', UNTOUCHED),
    "indented": (json.dumps(REAL, indent=4).encode(), UNTOUCHED),
    "blanks around": (b" \r\n\t" + real() + b"\n\n", UNTOUCHED),
    "further keys": (real(headers={"a": 1}, seq_id=3, source_name="datanommer"), UNTOUCHED),
    "msg null": (real(msg=None), UNTOUCHED),
    "msg a number": (real(msg=0), UNTOUCHED),
    "no msg": (without("msg"), UNTOUCHED),
    "no i": (without("i"), UNTOUCHED),
    "no username": (without("username"), UNTOUCHED),
    "another topic in the body": (real(topic="org.example"), UNTOUCHED),
    "empty topic in the body": (real(topic=""), UNTOUCHED),
    "empty msg_id": (real(msg_id=""), UNTOUCHED),
    "signed": (real(**SIGNED), UNTOUCHED),
    "signature only": (real(signature="c2ln"), UNTOUCHED),
    "keys twice": (b'{"topic":"a","topic":"b","timestamp":1,"timestamp":2,"msg_id":""}', UNTOUCHED),
    "keys twice, the last one wrong": (
        b'{"topic":"t","timestamp":1,"msg_id":"m","msg":1,"timestamp":"x"}',
        BAD_TIMESTAMP,
    ),
    "keys twice, the last one right": (
        b'{"topic":1,"timestamp":"x","msg_id":"m","timestamp":1,"topic":"t"}',
        UNTOUCHED,
    ),
    "1e400": (raw(msg='{"n":1e400}'), UNTOUCHED),
    "-1e400": (raw(msg="-1e400"), UNTOUCHED),
    "1e-400": (raw(msg="1e-400"), UNTOUCHED),
    "NaN": (raw(msg='{"n":[NaN,Infinity,-Infinity]}'), UNTOUCHED),
    "-0": (raw(msg='{"n":[-0,-0.0]}'), UNTOUCHED),
    "4300 digits": (raw(msg="9" * 4300), UNTOUCHED),
    "4301 digits": (raw(msg="9" * 4301), WRAPPED),
    "4301 digits, negative": (raw(i="-" + "9" * 4301), WRAPPED),
    "9000 digits behind a point": (raw(msg="0." + "3" * 9000), UNTOUCHED),
    "surrogate escape": (raw(msg=r'"\ud83d"'), UNTOUCHED),
    "surrogate escapes in the wrong order": (raw(msg=r'"\udc1b\ud83d"'), UNTOUCHED),
    "surrogate escape in the topic": (raw(topic=r'"a\ud83d"'), UNTOUCHED),
    "surrogate escape in a key": (raw(msg=r'{"\udfff":1}'), UNTOUCHED),
    "NUL escape": (raw(msg=r'"\u0000"', topic=r'"a\u0000b"'), UNTOUCHED),
    "escape sequences of a terminal": (raw(msg=r'"\u001b[2J\u001b]0;title\u0007"'), UNTOUCHED),
    "DEL and C1, raw": (real(msg="\x7f\x85\x9b2J"), UNTOUCHED),
    "line separators, raw": (real(msg="a\u2028b\u2029c"), UNTOUCHED),
    "right-to-left override": (real(msg="\u202egnp.exe"), UNTOUCHED),
    "BOM in a string": (real(msg="\ufeff"), UNTOUCHED),
    "noncharacters": (real(msg="\uffff\U0010ffff"), UNTOUCHED),
    "percent signs": (real(msg="%s %d %(x)s %", topic="%s"), UNTOUCHED),
    "braces": (real(msg="{0} {x!r} {", username="{}"), UNTOUCHED),
    "empty keys": (real(**{"": {"": ""}}), UNTOUCHED),
    "a long key": (real(**{"k" * 5000: 1}), UNTOUCHED),
    "a long word": (real(msg="x" * 30_000), UNTOUCHED),
    "many words": (real(msg="a " * 15_000), UNTOUCHED),
    "many numbers": (real(msg=list(range(8000))), UNTOUCHED),
    "many keys": (real(msg={str(n): n for n in range(3000)}), UNTOUCHED),
    # msg is itself inside an object, so its depth is one more.
    "deep lists, just allowed": (raw(msg=nested(99)), UNTOUCHED),
    "deep lists, one more": (raw(msg=nested(100)), WRAPPED),
    "deep objects, just allowed": (raw(msg='{"a":' * 99 + "1" + "}" * 99), UNTOUCHED),
    "deep objects, one more": (raw(msg='{"a":' * 100 + "1" + "}" * 100), WRAPPED),
    "deep objects": (raw(msg='{"a":' * 5000 + "1" + "}" * 5000), WRAPPED),
    "deep lists": (raw(msg=nested(30_000)), WRAPPED),
    "deep, never closed": (b"[" * 60_000, WRAPPED),
    "deep, not JSON": (nested(5000).encode() + b"x", WRAPPED),
    "wide, not deep": (raw(msg=f"[{','.join(['[]'] * 5000)}]"), UNTOUCHED),
    "brackets in a string": (real(msg="[" * 5000 + '"{' * 500), UNTOUCHED),
    "brackets behind an escaped quote": (raw(msg=rf'"\"{"[" * 5000}"'), UNTOUCHED),
    "brackets behind an escaped backslash": (raw(msg=rf'["\\",{nested(200)}]'), WRAPPED),
    # Timestamps.
    "timestamp 0": (real(timestamp=0), UNTOUCHED),
    "timestamp -1": (real(timestamp=-1), UNTOUCHED),
    "timestamp with a fraction": (real(timestamp=1349109000.25), UNTOUCHED),
    "timestamp 1e9": (raw(timestamp="1e9"), UNTOUCHED),
    "timestamp -0.0": (raw(timestamp="-0.0"), UNTOUCHED),
    "timestamp in year 1": (raw(timestamp="-62135510400"), UNTOUCHED),
    "timestamp in year 9999": (raw(timestamp="253402214400"), UNTOUCHED),
    "timestamp before year 1": (raw(timestamp="-62135596801"), BAD_TIMESTAMP),
    "timestamp after year 9999": (raw(timestamp="253402387200"), BAD_TIMESTAMP),
    "timestamp in milliseconds": (raw(timestamp="1349109000000"), BAD_TIMESTAMP),
    "timestamp 1e400": (raw(timestamp="1e400"), BAD_TIMESTAMP),
    "timestamp -1e400": (raw(timestamp="-1e400"), BAD_TIMESTAMP),
    "timestamp 1e308": (raw(timestamp="1e308"), BAD_TIMESTAMP),
    "timestamp NaN": (raw(timestamp="NaN"), BAD_TIMESTAMP),
    "timestamp -Infinity": (raw(timestamp="-Infinity"), BAD_TIMESTAMP),
    "timestamp of 20 digits": (raw(timestamp="9" * 20), BAD_TIMESTAMP),
    "timestamp of 400 digits": (raw(timestamp="9" * 400), BAD_TIMESTAMP),
    "timestamp of -400 digits": (raw(timestamp="-" + "9" * 400), BAD_TIMESTAMP),
    "timestamp null": (real(timestamp=None), BAD_TIMESTAMP),
    "timestamp true": (real(timestamp=True), BAD_TIMESTAMP),
    "timestamp false": (real(timestamp=False), BAD_TIMESTAMP),
    "timestamp a digit string": (real(timestamp="1349109000"), BAD_TIMESTAMP),
    "timestamp a date": (real(timestamp="2012-10-01T16:30:00Z"), BAD_TIMESTAMP),
    "timestamp a list": (real(timestamp=[1349109000]), BAD_TIMESTAMP),
    "timestamp an object": (real(timestamp={"$date": 1}), BAD_TIMESTAMP),
    # Keys that are missing or of the wrong type.
    "no timestamp": (without("timestamp"), FILLED_IN),
    "no msg_id": (without("msg_id"), FILLED_IN),
    "neither": (without("timestamp", "msg_id"), FILLED_IN),
    "topic and msg only": (b'{"topic":"t","msg":{"a":1}}', FILLED_IN),
    "topic only": (b'{"topic":"t"}', FILLED_IN),
    "topic only, blanks": (b' {\n "topic"\t:\r\n "t" }\n', FILLED_IN),
    "topic only, with escapes in its key": (rb'{"\u0074opic":"t","a\u0022b":"\u0022"}', FILLED_IN),
    "no timestamp, and a value that no encoder keeps": (
        rb'{"topic":"t","msg":[1e400,1.0e0,"\u00e9\ud83d",{"a":1,"a":2}]}',
        FILLED_IN,
    ),
    "msg_id a number": (real(msg_id=5), FILLED_IN),
    "msg_id null": (real(msg_id=None), FILLED_IN),
    "msg_id a list": (real(msg_id=["a"]), FILLED_IN),
    "no msg_id, timestamp wrong": (without("msg_id", timestamp="x"), BAD_TIMESTAMP),
    "no topic": (without("topic"), WRAPPED),
    "topic a number": (real(topic=5), WRAPPED),
    "topic null": (real(topic=None), WRAPPED),
    "topic a list": (real(topic=["a"]), WRAPPED),
    "signed, without timestamp": (without("timestamp", **SIGNED), WRAPPED),
    "signed, without msg_id": (without("msg_id", **SIGNED), WRAPPED),
    "signed, timestamp a string": (real(timestamp="1349109000", **SIGNED), WRAPPED),
    # JSON, but no message.
    "{}": (b"{}", WRAPPED),
    "[]": (b"[]", WRAPPED),
    "null": (b"null", NULL),
    "true": (b"true", WRAPPED),
    "0": (b"0", WRAPPED),
    "1e400, alone": (b"1e400", WRAPPED),
    "NaN, alone": (b"NaN", WRAPPED),
    "a string": (b'"Hello, world."', WRAPPED),
    "an empty string": (b'""', WRAPPED),
    "a surrogate, alone": (rb'"\ud800"', WRAPPED),
    "a list of messages": (b"[" + real() + b"," + real() + b"]", WRAPPED),
    "a message in a string": (encoded(real().decode()), WRAPPED),
    # No JSON.
    "nothing": (b"", WRAPPED),
    "a blank": (b" ", WRAPPED),
    "a newline": (b"\n", WRAPPED),
    "NUL": (b"\0", WRAPPED),
    "NULs": (b"\0" * 1000, WRAPPED),
    "text": ("Hällo, world.".encode(), WRAPPED),
    "Python": (repr(REAL).encode(), WRAPPED),
    "YAML": (b"topic: org.fedoraproject.dev\ntimestamp: 1\n", WRAPPED),
    "XML": (b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>', WRAPPED),
    "a comment": (real() + b" // hi", WRAPPED),
    "a comma too many": (real()[:-1] + b",}", WRAPPED),
    "two messages": (real() + real(), WRAPPED),
    "two lines": (real() + b"\n" + real(), WRAPPED),
    "half": (real()[: len(real()) // 2 - 20], WRAPPED),
    "single quotes": (b"{'topic':'t','timestamp':1,'msg_id':'m'}", WRAPPED),
    "a NUL behind": (real() + b"\0", WRAPPED),
    "a form feed before": (b"\f" + real(), WRAPPED),
    "a no-break space before": ("\u00a0".encode() + real(), WRAPPED),
    "a tab in a string": (b'{"topic":"a\tb","timestamp":1,"msg_id":"m"}', WRAPPED),
    "a newline in a string": (b'{"topic":"a\nb","timestamp":1,"msg_id":"m"}', WRAPPED),
    "BOM": (b"\xef\xbb\xbf" + real(), WRAPPED),
    "UTF-16 without BOM": (json.dumps(REAL).encode("utf-16-le"), WRAPPED),
    "UTF-32 without BOM": (json.dumps(REAL).encode("utf-32-be"), WRAPPED),
    # Not UTF-8.
    "UTF-16": (json.dumps(REAL).encode("utf-16"), BAD_BODY),
    "UTF-32": (json.dumps(REAL).encode("utf-32"), BAD_BODY),
    "Latin-1": ('{"topic":"t","timestamp":1,"msg_id":"é"}'.encode("latin-1"), BAD_BODY),
    "a raw surrogate": (real(msg="\ud83d"), BAD_BODY),
    "CESU-8": (b'"\xed\xa0\xbd\xed\xb0\x9b"', BAD_BODY),
    "an overlong slash": (b'"\xc0\xaf"', BAD_BODY),
    "an overlong NUL": (b'"\xc0\x80"', BAD_BODY),
    "beyond Unicode": (b'"\xf4\x90\x80\x80"', BAD_BODY),
    "a lone continuation byte": (b"\x80", BAD_BODY),
    "0xff": (b"\xff" * 100, BAD_BODY),
    "gzip": (b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xab\xae\x05\x00", BAD_BODY),
    "pickle": (b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01a\x94K\x01s.", BAD_BODY),
    "cut within a character": (b'{"topic":"\xe2\x82', BAD_BODY),
    # Sizes.
    "as large as allowed": (of_size(MAX_BYTES), UNTOUCHED),
    "one byte too large": (of_size(MAX_BYTES + 1), TOO_LARGE),
    # Of a frame of more than twice the limit the relay does not even read the end.
    "twice as large as allowed": (of_size(2 * MAX_BYTES), TOO_LARGE),
    "as large as allowed, no JSON": (b'"' * (MAX_BYTES - len(TOPIC)), WRAPPED),
    "too large, no UTF-8": (b"\xff" * MAX_BYTES, TOO_LARGE),
}

# name: (frames, outcome)
_FRAMES: dict[str, tuple[list[bytes], str]] = {
    "no topic frame": ([real()], NOT_TWO),
    "topic frame only": ([TOPIC], NOT_TWO),
    "one empty frame": ([b""], NOT_TWO),
    "two empty frames": ([b"", b""], WRAPPED),
    "three empty frames": ([b"", b"", b""], NOT_TWO),
    "three frames": ([TOPIC, real(), b""], NOT_TWO),
    "three frames, an id first": ([b"id", TOPIC, real()], NOT_TWO),
    "an empty delimiter": ([b"", TOPIC, real()], NOT_TWO),
    "three frames, not UTF-8": ([b"\xff", b"\xfe", b"\xfd"], NOT_TWO),
    "a hundred frames": ([TOPIC] * 100, NOT_TWO),
    "frames the other way round": ([real(), TOPIC], WRAPPED),
    "one frame, as txZMQ sends it": ([TOPIC + b"\0" + real()], UNTOUCHED),
    "one frame, empty body": ([TOPIC + b"\0"], WRAPPED),
    "one frame, empty topic": ([b"\0" + real()], UNTOUCHED),
    "one frame, NUL only": ([b"\0"], WRAPPED),
    "one frame, two NULs": ([TOPIC + b"\0" + real() + b"\0"], WRAPPED),
    "one frame, topic not UTF-8": ([b"\xff\0" + real()], BAD_TOPIC),
    "one frame, body not UTF-8": ([TOPIC + b"\0\xff"], BAD_BODY),
    "one frame, too large": ([TOPIC + b"\0" + of_size(MAX_BYTES + 1)], TOO_LARGE),
    "empty topic": ([b"", real()], UNTOUCHED),
    "a blank as topic": ([b" ", real()], UNTOUCHED),
    "newline in the topic": ([b"org.fedoraproject\ndev", real()], UNTOUCHED),
    "a log line in the topic": (
        [b"x\n[2026-01-01 00:00:00][fedmsg.relay    INFO] stopped", b"no JSON"],
        WRAPPED,
    ),
    "NUL in the topic": ([b"org\0fedoraproject", real()], UNTOUCHED),
    "escape sequences in the topic": ([b"\x1b[2J\x1b[31morg", b"no JSON"], WRAPPED),
    "control characters as topic": ([bytes(range(32)), real()], UNTOUCHED),
    "a quote in the topic": ([b'a"b\\c', b"no JSON"], WRAPPED),
    "not ASCII in the topic": (["org.fédora.\U0001f41f".encode(), b"no JSON"], WRAPPED),
    "percent signs in the topic": ([b"%s.%d.%(x)s", b"no JSON"], WRAPPED),
    "BOM in the topic": ([b"\xef\xbb\xbf" + TOPIC, real()], UNTOUCHED),
    "a subscription": ([b"\x01", real()], UNTOUCHED),
    "an unsubscription": ([b"\x00", real()], UNTOUCHED),
    "heartbeat": ([b"org.fedoraproject.dev._heartbeat.host", real()], UNTOUCHED),
    "heartbeat, no JSON": ([b"org.fedoraproject.dev._heartbeat.host", b"now"], WRAPPED),
    "long topic": ([b"a." * 30_000, real()], UNTOUCHED),
    "too long a topic": ([b"a" * (MAX_BYTES + 1), b"{}"], TOO_LARGE),
    "too large by its topic": ([b"a" * (MAX_BYTES - len(real()) + 1), real()], TOO_LARGE),
    "topic in Latin-1": (["fédora".encode("latin-1"), real()], BAD_TOPIC),
    "topic in UTF-16": (["fedora".encode("utf-16"), real()], BAD_TOPIC),
    "topic cut within a character": ([b"fedora\xc3", real()], BAD_TOPIC),
    "neither is UTF-8": ([b"\xff", b"\xff"], BAD_TOPIC),
}

HAND_PICKED = [
    *(Case(name, [TOPIC, body], outcome) for name, (body, outcome) in _BODIES.items()),
    *(Case(name, frames, outcome) for name, (frames, outcome) in _FRAMES.items()),
]


def _wrong_types() -> list[Case]:
    """Each standard key with a value of each type, under the rules for complete messages."""
    values: tuple[Any, ...] = (None, True, 5, -1.5, "text", [], [1], {}, {"a": 1})
    cases = []
    for key in ("topic", "timestamp", "msg_id", "msg", "i", "username", *SIGNED):
        for value in values:
            outcome = UNTOUCHED
            if key == "topic" and not isinstance(value, str):
                outcome = WRAPPED
            elif key == "timestamp" and (value is True or not isinstance(value, (int, float))):
                outcome = BAD_TIMESTAMP
            elif key == "msg_id" and not isinstance(value, str):
                outcome = FILLED_IN
            cases.append(Case(f"{key} is {value!r}", [TOPIC, real(**{key: value})], outcome))
    return cases


def _truncated() -> list[Case]:
    """The message cut off after every so many bytes, within characters of two to four bytes too."""
    body = real()
    return [
        Case(
            f"cut after {length} bytes",
            [TOPIC, body[:length]],
            WRAPPED if _is_utf8(body[:length]) else BAD_BODY,
        )
        for length in range(0, len(body), 5)
    ]


def _mutated(generator: random.Random) -> list[Case]:
    """One to four bytes of the body or the topic changed, taken out or put in."""
    cases = []
    for number in range(120):
        frames = [bytearray(TOPIC), bytearray(real())]
        for _ in range(generator.randint(1, 4)):
            frame = frames[generator.random() < 0.8]
            position = generator.randrange(len(frame))
            change = generator.choice(("set", "insert", "delete", "double"))
            # Half of it from what has a meaning in JSON.
            byte = generator.choice((generator.randrange(256), *b'"\\{}[]:,\0'))
            if change == "set":
                frame[position] = byte
            elif change == "insert":
                frame.insert(position, byte)
            elif change == "delete":
                del frame[position : position + generator.randint(1, 6)]
            else:
                frame[position:position] = frame[position : position + generator.randint(1, 20)]
        cases.append(Case(f"mutation {number}", [bytes(frame) for frame in frames], None))
    return cases


def _documents(generator: random.Random) -> list[Case]:
    """JSON of every shape, some of it with keys of a message."""
    keys = [*REAL, *SIGNED, "a", ""]

    def value(depth: int) -> Any:
        kind = generator.randrange(9 if depth < 6 else 7)
        if kind < 7:
            scalars = (None, True, 0, -(10**18), 1.5, "é\u2028\U0001f41f", "")
            return scalars[kind]
        count = generator.randrange(4)
        if kind == 7:
            return [value(depth + 1) for _ in range(count)]
        return {generator.choice(keys): value(depth + 1) for _ in range(count)}

    cases = []
    for number in range(40):
        if number % 2:
            document = {key: value(1) for key in generator.sample(keys, generator.randrange(8))}
        else:
            document = value(0)
        cases.append(Case(f"document {number}", [TOPIC, encoded(document)], None))
    return cases


def _bytes(generator: random.Random) -> list[Case]:
    """Frames of random bytes, none to seven of them empty."""
    cases = []
    for number in range(40):
        count = generator.choice((1, 1, 2, 2, 2, 3, 8))
        frames = [generator.randbytes(generator.choice((0, 1, 2, 50))) for _ in range(count)]
        cases.append(Case(f"random bytes {number}", frames, None))
    return cases


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _generated() -> list[Case]:
    generator = random.Random(1349109000)
    return [
        *_wrong_types(),
        *_truncated(),
        *_mutated(generator),
        *_documents(generator),
        *_bytes(generator),
    ]


GENERATED = _generated()
CASES = HAND_PICKED + GENERATED
