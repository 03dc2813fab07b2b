"""The backlog over HTTP: as a process with a journal of the test's, then as a part of the relay."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import zmq
from fedmsg_relay.journal.store import Journal, Row

from tests.support.ports import server
from tests.support.programs import Child
from tests.support.proxy import Proxy
from tests.support.waiting import at_most, fits, patient

from ..conftest import Bus, Listener, Process, Sender, Submitter, environment, numbered, wait_for

# Megabytes in a large page: more than the server keeps for a client that does not read.
LARGE = 20


class Backlog:
    """The process, a journal for it, and what the relay would tell it."""

    def __init__(self, directory: Path, **env: str) -> None:
        self.path = str(directory / "journal.db")
        self.journal = Journal(self.path, 1e6, 1 << 30)
        bound = server()
        self.address = bound.getsockname()
        self.errors = directory / "backlog.log"
        with bound, self.errors.open("wb") as errors:
            self.child = Child(
                [sys.executable, "-m", "fedmsg_relay.backlog", "--journal", self.path,
                 str(bound.fileno())],
                pass_fds=[bound.fileno()], env=environment(**env),
                stdin=subprocess.PIPE, stderr=errors,
            )  # fmt: skip
        self.silent = threading.Event()
        self._ended = threading.Event()
        self._teller = threading.Thread(target=self._tell)
        self._teller.start()

    def append(self, *bodies: bytes, topic: str = "t", received: float | None = None) -> None:
        now = time.time() if received is None else received
        count = self.journal.last_seq
        self.journal.append(
            [Row(now, topic, f"id-{count + n}", body) for n, body in enumerate(bodies, 1)]
        )

    def get(
        self, path: str, method: str = "GET", timeout: float = patient(30), **query: Any
    ) -> tuple[int, bytes]:
        """Status and body."""
        host, port = self.address
        with closing(http.client.HTTPConnection(host, port, timeout)) as connection:
            connection.request(method, f"{path}?{urlencode(query, True)}" if query else path)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def connect(self, request: bytes = b"", receive_buffer: int | None = None) -> socket.socket:
        connection = socket.socket()
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.settimeout(patient(30))
        connection.connect(self.address)
        connection.sendall(request)
        return connection

    def stop(self) -> None:
        self._ended.set()
        self._teller.join()
        self.child.kill()
        self.child.wait(20)
        self.journal.close()
        print(f"--- backlog\n{self.errors.read_text()}")

    def _tell(self) -> None:
        assert self.child.stdin is not None
        while not self._ended.wait(0.2):
            state = {"now": time.time(), "started": 0, "journal": {"state": "ok"}}
            if not self.silent.is_set():
                try:
                    self.child.stdin.write(json.dumps(state).encode() + b"\n")
                    self.child.stdin.flush()
                except OSError:
                    return


def raw(answer: bytes) -> tuple[int, bytes]:
    """Of an answer to /raw: the number of pages, and the messages as they stand there."""
    begin, _, rest = answer.partition(b', "raw_messages": [')
    messages, _, end = rest.rpartition(b'], "count": ')
    assert begin.startswith(b'{"pages": ') and end.endswith(b"}\n")
    return int(begin[10:]), messages


@pytest.fixture
def backlog(tmp_path: Path) -> Iterator[Backlog]:
    made = Backlog(tmp_path)
    try:
        wait_for(lambda: made.get("/health")[0] == 200, what="a healthy backlog")
        yield made
    finally:
        made.stop()


@contextmanager
def many(connections: list[socket.socket]) -> Iterator[list[socket.socket]]:
    try:
        yield connections
    finally:
        for connection in connections:
            connection.close()


def is_closed(connection: socket.socket) -> bool:
    """Whether the other end has gone, once all that it sent has been read."""
    connection.setblocking(False)
    try:
        while connection.recv(1 << 20):
            pass
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


class TestRaw:
    def test_bodies_come_byte_for_byte(self, backlog: Backlog) -> None:
        bodies = [
            b'{"a": 1e400, "b": NaN, "c": -0.0, "d": 12345678901234567890}',
            b' {"a" : 1 ,\r\n\t"a": 2}\n ',
            '{"ä": "\\u00e4 ä \\ud800 💥"}'.encode(),
            b"{}",
        ]
        backlog.append(*bodies)
        status, answer = backlog.get("/raw", order="asc")
        assert status == 200
        assert raw(answer) == (1, b", ".join(bodies))
        assert set(json.loads(answer)) == {"pages", "raw_messages", "count", "total", "arguments"}

    def test_nothing_there(self, backlog: Backlog) -> None:
        status, answer = backlog.get("/raw")
        assert (status, raw(answer)) == (200, (0, b""))

    def test_a_large_page(self, backlog: Backlog) -> None:
        bodies = [b'{"%d": "%s"}' % (n, b"x" * (1 << 20)) for n in range(LARGE)]
        backlog.append(*bodies)
        _, answer = backlog.get("/raw", order="asc", rows_per_page=100)
        assert raw(answer) == (1, b", ".join(bodies))

    def test_by_time_topic_and_user(self, backlog: Backlog) -> None:
        now = time.time()
        for number in range(20):
            body = {"n": number, "username": f"user{number % 5}"}
            topic = f"topic{number % 2}"
            backlog.append(json.dumps(body).encode(), topic=topic, received=now - 100 + number)

        def numbers(**query: Any) -> list[int]:
            status, answer = backlog.get("/raw", order="asc", **query)
            assert status == 200
            return [body["n"] for body in json.loads(answer)["raw_messages"]]

        assert numbers(start=now - 90.5, end=now - 85.5) == [10, 11, 12, 13, 14]
        assert numbers(delta=82.5) == [18, 19]
        assert numbers(topic="topic1", start=now - 90) == [11, 13, 15, 17, 19]
        assert numbers(topic=["topic0", "topic1"], delta=82.5) == [18, 19]
        assert numbers(user="user3") == [3, 8, 13, 18]

    @pytest.mark.parametrize(
        ("method", "path", "status", "error"),
        [
            ("GET", "/raw?page=none", 400, "page must be a whole number, not 'none'"),
            ("GET", "/id", 400, "id must be given: the msg_id of a message"),
            ("GET", "/id?id=never", 404, "no message 'never' in the backlog"),
            ("GET", "/nothing", 404, "there is no '/nothing' here: see /"),
            ("POST", "/raw", 405, "only GET and HEAD"),
        ],
    )
    def test_refusals(
        self, backlog: Backlog, method: str, path: str, status: int, error: str
    ) -> None:
        found, answer = backlog.get(path, method)
        assert (found, json.loads(answer)) == (status, {"error": error})

    def test_one_message(self, backlog: Backlog) -> None:
        backlog.append(b"{}", b' {"second": 1e400}')
        assert backlog.get("/id", id="id-2") == (200, b' {"second": 1e400}')

    @pytest.mark.parametrize("path", ["/", "/raw", "/health", "/metrics"])
    def test_head(self, backlog: Backlog, path: str) -> None:
        assert backlog.get(path, "HEAD") == (200, b"")
        assert backlog.get(path)[0] == 200


class TestHealth:
    def test_a_relay_that_hangs(self, backlog: Backlog) -> None:
        backlog.silent.set()
        wait_for(lambda: backlog.get("/health")[0] == 503, what="health to notice")
        [problem] = json.loads(backlog.get("/health")[1])["problems"]
        assert problem.startswith("the relay has said nothing for ")
        assert b"\nfedmsg_relay_healthy 0.0\n" in backlog.get("/metrics")[1]
        backlog.silent.clear()
        wait_for(lambda: backlog.get("/health")[0] == 200, what="health to notice")

    def test_a_journal_that_cannot_be_read(self, backlog: Backlog) -> None:
        backlog.append(b'{"n": 1}')
        os.rename(backlog.path, f"{backlog.path}.away")
        status, answer = backlog.get("/health")
        assert status == 503
        [problem] = json.loads(answer)["problems"]
        assert problem.startswith("the backlog cannot be read: journal: there is no file ")
        assert backlog.get("/raw")[0] == backlog.get("/id", id="id-1")[0] == 503
        assert backlog.get("/metrics")[0] == 200
        os.rename(f"{backlog.path}.away", backlog.path)
        assert backlog.get("/health")[0] == 200
        assert b'{"n": 1}' in backlog.get("/raw")[1]

    def test_a_journal_that_is_another_one_by_now(self, backlog: Backlog) -> None:
        backlog.append(b'{"n": 1}')
        backlog.journal.close()
        for suffix in ("", "-wal", "-shm"):
            Path(backlog.path + suffix).unlink(missing_ok=True)
        backlog.journal = Journal(backlog.path, 1e6, 1 << 30)
        backlog.append(b'{"n": 2}')
        status, answer = backlog.get("/raw")
        assert (status, raw(answer)) == (200, (1, b'{"n": 2}'))


class TestProcess:
    def test_ends_with_the_relay_and_not_before(self, backlog: Backlog) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            backlog.child.send_signal(number)
        assert backlog.get("/")[0] == 200
        backlog.silent.set()
        assert backlog.child.stdin is not None
        backlog.child.stdin.close()
        assert backlog.child.wait(5) == 0

    def test_is_called_so(self, backlog: Backlog) -> None:
        directory = Path(f"/proc/{backlog.child.pid}")
        assert (directory / "comm").read_text() == "fedmsg-backlog\n"
        assert int((directory / "oom_score_adj").read_text()) == 500

    @pytest.fixture
    def without(self, tmp_path: Path) -> Callable[[str], str]:
        """A PYTHONPATH on which a package is missing."""

        def make(package: str) -> str:
            (tmp_path / f"{package}.py").write_text("raise ImportError('No module')\n")
            return f"{tmp_path}:{environment()['PYTHONPATH']}"

        return make

    def test_without_prometheus_client(self, tmp_path: Path, without: Callable[[str], str]) -> None:
        backlog = Backlog(tmp_path, PYTHONPATH=without("prometheus_client"))
        try:
            wait_for(lambda: backlog.get("/health")[0] == 200, what="a healthy backlog")
            error = {"error": "prometheus_client is not installed: No module"}
            status, answer = backlog.get("/metrics")
            assert (status, json.loads(answer)) == (503, error)
        finally:
            backlog.stop()

    def test_without_waitress(self, tmp_path: Path, without: Callable[[str], str]) -> None:
        backlog = Backlog(tmp_path, PYTHONPATH=without("waitress"))
        try:
            assert backlog.child.wait(20) == 1
            assert backlog.errors.read_text() == (
                "fedmsg-backlog: waitress is not installed, so there is no HTTP: No module\n"
            )
        finally:
            backlog.stop()


class TestHostileClients:
    """Each for long enough to be cut off; meanwhile others are answered without delay."""

    # Seconds a request may take on a machine that does other things beside: without bounds, those
    # below would wait until the hostile client goes away.
    SOON = 3.0

    def answers_soon(self, backlog: Backlog, path: str, **query: Any) -> None:
        """Well, and with no more to wait than for a few of the others."""
        started = time.monotonic()
        assert backlog.get(path, **query)[0] == 200
        at_most(self.SOON, since=started)

    def test_who_never_reads(self, backlog: Backlog) -> None:
        large = [b'{"x": "%s"}' % (b"x" * (1 << 20)) for _ in range(LARGE)]
        backlog.append(*large, received=time.time() - 1000)
        backlog.append(b"{}")
        request = b"GET /raw?rows_per_page=100 HTTP/1.1\r\nHost: x\r\n\r\n"
        with many([backlog.connect(request, 4096) for _ in range(40)]) as connections:
            # As many as may be served at once, and a few of those that are not.
            for _ in range(20):
                self.answers_soon(backlog, "/health")
                self.answers_soon(backlog, "/raw", delta=60)
            # Those that were let in are cut; what is left is the server's refusal to others.
            wait_for(
                lambda: backlog.get("/raw", rows_per_page=100)[0] == 200,
                what="room for another large page",
            )
            wait_for(lambda: all(map(is_closed, connections)), 40, what="all of them to be cut")

    def test_who_sends_a_request_a_byte_at_a_time(self, backlog: Backlog) -> None:
        begun = b"GET /health HTTP/1.1\r\nX: "
        with many([backlog.connect(begun) for _ in range(200)]) as connections:

            def all_cut() -> bool:
                self.answers_soon(backlog, "/health")
                for connection in connections:
                    with suppress(OSError):
                        connection.send(b"x")
                return all(map(is_closed, connections))

            wait_for(all_cut, 40, what="all of them to be cut")

    def test_who_takes_all_connections(self, backlog: Backlog) -> None:
        """More than the server keeps; several times that number must not shut anybody out."""
        with many([]) as connections:
            for number in range(800):
                connections.append(backlog.connect())
                if number % 50 == 0:
                    self.answers_soon(backlog, "/health")
            self.answers_soon(backlog, "/health")

    def test_who_sends_many_requests_at_once(self, backlog: Backlog) -> None:
        request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
        with closing(backlog.connect(1000 * request)) as connection:
            self.answers_soon(backlog, "/health")
            answer = b""
            while answer.count(b"HTTP/1.1 200 OK") < 1000:
                received = connection.recv(1 << 20)
                assert received
                answer += received

    @pytest.mark.parametrize(
        "request_bytes",
        [
            b"GET / HTTP/1.1\r\nX: " + b"x" * 1_000_000 + b"\r\n\r\n",
            b"GET /" + b"x" * 1_000_000 + b" HTTP/1.1\r\n\r\n",
            b"POST /raw HTTP/1.1\r\nContent-Length: 999999999\r\n\r\n" + b"x" * 100_000,
            b"POST /raw HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffff\r\n" + b"x" * 100_000,
            os.urandom(100_000),
        ],
    )
    def test_who_sends_too_much(self, backlog: Backlog, request_bytes: bytes) -> None:
        with closing(backlog.connect()) as connection:
            with suppress(OSError):  # cut in the middle of it
                connection.sendall(request_bytes)
            wait_for(lambda: is_closed(connection), what="it to be cut")
        self.answers_soon(backlog, "/health")


class Relayed:
    """A bus with a relay that keeps a journal and serves it."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        bus.with_journal(http=True)
        self.relay = bus.relay()

    def get(self, path: str) -> tuple[int, bytes]:
        host, _, port = self.bus.http.rpartition(":")
        with closing(http.client.HTTPConnection(host, int(port), patient(30))) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()


