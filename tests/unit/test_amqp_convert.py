"""A message on its way to AMQP and back: exact, and as fedora-messaging has it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fedmsg_relay import message as messages
from fedmsg_relay.bridge import convert
from hypothesis import given
from hypothesis import strategies as st

FRAME = 131072
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
BLANKS = st.text(alphabet=" \n\t\r", max_size=3)


def out(body: bytes, topic: str = "org.fedoraproject.dev.a", frame: int = FRAME) -> Any:
    return convert.outgoing(topic, convert.parse(body), 1.5, frame)


@given(VALUES, st.text(), st.dictionaries(st.text(), VALUES), BLANKS, st.booleans())
def test_way_back_is_exact(
    msg: Any, msg_id: str, others: dict[str, Any], blank: str, ascii_only: bool
) -> None:
    """Whatever a message has, and however its JSON is written."""
    message = {**others, "msg": msg, "msg_id": msg_id}
    text = json.dumps(message, ensure_ascii=ascii_only, separators=("," + blank, blank + ":"))
    body = (blank + text + blank).encode(errors="surrogatepass")
    try:
        body.decode()
    except UnicodeDecodeError:
        return
    made = out(body)
    assert convert.original(made.headers, made.body) == body
    said = json.loads(made.body)
    assert isinstance(said, dict)
    assert said == (msg if isinstance(msg, dict) else {"msg": msg})


def test_body_is_what_the_sender_said_byte_for_byte() -> None:
    body = (
        b'{"msg": {"b" : 1.0e0, "a":"\\u00e9"}, "topic": "t", "msg_id": "2026-x", "timestamp": 9}'
    )
    made = out(body)
    assert made.body == b'{"b" : 1.0e0, "a":"\\u00e9"}'
    assert made.headers["sent-at"] == "1970-01-01T00:00:09+00:00"
    assert made.message_id == made.headers["fedmsg_msg_id"] == "2026-x"
    assert made.headers["fedora_messaging_schema"] == "base.message"
    assert made.headers["fedora_messaging_severity"] == 20


def test_of_two_values_the_last_counts_as_for_every_listener() -> None:
    body = b'{"msg": {"n": 1}, "msg": {"n": 2}, "msg_id": "a"}'
    assert out(body).body == b'{"n": 2}'


def test_message_without_msg() -> None:
    body = b'{"topic": "t", "msg_id": "a"}'
    made = out(body)
    assert made.body == b"{}" and convert.original(made.headers, made.body) == body


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"1", b"{", b'{"a"', b'{"a":', b'{"a":1', b'{"a":1,', b'{"a":1}x', b"{1:2}",
     b'{"a" 1}', b'{"a":1 "b":2}', b"\xff{}", b'{"a":tru}', b'{,}', b'{"a":1,}'],
)  # fmt: skip
def test_what_is_no_object_is_unfit(body: bytes) -> None:
    with pytest.raises(convert.UnfitError):
        convert.parse(body)


@given(st.binary(max_size=60) | VALUES.map(lambda value: json.dumps(value).encode()))
def test_parse_takes_what_json_takes(body: bytes) -> None:
    try:
        said = json.loads(body.decode())
    except (ValueError, RecursionError):
        said = None
    if isinstance(said, dict):
        assert json.dumps(convert.parse(body).message) == json.dumps(said)
    else:
        with pytest.raises(convert.UnfitError):
            convert.parse(body)


@pytest.mark.parametrize(("topic", "fits"), [("é" * 127, True), ("é" * 128, False),
                                             ("a" * 255, True), ("a" * 256, False)])  # fmt: skip
def test_routing_keys_have_255_bytes(topic: str, fits: bool) -> None:
    if fits:
        assert out(b'{"msg":{}}', topic).routing_key == topic
    else:
        with pytest.raises(convert.UnfitError, match="256 bytes"):
            out(b'{"msg":{}}', topic)


def test_text_that_does_not_fit_a_frame_is_left_out() -> None:
    body = json.dumps({"msg": {"n": 1}, "certificate": "x" * 5000, "msg_id": "a"}).encode()
    made = out(body, frame=4096)
    assert made.body == b'{"n": 1}' and "fedmsg_before" not in made.headers
    assert convert.original(made.headers, made.body) is None
    assert "fedmsg_after" in out(body, frame=131072).headers
    with pytest.raises(convert.UnfitError):
        out(json.dumps({"msg": {}, "msg_id": "i" * 5000}).encode(), frame=4096)


@given(st.text())
def test_ids_are_derived_and_fit(msg_id: str) -> None:
    made = convert.message_id(msg_id.encode(errors="backslashreplace").decode())
    assert len(made.encode()) <= 255
    assert made == convert.message_id(msg_id.encode(errors="backslashreplace").decode())


@pytest.mark.parametrize("moment", ["x", None, 1e400, -1e300, 1e18, True, float("nan")])
def test_time_that_is_none(moment: object) -> None:
    body = json.dumps({"msg": {}, "timestamp": moment}).encode()
    assert out(body).headers["sent-at"] == "1970-01-01T00:00:01+00:00"


# Inwards

HEADERS = {"sent-at": "2024-03-01T12:00:00+00:00"}
UUID = "0b9a2d0c-65f1-4c7c-9c1e-0a4a1f1b7a77"


def test_incoming_is_as_upstream_makes_it() -> None:
    made = convert.incoming("org.x.y", {"a": 1}, UUID, HEADERS, 5.0)
    message = json.loads(made.body)
    assert message == {
        "topic": "org.x.y", "msg": {"a": 1}, "timestamp": 1709294400, "msg_id": f"2024-{UUID}",
        "i": 1, "username": "amqp-bridge",
    }  # fmt: skip
    assert made.topic == b"org.x.y" and made.msg_id == f"2024-{UUID}"
    assert convert.is_from_amqp(message)


@given(st.text(), VALUES, st.none() | st.text(), st.none() | st.text() | st.datetimes().map(str))
def test_delivered_again_is_the_same_message(
    key: str, body: Any, message_id: str | None, sent: str | None
) -> None:
    headers = {"sent-at": sent}
    try:
        first = convert.incoming(key, body, message_id, headers, 5.0)
    except convert.UnfitError:
        return
    again = convert.incoming(key, body, message_id, headers, 5.0)
    assert first == again
    assert convert.incoming(key, body, message_id, headers, 6.0).msg_id == first.msg_id
    assert first.msg_id[:4].isdigit() and len(first.msg_id) == 41


def test_without_id_different_messages_differ() -> None:
    ids = {convert.incoming("k", {"n": n}, None, HEADERS, 5.0).msg_id for n in range(10)}
    assert len(ids) == 10


def test_loops_are_broken_in_both_directions() -> None:
    ours = json.loads(convert.incoming("k", {}, UUID, HEADERS, 5.0).body)
    assert convert.is_from_amqp(ours)
    built = messages.build("org.x", {"n": 1}, 1)
    made = out(messages.encode(built))
    assert not convert.is_from_amqp(built)
    assert convert.is_from_fedmsg(made.headers, json.loads(made.body))
    assert convert.is_from_fedmsg({}, built), "upstream's bridge publishes the whole message"
    assert not convert.is_from_fedmsg(HEADERS, {"n": 1})
    assert not convert.is_from_fedmsg(None, ["n"])
