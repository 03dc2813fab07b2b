"""fedmsg-tail on a terminal: what a sender has written cannot move the cursor or forge a line."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
import zmq

from tests.conftest import Bus, Sender, environment
from tests.support.ports import free_address
from tests.support.programs import module
from tests.support.waiting import wait_for

# Harmless ones of each kind: an escape, a control character of C1, a line end, a mark of direction.
MARKS = "\x1b[1m \x9b1m \r\n\u2028 \u202e \x00"
SHOWN = r"\x1b[1m \x9b1m \r\n\u2028 \u202e \x00"

# Its standard output is a terminal, whose other side goes to our own output as it comes.
ON_A_TERMINAL = "import pty, sys; pty.spawn(sys.argv[1:])"

PRETTY = ("--pretty",)
QUERY = ("--query", "msg.text,topic")


def published(bus: Bus, context: zmq.Context[Any], *command: str) -> str:
    """What a tail prints of a message that has MARKS in its text and topic, before the last one."""
    relay = bus.relay()
    options = ["--config-filename", str(bus.config_directory)]
    process = bus.start(*command, *options)
    relay.wait_for_line("1 now")
    sender = Sender(context, bus.inbound)
    for topic in (f"t.{MARKS}", "last"):
        body = {"topic": topic, "timestamp": 1, "msg_id": "x", "msg": {"text": MARKS}}
        sender.send(b"t", json.dumps(body).encode())
    process.wait_for_line("last")
    # A terminal makes two of a line end.
    output = process.log.read_bytes().decode()
    return output.replace("\r\n", "\n") if "pty" in command[2] else output


@pytest.mark.parametrize("options", [(), PRETTY, QUERY], ids=lambda given: " ".join(given))
def test_on_a_terminal(bus: Bus, context: zmq.Context[Any], options: tuple[str, ...]) -> None:
    command = [sys.executable, "-c", ON_A_TERMINAL, *module("tail"), *options]
    output = published(bus, context, *command)
    assert all(each.isprintable() for line in output.split("\n") for each in line)
    assert r"\x1b" in output
    if options == QUERY:
        assert f"{SHOWN}, t.{SHOWN}\n" in output


def test_a_service_that_publishes_no_object(bus: Bus, context: zmq.Context[Any]) -> None:
    """Past the relay, which would make one of it."""
    service = context.socket(zmq.PUB)
    address = free_address()
    service.bind(address)
    bus.configure("z", endpoints={"passive": [address]})
    command = [sys.executable, "-c", ON_A_TERMINAL, *module("tail")]
    process = bus.start(*command, "--config-filename", str(bus.config_directory))

    def is_there() -> bool:
        service.send_multipart([b"t", json.dumps(MARKS).encode()])
        return SHOWN in process.output

    wait_for(is_there, what="its message")
    assert "\x1b" not in process.output


def test_really_pretty_has_no_escapes_but_those_of_its_colours(
    bus: Bus, context: zmq.Context[Any]
) -> None:
    command = [sys.executable, "-c", ON_A_TERMINAL, *module("tail"), "--really-pretty"]
    output = published(bus, context, *command)
    assert r"\u001b[1m" in output
    assert "\u202e" not in output and "\x1b[1m" not in output.replace("\x1b[1m{", "")


def test_in_a_pipe_a_query_prints_what_came(bus: Bus, context: zmq.Context[Any]) -> None:
    assert f"{MARKS}, t.{MARKS}" in published(bus, context, *module("tail"), *QUERY)


def test_srv_endpoints_are_refused_by_name(bus: Bus) -> None:
    bus.configure("z", srv_endpoints=["example.org"])
    done = bus.tool("tail", env=environment())
    assert done.returncode == 2
    assert "srv_endpoints is not supported: name the addresses in endpoints" in done.stderr
