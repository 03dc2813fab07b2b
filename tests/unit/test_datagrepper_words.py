"""Saved queries of datagrepper's: each of its words is followed, passed over or refused by name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fedmsg_relay.backlog import query
from fedmsg_relay.backlog.index import Index
from fedmsg_relay.journal.store import Journal, JournalReader, Row

NOW = 2_000_000_000.5


@pytest.mark.parametrize(("text", "seconds"), [
    ("1700000000", 1.7e9),
    ("1700000000.25", 1.7e9 + 0.25),
    ("2023-11-14T22:13:20Z", 1.7e9),
    ("2023-11-14T22:13:20%2B00:00", 1.7e9),
    ("2023-11-14T22:13:20+00:00", 1.7e9),  # as a + is read in a query
    ("2023-11-14T23:13:20%2B01:00", 1.7e9),
    ("2023-11-14 22:13:20", 1.7e9),
    ("2023-11-14T22:13:20.500", 1.7e9 + 0.5),
    ("2023-11-14T22:13", 1.7e9 - 20),
    ("2023-11-14", 1.7e9 - 80_000),
    ("20231114", 20231114),
])  # fmt: skip
def test_dates(text: str, seconds: float) -> None:
    assert query.parse(f"start={text}", NOW).start == seconds
    assert query.parse(f"end={text}", NOW).end == seconds


@pytest.mark.parametrize("text", ["tomorrow", "2023-13-01", "2023-11-14T99:00", "", "inf", "0001-"])
def test_what_is_no_date(text: str) -> None:
    with pytest.raises(query.BadQuery, match=r"start must be a number of seconds, not .*or a date"):
        query.parse(f"start={text}", NOW)


@pytest.mark.parametrize("word", ["is_raw", "size", "chrome", "_"])
@pytest.mark.parametrize("value", ["true", "extra-large", "", "1700000000000"])
def test_what_is_passed_over(word: str, value: str) -> None:
    assert query.parse(f"{word}={value}&page=2", NOW) == query.parse("page=2", NOW)
    assert query.parameters(f"{word}={value}&id=x", ("id",))["id"] == ["x"]


@pytest.mark.parametrize("word", ["package", "not_package", "meta", "callback"])
def test_what_is_refused(word: str) -> None:
    for text in (f"{word}=x", f"id=1&{word}=x&{word}=y"):
        with pytest.raises(query.BadQuery, match=f"no parameter '{word}' here: "):
            query.parse(text.replace("id=", "page="), NOW)
        with pytest.raises(query.BadQuery, match=f"no parameter '{word}' here: "):
            query.parameters(text, ("id",))


def test_arguments() -> None:
    """datagrepper 1.1.0's, key for key."""
    nothing: dict[str, Any] = {
        "start": None, "delta": None, "end": None, "users": [], "packages": [], "categories": [],
        "topics": [], "contains": [], "not_users": [], "not_packages": [], "not_categories": [],
        "not_topics": [], "page": 1, "rows_per_page": 25, "order": "desc", "meta": [],
    }  # fmt: skip
    assert query.parse("", NOW).arguments == nothing
    some = query.parse(
        "user=a&user=b&category=git&topic=t&contains=x&not_user=c&not_category=d&not_topic=e"
        "&page=3&rows_per_page=7&order=asc", NOW
    ).arguments  # fmt: skip
    assert some == {
        **nothing, "users": ["a", "b"], "categories": ["git"], "topics": ["t"], "contains": ["x"],
        "not_users": ["c"], "not_categories": ["d"], "not_topics": ["e"], "page": 3,
        "rows_per_page": 7, "order": "asc",
    }  # fmt: skip


@pytest.mark.parametrize(("text", "times"), [
    ("delta=100", (NOW - 100, 100.0, NOW)),
    ("start=500", (500.0, NOW - 500, NOW)),
    ("end=500", (0.0, None, 500.0)),
    ("end=500&delta=100", (400.0, 100.0, 500.0)),
    ("start=500&delta=100", (500.0, 100.0, 600.0)),
    ("start=500&end=700", (500.0, 200.0, 700.0)),
])  # fmt: skip
def test_times_that_are_filled_in(text: str, times: tuple[float | None, ...]) -> None:
    told = query.parse(text, NOW).arguments
    assert (told["start"], told["delta"], told["end"]) == times


MESSAGES = [
    ("org.x.prod.git.push", "ralph", {"text": "50% of pie"}),
    ("org.x.prod.git.pull", "toshio", {"text": "a_b zo\u00eb", "list": [1, 2]}),
    ("org.x.prod.koji.build", "ralph", {"text": "pie\nline"}),
    ("org.x.prod.koji.tag", "kevin", {"text": "none"}),
    ("odd", "ralph", {}),
]


@pytest.fixture(params=[True, False], ids=["index", "no index"])
def asked(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    journal = Journal(str(tmp_path / "journal.db"), 1e10, 1 << 30)
    journal.append([
        Row(1000.0 + n, topic, f"id-{n}",
            json.dumps({"username": user, "msg": msg, "other": "pie a_b"}).encode())
        for n, (topic, user, msg) in enumerate(MESSAGES)
    ])  # fmt: skip
    index = Index(journal.path)
    if request.param:
        index.start()
    pages = query.Pages(index if request.param else None)

    def find(text: str) -> list[int]:
        with closing(JournalReader(journal.path)) as reader:
            page = pages.find(reader, query.parse(f"{text}&order=asc", NOW))
            assert page.total == len(page.seqs)
            return list(page.seqs)

    yield find
    index.stop()
    journal.close()


@pytest.mark.parametrize(("text", "seqs"), [
    ("category=git", [1, 2]),
    ("category=git&category=koji&not_user=ralph", [2, 4]),
    ("not_category=git", [3, 4, 5]),
    ("not_category=git&not_category=Unclassified", [3, 4]),
    ("category=Unclassified", [5]),
    ("not_topic=org.x.prod.git.push&not_topic=odd", [2, 3, 4]),
    ("not_user=ralph&not_user=kevin", [2]),
    ("user=ralph&not_topic=odd&category=koji", [3]),
    ("user=ralph&not_user=ralph", []),
])  # fmt: skip
def test_what_is_found(asked: Any, text: str, seqs: list[int]) -> None:
    assert asked(text) == seqs


@pytest.mark.parametrize(("text", "seqs"), [
    ("contains=pie", [1, 3]),
    ("contains=PIE", []),
    ("contains=pie&contains=none", [1, 3, 4]),
    ("contains=50%25%25pie", [1]),
    ("contains=pie%2550", []),
    ("contains=a_b", [2]),
    ("contains=zo%5Cu00eb", []),  # LIKE takes the backslash for an escape
    ("contains=zo%5C%5Cu00eb", [2]),
    ("contains=50%5C%25%20of", [1]),
    ("contains=%22list%22: [1, 2]", [2]),
    ("contains=pie%5C%5Cnline", [3]),
    ("contains=", [1, 2, 3, 4]),
    ("contains=p_e&user=ralph", [1, 3]),
])  # fmt: skip
def test_contains(asked: Any, text: str, seqs: list[int]) -> None:
    assert asked(f"{text}&category=git&category=koji") == seqs


def test_contains_alone_is_refused() -> None:
    for text in ("contains=x", "contains=x&user=y&start=1", "contains=x&not_topic=y"):
        with pytest.raises(query.BadQuery, match="contains needs a topic or a category"):
            query.parse(text, NOW)
    with pytest.raises(query.BadQuery, match="at most 200 characters"):
        query.parse("topic=a&contains=" + "x" * 201, NOW)
