"""fedmsg-amqp-verify on a bus and a broker: it finds what is missing, and nothing else."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.programs import ROOT
from tests.support.relays import Bus

from .conftest import Amqp, Bridge

MakeBridge = Callable[..., Bridge]


@contextmanager
def traffic(bus: Bus) -> Iterator[None]:
    """A message after the other, until the end of the block."""
    over = threading.Event()

    def send() -> None:
        n = 0
        while not over.is_set():
            assert not bus.tool("logger", "--json-input", input=json.dumps({"n": n})).returncode
            n += 1

    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield
    finally:
        over.set()
        sender.join()


def verify(bridge: Bridge, *options: str) -> Any:
    """Run it to its end, with pyzmq and pika as a host has them."""
    command = ["/usr/bin/python3", "-m", "fedmsg_relay.amqp_verify", "--seconds", "2"]
    command += ["--config-filename", str(bridge.bus.config_directory), *options]
    program = bridge.bus.start(*command, PYTHONPATH=str(ROOT / "files"))
    return program.wait_for_end(60), program.output


def test_finds_what_the_bridge_does_not_pass(bus: Bus, make_bridge: MakeBridge, amqp: Amqp) -> None:
    amqp.bind()
    bridge = make_bridge()
    bus.relay()
    program = bridge.start()
    with traffic(bus):
        status, said = verify(bridge)
        assert status == 0 and "missing on RabbitMQ: 0, on the bus: 0" in said, said
        program.terminate()
        status, said = verify(bridge, "--grace", "0.5")
        assert status == 1 and "not on RabbitMQ: " in said, said
        status, said = verify(bridge, "--grace", "0.5", "--topic", "no.such")
        assert status == 3, said
