"""The port of HTTP: of a former process that is about to end, of another one, and of a dead one."""

from __future__ import annotations

import importlib.util
import socket
import time
from contextlib import closing

import pytest
from fedmsg_relay.daemon import backlog_process, ports
from fedmsg_relay.errors import StartError

from tests.support.ports import free_port, server
from tests.support.waiting import patient, wait_for


def test_former_process_gets_a_moment_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with server() as held:

        def holder(*_: object) -> str:
            held.close()
            return "process 7 (fedmsg-backlog) of user fedmsg"

        monkeypatch.setattr(ports, "holder", holder)
        host, port = held.getsockname()
        with closing(backlog_process._bound(f"tcp://{host}:{port}")) as bound:
            assert bound.getsockname() == (host, port)


def test_any_other_stops_the_start_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "holder", lambda *_: "process 7 (nginx) of user root")
    monkeypatch.setattr(backlog_process, "FORMER", patient(100))
    with server() as held, pytest.raises(StartError, match=r"held by process 7 \(nginx\)"):
        backlog_process._bound("tcp://{}:{}".format(*held.getsockname()))


def test_former_process_that_stays_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "holder", lambda *_: "process 7 (fedmsg-backlog) of user fedmsg")
    monkeypatch.setattr(backlog_process, "FORMER", 0.05)
    with server() as held, pytest.raises(StartError, match="held by process 7"):
        backlog_process._bound("tcp://{}:{}".format(*held.getsockname()))


def test_no_waitress_is_said_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(StartError, match="install the package python3-waitress"):
        backlog_process.BacklogProcess([f"tcp://127.0.0.1:{free_port()}"], None, []).open()
    backlog_process.BacklogProcess([], None, []).open()


def test_one_that_ends_at_once_is_told_of_once_and_its_port_refuses(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(backlog_process, "CHILD", "raise SystemExit(7)")
    port = free_port()
    of_http = backlog_process.BacklogProcess([f"tcp://127.0.0.1:{port}"], None, [])
    of_http.open()
    try:
        for _ in range(3):
            assert of_http._child is not None
            of_http._child.wait(patient(20))
            of_http.tell({})
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), patient(5))
            first = of_http._child
            of_http._started -= of_http._pause
            of_http.tell({})
            assert of_http._child is not first
        assert len(caplog.messages) == 1
        assert "ended with status 7" in caplog.text
    finally:
        of_http.close()


def test_it_answers_again_once_it_is_back() -> None:
    port = free_port()
    of_http = backlog_process.BacklogProcess([f"tcp://127.0.0.1:{port}"], None, [])
    of_http.open()
    try:
        assert of_http._child is not None
        of_http._child.kill()
        of_http._child.wait(patient(20))
        of_http.tell({})
        of_http._started = time.monotonic() - backlog_process.RESTART
        of_http.tell({})

        def answer() -> bytes:
            with socket.create_connection(("127.0.0.1", port), patient(20)) as connection:
                connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
                return connection.recv(100)

        wait_for(lambda: answer().startswith(b"HTTP/1.0 200"), what="an answer")
    finally:
        of_http.close()
