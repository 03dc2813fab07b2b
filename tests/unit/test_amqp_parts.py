"""The parts of the AMQP bridge that need no broker."""

from __future__ import annotations

import json
import logging
import random
import re
from pathlib import Path
from typing import Any

import pytest
from fedmsg_relay import config as global_config
from fedmsg_relay import log
from fedmsg_relay.bridge import kinds, settings, store
from fedmsg_relay.bridge.ledger import Ledger
from fedmsg_relay.bridge.patterns import Patterns, problem
from fedmsg_relay.bridge.status import Status, application, metrics, report
from fedmsg_relay.errors import ConfigError
from hypothesis import given
from hypothesis import strategies as st

WORDS = st.lists(st.sampled_from(["a", "b", "*", "#", ""]), min_size=1, max_size=6)


@given(WORDS, WORDS)
def test_patterns_are_amqp_s(pattern: list[str], words: list[str]) -> None:
    """As a search of all ways finds them (AMQP 0-9-1, 3.1.3.3)."""

    def matches(left: list[str], right: list[str]) -> bool:
        if not left:
            return not right
        if left[0] == "#":
            return any(matches(left[1:], right[n:]) for n in range(len(right) + 1))
        return bool(right) and left[0] in ("*", right[0]) and matches(left[1:], right[1:])

    found = Patterns([".".join(pattern)]).match(".".join(words))
    assert found == matches(pattern, words)


def test_pattern_that_takes_long_otherwise() -> None:
    assert not Patterns([".".join(["#.a"] * 40)]).match(".".join(["a"] * 39))


@pytest.mark.parametrize("pattern", ["a*", "#a.b", "a.b#c", "a" * 256])
def test_no_pattern(pattern: str) -> None:
    assert problem(pattern)


def test_words_of_patterns() -> None:
    assert [problem(each) for each in ("#", "*", "a.*.#", "a..b", "")] == [None] * 5


@given(st.integers(0, 2**32))
def test_cursor_is_never_past_what_is_not_confirmed(seed: int) -> None:
    """Any order of publishing, confirming, refusing and losing the channel."""
    chance = random.Random(seed)
    ledger, safe, tags = Ledger(0), set[int](), dict[int, int]()
    while ledger.read < 60 or len(ledger) or ledger.is_again:
        step = chance.random()
        if step < 0.4 and (ledger.is_again or ledger.read < 60):
            seq = ledger.again[0] if ledger.is_again else ledger.read + 1
            if chance.random() < 0.1:
                ledger.passed_over(seq)
                safe.add(seq)
            else:
                tags[ledger.published(seq, 7)] = seq
        elif step < 0.8 and len(ledger):
            tag = chance.choice(list(tags))
            multiple = chance.random() < 0.5
            taken = [each for each in sorted(tags) if each == tag or (multiple and each < tag)]
            if chance.random() < 0.8:
                assert ledger.confirm(tag, multiple) == [tags[each] for each in taken]
                safe.update(tags[each] for each in taken)
            else:
                assert ledger.refuse(tag, multiple) == len(taken)
            for each in taken:
                del tags[each]
        elif step > 0.97:
            ledger.restart()
            tags.clear()
        assert ledger.confirmed == next(n for n in range(62) if n + 1 not in safe)
        assert ledger.bytes == 7 * len(ledger)
    assert ledger.confirmed == 60


def test_what_the_journal_has_no_more_is_passed() -> None:
    ledger = Ledger(0)
    for seq in (1, 2, 3):
        ledger.published(seq, 1)
    ledger.restart()
    ledger.gone(1, 2)
    assert ledger.again == [3] and ledger.confirmed == 2
    ledger.gone(3, 10)
    assert ledger.confirmed == 10


def config(**keys: Any) -> global_config.Config:
    return global_config.complete({"amqp_url": "amqp://u:p@h/v%2Fw", **keys})


def test_settings() -> None:
    found = settings.of(config(amqp_out=["a.#"], amqp_in="b.*"))
    [broker] = found.brokers
    assert (broker.host, broker.port, broker.vhost) == ("h", 5672, "v/w")
    assert (broker.user, broker.password, str(broker)) == ("u", "p", "amqp://h:5672")
    assert found.include == ("a.#",) and found.bindings == ("b.*",) and found.tls is None


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"amqp_url": []}, "amqp_url.*missing"),
        ({"amqp_url": "http://u:p@h"}, "is not like"),
        ({"amqp_url": "amqp://u:p@h:x"}, "amqp_url"),
        ({"amqp_url": "amqp://h"}, "no user"),
        ({"amqp_url": "amqp://u@h"}, "no password"),
        ({"amqp_url": ["amqp://u:p@h", "amqps://u:p@h"]}, "in all addresses or in none"),
        ({"amqp_url": "amqps://h", "amqp_certificate": "/x"}, "belong together"),
        ({"amqp_url": "amqps://h", "amqp_ca_certificate": "/no/such"}, "/no/such"),
        ({"amqp_password_file": "/no/such"}, "/no/such"),
        ({"amqp_out": "a*"}, "whole words"),
        ({"amqp_in": [3]}, "amqp_in"),
        ({"amqp_schemas": {"#": 3}}, "amqp_schemas"),
        ({"amqp_from": "then"}, "now, oldest"),
        ({"amqp_window": 0}, "at least 1"),
        ({"amqp_state": "here"}, "whole path"),
        ({"amqp_uot": "#"}, "amqp_uot"),
    ],
)
def test_settings_that_cannot_be(keys: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text) as raised:
        settings.of(config(**keys))
    assert "p@" not in str(raised.value), "no password is shown"


