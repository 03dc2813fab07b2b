"""A journal goes back to the form of the release before, with all that is in it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from fedmsg_relay.journal.store import Journal, JournalReader, Row

from tests.conftest import ROOT

PROGRAM = ROOT / "files/ansible/journal_back.py"
OLDER = ROOT / "molecule/upgrade/files/older-release.tar.gz"
# What the older release says of the journal when it opens it.
OPEN = """
import sys
from fedmsg_relay.journal import Journal, Row  # where that release has it
journal = Journal(sys.argv[1], 1e9, 1 << 30)
print(journal.moved_aside, journal.last_seq, journal.recall("listeners"))
print(journal.append([Row(2000.0, "t", "m-new", b"new")]), journal.find(["m-1", "m-12"]))
"""


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("older")
    with tarfile.open(OLDER) as archive:
        archive.extractall(directory, filter="data")
    return directory / "files"


def go_back(action: str, journal: Path, schema: int = 1) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, PROGRAM, action, str(journal), str(schema)],
                          text=True, capture_output=True, timeout=60)  # fmt: skip


def rows(first: int, last: int) -> list[Row]:
    return [Row(1000.0 + n, "t", f"m-{n}", b"body %d" % n) for n in range(first, last + 1)]


def test_older_release_goes_on_with_it(tmp_path: Path, older: Path) -> None:
    path = tmp_path / "journal.db"
    journal = Journal(str(path), 1e9, 1 << 30)
    journal.append(rows(1, 10))
    journal.remember("listeners", "{}")
    assert go_back("prepare", path).returncode == 0
    # While it is written to.
    journal.append(rows(11, 12))
    journal.close()
    (tmp_path / "journal.db-index").touch()  # of which the older one does not know
    done = go_back("finish", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert [file.name for file in tmp_path.iterdir()] == ["journal.db"]
    assert path.stat().st_mode & 0o777 == 0o600
    said = subprocess.run([sys.executable, "-c", OPEN, str(path)], text=True, capture_output=True,
                          env={"PYTHONPATH": str(older)}, timeout=60)  # fmt: skip
    assert said.stdout == "None 12 {}\n[13] {'m-1': 1, 'm-12': 12}\n", said.stderr
    # And this one with what that has added.
    newer = Journal(str(path), 1e9, 1 << 30)
    assert (newer.moved_aside, newer.last_seq) == (None, 13)
    newer.close()
    assert JournalReader(str(path)).bounds() == (1, 13)


def test_numbers_are_never_used_again(tmp_path: Path, older: Path) -> None:
    """The last message has been trimmed; the next one is counted from it."""
    path = tmp_path / "journal.db"
    journal = Journal(str(path), 1e9, 1 << 30)
    journal.append(rows(1, 3))
    journal._db.execute("DELETE FROM message WHERE seq = 3")
    journal.close()
    assert go_back("finish", path).returncode == 0
    newer = Journal(str(path), 1e9, 1 << 30)
    assert newer.append(rows(4, 4)) == [4]


def test_one_that_is_so_already_stays(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    Journal(str(path), 1e9, 1 << 30).close()
    assert go_back("finish", path).returncode == 0
    before = path.read_bytes()
    assert go_back("finish", path).returncode == 0
    assert path.read_bytes() == before
    assert go_back("look", tmp_path / "none.db").returncode == 0


def test_schema_that_nobody_knows_a_way_to_is_said(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    Journal(str(path), 1e9, 1 << 30).close()
    before = path.read_bytes()
    done = go_back("look", path, schema=7)
    assert done.returncode == 1
    assert "there is no way from it to schema 7" in done.stderr
    assert path.read_bytes() == before


def test_what_is_left_of_an_attempt_is_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = Journal(str(path), 1e9, 1 << 30)
    journal.append(rows(1, 2))
    journal.close()
    go_back("prepare", path)
    shutil.copy(f"{path}.schema-1", tmp_path / "left")
    path.unlink()
    journal = Journal(str(path), 1e9, 1 << 30)
    journal.append(rows(5, 5))
    journal.close()
    go_back("prepare", path)
    go_back("finish", path)
    assert JournalReader(str(path)).bounds() == (1, 1)
