"""Malformed input through our relay, to every listener there is: nobody dies, all is counted."""

from __future__ import annotations

import datetime
import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fedmsg_relay.checks.wire import Checked, Checker

from tests.support.programs import Program

from . import corpus
from .bus import Bus
from .corpus import BAD_TIMESTAMP, CASES, FILLED_IN, HAND_PICKED, UNTOUCHED, WRAPPED, Case
from .processes import Hub, Tail

# One after each case, so that what a listener shows can be told apart by case.
MARKER = "org.fedoraproject.dev.peer.marker"
MARKED = re.compile(re.escape(MARKER) + r"\.(\d+)\b")

# What fedmsg-tail shows by default, upstream's and ours.
SHOWN = re.compile("^((?!_heartbeat).)*$")

SUMMARY = re.compile(
    r"since the last summary: (\d+) relayed, (\d+) repaired(?: \((.*?)\))?,"
    r" (\d+) dropped(?: \((.*?)\))?(?:, \d+ with [^,]+)*, (\d+) listeners"
)

LISTENERS = (
    "upstream fedmsg-tail",
    "upstream fedmsg-tail --pretty",
    "upstream fedmsg-tail --really-pretty",
    "upstream fedmsg-hub",
    "fedmsg-tail",
    "fedmsg-tail --pretty",
    "fedmsg-tail --really-pretty",
)


@dataclass
class Result:
    """What became of the whole corpus."""

    # One list for each case: the messages that came out at a plain SUB socket.
    heard: list[list[list[bytes]]]
    # For each listener and each case, how many messages it showed.
    shown: dict[str, list[int]]
    # Listeners that were not there any more at the end, and what they left.
    dead: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    # The relay: whether it was there at the end, how it ended, and its log.
    relay_survived: bool = False
    relay_status: int | None = None
    log: str = ""

    def outcome(self, number: int) -> str:
        """As far as a listener can tell: untouched, repaired or dropped."""
        if not self.heard[number]:
            return "dropped"
        frames = CASES[number].frames
        if len(frames) == 1:
            frames = frames[0].split(b"\0", 1)
        return "untouched" if self.heard[number] == [frames] else "repaired"

    def counts(self) -> Counter[str]:
        """The log's summaries, added up: `untouched` and `repaired: CAUSE` and so on."""
        counts: Counter[str] = Counter()
        for relayed, repaired, repairs, dropped, drops, _ in SUMMARY.findall(self.log):
            counts["untouched"] += int(relayed) - int(repaired)
            for verb, total, causes in ("repaired", repaired, repairs), ("dropped", dropped, drops):
                named = Counter({f"{verb}: {c}": int(n) for c, n in _causes(causes)})
                assert sum(named.values()) == int(total)
                counts += named
        return counts


def _causes(text: str) -> list[list[str]]:
    return [cause.rsplit(" ", 1) for cause in text.split(", ")] if text else []


def _marker(number: int) -> bytes:
    topic = f"{MARKER}.{number}"
    return json.dumps({"topic": topic, "timestamp": 1, "msg_id": topic, "msg": {}}).encode()


