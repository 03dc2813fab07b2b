"""relay_policy: which pattern decides about a topic, who may, and the account of who may not."""

from __future__ import annotations

import ast
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from fedmsg_relay import config as global_config
from fedmsg_relay.checks import policy, wire
from fedmsg_relay.checks.networks import REMEMBERED, parse
from fedmsg_relay.checks.policy import Policy
from fedmsg_relay.checks.wire import Checked
from fedmsg_relay.config import complete
from fedmsg_relay.daemon import policing
from fedmsg_relay.daemon.desk import INBOUND, SUBMIT
from fedmsg_relay.daemon.policing import LINES, NAMED, NOT_ALLOWED, Policing
from fedmsg_relay.errors import ConfigError
from fedmsg_relay.preflight import check_addresses
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import Environment, FileSystemLoader

from tests.conftest import ROOT

HOST, OTHER = "10.5.1.2", "10.6.1.2"
PROD = "org.fedoraproject.prod."


def made(patterns: dict[str, list[str]]) -> Policy:
    found = policy.configured(complete({"relay_policy": patterns, "relay_policy_mode": "refuse"}))
    assert found is not None
    return found


RULES = made({
    f"{PROD}*": ["10.5.0.0/16", "2001:db8::/32"],
    f"{PROD}git.*": ["10.5.1.7"],
    f"{PROD}git.lookaside": [OTHER],
    "org.fedoraproject.stg.*": [],
})  # fmt: skip


@pytest.mark.parametrize(
    ("address", "topic", "pattern"),
    [
        (HOST, f"{PROD}bodhi.update", None),
        ("2001:db8::5", f"{PROD}bodhi.update", None),
        (OTHER, f"{PROD}bodhi.update", f"{PROD}*"),
        (OTHER, PROD, f"{PROD}*"),
        # The longest pattern decides, alone: whom a shorter one names may not.
        (HOST, f"{PROD}git.receive", f"{PROD}git.*"),
        ("10.5.1.7", f"{PROD}git.receive", None),
        ("10.5.1.7", f"{PROD}git.lookaside", f"{PROD}git.lookaside"),
        (OTHER, f"{PROD}git.lookaside", None),
        (OTHER, f"{PROD}git.lookaside.new", f"{PROD}git.*"),
        # A beginning is all of it: the dot, too.
        (HOST, f"{PROD}git", None),
        (HOST, f"{PROD}gitlab", None),
        # Nobody is named: nobody may.
        (HOST, "org.fedoraproject.stg.git.receive", "org.fedoraproject.stg.*"),
        # No pattern fits: everybody may.
        (OTHER, "org.fedoraproject.dev.git.receive", None),
        (OTHER, "org.fedoraproject.prod", None),
        (OTHER, "", None),
        (None, "org.fedoraproject.dev.git.receive", None),
        (None, f"{PROD}bodhi.update", f"{PROD}*"),
        # Who is no address is in no network.
        ("", f"{PROD}bodhi.update", f"{PROD}*"),
        ("nobody", f"{PROD}bodhi.update", f"{PROD}*"),
        # An IPv4 peer of a socket for both versions.
        (f"::ffff:{HOST}", f"{PROD}bodhi.update", None),
        (f"::ffff:{OTHER}", f"{PROD}bodhi.update", f"{PROD}*"),
    ],
)
def test_which_pattern_decides(address: str | None, topic: str, pattern: str | None) -> None:
    assert RULES.against(address, topic) == pattern


def test_the_pattern_that_fits_all_is_for_topics_that_no_other_fits() -> None:
    found = made({"*": ["10.5.0.0/16"], f"{PROD}*": [OTHER]})
    assert found.against(OTHER, "org.fedoraproject.dev.a") == found.against(OTHER, "") == "*"
    assert found.against(OTHER, f"{PROD}a") is None
    assert found.against(HOST, f"{PROD}a") == f"{PROD}*"


ALPHABET = "ab."
patterns = st.builds(
    lambda text, star: (text or "a") + star,
    st.text(ALPHABET, max_size=4),
    st.sampled_from(["", "*"]),
)


@given(
    st.dictionaries(patterns, st.lists(st.sampled_from([HOST, OTHER]), max_size=2), min_size=1),
    st.text(ALPHABET, max_size=6),
)
def test_it_is_the_longest_of_those_that_fit(named: dict[str, list[str]], topic: str) -> None:
    fitting = [
        each for each in named if topic == each or (each[-1] == "*" and topic.startswith(each[:-1]))
    ]
    # A topic in full is before the same as a beginning.
    decides = max(fitting, key=lambda each: (len(each.rstrip("*")), each[-1] != "*"), default=None)
    allowed = decides is None or HOST in named[decides]
    assert made(named).against(HOST, topic) == (None if allowed else decides)


