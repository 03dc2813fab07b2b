"""Our publishers make the messages upstream's make, byte for byte but for time and msg_id."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import pytest
import zmq

from .bus import Bus

MSG_ID = re.compile(r"\d{4}-[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


@dataclass(frozen=True)
class Run:
    """A command line, what it reads, and how many messages it publishes."""

    options: tuple[str, ...] = ()
    stdin: str | bytes = ""
    count: int = 1


LOGGER = {
    "message": Run(("--message", "This is a message.")),
    "message with blanks": Run(("--message", "  two  blanks \t")),
    "message in unicode": Run(("--message", "Raphaël \U0001f41b \u202e \u2028")),
    "message that is not UTF-8": Run(("--message", b"caf\xe9".decode("utf-8", "surrogateescape"))),
    "message that looks like JSON": Run(("--message", '{"a": 1}')),
    "empty message, so from stdin": Run(("--message", ""), "from stdin\n"),
    "JSON message": Run(("--json-input", "--message", '{"a": [1, 2.50, null, {"é": "\\ud83d"}]}')),
    "JSON message, nothing in it": Run(("--json-input", "--message", "{}")),
    "JSON input": Run(("--json-input",), '{"b": 1,\n "a": {"z": 1, "y": 1e2}}\n'),
    "JSON input, keys twice": Run(("--json-input",), '{"a": 1, "a": 2}'),
    "JSON input, unusual numbers": Run(
        ("--json-input",), '{"a": [-0.0, 1E5, 1e-400, 12345678901234567890123]}'
    ),
    "JSON input, null": Run(("--json-input",), "null"),
    "JSON input, zero": Run(("--json-input",), "0"),
    "JSON input, false": Run(("--json-input",), "false"),
    "JSON input, empty list": Run(("--json-input",), "[]"),
    "JSON input, empty string": Run(("--json-input",), '""'),
    "JSON input, number": Run(("--json-input",), "5"),
    "JSON input, string": Run(("--json-input",), '"text"'),
    "JSON input, list": Run(("--json-input",), "[1, {}]"),
    "lines": Run((), "one\ntwo\nthree\n", 3),
    "lines, the last one open": Run((), "one\ntwo", 2),
    "lines with blanks": Run((), "  one \t\n\ttwo\n", 2),
    "blank lines": Run((), "one\n\n   \n\ntwo\n", 5),
    "lines with CR": Run((), "one\r\ntwo\r\n\r\n", 3),
    "lines of an old Mac": Run((), "one\rtwo\rthree", 1),
    "lines with other separators": Run((), "a\x0bb\x0cc\x1cd\x85e\u2028f\u2029\n\u00a0g\n", 2),
    "lines in unicode": Run((), "Größe\n\U0001f41f\n\ufeffBOM\n", 3),
    "lines with control characters": Run((), "a\0b\n\x1b[31mred\x1b[0m\n\x7f\n", 3),
    "long line": Run((), "word " * 50_000 + "\n"),
    "no lines": Run((), "", 0),
    "topic": Run(("--topic", "repo.update", "--message", "x")),
    "modname": Run(("--modname", "git", "--topic", "repo.update", "--message", "x")),
    "modname with the prefix": Run(
        ("--modname", "org.fedoraproject.stg.git", "--topic", "receive", "--message", "x")
    ),
    "modname that only begins like it": Run(("--modname", "org.fedoraprojects", "--message", "x")),
    "topic with the prefix": Run(("--topic", "org.fedoraproject.dev.git", "--message", "x")),
    "topic in unicode": Run(("--topic", "größe.\U0001f41f", "--message", "x")),
    "topic with a blank": Run(("--topic", "a b\tc", "--message", "x")),
    "empty topic": Run(("--topic", "", "--message", "x")),
    "empty modname": Run(("--modname", "", "--message", "x")),
    "topic prefix": Run(("--topic-prefix", "com.example", "--message", "x")),
    "topic prefix with a dot": Run(("--topic-prefix", "com.example.", "--message", "x")),
    "cert prefix": Run(("--cert-prefix", "fedmsg", "--message", "x")),
    "options written together": Run(("--topic=a=b", "--message=--json-input", "--linger=500")),
    "common options": Run(("--io-threads", "2", "--timeout", "5", "--message", "x")),
}

SCRIPT_ARGUMENTS = {
    "everything": 'topic="a.b", msg={"x": [1, 2.5, None]}, modname="peer"',
    "nothing": "",
    "topic only": 'topic="a"',
    "msg none": 'topic="a", msg=None, modname="peer"',
    "msg empty": 'topic="a", msg=[], modname="peer"',
    "msg zero": 'topic="a", msg=0, modname="peer"',
    "msg text": 'topic="a", msg="größe", modname="peer"',
    "msg tuple": 'topic="a", msg=(1, (2,)), modname="peer"',
    "keys of other types": 'topic="a", msg={1: 1, 2: None}, modname="peer"',
    "dates": 'topic="a", msg=[datetime.datetime(2012, 10, 1, 16, 30), datetime.date(2012, 10, 1)]',
    "struct_time": 'topic="a", msg={"when": time.gmtime(0)}',
    "set": 'topic="a", msg={"set": {1}}',
    "__json__": 'topic="a", msg=Branch()',
    "positional": '"a", {"x": 1}, modname="peer"',
    "hook": 'topic="a", msg={}, pre_fire_hook=lambda message: message.update(seen=True)',
    "topic in unicode": 'topic="größe", modname="é", msg={}',
}

# The same text for both; only what `bus` is differs.
SCRIPT = """
import datetime, time

