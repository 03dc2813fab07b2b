"""What leaves the relay must not kill a listener, and must not be changed without need."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any, cast

import pytest
from fedmsg_relay.checks import wire
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

GOOD = b'{"topic":"a.b","timestamp":1700000000,"msg_id":"2023-x"}'
LIMIT = 4096


@pytest.fixture(autouse=True, scope="module", params=["orjson", "json"])
def parser(request: pytest.FixtureRequest) -> Iterator[None]:
    """With orjson and without: the results are the same."""
    import orjson

    chosen = {"orjson": orjson.loads, "json": wire._loads_by_json}[request.param]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wire, "_loads", chosen)
        yield


def check(*frames: bytes) -> wire.Checked:
    return wire.Checker(LIMIT).check(list(frames))


def body_of(checked: wire.Checked) -> Any:
    assert checked.frames is not None
    _, body = checked.frames
    return json.loads(body)


@pytest.mark.parametrize(
    "body",
    [
        GOOD,
        b' {"msg_id": "x", "timestamp": 1.5, "topic": ""} \n',
        b'{"topic":"a","topic":"b","timestamp":1e3,"msg_id":"x","n":1e400,"o":NaN}',
        b'{"topic":"a","timestamp":0,"msg_id":"x","signature":"s"}',
        b'{"topic":"a","timestamp":0,"msg_id":"x","certificate":5}',
        b'{"topic":"a","timestamp":0,"msg_id":"x","signature":1,"certificate":1,"crypto":"gpg"}',
        b'{"topic":"a","timestamp":-5,"msg_id":"","s":"\\ud800"}',
        '{"topic":"ä","timestamp":1,"msg_id":"x"}'.encode(),
    ],
)
def test_a_standard_message_goes_out_byte_for_byte(body: bytes) -> None:
    checked = check(b"topic", body)
    assert checked.frames == [b"topic", body]
    assert checked.cause is None


def test_one_frame_with_a_nul_is_topic_and_body() -> None:
    assert check(b"topic\0" + GOOD).frames == [b"topic", GOOD]
    assert check(b"\0" + GOOD + b"\0").frames is not None  # only the first NUL divides


@pytest.mark.parametrize(
    ("frames", "cause"),
    [
        ((), wire.FRAMES),
        ((b"no nul",), wire.FRAMES),
        ((b"",), wire.FRAMES),
        ((b"a", GOOD, b""), wire.FRAMES),
        ((b"\xff", GOOD), wire.TOPIC_NOT_UTF8),
        ((b"a", b'"\xff"'), wire.BODY_NOT_UTF8),
        ((b"a", GOOD.decode().encode("utf-16")), wire.BODY_NOT_UTF8),
        ((b"a", b'{"surrogate": "\xed\xa0\x80"}'), wire.BODY_NOT_UTF8),
        ((b"a", b"x" * LIMIT), wire.TOO_LARGE),
    ],
)
def test_dropped(frames: tuple[bytes, ...], cause: str) -> None:
    checked = check(*frames)
    assert checked.frames is None
    assert checked.cause == cause


def test_the_limit_counts_topic_and_body() -> None:
    padded = GOOD + b" " * (LIMIT - len(GOOD) - 1)
    assert check(b"t", padded).cause is None
    assert check(b"tt", padded).cause == wire.TOO_LARGE


@pytest.mark.parametrize(
    ("body", "msg"),
    [
        (b"hello", "hello"),
        (b"", ""),
        (b"\xef\xbb\xbf{}", "\ufeff{}"),
        (b"[1, 2]", [1, 2]),
        (b" 5 ", 5),
        (b"{}", {}),
        (b'{"topic": 5, "timestamp": 1, "msg_id": ""}', {"topic": 5, "timestamp": 1, "msg_id": ""}),
        (b'{"topic":"a"', '{"topic":"a"'),
        # Signed, so nothing may be added to it.
        (b'{"topic":"a","signature":"s"}', {"topic": "a", "signature": "s"}),
        (b'{"topic":"a","certificate":"s","timestamp":"x","msg_id":"y"}',
         {"topic": "a", "certificate": "s", "timestamp": "x", "msg_id": "y"}),
        (b"[" * 101 + b"]" * 101, "[" * 101 + "]" * 101),
        (b"[" * 3000, "[" * 3000),
    ],
)  # fmt: skip
def test_wrapped_with_every_standard_key(body: bytes, msg: Any) -> None:
    checked = check(b"my.topic", body)
    assert checked.cause == wire.WRAPPED
    out = body_of(checked)
    assert out["msg"] == msg
    assert out["topic"] == "my.topic"
    assert sorted(out) == ["i", "msg", "msg_id", "timestamp", "topic", "username"]
    assert abs(out["timestamp"] - time.time()) < 5
    assert check(*checked.frames or ()).cause is None


@pytest.mark.parametrize("body", [b"null", b" null\n"])
def test_what_a_publisher_sends_whose_signing_fails_has_a_cause_of_its_own(body: bytes) -> None:
    checked = check(b"my.topic", body)
    assert checked.cause == wire.NULL
    assert body_of(checked)["msg"] is None
    assert {"topic", "timestamp", "msg_id", "i", "username"} < set(body_of(checked))


@pytest.mark.parametrize(
    "signed",
    [
        {"crypto": ["x509"]},
        {"crypto": None},
        {"signature": 5, "certificate": "c"},
        {"signature": "YQ==", "certificate": None},
        {"signature": "a", "certificate": "YQ=="},  # not base64
        {"signature": "YQ==", "certificate": "YQ=="},  # not a certificate
        {"signature": "YQ==", "certificate": "ä"},
        {"signature": "YQ==", "certificate": "A" * 100_000},
    ],
)
def test_what_would_make_a_validation_raise_is_wrapped(signed: dict[str, Any]) -> None:
    body = {"topic": "a", "timestamp": 1, "msg_id": "x", "crypto": "x509", **signed}
    frames = [b"t", json.dumps(body).encode()]
    checked = wire.Checker(1 << 20, validated=True).check(frames)
    assert checked.cause == wire.UNREADABLE
    # Where nobody validates it is a message like any other.
    assert wire.Checker(1 << 20).check(frames).frames == frames
    assert body_of(checked)["msg"] == body
    assert "certificate" not in body_of(checked)


def test_a_wrapped_number_keeps_its_digits() -> None:
    checked = check(b"t", b'{"n": 1e400, "o": 0.10000000000000000001}')
    assert checked.frames is not None
    assert b'"msg":{"n": 1e400, "o": 0.10000000000000000001}' in checked.frames[1]


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        (b'{"topic":"a"}', wire.NO_KEYS),
        (b'{"topic":"a","timestamp":1}', wire.NO_KEYS),
        (b'{"topic":"a","timestamp":1,"msg_id":5}', wire.NO_KEYS),
        (b'{"topic":"a","msg_id":"x"}', wire.NO_KEYS),
        (b'{"topic":"a","msg_id":"x","timestamp":"now"}', wire.BAD_TIMESTAMP),
        (b'{"topic":"a","msg_id":"x","timestamp":null}', wire.BAD_TIMESTAMP),
        (b'{"topic":"a","msg_id":"x","timestamp":true}', wire.BAD_TIMESTAMP),
        (b'{"topic":"a","msg_id":"x","timestamp":NaN}', wire.BAD_TIMESTAMP),
        (b'{"topic":"a","msg_id":"x","timestamp":1e400}', wire.BAD_TIMESTAMP),
        (b'{"topic":"a","msg_id":"x","timestamp":1e13}', wire.BAD_TIMESTAMP),
        (b'{"topic":"a","msg_id":"x","timestamp":-1e13}', wire.BAD_TIMESTAMP),
        (b'{"topic":"a","msg_id":"x","timestamp":1' + b"0" * 400 + b"}", wire.BAD_TIMESTAMP),
    ],
)
def test_completed_and_all_else_stays(body: bytes, cause: str) -> None:
    extra = b'{ "x" :1e400,"y" : [ 1, "}" ] , "u":"\\u00e4\\"", ' + body[1:]
    checked = check(b"t", extra)
    assert checked.cause == cause
    out = body_of(checked)
    assert {"topic", "msg", "timestamp", "msg_id", "i", "username"} <= set(out)
    assert out["topic"] == "a"
    assert isinstance(out["msg_id"], str)
    time.ctime(out["timestamp"])
    assert checked.frames is not None
    assert b'"x":1e400' in checked.frames[1]
    assert (out["y"], out["u"]) == ([1, "}"], 'ä"')
    given_ = json.loads(body)
    if cause is wire.NO_KEYS and "timestamp" in given_:
        assert out["timestamp"] == given_["timestamp"]


def test_depth_is_measured_not_counted() -> None:
    shallow = b'{"topic":"a","timestamp":1,"msg_id":"[","l":[' + b"[]," * 300 + b"1]}"
    assert check(b"t", shallow).cause is None
    in_a_string = b'{"topic":"a","timestamp":1,"msg_id":"' + b'[{\\"' * 300 + b'"}'
    assert check(b"t", in_a_string).cause is None
    deep = b'{"topic":"a","timestamp":1,"msg_id":"x","l":' + b"[" * 100 + b"]" * 100 + b"}"
    assert check(b"t", deep).cause == wire.WRAPPED


@pytest.mark.parametrize(
    ("before", "after", "most"),
    [(b"[", b"]", 99), (b'["]",', b',"["]', 99), (b'["\\"]",', b',"["]', 99),
     (b'["\\"]\\"",', b',"\\"[\\""]', 99), (b'["\\\\","]",', b',"\\\\","["]', 99),
     (b'{"k":', b"}", 99), (b'{"}":0,"k":', b',"{":0}', 99),
     # What is empty counts as well.
     (b'[[],"]",{},', b',[],"["]', 98), (b'{"]}":[],"k":', b',"[{":{}}', 98)],
)  # fmt: skip
def test_depth_cannot_be_hidden(before: bytes, after: bytes, most: int) -> None:
    """Not by brackets in strings, which could pair up with those that count, or beside."""
    begin, end = b'{"topic":"a","timestamp":1,"msg_id":"x","l":', b"}"
    for innermost in (b"0", b'"' + after[-1:] * 300 + b'"', b'"\\"' + after[-1:] * 300 + b'"'):
        at_most = begin + before * most + innermost + after * most + end
        assert check(b"t", at_most).cause is None
        deeper = begin + before * (most + 1) + innermost + after * (most + 1) + end
        assert check(b"t", deeper).cause == wire.WRAPPED


def test_a_hostile_message_does_not_take_long() -> None:
    checker = wire.Checker(1 << 30)
    for body in (b"[" * (4 << 20), b'[{"' * (1 << 20), b'"\\' * (1 << 20), b"[]" * (1 << 20)):
        started = time.thread_time()
        assert checker.check([b"t", b'{"topic":' + body]).cause == wire.WRAPPED
        assert time.thread_time() - started < 2


def test_filled_in_messages_are_numbered_and_have_their_own_ids() -> None:
    checker = wire.Checker(LIMIT)
    outs = [body_of(checker.check([b"t", b"x"])) for _ in range(3)]
    assert [out["i"] for out in outs] == [1, 2, 3]
    assert len({out["msg_id"] for out in outs}) == 3


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
nearly_messages = st.dictionaries(
    st.sampled_from(["topic", "timestamp", "msg_id", "msg", "i", "username", "signature"]),
    json_values | st.floats() | st.text(),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.binary() | nearly_messages.map(lambda v: json.dumps(v).encode()), max_size=3))
def test_whatever_comes_in_what_goes_out_is_safe(frames: list[bytes]) -> None:
    checked = wire.Checker(1 << 20).check(frames)
    if checked.frames is None:
        assert checked.cause is not None
        return
    topic, body = checked.frames
    topic.decode()
    out = json.loads(body.decode())
    assert isinstance(out["topic"], str) and out["topic"] == checked.body_topic
    assert isinstance(out["msg_id"], str)
    time.ctime(out["timestamp"])
    if checked.cause is not None:  # and what has been repaired needs no second repair
        assert wire.Checker(1 << 30).check(checked.frames).cause is None


def slowly(body: bytes) -> wire.Checked:
    steps = wire.Checker(1 << 20).check_slowly([b"a", body])
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast(wire.Checked, end.value)


# What JSON escapes, and what it may: an escape, or a character, lies across each possible cut.
letters = st.sampled_from(["a", "ä", "\\", '"', "\n", "\u2028", "\U0001f600", "\ud800"])


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(letters, min_size=1, max_size=7).map("".join),
    st.sampled_from([1, wire.CLOSELY // 20, wire.CLOSELY]),
    st.booleans(),
    st.booleans(),
)
def test_of_a_large_message_the_topic_of_the_body_is_known_as_far_as_it_matters(
    unit: str, times: int, ascii: bool, complete: bool
) -> None:
    message = {"topic": unit * times, **({"timestamp": 1, "msg_id": "x"} if complete else {})}
    body = json.dumps(message, ensure_ascii=ascii or "\ud800" in unit).encode()
    checked = slowly(body)
    assert checked.frames is not None
    topic = json.loads(checked.frames[1])["topic"]
    if len(topic) <= wire.LEAST_KNOWN:
        assert checked.body_topic == topic
    else:  # but for a pair of surrogates that is cut through, at the end
        assert topic.startswith(checked.body_topic[:-1])
        assert len(checked.body_topic) > wire.LEAST_KNOWN


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(nearly_messages.map(lambda value: json.dumps(value).encode()) | st.binary())
def test_what_is_let_through_at_a_glance_would_be_so_after_a_close_look(body: bytes) -> None:
    checker = wire.Checker(1 << 20)
    at_a_glance = checker._complete([[b"topic", body]])[0]
    assert at_a_glance in (None, checker._examined([b"topic", body]))


@pytest.mark.parametrize(
    "timestamp",
    ["1e5", "-0", "1E400", "NaN", "true", '"1"', "1" * 20, "-" + "1" * 25, "1" * 310, "1" * 5000,
     "253402214400", "253402214401", "253402214400.5", "-62135510401", "0.1" + "1" * 5000, "[]"],
)  # fmt: skip
def test_numbers_at_the_edge(timestamp: str) -> None:
    body = b'{"topic":"a","msg_id":"x","timestamp":%s}' % timestamp.encode()
    checker = wire.Checker(1 << 20)
    assert checker._complete([[b"t", body]])[0] in (None, checker._examined([b"t", body]))
