"""The keys of a message are read by other people's programs."""

from __future__ import annotations

import datetime
import re
import time

import pytest
from fedmsg_relay import message


def test_a_message_has_upstreams_keys() -> None:
    built = message.build("a.b", {"x": 1}, 7)
    assert sorted(built) == ["i", "msg", "msg_id", "timestamp", "topic", "username"]
    assert (built["topic"], built["msg"], built["i"]) == ("a.b", {"x": 1}, 7)
    assert isinstance(built["timestamp"], int)
    year = time.localtime().tm_year
    version_4 = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
    assert re.fullmatch(rf"{year}-{version_4}", built["msg_id"])


@pytest.mark.parametrize("falsy", [None, "", 0, [], {}, False])
def test_a_falsy_msg_becomes_an_empty_object(falsy: object) -> None:
    assert message.build("a", falsy, 1)["msg"] == {}


@pytest.mark.parametrize(
    ("topic", "modname", "full"),
    [
        ("log", "logger", "org.fedoraproject.dev.logger.log"),
        ("b", "org.fedoraproject.a", "org.fedoraproject.a.b"),
        # Upstream compares letters, not words.
        ("b", "org.fedoraprojectx", "org.fedoraprojectx.b"),
    ],
)
def test_topics(topic: str, modname: str, full: str) -> None:
    assert message.full_topic(topic, modname, "org.fedoraproject", "dev") == full


def test_canonical_json() -> None:
    assert message.dumps({"b": [1, 2.5], "a": "ä"}) == '{"a":"\\u00e4","b":[1,2.5]}'


def test_what_upstreams_encoder_takes() -> None:
    class Package:
        def __json__(self) -> dict[str, str]:
            return {"name": "nethack"}

    moment = datetime.datetime(2020, 1, 2, 3, 4, 5)
    encoded = message.loads(message.dumps({"p": Package(), "d": moment, "s": {1}}))
    assert encoded == {"p": {"name": "nethack"}, "d": moment.timestamp(), "s": [1]}
    with pytest.raises(TypeError):
        message.dumps({"o": object()})
