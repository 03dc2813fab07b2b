"""fedmsg-probe --consumer, of what real hubs say of their consumers: well and unwell."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.programs import Program
from tests.support.waiting import patient, wait_for

from .bus import Bus

OK, WARNING, CRITICAL, UNKNOWN = range(4)
CONSUMERS = "recorder:Recorder,unwell:Raises,unwell:Stuck,unwell:OfOthers,unwell:Off"
TOPIC = b"org.fedoraproject.dev.peer.numbered"


@dataclass
class Answer:
    status: int
    line: str

    def number(self, name: str) -> float:
        """A value of the perfdata."""
        [value] = re.findall(rf"(?:^| ){name}=([\d.]+)", self.line.partition(" | ")[2])
        return float(value)


@dataclass
class Hubs:
    """`well` has consumers of all kinds, `deaf` is connected to a bus of which nobody emits."""

    bus: Bus
    well: Program
    well_socket: Path
    deaf_socket: Path

    def ask(self, consumer: str, at: Path | str, *options: str) -> Answer:
        timeout = f"--timeout={patient(25):g}"
        given = ["--consumer", consumer, "--monitoring", str(at), timeout, *options]
        done = self.bus.tool("probe", *given)
        [line] = done.stdout.splitlines()
        return Answer(done.returncode, line)

    def ask_all(self, *questions: tuple[Any, ...]) -> list[Answer]:
        """At the same time: each waits for frames, which come every five seconds."""
        with ThreadPoolExecutor(len(questions)) as pool:
            return list(pool.map(lambda question: self.ask(*question), questions))


@pytest.fixture
def hubs(make_bus: Callable[..., Bus], tmp_path: Path) -> Iterator[Hubs]:
    paths = [tmp_path / "monitoring-well.socket", tmp_path / "monitoring-deaf.socket"]
    keys: dict[str, Any] = {"peer.unwell.enabled": True, "moksha.workers_per_consumer": 1}
    buses = [make_bus(**keys, **{"moksha.monitoring.socket": f"ipc://{path}"}) for path in paths]
    well = buses[0].hub("well", consumers=CONSUMERS)
    buses[1].hub("deaf", consumers="recorder:Recorder")
    # The relay has no monitoring socket of that name: the hub has.
    buses[0].relay(config=buses[0].config_file("relay", **{"moksha.monitoring.socket": None}))
    for path in paths:
        wait_for(path.exists, what=f"{path} is there")
    over = threading.Event()

    def publish() -> None:
        with buses[0].publisher() as publisher:
            number = 0
            while not over.wait(0.2):
                number += 1
                publisher.send(
                    TOPIC,
                    b'{"topic":"%b","timestamp":1,"msg_id":"m%d","msg":{},"i":1}' % (TOPIC, number),
                )

    publishing = threading.Thread(target=publish)
    publishing.start()
    try:
        yield Hubs(buses[0], well, *paths)
    finally:
        over.set()
        publishing.join()


def test_real_consumers(hubs: Hubs) -> None:
    at = hubs.well_socket
    well, raises, stuck, quiet, off, missing, deaf = hubs.ask_all(
        ("Recorder", at),
        ("unwell:Raises", at),
        ("Stuck", at),
        ("OfOthers", at),
        ("Off", at),
        ("Absent", at),
        ("Recorder", hubs.deaf_socket),
    )
    assert (well.status, quiet.status) == (OK, OK), (well, quiet)
    assert "Recorder in well: 0 waiting" in well.line and "no exceptions" in well.line
    assert well.number("received") > 0 and well.number("handled") > 0
    assert quiet.number("received") == 0 and quiet.number("silence") > 0

    assert raises.status in (WARNING, CRITICAL) and raises.number("exceptions") > 0, raises
    # The first message is with it for ever, and the others wait.
    assert stuck.status == WARNING and "handled none of those that wait" in stuck.line, stuck
    assert stuck.number("backlog") > 0
    # A hub does not tell one that its config has not enabled from one that it never heard of.
    for absent, name in (off, "Off"), (missing, "Absent"):
        assert absent.status == CRITICAL and f"has no {name}" in absent.line, absent
        assert "config_key" in absent.line
        assert "it has Recorder, Raises, Stuck, OfOthers" in absent.line
    assert deaf.status == CRITICAL and "its hub is not connected" in deaf.line, deaf

    # What is critical by the number that was asked for; and all of a hub together.
    many, silent, every = hubs.ask_all(
        ("Stuck", at, "--backlog=1,1"),
        ("OfOthers", at, "--silence=2,4"),
        ("all", at, "--exceptions=1,1"),
    )
    assert many.status == CRITICAL, many
    assert silent.status == CRITICAL and "has received no message for" in silent.line, silent
    assert every.status == CRITICAL, every
    assert every.number("Stuck_backlog") > 0 and every.number("Recorder_received") > 0

    # Its process hangs, then it is dead, and has left its socket behind.
    hubs.well.pause()
    hung = hubs.ask("Recorder", at, "--timeout=7")
    assert hung.status == CRITICAL and "well hangs" in hung.line, hung
    hubs.well.kill()
    killed = hubs.ask("Recorder", at, "--timeout=1")
    assert killed.status == CRITICAL and "well does not run" in killed.line, killed
    assert "connection refused" in killed.line
    at.unlink()
    gone = hubs.ask("Recorder", at, "--timeout=1")
    assert gone.status == CRITICAL and "there is no" in gone.line, gone


def test_a_relay_is_a_hub_too(bus: Bus, make_bus: Callable[..., Bus], tmp_path: Path) -> None:
    """Ours, and upstream's: of one name, and told alike."""
    for number, start in enumerate(("relay", "upstream_relay")):
        path = tmp_path / f"{number}.socket"
        made = make_bus(**{"moksha.monitoring.socket": f"ipc://{path}"})
        getattr(made, start)()
        done = made.tool(
            "probe", "--consumer=RelayConsumer", f"--timeout={patient(25):g}", "--relay",
            f"--monitoring=ipc://{path}",
        )  # fmt: skip
        assert done.returncode == OK, done
        assert "RelayConsumer" in done.stdout and "0 waiting" in done.stdout
        assert "round_trip=" in done.stdout and "backlog=0;500;1000;0" in done.stdout
