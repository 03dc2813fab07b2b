"""Fixtures: a RabbitMQ, what speaks with it, and a bridge."""

from __future__ import annotations

import base64
import json
import os
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from fedmsg_relay import message as messages
from fedmsg_relay.bridge import convert
from fedmsg_relay.journal.store import Journal, Row

from tests.support import venvs
from tests.support.broker import Node
from tests.support.ports import free_port
from tests.support.programs import ROOT, Program, environment, run
from tests.support.relays import Bus
from tests.support.waiting import wait_for

TOPIC = "org.fedoraproject.dev.test.n"
PROGRAM = Path(__file__).parent / "programs/amqp.py"
# How often what is killed in a loop is killed.
ROUNDS = int(os.environ.get("FEDMSG_AMQP_ROUNDS") or 10)


@pytest.fixture(scope="session")
def amqp_venv() -> Path:
    """The virtual environment with fedora-messaging (requirements/amqp.txt)."""
    return venvs.of("FEDMSG_AMQP_VENV", "fedora-messaging", "amqp.txt", "amqp")


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A RabbitMQ for all tests that leave it as it was."""
    made = Node(tmp_path_factory.mktemp("rabbitmq") / "node")
    try:
        made.start()
        yield made
    finally:
        made.close()


class Amqp:
    """The other bus: a queue of a test's own on a node."""

    def __init__(self, node: Node, venv: Path) -> None:
        self.node = node
        self.python = venv / "bin/python"
        self.queue = f"q-{uuid.uuid4()}"

    def do(self, *words: str | int) -> str:
        done = run([self.python, PROGRAM, self.node.url, *map(str, words)], timeout=60)
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    def bind(self, pattern: str = "#") -> None:
        self.do("bind", self.queue, pattern)

    def drain(self) -> list[dict[str, Any]]:
        """What is in the queue: fedora-messaging has validated each."""
        found = [json.loads(line) for line in self.do("drain", self.queue).splitlines()]
        for each in found:
            assert each["mode"] == 2 and each["type"] == "application/json"
            assert each["encoding"] == "utf-8"
        return found


@pytest.fixture
def amqp(node: Node, amqp_venv: Path) -> Iterator[Amqp]:
    made = Amqp(node, amqp_venv)
    yield made
    made.do("delete", made.queue)


class Bridge:
    """A journal that the test writes, or the relay of a bus, and the bridge's own keys."""

    def __init__(self, bus: Bus, amqp: Amqp, python: Path | str, **keys: Any) -> None:
        self.bus, self.amqp, self.python = bus, amqp, python
        self.http = f"127.0.0.1:{free_port()}"
        self.state = bus.directory / "state"
        self.configure(**keys)
        self.program: Program | None = None
        self._journal: Journal | None = None

    def configure(self, **keys: Any) -> None:
        self.bus.configure(
            "bridge",
            **{
                "amqp_url": self.amqp.node.url,
                "amqp_state": str(self.state),
                "amqp_http": self.http,
                "amqp_from": "oldest",
                **keys,
            },
        )

    def write(self, first: int, last: int, topic: str = TOPIC, **keys: Any) -> list[bytes]:
        """Have numbered messages in the journal, as a relay would. Returns their bodies."""
        if self._journal is None:
            self._journal = Journal(str(self.bus.journal), 1e9, 1 << 30)
        rows = []
        for n in range(first, last):
            made = {**messages.build(topic, {"n": n}, n + 1), **keys}
            rows.append(Row(time.time(), topic, made["msg_id"], messages.encode(made), True))
        self._journal.append(rows)
        return [row.body for row in rows]

    def trim(self) -> None:
        """Let the journal have its newest message only."""
        assert self._journal is not None
        self._journal._max_age = 1e-9
        self._journal.trim(time.time() + 10)

    def start(self, *options: str) -> Program:
        command = [self.python, "-m", "fedmsg_relay.amqp_bridge"]
        command += ["--config-filename", str(self.bus.config_directory), *options]
        self.program = self.bus.start(*command, PYTHONPATH=str(ROOT / "files"))
        return self.program

    def command(self, *options: str) -> Any:
        command = [self.python, "-m", "fedmsg_relay.amqp_bridge"]
        command += ["--config-filename", self.bus.config_directory, *options]
        return run(command, env=environment(PYTHONPATH=str(ROOT / "files")))

    def health(self) -> dict[str, Any]:
        """What /health answers; {} while nobody does."""
        try:
            with urllib.request.urlopen(f"http://{self.http}/health", timeout=10) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            return json.load(error)
        except OSError:
            return {}

    def metrics(self) -> str:
        with urllib.request.urlopen(f"http://{self.http}/metrics", timeout=10) as answer:
            return answer.read().decode()

    def confirmed(self) -> int:
        return self.health().get("bridge", {}).get("confirmed", -1)

    def wait_for_seq(self, seq: int) -> None:
        """Until all up to `seq` is confirmed."""
        wait_for(lambda: self.confirmed() >= seq, 60, f"seq {seq} to be confirmed", pause=0.1)

    def wait_for_trouble(self, kind: str | None, side: str = "out") -> str:
        """Until that is what is wrong; what /health says of it."""

        def told() -> dict[str, Any] | None:
            found = self.health().get("bridge", {}).get(side, {})
            return found if found.get("trouble", "") == kind else None

        return str(wait_for(told, 60, f"trouble {kind}", pause=0.1)["error"])


@pytest.fixture
def make_bridge(bus: Bus, amqp: Amqp) -> Callable[..., Bridge]:
    """Make the bridge of a bus with a journal; `python` is what runs it."""

    def make(python: Path | str | None = None, **keys: Any) -> Bridge:
        if not hasattr(bus, "journal"):
            bus.with_journal()
        return Bridge(bus, amqp, python or amqp.python, **keys)

    return make


def numbers(found: list[dict[str, Any]]) -> list[int]:
    return [each["body"]["n"] for each in found]


def originals(found: list[dict[str, Any]]) -> list[bytes | None]:
    return [convert.original(e["headers"], base64.b64decode(e["raw"])) for e in found]
