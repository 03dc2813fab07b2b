"""What the tests of every kind use: fixtures for what tests/support has."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from tests.support.messages import numbered
from tests.support.ports import free_port
from tests.support.programs import RELAY, ROOT, Program, environment
from tests.support.relays import Bus
from tests.support.sockets import Listener, Sender, Submitter
from tests.support.waiting import PATIENCE, wait_for

# What is in tests/support, for tests that look for it here.
Process = Program
__all__ = [
    "RELAY",
    "ROOT",
    "Bus",
    "Listener",
    "Process",
    "Sender",
    "Submitter",
    "environment",
    "free_port",
    "numbered",
    "wait_for",
]


def pytest_configure(config: pytest.Config) -> None:
    """A run that is asked to end tears down what it has started."""
    with contextlib.suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGTERM, lambda *_: pytest.exit("SIGTERM", 143))
    if config.getoption("timeout") is None:
        config.option.timeout = float(config.getini("timeout")) * PATIENCE


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
