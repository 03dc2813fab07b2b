"""The journal: what is appended is there, once, in order, whatever has become of the file."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fedmsg_relay.journal import store as journal_module
from fedmsg_relay.journal.store import Journal, JournalError, JournalReader, Row

from ..conftest import environment

WEEK = 7 * 24 * 3600
GIB = 1 << 30


def rows(count: int, begin: int = 1, size: int = 100, received: float = 1000.0) -> list[Row]:
    """Submitted rows with the msg_ids `id-BEGIN` and on, a second apart."""
    return [
        Row(received + number, "a.topic", f"id-{number}", b"%0*d" % (size, number), True)
        for number in range(begin, begin + count)
    ]


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "journal.db")


@pytest.fixture
def opened(path: str) -> Iterator[Callable[..., Journal]]:
    """Open the journal, with its bounds where they matter; it is closed after the test."""
    journals = []

    def make(max_age: float = WEEK, max_bytes: int = GIB) -> Journal:
        journals.append(Journal(path, max_age, max_bytes))
        return journals[-1]

    yield make
    for journal in journals:
        journal.close()


def stored(path: str) -> list[tuple[Any, ...]]:
    reader = JournalReader(path)
    try:
        first, last = reader.bounds()
        return [tuple(reader.get(seq) or ()) for seq in range(first, last + 1)]
    finally:
        reader.close()


class TestAppend:
    def test_stores_all_of_a_row(self, path: str, opened: Callable[..., Journal]) -> None:
        row = Row(1766000000.25, "org.ärger.\0", "2026-\ud800-ä", b'{"a": "\xc3\xa4\x00"}')
        assert opened().append([row]) == [1]
        [found] = stored(path)
        assert found == (1, 1766000000.25, "org.ärger.\0", "2026-\\ud800-ä", row.body)

    @pytest.mark.parametrize("count", [0, 1, 2, 255, 256, 257, 1000])
    def test_returns_consecutive_seqs(self, opened: Callable[..., Journal], count: int) -> None:
        journal = opened()
        journal.append(rows(3))
        assert journal.append(rows(count, 4)) == list(range(4, 4 + count))
        assert journal.last_seq == 3 + count

    def test_is_there_after_the_process_was_killed(self, path: str) -> None:
        source = """if True:
            import os, sys
            from fedmsg_relay.journal.store import Journal, Row
            journal = Journal(sys.argv[1], 1e6, 1 << 30)
            seqs = journal.append([Row(1.0, "t", f"id-{n}", b"{}") for n in range(1, 501)])
            os.write(1, b"%d" % seqs[-1])
            os.kill(os.getpid(), 9)
        """
        done = subprocess.run(
            [sys.executable, "-c", source, path], env=environment(), stdout=subprocess.PIPE
        )
        assert done.returncode == -9 and done.stdout == b"500"
        assert [row[3] for row in stored(path)] == [f"id-{n}" for n in range(1, 501)]

    def test_waits_for_the_disk(self, opened: Callable[..., Journal]) -> None:
        """No test can take the power away; this is how SQLite is told that it may be."""
        db = opened()._db
        assert db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL: each commit is synced
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)

    def test_goes_on_counting_when_all_rows_are_gone(
        self, path: str, opened: Callable[..., Journal]
    ) -> None:
        journal = opened()
        journal.append(rows(5))
        journal.close()
        with sqlite3.connect(path) as db:
            db.execute("DELETE FROM message")
        journal = opened()
        assert journal.last_seq == 5
        assert journal.append(rows(1, 6)) == [6]

    @pytest.mark.parametrize("known_group", [journal_module.KNOWN_GROUP, 0])
    def test_time_never_goes_back(
        self,
        path: str,
        opened: Callable[..., Journal],
        known_group: int,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(journal_module, "KNOWN_GROUP", known_group)
        journal = opened()
        journal.append([Row(1000.0, "t", "a", b"{}"), Row(900.0, "t", "b", b"{}")])
        journal.close()
        opened().append([Row(950.0, "t", "c", b"{}"), Row(1001.0, "t", "d", b"{}")])
        assert [row[1] for row in stored(path)] == [1000.0, 1000.0, 1000.0, 1001.0]

    def test_a_group_that_does_not_fit_is_stored_not_at_all(self, path: str) -> None:
        """A file that may not grow further is as near as one gets to a full disk without one."""
        source = """if True:
            import resource, sys
            from fedmsg_relay.journal.store import Journal, JournalError, Row
            journal = Journal(sys.argv[1], 1e6, 1 << 30)
            def rows(begin, count=50):
                return [Row(1.0, "t", f"id-{n}", bytes(1000)) for n in range(begin, begin + count)]
            journal.append(rows(0))
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))
            taken = 50
            try:
                while True:
                    taken += len(journal.append(rows(taken)))
            except JournalError as error:
                print(error)
            assert journal.last_seq == taken, (journal.last_seq, taken)
            assert not journal.find([f"id-{taken}"])
            try:
                journal.append(rows(taken))
                sys.exit("there is room again?")
            except JournalError:
                pass
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
            journal.check_writable()
            assert journal.append(rows(taken)) == list(range(taken + 1, taken + 51))
            print(taken + 50)
        """
        done = subprocess.run(
            [sys.executable, "-c", source, path],
            env=environment(), capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        error, count = done.stdout.splitlines()
        assert error.startswith(f"journal: {path}: ")
        assert [row[3] for row in stored(path)] == [f"id-{n}" for n in range(int(count))]


class TestFind:
    def test_finds_the_first_of_several(self, opened: Callable[..., Journal]) -> None:
        journal = opened()
        journal.append([*rows(3), *rows(3)])
        journal.append(rows(3))
        assert journal.find(["id-3", "id-1", "none"]) == {"id-1": 1, "id-3": 3}
        assert journal.find([]) == {}

    def test_finds_all_of_a_small_group_and_what_was_submitted_in_a_flood(
        self, opened: Callable[..., Journal]
    ) -> None:
        journal = opened()
        legacy = [row._replace(submitted=False) for row in rows(200, 1000)]
        legacy[120] = legacy[120]._replace(submitted=True)
        journal.append(legacy[:50])
        journal.append(legacy[50:])
        asked = [row.msg_id for row in legacy]
        assert journal.find(asked) == {f"id-{1000 + n}": 1 + n for n in [*range(50), 120]}

    def test_finds_the_first_that_is_known(
        self, opened: Callable[..., Journal], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(journal_module, "KNOWN_GROUP", 0)
        journal = opened()
        relayed, submitted = (
            row._replace(submitted=how) for how in (False, True) for row in rows(1)
        )
        journal.append([relayed])
        assert journal.find(["id-1"]) == {}
        journal.append([submitted, relayed])
        assert journal.find(["id-1"]) == {"id-1": 2}

    def test_many_at_once(self, opened: Callable[..., Journal]) -> None:
        journal = opened()
        journal.append(rows(1000))
        asked = [f"id-{n}" for n in range(500, 1500)]
        assert journal.find(asked) == {f"id-{n}": n for n in range(500, 1001)}

    @pytest.mark.parametrize("known_group", [journal_module.KNOWN_GROUP, 0])
    def test_half_a_surrogate_pair(
        self, opened: Callable[..., Journal], known_group: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(journal_module, "KNOWN_GROUP", known_group)
        journal = opened()
        journal.append([Row(1.0, "t", "\udc00", b"{}", True)])
        assert journal.find(["\udc00"]) == {"\udc00": 1}


class TestVersion1:
    """A journal that the previous version has written is taken over as it is."""

    @pytest.fixture
    def version_1(self, path: str) -> str:
        with sqlite3.connect(path) as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.executescript(
                """
                CREATE TABLE message (seq INTEGER PRIMARY KEY AUTOINCREMENT,\
 received REAL NOT NULL, topic TEXT NOT NULL, msg_id TEXT NOT NULL, body BLOB NOT NULL);
                CREATE INDEX message_msg_id ON message (msg_id);
                CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
                PRAGMA application_id = 0x66656465;
                PRAGMA user_version = 1;
                INSERT INTO meta VALUES ('listeners', '{}');
                """
            )
            db.executemany(
                "INSERT INTO message (received, topic, msg_id, body) VALUES (?, ?, ?, ?)",
                [row[:4] for row in rows(1000)],
            )
        db.close()
        return path

    def test_is_taken_over(self, version_1: str, opened: Callable[..., Journal]) -> None:
        before = stored(version_1)
        journal = opened()
        assert journal.moved_aside is None
        assert journal.last_seq == 1000
        assert journal.recall("listeners") == "{}"
        # Whoever had submitted it to the previous version may submit it again to this one.
        assert journal.find(["id-1", "id-1000"]) == {"id-1": 1, "id-1000": 1000}
        assert journal.append(rows(1, 1001)) == [1001]
        assert stored(version_1)[:1000] == before
        journal.close()
        assert opened().moved_aside is None

    def test_damage_is_seen(self, version_1: str, opened: Callable[..., Journal]) -> None:
        _overwritten_in_the_middle(version_1)
        assert opened().moved_aside


class TestTrim:
    def test_by_age(self, path: str, opened: Callable[..., Journal]) -> None:
        journal = opened(max_age=10)
        journal.append(rows(5))
        journal.append([Row(1013.0, "t", "new", b"{}")])
        assert [row[3] for row in stored(path)] == ["id-3", "id-4", "id-5", "new"]

    def test_by_age_what_came_after_a_look_at_an_empty_file(
        self, path: str, opened: Callable[..., Journal]
    ) -> None:
        journal = opened(max_age=10)
        journal.trim(1000.0)
        journal.append(rows(2))
        journal.append([Row(1013.0, "t", "new", b"{}")])
        assert [row[3] for row in stored(path)] == ["new"]

    def test_by_bytes_keeps_the_file_within_them(
        self, path: str, opened: Callable[..., Journal]
    ) -> None:
        journal = opened(max_bytes=1 << 20)
        for begin in range(1, 5000, 100):
            journal.append(rows(100, begin, size=1000))
        left = stored(path)
        assert [row[3] for row in left] == [f"id-{n}" for n in range(5001 - len(left), 5001)]
        assert 600 < len(left) < 1000
        journal.close()
        assert os.path.getsize(path) <= 1 << 20

    def test_by_bytes_after_what_was_removed_is_back(
        self, path: str, opened: Callable[..., Journal], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        journal = opened(max_bytes=1 << 20)
        journal.append(rows(900, size=1000))
        with monkeypatch.context() as patch, pytest.raises(JournalError):
            patch.setattr(Journal, "_insert", lambda *_: journal._db.execute("no statement"))
            journal.append(rows(400, 901, size=1000))
        assert len(stored(path)) > 600
        journal.append(rows(350, 901, size=1000))
        journal.close()
        assert os.path.getsize(path) <= 1 << 20

    def test_at_most_so_many(self, path: str, opened: Callable[..., Journal]) -> None:
        journal = opened(max_age=10)
        journal.append([row._replace(received=1000.0) for row in rows(50)])
        assert journal.trim(9000.0, most=20) == 20
        assert [row[0] for row in stored(path)] == list(range(21, 51))
        assert journal.trim(9000.0) == 29  # and never the newest
        assert journal.trim(9000.0) == 0

    def test_what_is_larger_than_the_bound_stays_while_it_is_the_newest(
        self, path: str, opened: Callable[..., Journal]
    ) -> None:
        journal = opened(max_bytes=1 << 20)
        journal.append(rows(10))
        journal.append([Row(2000.0, "t", "large", bytes(3 << 20))])
        assert [row[3] for row in stored(path)] == ["large"]
        journal.append(rows(1, 100, received=2000.0))
        assert [row[3] for row in stored(path)] == ["id-100"]

    def test_a_lowered_bound_shrinks_the_file(
        self, path: str, opened: Callable[..., Journal]
    ) -> None:
        journal = opened()
        for begin in range(1, 4000, 500):
            journal.append(rows(500, begin, size=1000))
        journal.close()
        assert os.path.getsize(path) > 4 << 20
        journal = opened(max_bytes=1 << 20)
        for _ in range(20):
            journal.trim(1000.0)
        journal.close()
        assert os.path.getsize(path) <= 1 << 20
        assert stored(path)[-1][3] == "id-4000"


class TestFile:
    def test_is_private(self, path: str, opened: Callable[..., Journal]) -> None:
        opened().append(rows(1))
        modes = {name: os.stat(path + name).st_mode & 0o777 for name in ("", "-wal", "-shm")}
        assert set(modes.values()) == {0o600}

    def test_remembers(self, opened: Callable[..., Journal]) -> None:
        journal = opened()
        assert journal.recall("key") is None
        journal.remember("key", "1")
        journal.remember("key", "2 ä")
        journal.close()
        assert opened().recall("key") == "2 ä"

    def test_knows_when_it_was_removed_or_replaced(
        self, path: str, opened: Callable[..., Journal]
    ) -> None:
        journal = opened()
        journal.append(rows(1))
        reader = JournalReader(path)
        assert not journal.is_replaced()
        os.rename(path, f"{path}.old")
        for _ in range(2):
            assert journal.is_replaced()
            # SQLite itself would not mind: what it says is stored then is in no file of this name.
            with pytest.raises(JournalError, match="was removed or replaced"):
                journal.append(rows(1, 2))
            for ask in (reader.bounds, lambda: reader.find(["id-1"])):
                with pytest.raises(JournalError, match="was removed or replaced"):
                    ask()
            Path(path).touch()
        reader.close()

    def test_readers_do_not_hold_up_the_writer(
        self, path: str, opened: Callable[..., Journal]
    ) -> None:
        """Nor the write-ahead log: it is used again from its start while they read on."""
        journal = opened(max_bytes=4 << 20)
        journal.append(rows(100, size=1000))
        ended = threading.Event()
        errors: list[Exception] = []

        def read() -> None:
            reader = JournalReader(path)
            try:
                while not ended.is_set():
                    first, last = reader.bounds()
                    reader.first_from(1500.0)
                    reader.search(first, last, ["a.topic"], [b"7"])
                    reader.find(["id-1"])
                    reader.get(last)
            except Exception as error:
                errors.append(error)
            finally:
                reader.close()

        thread = threading.Thread(target=read)
        thread.start()
        try:
            for begin in range(101, 40_000, 500):
                journal.append(rows(500, begin, size=1000))
        finally:
            ended.set()
            thread.join()
        assert not errors
        assert os.path.getsize(f"{path}-wal") < 64 << 20

    def test_no_directory(self, tmp_path: Path) -> None:
        path = tmp_path / "none" / "journal.db"
        with pytest.raises(JournalError, match=f"journal: {path}: No such file or directory"):
            Journal(str(path), WEEK, GIB)

    def test_a_directory_in_its_place(self, tmp_path: Path) -> None:
        with pytest.raises(JournalError, match="is not a file"):
            Journal(str(tmp_path), WEEK, GIB)

    def test_no_reader_without_a_file(self, path: str) -> None:
        with pytest.raises(JournalError, match="there is no file"):
            JournalReader(path)
        assert not os.path.exists(path)

    def test_a_lock_that_is_not_given_back(self, path: str, opened: Callable[..., Journal]) -> None:
        """Somebody's sqlite3 in the middle of a transaction: an error, and no harm once it ends."""
        journal = opened()
        journal.append(rows(1))
        journal._db.execute("PRAGMA busy_timeout = 100")
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(JournalError, match="locked"):
            journal.append(rows(1, 2))
        other.execute("ROLLBACK")
        other.close()
        assert journal.append(rows(1, 2)) == [2]


