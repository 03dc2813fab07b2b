"""The program that playbooks/move.yml runs on hosts: what it waits for, and what it says."""

from __future__ import annotations

import getpass
import os
import runpy
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from fedmsg_relay.journal.store import Journal, Row

from tests.conftest import ROOT, free_port
from tests.support.ports import server
from tests.support.waiting import wait_for

MOVE = runpy.run_path(str(ROOT / "files/ansible/move.py"))


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(str(tmp_path / "journal.db"), 1e6, 1 << 30)


def drain(journal: Journal, *ports: int, **bounds: float) -> dict[str, Any]:
    bounds = {"silence": 1, "patience": 3, **bounds}
    found: dict[str, Any] = MOVE["drain"](journal.path, list(ports), ["localhost"], **bounds)
    return found


class TestDrain:
    def test_waits_until_nothing_has_come_for_as_long_as_was_asked_for(
        self, journal: Journal
    ) -> None:
        now = time.time()
        journal.append([Row(now, "t", "id", b"{}")])
        assert "error" not in drain(journal)
        assert 1 <= time.time() - now < 2

    def test_canaries_do_not_count(self, journal: Journal) -> None:
        now = time.time()
        journal.append([Row(now - 5, "t", "id", b"{}")])
        journal.append([Row(now + 60, "org.x.dev._heartbeat.fedmsg-probe", "id-2", b"{}")])
        assert "error" not in drain(journal)
        assert time.time() - now < 1

    def test_one_that_goes_on_is_said(self, journal: Journal) -> None:
        journal.append([Row(time.time() + 60, "t", "id", b"{}")])
        said = drain(journal, patience=1.2)["error"]
        assert said.startswith("not silent within 1.2 s: connected: nobody now")

    def test_who_is_connected_could_still_send(self, journal: Journal) -> None:
        with server() as listening:
            port = listening.getsockname()[1]
            with socket.create_connection(("127.0.0.1", port)):
                assert "connected: localhost" in drain(journal, port, patience=1)["error"]
        assert "error" not in drain(journal, port)


class TestReach:
    def test_says_what_is_refused(self) -> None:
        port = free_port()
        said = MOVE["reach"]([f"tcp://127.0.0.1:{port}"])["error"]
        assert said == f"127.0.0.1:{port}: connection refused"

    def test_of_a_name_that_cannot_be_resolved(self) -> None:
        assert "nowhere.invalid:2003: " in MOVE["reach"](["tcp://nowhere.invalid:2003"])["error"]

    def test_listens_for_a_while_where_nobody_does_yet(self) -> None:
        address = f"tcp://127.0.0.1:{free_port()}"
        # In a process of its own, as on a host: it forks.
        child = os.fork()
        if not child:
            MOVE["listen"]([address], 2)
            os._exit(0)
        os.waitpid(child, 0)
        assert MOVE["reach"]([address])["error"] == ""
        wait_for(lambda: MOVE["reach"]([address])["error"], what="the end of it")

    def test_a_port_that_is_taken_is_said(self) -> None:
        with server() as listening:
            port = listening.getsockname()[1]
            said = MOVE["listen"]([f"tcp://127.0.0.1:{port}"], 2)["error"]
        assert said == f"cannot listen on 127.0.0.1:{port}: Address already in use"


class TestSpool:
    def test_what_is_left_is_said(self, tmp_path: Path) -> None:
        (tmp_path / "failed").mkdir()
        for name in ("1", ".lock", "failed/2", "failed/2.reason"):
            (tmp_path / name).touch()
        left = MOVE["spooled"](str(tmp_path), 0)["left"]
        assert left == [
            f"1 messages wait in {tmp_path}",
            f"1 that no relay takes are in {tmp_path}/failed",
        ]


class TestJournalOfARelayThatWasThereBefore:
    def test_it_is_moved_aside_with_all_that_belongs_to_it(self, journal: Journal) -> None:
        journal.append([Row(time.time(), "t", "id", b"{}")])
        beside = {name[len("journal.db") :] for name in os.listdir(os.path.dirname(journal.path))}
        assert MOVE["taken"](journal.path, "app01")["is_there"]
        moved = MOVE["aside"](journal.path)["aside"]
        assert moved.startswith(f"{journal.path}.before-")
        left = os.listdir(os.path.dirname(journal.path))
        assert set(left) == {os.path.basename(moved) + suffix for suffix in beside}
        assert "-wal" in beside
        assert not MOVE["taken"](journal.path, "app01")["is_there"]

    def test_there_may_be_none(self, tmp_path: Path) -> None:
        assert MOVE["aside"](str(tmp_path / "journal.db")) == {"aside": ""}

    def test_a_copy_takes_its_place_and_says_where_it_is(
        self, journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(MOVE["place"].__globals__, "USER", getpass.getuser())
        (tmp_path / "copy").write_text("a copy")
        answer = MOVE["copied"](str(tmp_path / "copy"), journal.path)
        assert "error" not in answer
        assert Path(answer["aside"]).read_bytes().startswith(b"SQLite format 3")
        assert Path(journal.path).read_text() == "a copy"
