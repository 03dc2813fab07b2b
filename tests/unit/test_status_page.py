"""The status page, without the server: what it shows, and that strangers' texts stay texts."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from html.parser import HTMLParser

import pytest
from fedmsg_relay.backlog import status_page
from fedmsg_relay.backlog.health import Feed
from fedmsg_relay.backlog.status_page import Passed

from tests.support.programs import ROOT

HOSTILE = [
    "<script>document.title='x'</script>",
    "</td></table><h1>healthy</h1>",
    "\"' onmouseover='x'",
    "&lt;b&gt;",
    "red \x1b[31m bell \x07 nul \x00",
    "\u202egnp.exe",
    "\ud800 alone",
    "t" * 100_000,
]


class Reader(HTMLParser):
    """What a browser would make of the page: its elements, attributes, and texts."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.addresses: list[str] = []
        self.text = ""
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.addresses += [value or "" for name, value in attrs if name in ("href", "src")]

    def handle_data(self, data: str) -> None:
        self.text += data


def feed(**state: object) -> Feed:
    found = Feed()
    counts = {"untouched": 12, "repaired": {"wrapped": 1}, "dropped": {"too large": 2}}
    known = {"started": time.time(), "counts": counts, "journal": {"state": "ok"}, "listeners": 2}
    found.take({**known, **state}, time.monotonic())
    return found


def test_a_healthy_relay_says_so_and_what_it_has_relayed() -> None:
    page = Reader(status_page.render(feed(), None, [Passed(0.0, "org.t", "ada")]))
    assert "fedmsg-relay is healthy" in page.text
    assert "What is wrong" not in page.text
    for fact in (
        "Relayed since the start13",
        "Dropped, repaired2, 1",
        "1970-01-01 00:00:00 UTCorg.tada",
    ):
        assert fact in page.text.replace("\n", "")


def test_a_problem_is_shown_with_the_section_about_it() -> None:
    state = {"journal": {"state": "failing", "error": "disk full"}}
    page = Reader(status_page.render(feed(**state), None, [], "https://example.org/sop.html"))
    assert "fedmsg-relay is not healthy" in page.text
    assert "nothing is acknowledged: disk full" in page.text
    assert "https://example.org/sop.html#disk-full-journal" in page.addresses


def test_each_section_is_one_of_the_sop(repository_incidents: set[str]) -> None:
    procedures = {path.stem for path in (ROOT / "docs/procedures").glob("*.adoc")}
    assert {name for _, name in status_page.SECTIONS} <= repository_incidents | procedures


@pytest.fixture
def repository_incidents() -> set[str]:
    return {path.stem for path in (ROOT / "docs" / "incidents").glob("*.adoc")}


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_stranger_sends_stays_a_text(text: str) -> None:
    """In a topic, a sender's name, an address, an error: no element more, no hidden character."""

    def page(what: str) -> Reader:
        slow = [{"address": what, "missed": 1, "since": 1.0}]
        state = {
            "listener_addresses": [what],
            "slow_listeners": slow,
            "journal": {"state": "failing", "error": what},
        }
        made = status_page.render(feed(**state), what, [Passed(1.0, what, what)])
        assert len(made) < 20_000
        return Reader(made)

    hostile, plain = page(text), page("plain")
    assert hostile.tags == plain.tags
    assert hostile.attributes == plain.attributes
    assert hostile.addresses == plain.addresses
    assert all(each.isprintable() or each == "\n" for each in hostile.text)


def test_lists_are_bounded_and_say_so() -> None:
    many = [f"10.0.{n // 250}.{n % 250}:1" for n in range(2000)]
    messages = [Passed(1.0, f"topic-{n}", "") for n in range(500)]
    page = Reader(status_page.render(feed(listener_addresses=many), None, messages))
    assert f"and {2000 - status_page.MOST_LISTENERS} more." in page.text
    assert page.text.count("topic-") == status_page.MOST_MESSAGES


def test_a_listener_that_lags_comes_first() -> None:
    many = [f"10.0.0.{n}:1" for n in range(200)]
    slow = [{"address": many[-1], "missed": 7, "since": 1.0, "exact": False}]
    page = Reader(status_page.render(feed(listener_addresses=many, slow_listeners=slow), None, []))
    assert f"{many[-1]}up to 7 missed since 1970-01-01 00:00:01 UTC" in page.text


def test_the_policy_allows_this_style_and_this_script_and_nothing_else() -> None:
    page = status_page.render(feed(), None, []).decode()
    policy = dict(part.strip().split(" ", 1) for part in status_page.POLICY.split(";"))
    assert policy.pop("connect-src") == "'self'"
    for tag in ("style", "script"):
        (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert policy.pop(f"{tag}-src") == f"'sha256-{digest}'"
    assert set(policy.values()) == {"'none'"}
    assert not re.search(r"https?://", page)


@pytest.mark.parametrize(
    ("body", "name"),
    [(b'{"username": "ada"}', "ada"), (b'{"username": 5}', ""), (b"[1]", ""), (b"\xff", ""),
     (b"[" * 60_000, ""), (b'{"username": "ada", "pad": "%s"}' % (b"x" * 70_000), "")],
)  # fmt: skip
def test_a_sender_is_the_name_in_a_body_that_is_not_too_large(body: bytes, name: str) -> None:
    assert status_page.sender(body) == name


@pytest.mark.parametrize(
    "state",
    [{"listener_addresses": 5, "counts": None}, {"started": 1e300, "journal": []},
     {"started": "x", "slow_listeners": {"a": 1}}, {"counts": {"dropped": [1]}}],
)  # fmt: skip
def test_a_state_of_another_shape_does_no_harm(state: dict[str, object]) -> None:
    assert b"fedmsg-relay is" in status_page.render(feed(**state), None, [])


def test_every_line_that_health_can_say_has_a_section_or_is_known_to_have_none() -> None:
    assert status_page.section("the relay has only just started") is None
    for line, name in (
        ("the relay has said nothing for 7 s: it hangs or is overloaded", "relay-hung"),
        ("dropped in the last 20 s: 1 (body not UTF-8)", "poison-message"),
        ("relay_policy does not let 10.0.0.9 publish 'a': 3 messages of it refused", "access"),
        ("a flood: 500 messages a second in the last 30 s", "flood"),
    ):
        assert status_page.section(line) == name