def test_addresses_that_are_remembered_have_a_bound() -> None:
    found = made({"*": [HOST]})
    for number in range(2 * REMEMBERED):
        assert found.against(f"10.6.{number >> 8}.{number & 255}", "a") == "*"
    assert found.against(HOST, "a") is None and found.against(None, "a") == "*"
    [rule] = found._beginnings.values()
    assert len(rule._known) <= REMEMBERED + 1


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"relay_policy": ["a"]}, "'relay_policy' must be a dict of patterns of topics"),
        ({"relay_policy": {5: ["10.5.0.0/16"]}}, "'relay_policy' must be a dict"),
        ({"relay_policy": {"a": 5}}, r"relay_policy\['a'\] must be an address or a list of them"),
        ({"relay_policy": {"a": [5]}}, r"relay_policy\['a'\] must be an address or a list"),
        (
            {"relay_policy": {"a.*": ["10.5.1.0/16"]}},
            r"relay_policy\['a\.\*'\]: '10.5.1.0/16' is not a network .* mean 10.5.0.0/16\?",
        ),
        ({"relay_policy": {"a.*": ["pkgs01"]}}, r"relay_policy\['a\.\*'\]: 'pkgs01' is not a"),
        ({"relay_policy": {"": []}}, r"relay_policy\[''\]: a pattern is a topic, or the begin"),
        ({"relay_policy": {"a.*.b": []}}, "one [*] at its end"),
        ({"relay_policy": {"a**": []}}, "one [*] at its end"),
        ({"relay_policy": {"a.?": []}}, "one [*] at its end"),
        ({"relay_policy": {"a.[bc].*": []}}, "one [*] at its end"),
        ({"relay_policy": {" a": []}}, "a pattern has no blanks"),
        ({"relay_policy": {"a\x1b[2J*": []}}, "one [*] at its end"),
        ({"relay_policy": {"a\u202e*": []}}, r"relay_policy\['a\\u202e\*'\]: a pattern has no bl"),
        ({"relay_policy": {"a" * 1001: []}}, "at most 1000 characters"),
        ({"relay_policy_mode": "on"}, "'off', 'mark' or 'refuse', not 'on'"),
        ({"relay_policy_mode": False}, "'off', 'mark' or 'refuse', not False"),
        ({"relay_policy_mode": ["off"]}, "'off', 'mark' or 'refuse', not"),
        ({"relay_policy_mode": "refuse"}, "is 'refuse', and 'relay_policy' names no topic"),
        ({"relay_policy_mode": "mark"}, "is 'mark', and 'relay_policy' names no topic"),
    ],
)
def test_what_is_wrong_is_named_with_its_key(keys: dict[str, Any], said: str) -> None:
    """Also while the mode is off: it is to be right when somebody turns it on."""
    with pytest.raises(ConfigError, match=said) as caught:
        check_addresses(complete(keys))
    assert str(caught.value).isprintable()


def test_it_is_off_by_itself_and_takes_a_network_as_text() -> None:
    assert policy.configured(complete({})) is None
    assert policing.of(complete({"relay_policy": {"a": []}})) is None
    assert made({"a": "10.5.0.0/16"}).against(HOST, "a") is None  # type: ignore[dict-item]


def test_patterns_of_several_files_come_together(tmp_path: Path) -> None:
    for number, text in enumerate(("{'a': [], 'b': ['10.5.0.0/16']}", "{'a': ['10.6.0.0/16']}")):
        (tmp_path / f"{number}.py").write_text(f"config = {{'relay_policy': {text}}}\n")
    assert global_config.load(str(tmp_path))["relay_policy"] == {
        "a": ["10.6.0.0/16"],
        "b": ["10.5.0.0/16"],
    }


def test_of_a_very_long_topic_enough_is_known() -> None:
    """A message that is read a little at a time has the beginning of it: see test_wire.py."""
    assert policy.LONGEST_PATTERN < wire.LEAST_KNOWN


@pytest.mark.parametrize("said", ["off", False, "mark", "refuse"])
def test_the_roles_write_what_the_relay_reads(said: str | bool) -> None:
    """YAML reads `off` as false."""
    rules = {"*": [], f"{PROD}git.*": ["10.5.1.7", "2001:db8::/32"]}
    lines = (ROOT / "templates/fedmsg.d/relay.py.j2").read_text().splitlines()
    wanted = [line for line in lines if line.startswith('    "relay_policy')]
    text = "\n".join(["{% import '_python.j2' as python %}", *wanted])
    made = Environment(loader=FileSystemLoader(ROOT / "templates"), trim_blocks=True)
    made.filters["to_json"] = lambda text, **how: json.dumps(text, **how)
    rendered = made.from_string(text).render(
        fedmsg_base_relay_policy=rules, fedmsg_base_relay_policy_mode=said
    )
    keys = ast.literal_eval("{" + rendered + "}")
    assert keys == {"relay_policy": rules, "relay_policy_mode": said or "off"}
    check_addresses(complete(keys))


def message(topic: str, body_topic: str | None = None) -> Checked:
    body = {"topic": topic if body_topic is None else body_topic, "timestamp": 1, "msg_id": "x"}
    return wire.Checker(1 << 20).check([topic.encode(), json.dumps(body).encode()])