def test_password_is_in_a_file_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("secret\n")
    found = settings.of(config(amqp_url="amqp://u@h", amqp_password_file=str(path)))
    assert found.brokers[0].password == "secret"


def test_store_keeps_the_cursor_and_has_one_bridge(tmp_path: Path) -> None:
    first = store.Store(str(tmp_path))
    assert first.load() is None
    first.save(store.Cursor(7, "a"))
    with pytest.raises(store.StateError, match="another bridge"):
        store.Store(str(tmp_path))
    first.close()
    second = store.Store(str(tmp_path))
    assert second.load() == store.Cursor(7, "a")
    second.close()
    (tmp_path / store.CURSOR).write_text("{")
    with pytest.raises(store.StateError, match="--set-cursor"):
        store.load(str(tmp_path))


def test_set_aside_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MOST_BYTES", 3000)
    keeper = store.Store(str(tmp_path))
    for seq in range(100):
        keeper.keep("t" * 300, b'{"n": 1}', "too long", seq=seq)
    keeper.save(store.Cursor(100, ""))
    found = list(store.set_aside(str(tmp_path)))
    assert len(found) == keeper.set_aside and [each["seq"] for each in found][-1] == 99
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 7000
    assert found[-1]["reason"] == "too long" and found[-1]["body"] == '{"n": 1}'
    keeper.close()
    again = store.Store(str(tmp_path))
    assert again.set_aside == len(found)
    again.close()


def get(status: Status, path: str, method: str = "GET") -> tuple[str, bytes]:
    lines: list[str] = []
    environ = {"PATH_INFO": path, "REQUEST_METHOD": method}
    body = application(status)(environ, lambda line, _: lines.append(line))
    return lines[0], b"".join(body)


def test_health_says_what_is_wrong(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, log.NAME)
    status = Status("1", 300)
    status.out.is_wanted = status.out.is_connected = True
    assert get(status, "/health")[0] == "200 OK"
    status.out.in_trouble(kinds.CREDENTIALS, "amqp://h:5672 refuses the user or the password")
    assert report(status)["healthy"], "a moment is nothing to look at"
    status.out.in_trouble(kinds.CREDENTIALS, "amqp://h:5672 refuses the user or the password")
    status.out.since -= 60
    line, body = get(status, "/health")
    assert line == "503 Service Unavailable"
    assert "refuses the user" in json.loads(body)["problems"][0]
    status.out.all_well()
    assert report(status)["healthy"]
    status.out.all_well()
    # Both once: the second is no other trouble, and no other end of it.
    assert caplog.messages[0].startswith("out: credentials: amqp://h:5672 refuses")
    assert re.fullmatch(r"out: all is well again after \d+\.\d s", caplog.messages[1])
    assert len(caplog.messages) == 2
    status.last, status.lag_seconds = 5, 1000.0
    assert "5 messages wait" in report(status)["problems"][0]
    status.lost(3, 4)
    assert "trimmed 2 messages before they went out: 3 to 4" in report(status)["warnings"][0]


def test_metrics_have_each_kind_of_trouble() -> None:
    status = Status("1", 300)
    status.out.is_wanted = status.into.is_wanted = True
    status.out.in_trouble(kinds.BLOCKED, "disk")
    status.out.counts["nacked"] = 3
    text = metrics(status).decode()
    assert 'fedmsg_amqp_bridge_out_trouble{kind="blocked"} 1.0' in text
    assert "fedmsg_amqp_bridge_out_nacked_messages_total 3.0" in text
    assert len(re.findall(r"^fedmsg_amqp_bridge_in_trouble\{", text, re.M)) == len(kinds.KINDS)


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [("/", "GET", "404"), ("/health", "PUT", "405"), ("/metrics", "HEAD", "200")],
)
def test_other_requests(path: str, method: str, status: str) -> None:
    line, body = get(Status("1", 300), path, method)
    assert line.startswith(status) and (method != "HEAD" or not body)
