"""The index of the backlog: what it finds is what a look at every message finds, whatever happened
to the journal and to its own file, and it reads no message for it."""

from __future__ import annotations

import json
import random
import sqlite3
from array import array
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from fedmsg_relay.backlog import index as index_module
from fedmsg_relay.backlog import postings, query, words
from fedmsg_relay.backlog.index import Index, NoIndex
from fedmsg_relay.journal.store import Journal, JournalReader, Row

from tests.support.waiting import patient, wait_for

NOW = 10_000.5
TOPICS = [f"org.x.prod.{category}.{name}" for category in ("git", "koji") for name in "abc"]
USERS = ["ralph", "zoë", 'a "quoted" one', "", "x" * 300, "\ud800"]


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "PLACES", 64)
    monkeypatch.setattr(index_module, "STRETCH", 10)
    monkeypatch.setattr(index_module, "LOOK", 0.01)
    monkeypatch.setattr(index_module, "SHARE", 1.0)
    monkeypatch.setattr(index_module, "LONGEST_WAIT", patient(30))


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(str(tmp_path / "journal.db"), 1e9, 1 << 30)
    yield made
    made.close()


def body(number: int, topic: str, user: str, **more: Any) -> bytes:
    place: dict[int, dict[str, Any]] = {
        0: {"username": user},
        1: {"msg": {"agent": {"name": user}}},
        2: {"msg": {"commit": {"owner": user}}},
        3: {"msg": {"text": user}},
    }
    return json.dumps({"topic": topic, "i": number, **place[number % 4], **more}).encode()


def fill(journal: Journal, number: int, seed: int = 0, **more: Any) -> None:
    chosen = random.Random(seed)
    rows = []
    for count in range(journal.last_seq + 1, journal.last_seq + number + 1):
        topic, user = chosen.choice(TOPICS), chosen.choice(USERS)
        text = body(count, topic, user, **more)
        rows.append(Row(1000.0 + count, topic, f"{seed}-{count}", text))
    journal.append(rows)


@contextmanager
def made(journal: Journal) -> Iterator[Index]:
    index = Index(journal.path)
    index.start()
    try:
        yield index
    finally:
        index.stop()


def found(journal: Journal, index: Index | None, **asked: Any) -> tuple[int, list[int]]:
    """The number of pages of one row, and all seqs."""
    with closing(JournalReader(journal.path)) as reader:
        pages = query.Pages(index)
        seqs: list[int] = []
        page = 0
        while True:
            page += 1
            times: dict[str, Any] = {key: asked.get(key) for key in ("start", "end")}
            wanted: dict[str, Any] = {key: asked[key] for key in asked if key not in times}
            contains = wanted.pop("contains", ())
            some = pages.find(reader, query.Query(
                **times, words=words.Words(**wanted), rows_per_page=100, page=page,
                descending=False, contains=contains))  # fmt: skip
            seqs += some.seqs
            if page >= some.pages:
                assert some.total == len(seqs)
                return some.pages, seqs


ASKED: list[dict[str, Any]] = [
    {"topics": (TOPICS[0],)},
    {"topics": (TOPICS[0], TOPICS[4], "never")},
    {"users": ("ralph",)},
    {"users": tuple(USERS)},
    *({"users": (user,)} for user in USERS[1:]),
    {"users": ("ralph", "zoë"), "topics": tuple(TOPICS[1:4])},
    {"users": ("ralph",), "start": 1100.0, "end": 1333.0},
    {"topics": (TOPICS[2],), "start": 1190.0},
    {"topics": ("never",)},
    {"categories": ("koji",)},
    {"categories": ("koji", "git"), "not_topics": (TOPICS[0],), "users": ("zoë",)},
    {"not_users": ("ralph", "")},
    {"not_categories": ("git",), "start": 1050.0},
    {"not_topics": tuple(TOPICS), "not_users": ("ralph",)},
    {"categories": ("git",), "contains": ("alp",)},
    {"categories": ("git",), "contains": ('"text": "zo', "a%_quoted", "\\u00eb")},
]


def agree(journal: Journal, index: Index) -> None:
    for asked in ASKED:
        assert found(journal, index, **asked) == found(journal, None, **asked), asked


def test_it_finds_what_a_look_at_every_message_finds(journal: Journal) -> None:
    fill(journal, 150)
    with made(journal) as index:
        agree(journal, index)
        fill(journal, 250, seed=1)
        agree(journal, index)
        journal.trim(1e9 + 1000 + 200)
        agree(journal, index)
        fill(journal, 70, seed=2)
        agree(journal, index)


