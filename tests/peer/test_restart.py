"""Upstream's own publisher, to which nothing is acknowledged, over a restart of our relay."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from tests.conftest import Bus, environment, wait_for
from tests.integration.test_restart import Background, Unit


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[Bus]:
    # Upstream's defaults, and no key of ours but the relay's.
    made = Bus(tmp_path, environment="dev", sign_messages=False, zmq_enabled=True)
    made.with_journal()
    yield made
    made.stop()


def test_upstreams_logger_loses_at_most_one_of_forty(
    bus: Bus, peer_venv: Path, figure: Callable[[str, object], None]
) -> None:
    """One after the other, as a script calls it; upstream's relay loses 6 to 23 in the same way.

    A message is lost if it is sent while nobody is subscribed: from the moment the relay drains
    until the publisher has connected again, which takes its library 0.1 to 0.2 s, and the relay is
    back. That is about a quarter of a second, and each of these lasts longer.
    """
    unit = Unit(bus, [bus.inbound, bus.submit, bus.outbound])
    background = Background(bus)
    try:
        wait_for(lambda: "1 now" in unit.process.output)
        for number in range(40):
            if number == 20:
                unit.restart()
            subprocess.run(
                [str(peer_venv / "bin/fedmsg-logger"), "--message", str(number)],
                cwd=bus.directory, env=environment(PYTHONPATH=""), check=True, timeout=60,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        unit.await_ready()
        wait_for(lambda: 39 in background.numbers, what="the last message")
        lost = sorted(set(range(40)) - set(background.numbers))
        figure("restart-upstream-lost", len(lost))
        assert len(background.numbers) == len(set(background.numbers))
        assert len(lost) <= 1, lost
    finally:
        background.close()
