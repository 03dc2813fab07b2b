"""What is removed of a host, and what stays: the program that the roles run there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

PROGRAM = ROOT / "files/ansible/remove.py"

# What logrotate makes of a log, with dates and without, and what is put aside of a journal.
LOGS = ("log", "log.1", "log.2.gz", "log-20260102", "log-20260101-1767225600.gz")
JOURNALS = ("a[1].db", "a[1].db-wal", "a[1].db-shm", "a[1].db.broken-20260102T030405",
            "a[1].db.broken-20260102T030405-2-wal", "a[1].db.before-20260102T030405-shm",
            "a[1].db.schema-1", "a[1].db-index", "a[1].db-index-wal")  # fmt: skip


class Machine:
    """A directory with what the roles put on a host, but for units and accounts."""

    def __init__(self, root: Path) -> None:
        self.config, self.library = root / "fedmsg.d", root / "fedmsg-relay"
        self.spool, self.log = root / "spool", root / "log"
        self.users = root / "sysusers.d"
        for directory in (self.config, self.library / "package", self.spool / "failed", self.log,
                          self.users):  # fmt: skip
            directory.mkdir(parents=True)
        self.spool.chmod(0o3733)
        (self.spool / "failed/.lock").touch()
        for file in (self.config / "base.py", self.library / "package/x.py", self.users / "x.conf",
                     *(self.log / name for name in (*LOGS, *JOURNALS))):  # fmt: skip
            file.touch()

    def remove(self, *, discard: bool = False, only_look: bool = False) -> tuple[int, str, str]:
        request = {
            "files": [str(self.config / "base.py"), str(self.config / "never-was.py"),
                      str(self.users / "x.conf")],
            "trees": [str(self.library)],
            "patterns": [f"{self.spool}/*", f"{self.spool}/.[!.]*"],
            "logs": [str(self.log / "log")],
            "journals": [str(self.log / "a[1].db")],
            "directories": [str(self.spool / "failed"), str(self.spool), str(self.log),
                            str(self.config)],
            "shared": [str(self.users)],
            "user": "",
            "spool": str(self.spool),
            "discard": discard,
            "only_look": only_look,
        }  # fmt: skip
        done = subprocess.run([sys.executable, PROGRAM], input=json.dumps(request), text=True,
                              capture_output=True, timeout=60)  # fmt: skip
        return done.returncode, done.stdout, done.stderr


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_all_goes_as_was_said_beforehand(machine: Machine, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    predicted = machine.remove(only_look=True)
    assert sorted(tmp_path.rglob("*")) == before
    assert machine.remove() == predicted
    assert list(tmp_path.iterdir()) == []
    assert machine.remove() == (0, "", "")


def test_what_others_have_put_there_stays(machine: Machine, tmp_path: Path) -> None:
    foreign = machine.config / "zz.py"
    foreign.touch()
    predicted = machine.remove(only_look=True)
    assert machine.remove() == predicted
    assert predicted[2] == f"{machine.config} stays: there is {foreign}\n"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [foreign]


@pytest.mark.parametrize(
    "name", ["a[1].db2", "a[1].dbs", "a[1].db.old", "a[1].db.broken-by-hand", "a1.db", "logs",
             "log.txt", "log.1.db", "log-of-another.1"]
)  # fmt: skip
def test_what_only_begins_with_the_name_of_a_log_or_journal_stays(
    machine: Machine, tmp_path: Path, name: str
) -> None:
    foreign = machine.log / name
    foreign.touch()
    predicted = machine.remove(only_look=True)
    assert machine.remove() == predicted
    assert predicted[2] == f"{machine.log} stays: there is {foreign}\n"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [foreign]


def test_shared_directory_stays_with_what_others_have_there(machine: Machine) -> None:
    foreign = machine.users / ".others"
    foreign.touch()
    status, gone, said = machine.remove()
    assert (status, said) == (0, "")
    assert str(machine.users) not in gone.splitlines()
    assert list(machine.users.iterdir()) == [foreign]
    foreign.unlink()
    # Empty, and not by us.
    assert machine.remove() == (0, "", "")
    assert machine.users.exists()


@pytest.mark.parametrize("name", ["0001", "failed/0001"])
def test_messages_are_lost_only_when_that_is_asked_for(machine: Machine, name: str) -> None:
    (machine.spool / name).touch()
    (machine.spool / "failed/0001.reason").touch()
    status, gone, said = machine.remove()
    assert (status, gone) == (3, "")
    assert f"1 messages are in {machine.spool}" in said
    # Publishers go on.
    assert machine.spool.stat().st_mode & 0o7777 == 0o3733
    assert (machine.config / "base.py").exists()
    status, gone, said = machine.remove(discard=True)
    assert status == 0
    assert f"1 messages in {machine.spool}\n" in gone
    assert not machine.spool.exists()