def test_a_common_user_without_a_time_reads_no_message(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(journal, 300, username="apache")
    with made(journal) as index:
        # Neither is there a time that it may take.
        monkeypatch.setattr(query, "LONGEST_SEARCH", -1.0)
        monkeypatch.delattr(JournalReader, "search")
        assert found(journal, index, users=("apache",))[1] == list(range(1, 301))


def test_the_order_and_the_pages(journal: Journal) -> None:
    fill(journal, 300, username="apache")
    with made(journal) as index, closing(JournalReader(journal.path)) as reader:
        for text, pages, seqs in (
            ("user=apache&rows_per_page=3", 100, [300, 299, 298]),
            ("user=apache&rows_per_page=7&page=43", 43, [6, 5, 4, 3, 2, 1]),
            ("user=apache&rows_per_page=70&page=2&order=asc", 5, list(range(71, 141))),
            ("user=apache&page=13", 12, []),
            ("user=nobody", 0, []),
        ):
            page = query.Pages(index).find(reader, query.parse(text, NOW))
            assert (page.pages, list(page.seqs)) == (pages, seqs)


def test_what_was_made_is_there_after_a_restart(journal: Journal) -> None:
    fill(journal, 300)
    with made(journal) as index:
        agree(journal, index)
        before = segments(index)
    with made(journal) as index:
        agree(journal, index)
        assert segments(index)[: len(before)] == before and len(before) >= 4


def segments(index: Index) -> list[Any]:
    with closing(sqlite3.connect(index.path)) as file:
        return file.execute("SELECT * FROM segment ORDER BY first DESC").fetchall()


def test_another_journal_in_the_place_of_the_first(journal: Journal, tmp_path: Path) -> None:
    """Whether the index was open meanwhile, or not."""
    fill(journal, 200)
    with made(journal) as index:
        agree(journal, index)
        other = Journal(str(tmp_path / "other.db"), 1e9, 1 << 30)
        fill(other, 260, seed=7)
        other.close()
        Path(other.path).replace(journal.path)
        for suffix in ("-wal", "-shm"):
            Path(journal.path + suffix).unlink(missing_ok=True)
        agree(journal, index)
    last = Journal(str(tmp_path / "last.db"), 1e9, 1 << 30)
    fill(last, 230, seed=8)
    last.close()
    Path(last.path).replace(journal.path)
    with made(journal) as index:
        agree(journal, index)


def test_messages_put_back_behind_a_damage(journal: Journal, tmp_path: Path) -> None:
    fill(journal, 200)
    with closing(JournalReader(journal.path)) as reader:
        rows = [(*reader.get(seq), 1) for seq in range(1, 201) if seq != 77]  # type: ignore[misc]
    new = Journal(str(tmp_path / "new.db"), 1e9, 1 << 30, after=200)
    fill(new, 20, seed=3)
    with made(new) as index:
        agree(new, index)
        for some in (rows[150:], rows[100:150], rows[:100]):
            new.put_back(some)
            agree(new, index)
    new.close()


@pytest.mark.parametrize("harm", [
    lambda path: path.write_bytes(b"no database at all" * 500),
    lambda path: path.write_bytes(path.read_bytes()[:5000]),
    lambda path: sqlite3.connect(path).executescript(
        "PRAGMA user_version = 99; DROP TABLE posting"),
    lambda path: sqlite3.connect(path).executescript("UPDATE posting SET places = x'01'"),
])  # fmt: skip
def test_a_file_that_is_damaged_is_made_anew(journal: Journal, harm: Any) -> None:
    fill(journal, 200)
    with made(journal) as index:
        agree(journal, index)
    wait_for(lambda: index._db is None, what="the end of the thread")
    for suffix in ("-wal", "-shm"):
        assert not Path(index.path + suffix).exists()
    harm(Path(index.path))
    with made(journal) as index:
        agree(journal, index)

        def is_well() -> bool:
            with closing(JournalReader(journal.path)) as reader:
                index.wait_for(reader, 1, 200)
            try:
                index.find(
                    1, 200, words.Words(users=("ralph",), not_topics=("x",)), lambda *_: False
                )
            except NoIndex:
                return False
            return True

        wait_for(is_well, what="another index")


def test_without_an_index_there_is_an_answer(journal: Journal, tmp_path: Path) -> None:
    """Where it cannot be written: here its place is taken."""
    fill(journal, 100)
    Path(f"{journal.path}-index").mkdir()
    with made(journal) as index:
        agree(journal, index)


def test_a_message_too_large_to_be_read_beforehand(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(words, "LARGEST", 80)
    fill(journal, 200)
    with made(journal) as index:
        agree(journal, index)


def test_a_segment_ends_early_where_there_is_much(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "SEGMENT_BYTES", 3000)
    monkeypatch.setattr(index_module, "STRETCH_BYTES", 300)
    fill(journal, 150)
    with made(journal) as index:
        agree(journal, index)
        fill(journal, 100, seed=1)
        agree(journal, index)
        assert len(segments(index)) > 6


@pytest.mark.parametrize("number", [0, 1, 2, 63, 64, 65, 500, 512, 9000, postings.PLACES])
def test_sets_come_back_as_they_were(number: int) -> None:
    places = random.Random(number).sample(range(postings.PLACES), number)
    bits = postings.decode(number, postings.encode(array("H", sorted(places))))
    assert postings.count(bits) == number
    assert postings.places_of(bits) == sorted(places)


@pytest.mark.parametrize(("topic", "category"), [
    ("org.fedoraproject.prod.git.receive", "git"),
    ("org.fedoraproject.prod", "Unclassified"),
    ("VirtualTopic.eng.brew.task", "brew"),
    ("/topic/VirtualTopic.eng.brew", "brew"),
    ("", "Unclassified"),
])  # fmt: skip
def test_categories_are_datanommers(topic: str, category: str) -> None:
    assert words.category_of(topic) == category
