"""The keys of a message are read by other people's programs."""

from __future__ import annotations

import datetime
import re
import time
from typing import Any

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


BERLIN = datetime.timezone(datetime.timedelta(hours=2))


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York"])
def test_a_moment_is_itself_whatever_its_zone_and_this_hosts(
    zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        utc = datetime.datetime(2020, 6, 1, 12, 0, 5, 250_000, tzinfo=datetime.timezone.utc)
        same = utc.astimezone(BERLIN)
        naive = utc.astimezone().replace(tzinfo=None)  # this host's clock
        assert message.dumps([utc, same, naive]) == "[1591012805.0,1591012805.0,1591012805.0]"
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("where", [lambda n: n, lambda n: {"a": [{"b": n}]}])
def test_what_is_no_number_in_json_is_not_published(number: float, where: Any) -> None:
    built = message.build("t", where(number), 1)
    with pytest.raises(ValueError, match=r"^the message holds NaN or Infinity, which JSON has not"):
        message.encode(built)
    # What others have sent is read, and signed messages of theirs can be checked.
    assert message.dumps(message.loads(message.dumps(built))) == message.dumps(built)


def test_what_is_published_is_canonical() -> None:
    assert message.encode({"b": [1, 2.5, -0.0, 1e300], "a": "ä"}) == (
        b'{"a":"\\u00e4","b":[1,2.5,-0.0,1e+300]}'
    )
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(ValueError, match="Circular"):
        message.encode(loop)
