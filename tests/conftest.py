"""What the tests of every kind use: free ports, a config on disk, a relay as a real process."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

ROOT = Path(__file__).resolve().parent.parent
RELAY = ROOT / "relay.py"


def wait_for(condition: Callable[[], Any], timeout: float = 20.0, what: str = "") -> Any:
    """The first true value of `condition()`. Fails the test after `timeout` seconds."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            pytest.fail(f"waited {timeout} s in vain for {what or condition}")
        time.sleep(0.01)


def free_port() -> int:
    """A port nobody listens on, below the range that outgoing connections take theirs from.

    At random, so that two runs of the tests on one machine do not meet.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def environment(**extra: str) -> dict[str, str]:
    """For a child process: our package on the path, no config of this user's."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("FEDMSG_", "NOTIFY_"))}
    return {**inherited, "PYTHONPATH": str(ROOT / "files"), "PYTHONUNBUFFERED": "1", **extra}


class Bus:
    """A config directory, its addresses, and processes that run by it until the test ends."""

    def __init__(self, directory: Path, **keys: Any) -> None:
        self.directory = directory
        self.config_directory = directory / "fedmsg.d"
        self.config_directory.mkdir()
        self.inbound = f"tcp://127.0.0.1:{free_port()}"
        self.outbound = f"tcp://127.0.0.1:{free_port()}"
        self.configure(
            relay_inbound=[self.inbound], endpoints={"relay_outbound": [self.outbound]}, **keys
        )
        self._started: list[Process] = []

    def with_journal(self, *, http: bool = False, **keys: Any) -> None:
        """Give the relay a journal and a submit address and, if asked for, HTTP."""
        self.journal = self.directory / "journal.db"
        self.submit = f"tcp://127.0.0.1:{free_port()}"
        self.http = f"127.0.0.1:{free_port()}"
        self.configure(
            "journal",
            relay_journal=str(self.journal),
            relay_submit=[self.submit],
            **({"relay_http": [self.http]} if http else {}),
            **keys,
        )

    def journaled(self) -> list[str]:
        """The msg_id of every row of the journal, in order."""
        with sqlite3.connect(self.journal) as db:
            return [row[0] for row in db.execute("SELECT msg_id FROM message ORDER BY seq")]

    def configure(self, name: str = "base", /, **keys: Any) -> Path:
        """Write `NAME.py` of the config. Later names win, as everywhere."""
        path = self.config_directory / f"{name}.py"
        path.write_text(f"config = {keys!r}\n")
        return path

    def start(self, *command: str | Path, **env: str) -> Process:
        process = Process(self.directory, [str(part) for part in command], env)
        self._started.append(process)
        return process

    def relay(self, *options: str, ready: bool = True, **env: str) -> Process:
        """Our relay, once it is ready."""
        process = self.start(
            sys.executable, RELAY, "--config-filename", self.config_directory, *options, **env
        )
        if ready:
            process.wait_for_line("ready")
        return process

    def tool(self, name: str, *options: str, **run: Any) -> subprocess.CompletedProcess[str]:
        """Run `fedmsg-NAME` of ours to its end."""
        return subprocess.run(
            [*self.command(name), *options],
            env=environment(**run.pop("env", {})),
            cwd=self.directory,
            **{"capture_output": True, "text": True, "timeout": 60, **run},
        )

    PATIENT = ("--warning", "30000", "--critical", "40000")

    def probe(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Run `fedmsg-probe` so that a busy machine's answers, which come late, are no warning."""
        return self.tool("probe", *self.PATIENT, *options)

    def command(self, name: str) -> list[str]:
        module = f"fedmsg_relay.{name}"
        return [sys.executable, "-m", module, "--config-filename", str(self.config_directory)]

    def stop(self) -> None:
        for process in self._started:
            process.kill()


class Process:
    """A child process; its output goes to a file, and is shown when a test fails."""

    _count = 0

    def __init__(self, directory: Path, command: list[str], env: dict[str, str]) -> None:
        Process._count += 1
        self.log = directory / f"process-{Process._count}.log"
        with self.log.open("wb") as output:
            self.child = subprocess.Popen(
                command,
                cwd=directory,
                env=environment(**env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.command = command

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def output(self) -> str:
        return self.log.read_text(errors="backslashreplace")

    def is_running(self) -> bool:
        return self.child.poll() is None

    def wait_for_line(self, text: str, timeout: float = 20.0) -> None:
        def seen() -> bool:
            if text in self.output:
                return True
            assert self.is_running(), f"{self.command} ended: {self.output}"
            return False

        wait_for(seen, timeout, f"{text!r} in the output of {self.command}")

    def terminate(self, timeout: float = 20.0) -> int:
        """SIGTERM; the exit status."""
        self.child.send_signal(signal.SIGTERM)
        return self.child.wait(timeout)

    def kill(self) -> None:
        if self.is_running():
            self.child.kill()
        self.child.wait(20)
        print(f"--- {' '.join(self.command)}\n{self.output}")


class Listener:
    """A SUB socket, connected as listeners are, that is known to be subscribed."""

    def __init__(self, context: zmq.Context[Any], *endpoints: str, topic: bytes = b"") -> None:
        self.socket = context.socket(zmq.SUB)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVHWM, 0)
        self.socket.setsockopt(zmq.SUBSCRIBE, topic)
        for endpoint in endpoints:
            self.socket.connect(endpoint)

    def receive(self, timeout: float = 20.0) -> list[bytes]:
        assert self.socket.poll(int(timeout * 1000)), "no message arrived"
        return self.socket.recv_multipart()

    def receive_until(self, last: bytes, timeout: float = 30.0) -> list[list[bytes]]:
        """All messages up to the one whose body has `last` in it, which is left out."""
        received: list[list[bytes]] = []
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            frames = self.receive(max(0.0, end - time.monotonic()))
            if last in frames[-1]:
                return received
            received.append(frames)
        raise AssertionError(f"{last!r} did not arrive")


class Sender:
    """A raw publisher, connected and subscribed to: what it sends arrives, whatever it is."""

    def __init__(self, context: zmq.Context[Any], endpoint: str) -> None:
        self.socket = context.socket(zmq.XPUB)
        self.socket.setsockopt(zmq.SNDHWM, 0)
        self.socket.setsockopt(zmq.LINGER, 10_000)
        self.socket.connect(endpoint)
        assert self.socket.poll(20_000), f"no relay at {endpoint}"
        assert self.socket.recv() == b"\x01"

    def send(self, *frames: bytes) -> None:
        self.socket.send_multipart(frames)


def numbered(number: int, **more: Any) -> list[bytes]:
    """Topic and body of a complete message with `number` in its msg_id, `id-17`."""
    body = {"topic": "t", "timestamp": 1, "msg_id": f"id-{number}", "msg": {"n": number}, **more}
    return [b"t", json.dumps(body).encode()]


class Submitter:
    """A raw client of the submit address; every request has a number, which its reply echoes."""

    def __init__(self, context: zmq.Context[Any], endpoint: str) -> None:
        self.socket = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.SNDHWM, 0)
        self.socket.setsockopt(zmq.RCVHWM, 0)
        self.socket.connect(endpoint)
        self._sent = 0

    def send(self, *frames: bytes) -> int:
        self._sent += 1
        self.socket.send_multipart([b"%d" % self._sent, b"", *frames])
        return self._sent

    def reply(self, timeout: float = 20.0) -> tuple[int, dict[str, Any]]:
        """The number of the request, and what was answered, but for the time."""
        assert self.socket.poll(int(timeout * 1000)), "no reply"
        correlation, empty, frame = self.socket.recv_multipart()
        assert empty == b""
        reply = json.loads(frame)
        assert isinstance(reply.pop("time", None), float) == reply["ok"]
        return int(correlation), reply

    def submit(self, *frames: bytes, timeout: float = 20.0) -> dict[str, Any]:
        """Send one request, alone, and wait for its reply."""
        number = self.send(*frames)
        correlation, reply = self.reply(timeout)
        assert correlation == number
        return reply


@pytest.fixture
def figure() -> Callable[[str, object], None]:
    """Give a figure of docs/delivery.adoc, `figure("restart-lost", 0)`; see tools/delivery."""

    def give(name: str, value: object) -> None:
        print(f"figure: {name} {value}")
        if "FEDMSG_FIGURES" in os.environ:
            with open(os.environ["FEDMSG_FIGURES"], "a", encoding="utf-8") as figures:
                figures.write(f"{name} {value}\n")

    return give


@pytest.fixture
def context() -> Iterator[zmq.Context[Any]]:
    made = zmq.Context()
    yield made
    made.destroy(linger=0)


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[Bus]:
    # The second is how long a relay that starts waits for listeners, less a margin.
    made = Bus(tmp_path, post_init_sleep=0.1, zmq_reconnect_ivl_max=100)
    yield made
    made.stop()


@pytest.fixture
def listener(bus: Bus, context: zmq.Context[Any]) -> Callable[..., Listener]:
    """Make a listener and wait until the relay has it: `listener(relay)`."""

    def make(relay: Process, **options: Any) -> Listener:
        seen = relay.output.count("connected,")
        made = Listener(context, bus.outbound, **options)
        wait_for(lambda: relay.output.count("connected,") > seen, what="the listener to be seen")
        return made

    return make
