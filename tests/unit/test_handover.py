"""The backlog that is handed over: the union of both, in order, within the limits, never twice."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
from pathlib import Path

import pytest
from fedmsg_relay.journal import handover
from fedmsg_relay.journal.handover import HandedOver, export
from fedmsg_relay.journal.store import Journal, JournalError, JournalReader, Row, Stored
from hypothesis import given, settings
from hypothesis import strategies as st

AGE = 1000.0
BYTES = 50 << 20


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "LOOK", 0.0)


class Relays:
    """The journals of two relays, `old` and `new`, each in a directory of its own."""

    def __init__(self, directory: Path, max_bytes: int = BYTES) -> None:
        self.paths = {}
        self.journals = {}
        for name in ("old", "new"):
            (directory / name / handover.DIRECTORY).mkdir(parents=True)
            self.paths[name] = str(directory / name / "journal.db")
            self.journals[name] = Journal(self.paths[name], AGE, max_bytes)
        self.file = str(directory / "new" / handover.DIRECTORY / "old.db")
        self.taker = HandedOver(self.paths["new"], AGE)

    def export(self, after: int = 0, copy: bool = False) -> int:
        return export(self.paths["old"], self.file, "old", after, copy=copy)

    def take(self) -> int:
        """Take all in. How many times that took."""
        times = 0
        while self.taker.take_some(self.journals["new"]):
            times += 1
        return times

    def rows(self, name: str = "new") -> list[Stored]:
        return rows_of(self.paths[name])

    def taken(self) -> str | None:
        return self.journals["new"].recall(f"{handover.TAKEN}old")

    def close(self) -> None:
        for journal in self.journals.values():
            journal.close()


def rows_of(path: str) -> list[Stored]:
    reader = JournalReader(path)
    try:
        return reader.after(0, 100_000, 1 << 40)
    finally:
        reader.close()


@pytest.fixture
def relays(tmp_path: Path) -> Relays:
    return Relays(tmp_path)


def numbered(*numbers: int, at: float, step: float = 0.01) -> list[Row]:
    return [Row(at + step * n, "t", f"id-{n}", b"%d" % n) for n in numbers]


rows_at = st.lists(st.tuples(st.integers(0, 60), st.floats(0, 100)), max_size=150)


@settings(deadline=None, max_examples=60)
@given(rows_at, rows_at, rows_at, st.integers(0, 3), st.booleans())
def test_union(
    old: list[tuple[int, float]],
    new: list[tuple[int, float]],
    later: list[tuple[int, float]],
    interrupted: int,
    again: bool,
) -> None:
    """Whatever both have had, and however often the taking in was begun anew."""
    handover.LOOK = 0.0
    with tempfile.TemporaryDirectory() as directory:
        relays = Relays(Path(directory))
        now = time.time() - 100

        def store(name: str, rows: list[tuple[int, float]]) -> None:
            for n, at in rows:  # singly: what is stored so is known by its msg_id
                relays.journals[name].append([Row(now - at, "t", f"id-{n}", b"%d" % n)])

        store("old", old)
        store("new", [(n, at) for n, at in dict(new).items()])
        before = relays.rows()
        relays.export()
        for _ in range(interrupted):
            relays.taker.take_some(relays.journals["new"])
        store("new", [(1000 + n, at) for n, at in dict(later).items()])
        relays.taker = HandedOver(relays.paths["new"], AGE)  # as after a restart
        relays.take()
        if again:
            relays.export()
            relays.take()
        found = relays.rows()
        ids = [row.msg_id for row in found]
        assert len(set(ids)) == len(ids)
        both = {f"id-{n}" for n, _ in [*old, *new]} | {f"id-{1000 + n}" for n, _ in later}
        assert set(ids) == both
        assert [row.received for row in found] == sorted(row.received for row in found)
        assert [row.seq for row in found] == list(range(1, len(found) + 1))
        assert found[: len(before)] == before
        assert not os.path.exists(relays.file)
        relays.close()


def test_order_and_times_are_those_of_the_old_one_where_the_new_one_has_nothing_later(
    relays: Relays,
) -> None:
    now = time.time()
    relays.journals["new"].append(numbered(1, at=now - 60))
    relays.journals["old"].append(numbered(*range(2, 400), at=now - 50))
    relays.export()
    assert relays.take() > 3
    assert [row[1:] for row in relays.rows()[1:]] == [row[1:] for row in relays.rows("old")]
    assert relays.taken() == "398"


def test_nothing_hides_behind_what_is_there_already(relays: Relays) -> None:
    """Who asks for all since the newest message that it has gets what was handed over after it."""
    now = time.time()
    relays.journals["old"].append(numbered(1, at=now - 50))
    relays.journals["new"].append(numbered(2, at=now - 10))
    relays.export()
    relays.take()
    first, second = relays.rows()
    assert (first.msg_id, second.msg_id) == ("id-2", "id-1")
    assert second.received == first.received


def test_a_clock_that_was_ahead_does_not_have_ours_stand_still(relays: Relays) -> None:
    relays.journals["old"].append(numbered(1, at=time.time() + 500))
    relays.export()
    relays.take()
    assert relays.rows()[-1].received <= time.time()


def test_bodies_and_topics_arrive_as_they_are(relays: Relays) -> None:
    row = Row(time.time(), "org.é", "id-ü", b'{"\xff": 1}' * 1000)
    relays.journals["old"].append([row])
    relays.export()
    relays.take()
    assert relays.rows()[0][2:] == row[1:4]


def test_what_is_too_old_stays_away(relays: Relays) -> None:
    now = time.time()
    relays.journals["new"].append(numbered(1, at=now))
    relays.journals["old"].append(numbered(2, at=now - AGE - 5))
    relays.journals["old"].append(numbered(3, at=now - 5))
    relays.export()
    relays.take()
    assert [row.msg_id for row in relays.rows()] == ["id-1", "id-3"]


def test_the_limit_in_bytes_holds(tmp_path: Path) -> None:
    relays = Relays(tmp_path, max_bytes=1 << 20)
    now = time.time()
    for n in range(100):
        relays.journals["old"].append([Row(now - 100 + n, "t", f"id-{n}", bytes(9000))])
    relays.journals["new"].append(numbered(1000, at=now - 200))
    relays.export()
    relays.take()
    assert os.path.getsize(relays.paths["new"]) <= 1 << 20
    ids = [row.msg_id for row in relays.rows()]
    assert ids == [f"id-{n}" for n in range(100 - len(ids), 100)]  # the oldest have gone
    assert len(ids) > 50


def test_a_group_is_small(relays: Relays) -> None:
    """What passes meanwhile waits for one: in rows, and in bytes."""
    now = time.time()
    relays.journals["old"].append(
        [Row(now, "t", f"id-{n}", bytes(handover.GROUP_BYTES // 2)) for n in range(4)]
        + numbered(*range(100, 250), at=now)
    )
    relays.export()
    assert relays.taker.take_some(relays.journals["new"])
    assert len(relays.rows()) == 2
    assert relays.take() == 5
    assert len(relays.rows()) == 154


def test_one_that_is_larger_than_a_group_comes_alone(relays: Relays) -> None:
    now = time.time()
    bodies = [b"1", bytes(handover.GROUP_BYTES + 1), b"3"]
    relays.journals["old"].append([Row(now, "t", f"id-{n}", b) for n, b in enumerate(bodies)])
    relays.export()
    relays.take()
    assert [row.body for row in relays.rows()] == bodies


class TestFiles:
    @pytest.mark.parametrize(
        "content", [b"", b"garbage" * 1000, b"SQLite format 3\0" + bytes(5000)]
    )
    def test_garbage_is_set_aside_and_the_next_one_taken(
        self, relays: Relays, content: bytes
    ) -> None:
        garbage = Path(relays.file).with_name("a.db")
        garbage.write_bytes(content)
        relays.journals["old"].append(numbered(1, at=time.time()))
        relays.export()
        for _ in range(3):
            relays.take()
        assert not garbage.exists()
        assert garbage.with_name("a.db.broken").read_bytes() == content
        assert [row.msg_id for row in relays.rows()] == ["id-1"]

    def test_a_journal_that_nobody_handed_over_is_set_aside(self, relays: Relays) -> None:
        Journal(relays.file, AGE, BYTES).close()
        relays.take()
        assert os.path.exists(f"{relays.file}.broken")

    def test_one_that_is_still_being_copied_is_left_alone(self, relays: Relays) -> None:
        hidden = Path(relays.file).with_name(".old.db")
        hidden.write_bytes(b"half of it")
        assert relays.take() == 0
        assert hidden.read_bytes() == b"half of it"

    def test_a_journal_that_cannot_be_written_leaves_the_file_for_later(
        self, relays: Relays
    ) -> None:
        relays.journals["old"].append(numbered(1, at=time.time()))
        relays.export()
        blocker = sqlite3.connect(relays.paths["new"], isolation_level=None)
        # Not for 5 s, as the journal waits.
        relays.journals["new"]._db.execute("PRAGMA busy_timeout = 10")
        blocker.execute("BEGIN IMMEDIATE")
        assert relays.take() == 0
        assert os.path.exists(relays.file)
        blocker.execute("ROLLBACK")
        blocker.close()
        relays.take()
        assert [row.msg_id for row in relays.rows()] == ["id-1"]


class TestExport:
    def test_a_copy_is_a_journal_that_goes_on_where_the_old_one_was(self, relays: Relays) -> None:
        now = time.time()
        relays.journals["old"].append(numbered(*range(120), at=now - 50))  # a flood: in no index
        relays.journals["old"].append(numbered(120, at=now - 40))
        relays.journals["old"].remember("listeners", "{}")
        assert relays.export(copy=True) == 121
        copy = Journal(relays.file, AGE, BYTES)
        assert copy.moved_aside is None
        assert rows_of(relays.file) == relays.rows("old")
        assert copy.find(["id-3", "id-120"]) == {"id-120": 121}
        assert copy.recall("listeners") is None
        assert copy.recall(f"{handover.TAKEN}old") == copy.recall(handover.COPIED) == "121"
        assert copy.append(numbered(200, at=now)) == [122]
        copy.close()

    def test_only_what_follows(self, relays: Relays) -> None:
        relays.journals["old"].append(numbered(1, 2, 3, at=time.time()))
        assert relays.export(after=2) == 3
        assert [row.seq for row in rows_of(relays.file)] == [3]

    def test_a_journal_that_was_begun_anew_is_exported_whole(self, relays: Relays) -> None:
        relays.journals["old"].append(numbered(1, 2, 3, at=time.time()))
        assert relays.export(after=500) == 3
        assert len(rows_of(relays.file)) == 3

    def test_more_than_are_read_at_once(
        self, relays: Relays, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(handover, "EXPORTED_AT_ONCE", 7)
        relays.journals["old"].append(numbered(*range(50), at=time.time()))
        assert relays.export() == 50
        assert rows_of(relays.file) == relays.rows("old")

    def test_no_journal_is_said(self, tmp_path: Path) -> None:
        with pytest.raises(JournalError, match="there is no file"):
            export(str(tmp_path / "none.db"), str(tmp_path / "x"), "old", 0)
