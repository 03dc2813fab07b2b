"""A restart costs nothing: sockets stay bound, what was taken comes out, listeners are awaited."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from typing import Any, Callable

import pytest
import zmq

from tests.conftest import (
    RELAY,
    ROOT,
    Bus,
    Listener,
    Process,
    Submitter,
    environment,
    free_port,
    numbered,
    wait_for,
)

MakeListener = Callable[..., Listener]


class Unit:
    """The relay under something that holds its sockets, as fedmsg-relay.socket does."""

    def __init__(self, bus: Bus, addresses: list[str]) -> None:
        self.process = bus.start(
            sys.executable, ROOT / "tests/integration/socket_unit.py", *addresses, "--",
            sys.executable, RELAY, "--config-filename", bus.config_directory,
        )  # fmt: skip
        self.starts = 0
        self.await_ready()

    def await_ready(self) -> None:
        self.starts += 1
        wait_for(lambda: self.process.output.count("] ready") >= self.starts, what="the relay")

    def restart(self) -> None:
        self.process.child.send_signal(signal.SIGHUP)


class Background:
    """A listener whose thread runs all the time, as a listener's does."""

    def __init__(self, bus: Bus) -> None:
        self.numbers: list[int] = []
        self._end = threading.Event()
        self._context: zmq.Context[Any] = zmq.Context()
        self._listener = Listener(self._context, bus.outbound)
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while not self._end.is_set():
            if self._listener.socket.poll(20):
                body = json.loads(self._listener.socket.recv_multipart()[1])
                self.numbers.append(int(body["msg"].get("n", body["msg"].get("log", -1))))

    def close(self) -> None:
        self._end.set()
        self._thread.join()
        self._context.destroy(linger=0)


@pytest.fixture
def unit(bus: Bus) -> Unit:
    bus.configure("z", zmq_reconnect_ivl=100, zmq_reconnect_ivl_max=1000)
    bus.with_journal()
    return Unit(bus, [bus.inbound, bus.submit, bus.outbound])


@pytest.fixture
def background(bus: Bus, unit: Unit) -> Any:
    made = Background(bus)
    wait_for(lambda: "1 now" in unit.process.output)
    # A relay that is killed earlier knows of nobody whom its successor could wait for.
    wait_for(lambda: _remembered(bus) == {"127.0.0.1": 1}, what="the journal to know of it")
    yield made
    made.close()


def test_the_sockets_passed_in_are_taken(bus: Bus, unit: Unit, context: zmq.Context[Any]) -> None:
    inherited = unit.process.output
    assert "cannot bind" not in inherited and "does not name it" not in inherited
    listening = Listener(context, bus.outbound)
    wait_for(lambda: "1 now" in unit.process.output)
    assert Submitter(context, bus.submit).submit(*numbered(1))["ok"]
    assert listening.receive() == numbered(1)


def test_one_that_the_config_does_not_name_is_said_and_left_to_others(bus: Bus) -> None:
    other = f"tcp://127.0.0.1:{free_port()}"
    unit = Unit(bus, [bus.inbound, other])
    assert f"{other} is bound for us, and the config does not name it" in unit.process.output
    # Outbound was not passed in: the relay has bound it itself.
    with pytest.raises(OSError):
        socket.create_server(("127.0.0.1", int(bus.outbound.rpartition(":")[2])))


def test_a_connection_made_while_nobody_is_there_is_served(
    bus: Bus, unit: Unit, context: zmq.Context[Any], background: Background
) -> None:
    relay = _child(unit)
    unit.process.child.pause(relay)
    client = Submitter(context, bus.submit)
    number = client.send(*numbered(1))
    os.kill(relay, signal.SIGKILL)  # with the connection in the socket's queue
    unit.await_ready()
    assert client.reply() == (number, {"ok": True, "seq": 1, "msg_id": "id-1"})
    wait_for(lambda: background.numbers == [1])