@pytest.fixture
def relayed(bus: Bus) -> Relayed:
    made = Relayed(bus)
    wait_for(lambda: made.get("/health")[0] == 200, what="a healthy relay")
    return made


class TestOfTheRelay:
    def test_has_what_came_either_way(self, relayed: Relayed, context: zmq.Context[Any]) -> None:
        sender = Sender(context, relayed.bus.inbound)
        legacy = numbered(1, odd="  1e400")
        sender.send(*legacy)
        wait_for(relayed.bus.journaled, what="the first to be journaled")
        submitted = numbered(2)
        assert Submitter(context, relayed.bus.submit).submit(*submitted)["ok"]
        expected = legacy[1] + b", " + submitted[1]
        status, answer = relayed.get("/raw?order=asc")
        assert (status, raw(answer)) == (200, (1, expected))

    def test_tells_of_a_relay_that_is_stopped(self, relayed: Relayed) -> None:
        with relayed.relay.paused():
            wait_for(lambda: relayed.get("/health")[0] == 503, what="health to notice")
        wait_for(lambda: relayed.get("/health")[0] == 200, what="health to notice")

    def test_ends_when_the_relay_is_killed(self, relayed: Relayed) -> None:
        relayed.relay.kill()

        def refused() -> bool:
            try:
                relayed.get("/health")
            except OSError:
                return True
            return False

        wait_for(refused, what="nobody to answer any more")

    def test_no_client_delays_the_bus(self, relayed: Relayed, context: zmq.Context[Any]) -> None:
        """Numbered messages on their way, while clients search, connect, and do not read."""
        with closing(sqlite3.connect(relayed.bus.journal)) as db, db:
            body = b'{"x": "%s"}' % (b"x" * 20_000)
            db.executemany(
                "INSERT INTO message (received, topic, msg_id, body) VALUES (1, 't', ?, ?)",
                ((f"old-{n}", body) for n in range(2000)),
            )
        listener = Listener(context, relayed.bus.outbound)
        sender = Sender(context, relayed.bus.inbound)
        wait_for(lambda: "connected," in relayed.relay.output, what="the listener to be seen")
        host, _, port = relayed.bus.http.rpartition(":")
        ended = threading.Event()

        def attack(request: bytes) -> None:
            while not ended.is_set():
                with many([]) as connections:
                    for _ in range(20):
                        connection = socket.create_connection((host, int(port)), patient(30))
                        connections.append(connection)
                        connection.sendall(request)
                    ended.wait(0.5)

        requests = (
            b"GET /raw?rows_per_page=100 HTTP/1.1\r\n\r\n",
            b"GET /raw?user=nobody HTTP/1.1\r\n\r\n",
            b"GET /health HTTP/1.1\r\nX: ",
            b"GET /metrics HTTP/1.1\r\n\r\n" * 50,
        )
        attackers = [threading.Thread(target=attack, args=(request,)) for request in requests]
        for attacker in attackers:
            attacker.start()
        delays = []
        try:
            for number in range(200):
                started = time.monotonic()
                sender.send(*numbered(number))
                assert listener.receive() == numbered(number)
                delays.append(time.monotonic() - started)
                time.sleep(0.02)
        finally:
            ended.set()
            for attacker in attackers:
                attacker.join()
        # Half a second without attention, and a publisher that comes and goes is lost.
        fits(max(delays), 0.5)
        fits(statistics.median(delays), 0.05)