def _by_case(topics: list[str]) -> list[int]:
    """How many records there are before each marker, from the text or the topic of each record."""
    counts: list[int] = []
    before = 0
    for topic in topics:
        marked = MARKED.search(topic)
        if marked is None:
            before += 1
        else:
            assert int(marked[1]) == len(counts), f"marker {len(counts)} is missing"
            counts.append(before)
            before = 0
    return counts


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory, peer_venv: Path) -> Iterator[Result]:
    with Bus(
        tmp_path_factory.mktemp("corpus"), peer_venv, relay_max_message_bytes=corpus.MAX_BYTES
    ) as bus:
        relay = bus.relay()
        listeners: dict[str, Program] = {
            "upstream fedmsg-tail": bus.upstream_tail(),
            "upstream fedmsg-tail --pretty": bus.upstream_tail("--pretty", name="upstream-pretty"),
            "upstream fedmsg-tail --really-pretty": bus.upstream_tail(
                "--really-pretty", name="upstream-really-pretty"
            ),
            "upstream fedmsg-hub": bus.hub(),
            "fedmsg-tail": bus.tail(),
            "fedmsg-tail --pretty": bus.tail("--pretty", name="pretty"),
            "fedmsg-tail --really-pretty": bus.tail("--really-pretty", name="really-pretty"),
        }
        with bus.listener() as listener:
            bus.wait_for_listeners(relay, len(listeners) + 1)
            with bus.publisher() as publisher:
                for number, case in enumerate(CASES):
                    publisher.send(*case.frames)
                    publisher.send(f"{MARKER}.{number}".encode(), _marker(number))
            markers = [f"{MARKER}.{number}".encode() for number in range(len(CASES))]
            heard = [listener.receive_until(marker) for marker in markers]
        last = f"{MARKER}.{len(CASES) - 1}"
        result = Result(heard, {})
        for name, process in listeners.items():
            try:
                process.wait_for_line(last)
            except AssertionError as error:
                result.dead[name] = str(error)
            if isinstance(process, Tail):
                result.shown[name] = _by_case(process.records())
            elif isinstance(process, Hub):
                result.shown[name] = _by_case([m["body"]["topic"] for m in process.received()])
            result.errors[name] = process.errors
        result.relay_survived = relay.exit_status is None
        result.relay_status = relay.stop()
        result.log = relay.errors
        yield result


@pytest.mark.parametrize("listener", LISTENERS)
def test_listener_survives_and_shows_every_message_that_came_out(
    result: Result, listener: str
) -> None:
    assert listener not in result.dead
    expected = []
    for messages in result.heard:
        topics = [frames[0].decode() for frames in messages]
        hub = listener == "upstream fedmsg-hub"
        expected.append(sum(1 for topic in topics if hub or SHOWN.search(topic)))
    wrong = {
        case.name: (shown, due)
        for case, shown, due in zip(CASES, result.shown[listener], expected)
        if shown != due
    }
    assert wrong == {}
    assert len(result.shown[listener]) == len(CASES)


@pytest.mark.parametrize("listener", LISTENERS)
def test_listener_has_nothing_to_complain_about(result: Result, listener: str) -> None:
    complaints = ("Traceback", "Logging error", "cannot format", "not shown", "invalid message")
    found = [line for line in result.errors[listener].splitlines() if line.startswith(complaints)]
    assert found == []


def test_relay_stays_up_and_ends_when_told_to(result: Result) -> None:
    assert result.relay_survived
    assert result.relay_status == 0
    assert "internal error" not in result.log
    assert "Traceback" not in result.log


def test_the_corpus_is_large_and_varied() -> None:
    assert len(CASES) >= 200
    assert len({case.name for case in CASES}) == len(CASES)
    assert len({case.outcome for case in HAND_PICKED}) == 9


def test_listeners_get_two_frames_that_they_can_use(result: Result) -> None:
    for case, messages in zip(CASES, result.heard):
        assert len(messages) <= 1, case.name
        for frames in messages:
            assert len(frames) == 2, case.name
            frames[0].decode()
            message = json.loads(frames[1].decode())
            assert isinstance(message, dict), case.name
            assert isinstance(message["topic"], str), case.name
            assert isinstance(message["msg_id"], str), case.name
            assert type(message["timestamp"]) in (int, float), case.name
            time.ctime(message["timestamp"])


def test_outcomes_are_the_expected_ones(result: Result) -> None:
    checker = Checker(corpus.MAX_BYTES)
    expected = {case.name: case.outcome for case in CASES if case.outcome}
    assert set(expected) >= {case.name for case in HAND_PICKED}
    decided = {case.name: _outcome(checker.check(list(case.frames))) for case in CASES}
    assert {name: decided[name] for name in expected} == expected
    # And the relay that runs does as it decides.
    seen = {case.name: result.outcome(number) for number, case in enumerate(CASES)}
    assert seen == {name: outcome.partition(":")[0] for name, outcome in decided.items()}