def test_our_publishers_lose_none_and_double_none_over_a_restart(
    bus: Bus, unit: Unit, background: Background, figure: Callable[[str, object], None]
) -> None:
    """40 publishers, 4 at a time, and a restart in their middle."""
    numbers = iter(range(40))
    lock = threading.Lock()
    statuses: list[int] = []

    def publish() -> None:
        while True:
            with lock:
                number = next(numbers, None)
                if number is None:
                    return
                if number == 20:
                    unit.restart()
            done = subprocess.run(
                [*bus.command("logger"), "--message", str(number)],
                env=environment(), cwd=bus.directory, check=False, timeout=60,
            )  # fmt: skip
            statuses.append(done.returncode)

    threads = [threading.Thread(target=publish) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [0] * 40
    wait_for(lambda: len(background.numbers) >= 40)
    figure("restart-lost", 40 - len(set(background.numbers)))
    figure("restart-doubled", len(background.numbers) - len(set(background.numbers)))
    assert sorted(background.numbers) == list(range(40))
    assert "unit: ended with 0" in unit.process.output


@pytest.mark.parametrize("restarts", [5])
def test_a_pipeline_over_restarts_is_acknowledged_and_relayed_once_each(
    bus: Bus, unit: Unit, context: zmq.Context[Any], background: Background, restarts: int
) -> None:
    """A client that submits again what was not acknowledged, as docs/protocol.adoc tells it to."""
    acknowledged: set[int] = set()
    total = 0
    for _ in range(restarts):
        client = Submitter(context, bus.submit)
        mine = range(total, total + 3000)
        total += 3000
        sent = {client.send(*numbered(number)): number for number in mine}
        correlation, reply = client.reply()
        acknowledged.add(sent[correlation])
        unit.restart()
        unit.await_ready()
        while not acknowledged.issuperset(mine):
            if not client.socket.poll(1000):
                for number in set(mine) - acknowledged:
                    sent[client.send(*numbered(number))] = number
                continue
            correlation, reply = client.reply()
            assert reply["ok"], reply
            acknowledged.add(sent[correlation])
    wait_for(lambda: len(background.numbers) >= total)
    assert sorted(background.numbers) == list(range(total))
    assert sorted(bus.journaled()) == sorted(f"id-{number}" for number in range(total))


class TestHold:
    def test_ends_as_soon_as_the_listeners_of_before_are_back(
        self, bus: Bus, unit: Unit, background: Background
    ) -> None:
        # Were it to wait for its longest, this would be 20 s.
        bus.configure("z", zmq_reconnect_ivl=100, zmq_reconnect_ivl_max=20_000)
        background_numbers = background.numbers
        unit.restart()
        started = time.monotonic()
        unit.await_ready()
        assert time.monotonic() - started < 5
        assert background_numbers == []

    def test_is_not_when_nobody_was_there(self, bus: Bus, unit: Unit) -> None:
        bus.configure("z", zmq_reconnect_ivl=100, zmq_reconnect_ivl_max=20_000)
        unit.restart()
        started = time.monotonic()
        unit.await_ready()
        assert time.monotonic() - started < 5

    @pytest.mark.parametrize(("keys", "least"), [({"relay_hold_max": 1}, 0.9), ({}, 1.9)])
    def test_ends_when_they_do_not_come_back(
        self, bus: Bus, context: zmq.Context[Any], keys: dict[str, Any], least: float
    ) -> None:
        bus.with_journal(**keys)
        relay = bus.relay()
        gone = Listener(context, bus.outbound)
        relay.wait_for_line("1 now")
        wait_for(lambda: _remembered(bus) == {"127.0.0.1": 1})
        relay.child.kill()
        relay.child.wait()
        gone.socket.close(linger=0)
        started = time.monotonic()
        again = bus.relay(ready=False)
        again.wait_for_line("submit: ")
        bound = time.monotonic()
        again.wait_for_line("] ready")
        assert least <= time.monotonic() - started
        assert time.monotonic() - bound < least + 1.5

    def test_what_comes_in_meanwhile_reaches_those_who_come_back(
        self, bus: Bus, context: zmq.Context[Any]
    ) -> None:
        bus.with_journal(relay_hold_max=20)
        relay = bus.relay()
        listening = Listener(context, bus.outbound)
        relay.wait_for_line("1 now")
        wait_for(lambda: _remembered(bus) == {"127.0.0.1": 1})
        assert relay.terminate() == 0
        listening.socket.close(linger=0)
        again = bus.relay(ready=False)
        again.wait_for_line("submit: ")
        client = Submitter(context, bus.submit)
        for number in range(100):
            assert client.submit(*numbered(number))["ok"]
        assert "] ready" not in again.output
        late = Listener(context, bus.outbound)
        assert [late.receive() for _ in range(100)] == [numbered(n) for n in range(100)]
        again.wait_for_line("] ready", timeout=5)


def _remembered(bus: Bus) -> object:
    with closing(sqlite3.connect(bus.journal)) as db:
        found = db.execute("SELECT value FROM meta WHERE key = 'listeners'").fetchall()
    return json.loads(found[0][0]) if found else None


def _child(unit: Unit) -> int:
    pid = unit.process.pid
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as children:
        return int(children.read().split()[0])


def test_nothing_is_left_of_a_relay_that_is_killed(bus: Bus, unit: Unit) -> None:
    """Its processes are gone with it, and the next one starts as if nothing had been."""
    for _ in range(3):
        os.kill(_child(unit), signal.SIGKILL)
        unit.await_ready()
    assert isinstance(unit.process, Process)
    assert unit.process.output.count("unit: ended with -9") == 3