@pytest.fixture
def tail(relayed: Relayed) -> Callable[..., Process]:
    def start(*options: str) -> Process:
        return relayed.bus.start(*relayed.bus.command("tail"), *options)

    return start


def printed(process: Process) -> list[int]:
    """The numbers of the messages that fedmsg-tail has printed, in order."""
    return [
        int(line.partition("'n': ")[2].partition("}")[0])
        for line in process.output.splitlines()
        if "'n': " in line
    ]


class TestTailSince:
    def test_past_and_present_without_a_gap(
        self, relayed: Relayed, tail: Callable[..., Process], context: zmq.Context[Any]
    ) -> None:
        """It starts while messages go by, and prints each one of them once and in order."""
        sender = Sender(context, relayed.bus.inbound)
        sent = 0

        def send(count: int) -> None:
            nonlocal sent
            for _ in range(count):
                sender.send(*numbered(sent))
                sent += 1

        send(250)
        wait_for(lambda: len(relayed.bus.journaled()) == 250, what="the journal to have all")
        process = tail("--since", "10m")

        def prints_what_is_new() -> bool:
            send(5)
            return len(printed(process)) >= 1000

        wait_for(prints_what_is_new, 30, "a thousand messages")
        send(1)
        wait_for(lambda: printed(process)[-1:] == [sent - 1], what="the last one")
        assert printed(process) == list(range(sent))

    def test_no_gap_while_the_relay_does_not_know_of_it_yet(
        self, relayed: Relayed, tail: Callable[..., Process], context: zmq.Context[Any]
    ) -> None:
        """Its subscription arrives late, and the backlog is read in no time."""
        with Proxy(relayed.bus.outbound, delay=0.3) as path:
            endpoints = {"relay_outbound": [path.endpoint]}
            relayed.bus.configure("slow", endpoints=endpoints, timeout=20)
            submitter = Submitter(context, relayed.bus.submit)
            process = tail("--since", "10m")
            sent = 0

            def is_known() -> bool:
                nonlocal sent
                assert submitter.submit(*numbered(sent))["ok"]
                sent += 1
                return "connected," in relayed.relay.output and sent % 100 == 0

            wait_for(is_known, what="the relay to know of it")
            wait_for(lambda: printed(process)[-1:] == [sent - 1], what="the last one")
            assert printed(process) == list(range(sent))

    def test_filters_apply_to_both(
        self, relayed: Relayed, tail: Callable[..., Process], context: zmq.Context[Any]
    ) -> None:
        submitter = Submitter(context, relayed.bus.submit)

        def send(begin: int) -> None:
            for number, topic in enumerate(("a.x", "a.y", "b.x", "a._heartbeat"), begin):
                _, body = numbered(number, topic=topic)
                assert submitter.submit(topic.encode(), body)["ok"]

        send(0)
        process = tail("--since", "1h", "--topic", "a", "--exclude", "y|_heartbeat")
        wait_for(lambda: printed(process) == [0], what="the past")
        wait_for(lambda: "connected," in relayed.relay.output, what="the listener to be seen")
        send(10)
        wait_for(lambda: printed(process) == [0, 10], what="the present")

    def test_only_so_long_ago(
        self, relayed: Relayed, tail: Callable[..., Process], context: zmq.Context[Any]
    ) -> None:
        submitter = Submitter(context, relayed.bus.submit)
        assert submitter.submit(*numbered(1))["ok"]
        with closing(sqlite3.connect(relayed.bus.journal)) as db, db:
            db.execute("UPDATE message SET received = received - 100")
        assert submitter.submit(*numbered(2))["ok"]
        process = tail("--since", "90s")
        wait_for(lambda: printed(process), what="the past")
        assert printed(process) == [2]

    def test_no_relay_to_ask(self, bus: Bus) -> None:
        result = bus.tool("tail", "--since", "10m")
        assert result.returncode == 2
        assert result.stderr == (
            "fedmsg-tail: no relay of this config serves a backlog: config key relay_http is"
            " empty\n"
        )

    def test_no_relay_answers(self, bus: Bus) -> None:
        bus.with_journal(http=True)
        result = bus.tool("tail", "--since", "10m")
        assert result.returncode == 2
        assert result.stderr == (
            f"fedmsg-tail: no backlog can be read: http://{bus.http}/raw: Connection refused\n"
        )

    def test_one_of_two_does_not_answer(
        self, relayed: Relayed, tail: Callable[..., Process], context: zmq.Context[Any]
    ) -> None:
        relayed.bus.configure("two", relay_http=["127.0.0.1:1", relayed.bus.http])
        assert Submitter(context, relayed.bus.submit).submit(*numbered(1))["ok"]
        process = tail("--since", "10m")
        wait_for(lambda: printed(process) == [1], what="the past")
        assert "fedmsg-tail: http://127.0.0.1:1/raw: Connection refused\n" in process.output

    def test_no_such_time(self, bus: Bus) -> None:
        result = bus.tool("tail", "--since", "yesterday")
        assert result.returncode == 2
        assert "'yesterday' is not a time such as 90s, 10m, 2h or 1d" in result.stderr

    def test_several_relays_are_merged(self, tmp_path: Path, bus: Bus) -> None:
        """What two relays have both kept is printed once, and all is in the order of its time."""
        backlogs = []
        try:
            for name, numbers in (("a", (1, 2, 4, 5)), ("b", (2, 3, 5, 6))):
                (tmp_path / name).mkdir()
                backlogs.append(Backlog(tmp_path / name))
                bodies = [
                    {"topic": "t", "timestamp": n, "msg_id": f"m{n}", "msg": {"n": n}}
                    for n in numbers
                ]
                backlogs[-1].append(*(json.dumps(body).encode() for body in bodies))
            addresses = ["{}:{}".format(*backlog.address) for backlog in backlogs]
            bus.configure("http", relay_http=addresses, timeout=0.2)
            process = bus.start(*bus.command("tail"), "--since", "1h")
            wait_for(lambda: len(printed(process)) == 6, what="all of them")
            assert printed(process) == [1, 2, 3, 4, 5, 6]
        finally:
            for backlog in backlogs:
                backlog.stop()
