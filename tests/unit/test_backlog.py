"""What the backlog is asked and answers, what health says, and the metrics, without the server."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fedmsg_relay.backlog import client, health, metrics, query, words
from fedmsg_relay.backlog.health import Feed
from fedmsg_relay.journal import store as journal_module
from fedmsg_relay.journal.store import Journal, JournalReader, Row
from prometheus_client.parser import text_string_to_metric_families

NOW = 10_000.5


def state(**parts: Any) -> dict[str, Any]:
    """What a relay that is well says of itself."""
    return {
        "now": NOW,
        "pid": 1,
        "version": "1.2.3",
        "started": NOW - 100,
        "counts": {"untouched": 5, "repaired": {"wrapped": 2}, "dropped": {"too large": 3}},
        "submit": {"accepted": 4, "duplicate": 1, "refused": {"journal": 6}, "pending": 7},
        "journal": {
            "state": "ok",
            "error": None,
            "since": None,
            "last_seq": 41,
            "written": 40,
            "unjournaled": 0,
            "waiting": 8,
            "waiting_bytes": 900,
        },
        "listeners": 2,
        "held": 0,
        "missed": 9,
        "slow_listeners": [],
        **parts,
    }


def fed(*states: Any) -> Feed:
    feed = Feed()
    lines = b"".join(json.dumps(each).encode() + b"\n" for each in states)
    feed.follow(io.BytesIO(lines))
    return feed


class TestParse:
    def test_what_a_hub_asks(self) -> None:
        text = "rows_per_page=100&page=3&start=9000&end=10000&order=asc"
        asked = query.parse(text, NOW)
        assert (asked.start, asked.end) == (9000, None)
        assert (asked.rows_per_page, asked.page, asked.descending) == (100, 3, False)

    def test_datagreppers_defaults(self) -> None:
        asked = query.parse("", NOW)
        assert (asked.start, asked.end, asked.words) == (None, None, words.Words())
        assert (asked.rows_per_page, asked.page, asked.descending) == (25, 1, True)

    @pytest.mark.parametrize(
        ("text", "start", "end"),
        [
            ("start=5.25", 5.25, None),
            ("end=7.5", None, 7.5),
            ("start=5&end=7", 5, 7),
            ("delta=500", NOW - 500, None),
            ("delta=500&end=9000", 8500, 9000),
            ("delta=500&start=9000", 9000, 9500),
            # Now or later is no bound, and whole seconds are a clock that was read a moment ago.
            ("end=10000.6", None, None),
            ("end=99999", None, None),
            ("end=9991", None, None),
            ("end=9990", None, 9990),
            ("end=10000.4", None, 10000.4),
        ],
    )
    def test_times(self, text: str, start: float | None, end: float | None) -> None:
        asked = query.parse(text, NOW)
        assert (asked.start, asked.end) == (start, end)

    def test_topics_and_users(self) -> None:
        asked = query.parse("topic=a.b&topic=c&user=%C3%A4", NOW)
        assert (asked.words.topics, asked.words.users) == (("a.b", "c"), ("ä",))

    @pytest.mark.parametrize(
        ("text", "error"),
        [
            ("start=yesterday", "start must be a number of seconds, not 'yesterday'"),
            ("end=nan", "end must be a number of seconds, not 'nan'"),
            ("end=", "end must be a number of seconds, not ''"),
            ("delta=-1", "delta must not be negative"),
            ("delta=1&start=2&end=3", "only two of start, end and delta can be given"),
            ("start=1e308&delta=1.7e308", "start, end and delta are too large together"),
            ("end=-1e308&delta=1.7e308", "start, end and delta are too large together"),
            ("start=-1e308&end=1e308", "start, end and delta are too large together"),
            ("rows_per_page=101", "rows_per_page must be from 1 to 100, not 101"),
            ("rows_per_page=0", "rows_per_page must be from 1 to 100, not 0"),
            ("page=0", "page must be from 1"),
            ("page=1.5", "page must be a whole number, not '1.5'"),
            ("page=" + "9" * 10_000, "page must be from 1"),
            ("order=up", "order must be asc or desc, not 'up'"),
            ("start=1&start=2", "start is given 2 times, at most 1 can be"),
            ("&".join(["topic=a"] * 51), "topic is given 51 times"),
            ("colour=red", "no parameter 'colour', there are start, end, delta"),
            ("a=%ff", "the query cannot be read"),
            ("&" * 1000, "the query cannot be read"),
        ],
    )
    def test_one_line_about_what_is_wrong(self, text: str, error: str) -> None:
        with pytest.raises(query.BadQuery, match=re.escape(error)) as raised:
            query.parse(text, NOW)
        assert "\n" not in str(raised.value) and len(str(raised.value)) < 200


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """Messages 1 to 250, received a second apart from 1001 on, every tenth of them by ralph."""
    made = Journal(str(tmp_path / "journal.db"), 1e6, 1 << 30)
    for number in range(1, 251):
        user = "ralph" if number % 10 == 0 else "other"
        body = {"topic": f"t.{number % 2}", "n": number, "username": user, "msg": {"x": "ralph"}}
        row = Row(1000.0 + number, f"t.{number % 2}", f"id-{number}", json.dumps(body).encode())
        made.append([row])
    yield made
    made.close()


@pytest.fixture
def reader(journal: Journal) -> Iterator[JournalReader]:
    made = JournalReader(journal.path)
    yield made
    made.close()


class TestPages:
    def found(self, reader: JournalReader, text: str) -> tuple[int, list[int]]:
        page = query.Pages().find(reader, query.parse(text, NOW))
        return page.pages, list(page.seqs)

    @pytest.mark.parametrize(
        ("text", "pages", "seqs"),
        [
            ("rows_per_page=100&page=1&order=asc", 3, range(1, 101)),
            ("rows_per_page=100&page=3&order=asc", 3, range(201, 251)),
            ("rows_per_page=100&page=4&order=asc", 3, []),
            ("rows_per_page=100&page=3", 3, range(50, 0, -1)),
            ("", 10, range(250, 225, -1)),
            ("start=1003&end=1005&order=asc", 1, [3, 4, 5]),
            ("start=1002.5&end=1005.5&order=asc", 1, [3, 4, 5]),
            ("start=1250.1", 0, []),
            ("end=1000", 0, []),
            ("topic=t.0&rows_per_page=2&order=asc&page=2", 63, [6, 8]),
            ("topic=t.0&topic=t.1&rows_per_page=2&order=asc", 125, [1, 2]),
            ("topic=t", 0, []),
            ("user=ralph&start=1015&order=asc&rows_per_page=3", 8, [20, 30, 40]),
            ("user=ralph&user=other&order=asc&rows_per_page=2", 125, [1, 2]),
            ("user=ralph&topic=t.1", 0, []),
        ],
    )
    def test_which_messages(
        self, reader: JournalReader, text: str, pages: int, seqs: list[int]
    ) -> None:
        assert self.found(reader, text) == (pages, list(seqs))

    def test_a_publisher_whose_clock_is_ahead(
        self, journal: Journal, reader: JournalReader
    ) -> None:
        """A hub asks from the timestamp of the message it had last, and that is yet to come."""
        for number, timestamp in ((251, 2000), (252, 1290), (253, 1290), (254, 1290.5)):
            body = json.dumps({"timestamp": timestamp}).encode()
            journal.append([Row(1000.0 + number, "t", f"id-{number}", body)])
        assert self.found(reader, "start=1290&order=asc") == (1, [252, 253, 254])
        assert self.found(reader, "start=1291&order=asc") == (0, [])
        assert self.found(reader, "start=2000&order=asc") == (0, [])  # more than a minute

    def test_a_walk_loses_nothing_to_trimming(
        self, journal: Journal, reader: JournalReader
    ) -> None:
        """What is deleted meanwhile is missing, and nothing else."""
        seen: list[int] = []
        pages = query.Pages()
        for page in range(1, 4):
            asked = f"rows_per_page=100&order=asc&start=0&page={page}"
            seen += pages.find(reader, query.parse(asked, NOW)).seqs
            journal.trim(1e6 + 1000 + 30 * page)
        assert set(range(30 * 3, 251)) <= set(seen)

    def test_a_search_that_takes_too_long_ends(
        self, reader: JournalReader, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(query, "LONGEST_SEARCH", -1.0)
        with pytest.raises(query.TooLong):
            self.found(reader, "user=ralph")

    def test_time_set_back_hides_nothing(self, journal: Journal, reader: JournalReader) -> None:
        journal.append([Row(500.0, "t", "late", b"{}")])
        assert self.found(reader, "start=1250&order=asc") == (1, [250, 251])


class TestFindId:
    def test_wherever_it_is(
        self, journal: Journal, reader: JournalReader, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(query, "STRETCH_OF_IDS", 7)
        monkeypatch.setattr(journal_module, "KNOWN_GROUP", 0)
        for number in range(251, 271):
            journal.append([Row(1000.0 + number, "t", f"id-{number}", b"{}")])
        journal.append([Row(2000.0, "t", "submitted", b"{}", True)])
        for seq in (1, 250, 251, 257, 258, 264, 270):
            assert query.find_id(reader, f"id-{seq}") == seq
        assert query.find_id(reader, "submitted") == 271
        assert query.find_id(reader, "never") is None
        assert query.find_id(reader, "\ud800") is None

    def test_takes_too_long(self, reader: JournalReader, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(query, "STRETCH_OF_IDS", 7)
        monkeypatch.setattr(query, "LONGEST_SEARCH", 0)
        with pytest.raises(query.TooLong):
            query.find_id(reader, "never")


class TestUsersOf:
    @pytest.mark.parametrize(
        ("body", "users"),
        [
            ({"username": "a"}, ["a"]),
            ({"msg": {"agent": "a", "user": {"name": "b"}, "owner": {"username": "c"}}}, "abc"),
            ({"msg": {"commit": {"username": "a"}}}, ["a"]),
            ({"username": 1, "msg": [{"user": "a"}], "user": None}, []),
            ({"msg": {"author": "a", "user": {"email": "b"}}}, []),
            ([], []),
        ],
    )
    def test_where_they_are(self, body: Any, users: list[str]) -> None:
        assert sorted(words.users_of(body)) == list(users)


class TestHealth:
    def test_all_is_well(self) -> None:
        report = health.report(fed(state()), None)
        assert report["healthy"] and report["problems"] == report["warnings"] == []
        assert report["relay"]["version"] == "1.2.3"

    @pytest.mark.parametrize(
        ("said", "backlog_error", "problem"),
        [
            ([], None, "the relay has only just started"),
            (
                [state(journal={"state": "failing", "error": "disk full", "since": NOW - 42})],
                "unreadable",
                "the journal fails, nothing is acknowledged: disk full (for 42 s)",
            ),
            ([state(journal={"state": "opening"})], None, "the journal is still not open"),
            ([state()], "malformed", "the backlog cannot be read: malformed"),
            (
                [state(log={"error": "No space left on device", "since": NOW - 42})],
                None,
                "the log cannot be written: No space left on device (for 42 s)",
            ),
        ],
    )
    def test_problems(self, said: list[Any], backlog_error: str | None, problem: str) -> None:
        report = health.report(fed(*said), backlog_error)
        assert not report["healthy"]
        [found] = report["problems"]
        assert found.startswith(problem)

    def test_a_silent_relay_hangs(self) -> None:
        feed = fed(state())
        feed._heard = time.monotonic() - 6
        [found] = health.problems(feed, None)
        assert found == "the relay has said nothing for 6 s: it hangs or is overloaded"

    @pytest.mark.parametrize(
        "said",
        [
            state(journal={"state": "none"}),
            state(journal={"state": "opening"}, started=NOW - 1),
            state(slow_listeners=[{"address": "10.0.0.3:1", "missed": 5, "exact": True}]),
        ],
    )
    def test_no_problems(self, said: Any) -> None:
        assert health.problems(fed(said), None) == []

    def test_warnings(self) -> None:
        slow = [{"address": "10.0.0.3:1", "missed": 5, "exact": exact} for exact in (True, False)]
        said = state(journal={"state": "ok", "unjournaled": 9}, slow_listeners=slow)
        assert health.warnings(fed(said)) == [
            "9 messages since the start are missing from the backlog",
            "listener 10.0.0.3:1 was too slow and missed 5 messages",
            "listener 10.0.0.3:1 was too slow and missed up to 5 messages",
        ]

    @pytest.mark.parametrize(
        ("seconds", "messages", "found"),
        [
            (10, 1_000, []),
            (10, 5_000, ["a flood: 500 messages a second in the last 10 s"]),
            (60, 30_000, ["a flood: 500 messages a second in the last 30 s"]),
            (4, 5_000, []),  # too soon to tell
        ],
    )
    def test_flood(self, seconds: int, messages: int, found: list[str]) -> None:
        feed = Feed()
        for second in range(seconds + 1):
            counts = {"untouched": 7 + messages * second // seconds}
            feed.take(state(counts=counts), float(second))
        assert health.warnings(feed) == found
        for second in range(seconds, seconds + 41):  # it is over
            feed.take(state(counts=counts), float(second))
        assert health.warnings(feed) == []

    def test_garbage_is_told_of_while_it_comes(self) -> None:
        feed = Feed()
        counts = {"repaired": {"wrapped": 2}, "dropped": {"too large": 3}}
        feed.take(state(counts=counts), 0.0)
        assert health.warnings(feed) == []
        counts = {"repaired": {"wrapped": 4}, "dropped": {"too large": 3, "body not UTF-8": 1}}
        feed.take(state(counts=counts), 20.0)
        assert health.warnings(feed) == [
            "dropped in the last 20 s: 1 (body not UTF-8)",
            "repaired in the last 20 s: 2 (wrapped)",
        ]
        for second in range(21, 60):
            feed.take(state(counts=counts), float(second))
        assert health.warnings(feed) == []

    @pytest.mark.parametrize(
        "noise",
        [b"", b"\n", b"nonsense\n", b"[1]\n", b"[" * 100_000 + b"\n", b'{"a": 1', b"\xff\n",
         b'{"counts": 5, "submit": null, "journal": [], "slow_listeners": {"a": 1}}\n'],
    )  # fmt: skip
    def test_what_cannot_be_read_does_no_harm(self, noise: bytes) -> None:
        feed = Feed()
        feed.follow(io.BytesIO(noise))
        health.report(feed, None)
        metrics.text(feed, None, True)


class TestMetrics:
    def samples(self, feed: Feed, journal: health.JournalFile | None = None) -> dict[str, float]:
        """As Prometheus reads them: `name{label="value",...}` to the value."""
        text = metrics.text(feed, journal, True).decode()
        found = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = ",".join(f"{key}={sample.labels[key]}" for key in sorted(sample.labels))
                found[f"{sample.name}{{{labels}}}"] = sample.value
        return found

    def test_everything_the_relay_counts(self) -> None:
        peer = {"address": "10.0.0.9", "connections": 3, "last": NOW}
        feed = fed(
            state(
                refused={"sides": {"inbound": 3}, "peers": [peer]},
                senders={"memory": 1 << 26, "alarms": 2, "cut": {"too many frames": 3}},
                desk={"messages": 4, "bytes": 5000},
                policy={"messages": {"inbound": {"dropped": 11}, "submit": {"refused": 12}}},
                listener_protocols={"zmtp3": 2, "older": 1},
                listener_connections=12,
                listener_changes_not_logged=5,
                connections={"sides": {"inbound": 6, "submit": 7}, "hosts": []},
                listeners_cut_off={"too slow": 3, "vanished": 1},
            )
        )
        feed.refusals.enter("http", "10.0.0.9")
        found = self.samples(feed, health.JournalFile(4096, 77.5))
        assert found.pop("fedmsg_relay_state_age_seconds{}") < 5
        assert found == {
            "fedmsg_relay_healthy{}": 1,
            "fedmsg_relay_build_info{version=1.2.3}": 1,
            "fedmsg_relay_start_time_seconds{}": NOW - 100,
            "fedmsg_relay_messages_total{cause=,outcome=untouched}": 5,
            "fedmsg_relay_messages_total{cause=wrapped,outcome=repaired}": 2,
            "fedmsg_relay_messages_total{cause=too large,outcome=dropped}": 3,
            "fedmsg_relay_messages_noted_total{cause=NaN or Infinity}": 0,
            "fedmsg_relay_memory_bytes{}": 1 << 26,
            "fedmsg_relay_memory_alarms_total{}": 2,
            "fedmsg_relay_connections_cut_total{cause=too many frames}": 3,
            "fedmsg_relay_checking_messages{}": 4,
            "fedmsg_relay_checking_bytes{}": 5000,
            "fedmsg_relay_submits_total{cause=,result=accepted}": 4,
            "fedmsg_relay_submits_total{cause=,result=duplicate}": 1,
            "fedmsg_relay_submits_total{cause=journal,result=refused}": 6,
            "fedmsg_relay_submits_pending{}": 7,
            "fedmsg_relay_policy_messages_total{outcome=dropped,side=inbound}": 11,
            "fedmsg_relay_policy_messages_total{outcome=refused,side=submit}": 12,
            "fedmsg_relay_log_failing{}": 0,
            "fedmsg_relay_journal_state{state=ok}": 1,
            "fedmsg_relay_journal_state{state=failing}": 0,
            "fedmsg_relay_journal_state{state=opening}": 0,
            "fedmsg_relay_journal_state{state=none}": 0,
            "fedmsg_relay_journal_written_total{}": 40,
            "fedmsg_relay_journal_missing_total{}": 0,
            "fedmsg_relay_journal_trimmed_early_total{}": 0,
            "fedmsg_relay_journal_last_seq{}": 41,
            "fedmsg_relay_journal_waiting_messages{}": 8,
            "fedmsg_relay_journal_waiting_bytes{}": 900,
            "fedmsg_relay_journal_file_bytes{}": 4096,
            "fedmsg_relay_journal_oldest_timestamp_seconds{}": 77.5,
            "fedmsg_relay_listeners{}": 2,
            "fedmsg_relay_refused_connections_total{side=inbound}": 3,
            "fedmsg_relay_refused_connections_total{side=submit}": 0,
            "fedmsg_relay_refused_connections_total{side=outbound}": 0,
            "fedmsg_relay_refused_connections_total{side=http}": 1,
            "fedmsg_relay_refused_peer_connections{address=10.0.0.9}": 4,
            "fedmsg_relay_held_messages{}": 0,
            "fedmsg_relay_listener_protocols{protocol=zmtp3}": 2,
            "fedmsg_relay_listener_protocols{protocol=older}": 1,
            "fedmsg_relay_listener_connections_total{}": 12,
            "fedmsg_relay_listener_changes_not_logged_total{}": 5,
            "fedmsg_relay_publisher_connections_total{side=inbound}": 6,
            "fedmsg_relay_publisher_connections_total{side=submit}": 7,
            "fedmsg_relay_listeners_cut_off_total{cause=too slow}": 3,
            "fedmsg_relay_listeners_cut_off_total{cause=sent too much}": 0,
            "fedmsg_relay_listeners_cut_off_total{cause=vanished}": 1,
            "fedmsg_relay_listener_missed_messages_total{}": 9,
            "fedmsg_relay_slow_listeners{}": 0,
        }

    def test_slow_listeners_are_named_and_bounded_in_number(self) -> None:
        slow = [
            {"address": f"10.0.0.3:{n}", "since": 5.0, "cut": 6.0, "missed": n, "exact": n > 149}
            for n in range(1, 151)
        ]
        found = self.samples(fed(state(slow_listeners=slow)))
        missed = {k: v for k, v in found.items() if "_missed_messages{" in k}
        assert len(missed) == metrics.MOST_LISTENERS + 1
        name = "fedmsg_relay_slow_listener_missed_messages"
        assert missed[f"{name}{{address=10.0.0.3:150,exact=true}}"] == 150
        assert missed[f"{name}{{address=others,exact=false}}"] == sum(range(1, 51))
        assert sum(missed.values()) == sum(range(1, 151))
        assert found["fedmsg_relay_slow_listener_since_seconds{address=10.0.0.3:150}"] == 5
        assert found["fedmsg_relay_slow_listeners{}"] == 150


class TestReplay:
    @pytest.mark.parametrize(
        ("text", "length"),
        [("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400), ("2d", 172800), ("0", 0)],
    )
    def test_seconds(self, text: str, length: float) -> None:
        assert client.seconds(text) == length

    @pytest.mark.parametrize("text", ["", "m", "10 minutes", "-5m", "nan", "infd", "1w"])
    def test_no_seconds(self, text: str) -> None:
        with pytest.raises(ValueError):
            client.seconds(text)

    @pytest.mark.parametrize(
        ("address", "url"),
        [
            ("127.0.0.1:4002", "http://127.0.0.1:4002"),
            ("http://busgateway01:80", "http://busgateway01:80"),
            ("*:4002", "http://127.0.0.1:4002"),
            ("0.0.0.0:4002", "http://127.0.0.1:4002"),
            ("[::]:4002", "http://[::1]:4002"),
            ("http://[2001:db8::1]:4002", "http://[2001:db8::1]:4002"),
        ],
    )
    def test_url_of(self, address: str, url: str) -> None:
        assert client.url_of(address) == url
