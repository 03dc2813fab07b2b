"""What passed on the bus and on RabbitMQ, compared by id."""

from __future__ import annotations

import pytest
from fedmsg_relay import amqp_verify, message
from fedmsg_relay.amqp_verify import AMQP, BUS, Seen, id_on_amqp, id_on_bus, told
from fedmsg_relay.bridge import convert
from fedmsg_relay.bridge.patterns import Patterns

UUID = "0b9a2d0c-65f1-4c7c-9c1e-0a4a1f1b7a77"


def test_one_message_has_one_id_on_both_whoever_brought_it() -> None:
    seen = Seen(Patterns(["#"]))
    # Ours, outwards.
    body = message.encode(message.build("t", {"n": 1}, 1))
    made = convert.outgoing("t", convert.parse(body), 0.0, 131072)
    seen.note(BUS, id_on_bus(body) or "", "t", 1.0)
    seen.note(AMQP, id_on_amqp(made.headers, made.message_id, made.body) or "", "t", 1.0)
    # Upstream's, outwards: the whole message, under an id of its own.
    other = message.encode(message.build("t", {"n": 2}, 2))
    seen.note(BUS, id_on_bus(other) or "", "t", 1.0)
    seen.note(AMQP, id_on_amqp({}, UUID, other) or "", "t", 1.0)
    # Inwards, which ours and upstream's do alike.
    into = convert.incoming("t", {"n": 3}, UUID, {"sent-at": "2026-01-01T00:00:00"}, 0.0)
    seen.note(AMQP, id_on_amqp({}, UUID, b'{"n": 3}') or "", "t", 1.0)
    seen.note(BUS, id_on_bus(into.body) or "", "t", 1.0)
    assert told(seen, 0.0, 2.0) == (
        0,
        ["3 messages on the bus, 3 on RabbitMQ; missing on RabbitMQ: 0, on the bus: 0;"
         " doubles on RabbitMQ: 0, on the bus: 0"],
    )  # fmt: skip


@pytest.mark.parametrize("body", [b"", b"\xff", b"[]", b"{}", b'{"topic": "t", "msg_id": 3}'])
def test_what_has_no_id(body: bytes) -> None:
    assert id_on_bus(body) is None
    assert id_on_amqp(None, None, body) is None


def test_what_is_missing_is_named_and_the_edges_do_not_count() -> None:
    seen = Seen(Patterns(["a.#"]))
    for at, key in ((0.5, "before"), (1.5, "one"), (2.5, "late"), (9.0, "after")):
        seen.note(BUS, key, "a.b", at)
    seen.note(AMQP, "late", "a.b", 12.0)
    seen.note(AMQP, "late", "a.b", 13.0)
    seen.note(AMQP, "other topic", "b", 2.0)
    status, lines = told(seen, 1.0, 3.0)
    assert status == 1
    assert "missing on RabbitMQ: 1, on the bus: 0; doubles on RabbitMQ: 1" in lines[0]
    assert lines[1:] == ["not on RabbitMQ: one 'a.b'"]


def test_few_are_named() -> None:
    seen = Seen(Patterns(["#"]))
    for n in range(50):
        seen.note(AMQP, str(n), "t", 1.0)
    _, lines = told(seen, 0.0, 2.0)
    assert len(lines) == amqp_verify.NAMED + 2 and lines[-1] == "not on the bus: 30 more"


def test_silence_proves_nothing() -> None:
    assert told(Seen(Patterns(["#"])), 0.0, 2.0)[0] == 3


def test_topic_that_is_no_pattern(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        amqp_verify.main(["--topic", "a*"])
    assert raised.value.code == 2 and "whole words" in capsys.readouterr().err