class Branch:
    def __json__(self):
        return {"name": "f18", "collection": {1}}

bus.publish(%s)
bus.publish(topic="second", msg={"n": 2}, modname="peer")
"""
UPSTREAM_SCRIPT = 'import fedmsg as bus\nbus.init(active=True, name="relay_inbound")\n' + SCRIPT
OUR_SCRIPT = (
    "import fedmsg_relay as bus\n"
    'bus.init(active=True, name="relay_inbound", config_filename="fedmsg.d")\n' + SCRIPT
)

Sent = list[list[bytes]]


class Bench:
    """Runs a publisher of upstream's, then the same of ours, and catches what they send."""

    def __init__(self, directory: Path, peer_venv: Path) -> None:
        self._directory = directory
        self._peer_venv = peer_venv

    def logger(self, number: int, run: Run) -> tuple[Sent, Sent]:
        stdin = {"stdin": run.stdin} if run.stdin else {}
        with self._bus(f"logger{number}") as bus, _relay(bus) as relay:
            theirs = _caught(relay, run.count, bus.upstream_logger, *run.options, **stdin)
            return theirs, _caught(relay, run.count, bus.logger, *run.options, **stdin)

    def script(self, number: int, arguments: str) -> tuple[Sent, Sent]:
        with self._bus(f"script{number}") as bus, _relay(bus) as relay:
            theirs = _caught(relay, 2, bus.upstream_script, UPSTREAM_SCRIPT % arguments)
            return theirs, _caught(relay, 2, bus.script, OUR_SCRIPT % arguments)

    def _bus(self, name: str) -> Bus:
        """Its publishers wait longer than usual until they are connected: ten run at once."""
        return Bus(self._directory / name, self._peer_venv, post_init_sleep=3)


def _relay(bus: Bus) -> zmq.Socket[bytes]:
    """A SUB socket is all a relay is to a publisher."""
    relay = bus.socket(zmq.SUB)
    relay.rcvhwm = 0
    relay.subscribe(b"")
    relay.bind(bus.inbound)
    return relay


def _caught(
    relay: zmq.Socket[bytes],
    count: int,
    program: Callable[..., subprocess.CompletedProcess[str]],
    *arguments: str,
    **stdin: str | bytes,
) -> Sent:
    """What the program sends to the relay, which should be so many messages."""
    messages: Sent = []
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(program, *arguments, **stdin)
        # A bound SUB subscribes only while its own thread is in a call to it: this poll.
        while relay.poll(20) or not done.done():
            if relay.poll(0):
                messages.append(relay.recv_multipart())
        while len(messages) < count and relay.poll(2000):
            messages.append(relay.recv_multipart())
    assert done.result().returncode == 0, done.result().stderr
    return messages


Caught = dict[str, "Future[tuple[Sent, Sent]]"]


@pytest.fixture(scope="module")
def caught(tmp_path_factory: pytest.TempPathFactory, peer_venv: Path) -> Iterator[Caught]:
    bench = Bench(tmp_path_factory.mktemp("messages"), peer_venv)
    # Upstream sleeps most of its time.
    with ThreadPoolExecutor(10) as pool:
        runs = {
            name: pool.submit(bench.logger, number, run)
            for number, (name, run) in enumerate(LOGGER.items())
        }
        scripts = {
            f"script: {name}": pool.submit(bench.script, number, arguments)
            for number, (name, arguments) in enumerate(SCRIPT_ARGUMENTS.items())
        }
        yield {**runs, **scripts}


def _assert_same(theirs: Sent, ours: Sent) -> None:
    assert [topic for topic, _ in ours] == [topic for topic, _ in theirs]
    for (_, our_body), (_, their_body) in zip(ours, theirs):
        our, their = json.loads(our_body), json.loads(their_body)
        assert list(our) == list(their)
        assert {k: type(v) for k, v in our.items()} == {k: type(v) for k, v in their.items()}
        assert MSG_ID.fullmatch(our["msg_id"]), our["msg_id"]
        assert abs(our["timestamp"] - their["timestamp"]) < 60
        # What is left is equal to the letter: order of keys, blanks, escapes, `i` and `username`.
        same = our_body.replace(our["msg_id"].encode(), their["msg_id"].encode()).replace(
            b'"timestamp":%d' % our["timestamp"], b'"timestamp":%d' % their["timestamp"]
        )
        assert same == their_body


@pytest.mark.parametrize("name", LOGGER)
def test_fedmsg_logger_sends_what_upstreams_sends(caught: Caught, name: str) -> None:
    theirs, ours = caught[name].result()
    assert len(theirs) == LOGGER[name].count
    _assert_same(theirs, ours)


@pytest.mark.parametrize("name", SCRIPT_ARGUMENTS)
def test_publish_sends_what_upstreams_sends(caught: Caught, name: str) -> None:
    theirs, ours = caught[f"script: {name}"].result()
    assert len(theirs) == 2
    _assert_same(theirs, ours)