def test_every_case_is_counted_by_its_cause(result: Result) -> None:
    """As the log says it when the relay stops."""
    checker = Checker(corpus.MAX_BYTES)
    expected = Counter(_outcome(checker.check(list(case.frames))) for case in CASES)
    expected[UNTOUCHED] += len(CASES)  # the markers
    assert result.counts() == expected
    by_verb = Counter(result.outcome(number) for number in range(len(CASES)))
    by_verb[UNTOUCHED] += len(CASES)
    logged: Counter[str] = Counter()
    for outcome, count in result.counts().items():
        logged[outcome.partition(":")[0]] += count
    assert logged == by_verb
    assert sum(logged.values()) == 2 * len(CASES)


def test_each_cause_is_logged_with_the_senders_topic(result: Result) -> None:
    for cause in {case.outcome for case in HAND_PICKED} - {UNTOUCHED, None}:
        assert f"WARNING] {cause}, topic '" in result.log


def test_no_topic_forges_a_line_of_the_log(result: Result) -> None:
    for line in result.log.splitlines():
        assert re.match(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\]\[fedmsg\.relay +[A-Z]+\] ", line)
        assert line.isprintable()
    assert result.log.count("] stopped\n") == 1


def test_what_is_wrapped_still_holds_the_original(result: Result) -> None:
    for case, messages in _outcomes(result, WRAPPED):
        [[topic, body]] = messages
        message = json.loads(body)
        sent_topic, sent = _two_frames(case)
        assert topic == sent_topic
        assert message["topic"] == sent_topic.decode()
        # Either the JSON that was sent, to the letter, or its text as a string.
        as_string = isinstance(message["msg"], str) and message["msg"] == sent.decode()
        assert as_string or sent.strip() in body, case.name
        if not as_string:
            assert repr(message["msg"]) == repr(json.loads(sent)), case.name
        assert set(message) == {"topic", "msg", "timestamp", "msg_id", "i", "username"}


def test_what_is_filled_in_keeps_everything_else(result: Result) -> None:
    for case, messages in [*_outcomes(result, FILLED_IN), *_outcomes(result, BAD_TIMESTAMP)]:
        [[topic, body]] = messages
        sent_topic, sent_body = _two_frames(case)
        message, sent = json.loads(body), json.loads(sent_body)
        assert topic == sent_topic
        assert set(message) == {*sent, "topic", "msg", "timestamp", "msg_id", "i", "username"}
        for key, value in sent.items():
            usable = key not in ("timestamp", "msg_id") or _is_usable(key, value)
            if usable:
                assert repr(message[key]) == repr(value), (case.name, key)


def _is_usable(key: str, value: Any) -> bool:
    if key == "msg_id":
        return isinstance(value, str)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        datetime.datetime.fromtimestamp(value, datetime.timezone.utc)
    except (ValueError, OverflowError):
        return False
    return True


def _outcomes(result: Result, outcome: str) -> list[tuple[Case, list[list[bytes]]]]:
    """The cases with this outcome, by the relay's own account, and what came out for them."""
    checker = Checker(corpus.MAX_BYTES)
    found = [
        (case, messages)
        for case, messages in zip(CASES, result.heard)
        if _outcome(checker.check(list(case.frames))) == outcome
    ]
    assert found
    return found


def _two_frames(case: Case) -> list[bytes]:
    return case.frames[0].split(b"\0", 1) if len(case.frames) == 1 else case.frames


def _outcome(checked: Checked) -> str:
    if checked.cause is None:
        return UNTOUCHED
    return f"{'dropped' if checked.frames is None else 'repaired'}: {checked.cause}"


def test_long_numbers_do_not_pass_a_relay_whose_python_reads_them(bus: Bus) -> None:
    """Python from 3.11 on, and any with security fixes, reads integers of 4300 digits at most.

    A relay on an older one reads them all, as this setting has it do, and its listeners would die.
    """
    bus.relay(PYTHONINTMAXSTRDIGITS="0")
    allowed, too_long = (
        next(case for case in CASES if case.name == name) for name in ("4300 digits", "4301 digits")
    )
    with bus.listener() as listener, bus.publisher() as publisher:
        publisher.open_path_to(listener)
        publisher.send(*too_long.frames)
        publisher.send(*allowed.frames)
        [_, body] = listener.receive()
        assert json.loads(body)["msg"] == too_long.frames[1].decode()
        assert listener.receive() == allowed.frames