def _garbage(path: str) -> None:
    Path(path).write_bytes(os.urandom(20_000))


def _text(path: str) -> None:
    Path(path).write_text("hello\n")


def _cut_in_half(path: str) -> None:
    os.truncate(path, os.path.getsize(path) // 2)


def _overwritten_in_the_middle(path: str) -> None:
    with open(path, "r+b") as file:
        file.seek(os.path.getsize(path) // 3)
        file.write(os.urandom(os.path.getsize(path) // 3))


def _of_another_program(path: str) -> None:
    os.unlink(path)
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE message (id)")


def _newer(path: str) -> None:
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 3")


def _changed_by_hand(path: str) -> None:
    with sqlite3.connect(path) as db:
        db.execute("DROP INDEX message_known")


class TestUnusable:
    @pytest.mark.parametrize(
        "spoil",
        [_garbage, _text, _cut_in_half, _overwritten_in_the_middle, _of_another_program, _newer,
         _changed_by_hand],
    )  # fmt: skip
    def test_is_moved_aside(
        self, path: str, opened: Callable[..., Journal], spoil: Callable[[str], None]
    ) -> None:
        journal = opened()
        assert journal.moved_aside is None
        journal.append(rows(1000, size=1000))
        journal.close()
        spoil(path)
        spoilt = Path(path).read_bytes()
        journal = opened()
        assert journal.moved_aside is not None
        line = re.fullmatch(
            rf"journal: {path} is not a usable journal \(.+\): moved to ({path}\.broken-\S+),"
            " started a new one",
            journal.moved_aside,
        )
        assert line, journal.moved_aside
        assert Path(line[1]).read_bytes() == spoilt
        assert journal.append(rows(1)) == [1]

    def test_none_is_moved_over_another(self, path: str, opened: Callable[..., Journal]) -> None:
        for _ in range(3):
            _text(path)
            opened().close()
        assert len([name for name in os.listdir(os.path.dirname(path)) if "broken" in name]) == 3

    def test_an_empty_file_is_taken(self, path: str, opened: Callable[..., Journal]) -> None:
        Path(path).touch()
        journal = opened()
        assert journal.moved_aside is None and journal.append(rows(1)) == [1]

    def test_damage_that_is_met_later(self, path: str, opened: Callable[..., Journal]) -> None:
        """It fails once, and then there is a new journal at the path."""
        journal = opened()
        journal.append(rows(2000, size=1000))
        journal.close()
        journal = opened()
        with open(path, "r+b") as file:
            for page in range(3, os.path.getsize(path) // 4096):
                file.seek(page * 4096)
                file.write(os.urandom(4096))
        with pytest.raises(JournalError, match="moved to"):
            journal.append(rows(100, 3000))
        assert journal.is_replaced()
        with pytest.raises(JournalError):
            journal.append(rows(1))
        assert opened().append(rows(1)) == [1]


class TestReader:
    def test_first_from(self, path: str, opened: Callable[..., Journal]) -> None:
        journal = opened(max_age=100)
        journal.append(rows(200))  # received at 1001 to 1200
        reader = JournalReader(path)
        assert reader.bounds() == (100, 200)
        for moment, seq in ((0, 100), (1100, 100), (1100.5, 101), (1200, 200), (1200.1, 201)):
            assert reader.first_from(moment) == seq
        assert reader.oldest() == 1100.0
        reader.close()

    def test_empty(self, path: str, opened: Callable[..., Journal]) -> None:
        opened()
        reader = JournalReader(path)
        assert reader.bounds() == (1, 0) and reader.first_from(5.0) == 1
        assert reader.oldest() is None and reader.get(1) is None
        reader.close()

    def test_search(self, path: str, opened: Callable[..., Journal]) -> None:
        journal = opened()
        for topic in ("a", "b"):
            journal.append([Row(1.0, topic, "i", b'{"n": "%d"}' % n) for n in range(10)])
        reader = JournalReader(path)
        assert list(reader.search(1, 20, ["b"], [])) == list(range(11, 21))
        assert list(reader.search(1, 20, [], [b'"3"', b'"4"'])) == [4, 5, 14, 15]
        assert list(reader.search(5, 14, ["a", "b"], [b'"3"'])) == [14]
        reader.close()

    def test_changes_nothing(self, path: str, opened: Callable[..., Journal]) -> None:
        opened().append(rows(1))
        reader = JournalReader(path)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader._db.execute("DELETE FROM message")
        reader.close()