def police(refuses: bool = True) -> Policing:
    return Policing(Policy({f"{PROD}*": [parse("10.5.0.0/16")]}), refuses)


class TestJudged:
    def test_what_may_pass_is_left_as_it_is(self) -> None:
        judge = police()
        for topic, address in ((f"{PROD}a", HOST), ("org.fedoraproject.dev.a", OTHER)):
            checked = message(topic)
            assert judge.judged(checked, address, INBOUND) == (checked, "")
        assert judge.state() == {
            "messages": {"inbound": {"dropped": 0}, "submit": {"refused": 0}},
            "senders": [],
        }

    @pytest.mark.parametrize("side", [INBOUND, SUBMIT])
    def test_what_may_not_is_taken_out(self, side: str) -> None:
        judged, why = police().judged(message(f"{PROD}a"), OTHER, side)
        assert judged == Checked(None, NOT_ALLOWED, f"{PROD}a")
        assert why == f"relay_policy does not let {OTHER} publish '{PROD}a'"

    def test_marked_it_passes_and_is_counted(self) -> None:
        judge, checked = police(refuses=False), message(f"{PROD}a")
        judged, why = judge.judged(checked, OTHER, SUBMIT)
        assert judged is checked and why
        assert judge.state()["messages"] == {"inbound": {"marked": 0}, "submit": {"marked": 1}}

    def test_either_topic_is_reason_enough(self) -> None:
        """Listeners subscribe by the one, and show the other."""
        for topics in ((f"{PROD}a", "org.fedoraproject.dev.a"), ("", f"{PROD}a")):
            judged, why = police().judged(message(*topics), OTHER, INBOUND)
            assert judged.cause == NOT_ALLOWED
            assert why.endswith("in the body") == (topics[0] == "")
            allowed = message(*topics)
            assert police().judged(allowed, HOST, INBOUND) == (allowed, "")

    def test_what_was_dropped_already_is_not_counted_twice(self) -> None:
        judge = police()
        checked = wire.Checker(10).check([f"{PROD}a".encode(), b"{}"])
        assert checked.frames is None
        assert judge.judged(checked, OTHER, INBOUND) == (checked, "")
        assert judge.state()["senders"] == []

    @pytest.mark.parametrize("body", ["null", "5", "{}", "no json", '{"topic": 5}'])
    def test_what_is_repaired_has_the_frame_s_topic(self, body: str) -> None:
        checked = wire.Checker(1 << 20).check([f"{PROD}a".encode(), body.encode()])
        assert checked.frames is not None
        assert police().judged(checked, OTHER, INBOUND)[0].frames is None

    def test_the_address_is_shown_as_networks_are_written(self) -> None:
        _, why = police().judged(message(f"{PROD}a"), f"::ffff:{OTHER}", INBOUND)
        assert f"let {OTHER} publish" in why
        _, why = police().judged(message(f"{PROD}a"), None, INBOUND)
        assert "let an unknown address publish" in why

    @given(st.text())
    def test_a_topic_cannot_forge_what_people_see(self, text: str) -> None:
        topic = PROD + text.encode("utf-8", "ignore").decode()
        judge = police()
        _, why = judge.judged(message(topic), OTHER, INBOUND)
        assert why.isascii() and why.isprintable()
        assert len(why) < 2500


class TestLines:
    def lines(self, caplog: pytest.LogCaptureFixture) -> list[str]:
        return [record.getMessage() for record in caplog.records]

    def test_one_line_names_sender_topic_and_reason(self, caplog: pytest.LogCaptureFixture) -> None:
        judge = police()
        with caplog.at_level(logging.WARNING):
            for _ in range(100):
                judge.judged(message(f"{PROD}a\n"), OTHER, SUBMIT)
        assert self.lines(caplog) == [
            f"refused: relay_policy does not let {OTHER} publish '{PROD}a\\n', by '{PROD}*';"
            " messages of it so far: 1"
        ]
        [sender] = judge.state()["senders"]
        assert (sender["address"], sender["messages"], sender["outcome"]) == (OTHER, 100, "refused")
        assert sender["topic"] == f"{PROD}a\n"

    def test_many_addresses_are_bounded(self, caplog: pytest.LogCaptureFixture) -> None:
        judge = police(refuses=False)
        with caplog.at_level(logging.WARNING):
            for number in range(10 * NAMED):
                judge.judged(message(f"{PROD}a"), f"10.7.0.{number % 256}", INBOUND)
        lines = self.lines(caplog)
        assert len(lines) == LINES
        assert lines[-1].endswith("; of others no more is said for a minute")
        assert all(line.startswith("marked: relay_policy does not let 10.7.0.") for line in lines)
        senders = judge.state()["senders"]
        assert isinstance(senders, list) and len(senders) == NAMED
        assert judge.counts[INBOUND, "marked"] == 10 * NAMED
