"""The load of the bench: what a subject loses or doubles is seen, and none of it is its own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench import throughput
from bench.load import Load
from bench.processes import MeasurementError
from bench.subjects import PROXY, Kind, Proxy, environment
from bench.throughput import Cell
from tests.conftest import wait_for

# A proxy that does something with one of a hundred messages.
SPOILING = """
import itertools, sys, zmq
context = zmq.Context()
inbound, outbound = context.socket(zmq.SUB), context.socket(zmq.PUB)
outbound.setsockopt(zmq.SNDHWM, 0), inbound.subscribe(b"")
inbound.bind(sys.argv[1]), outbound.bind(sys.argv[2])
for number in itertools.count():
    frames = inbound.recv_multipart()
    for _ in range({times} if number % 100 == 99 else 1):
        outbound.send_multipart(frames)
"""


class Spoiling(Proxy):
    times = 0

    def command(self) -> tuple[list[str | Path], dict[str, str]]:
        source = SPOILING.format(times=self.times)
        command: list[str | Path] = [sys.executable, "-c", source, self.inbound, self.outbound]
        return command, environment(self.directory)


@pytest.mark.parametrize(("times", "figure"), [(0, "missing"), (2, "doubled")])
def test_what_a_subject_loses_or_doubles_is_counted(
    monkeypatch: pytest.MonkeyPatch, times: int, figure: str
) -> None:
    monkeypatch.setattr(Spoiling, "times", times)
    with Spoiling(Kind("spoiling", PROXY), True) as subject, Load(subject, 400) as load:
        load.go()
        wait_for(lambda: load.sent > 10_000)
        load.pause(stalled=1.0)
        sent, heard = load.sent, load.finish()
    assert heard[figure] == pytest.approx(sent / 100, rel=0.2)
    assert heard["missing"] + heard["doubled"] == heard[figure]


@pytest.mark.parametrize("cell", [Cell(1, 400), Cell(50, 400), Cell(3, 65536)], ids=str)
def test_nothing_is_lost_through_the_proxy(cell: Cell) -> None:
    found = throughput.measure(Kind(PROXY, PROXY), cell, 0.5)
    assert (found["missing"], found["doubled"]) == (0, 0)
    assert found["complete"] and found["messages"] > 0
    # What was under way after half a second has taken time, too.
    assert 0 < found["rate"] < 1.05 * found["messages"] / 0.5


def test_a_subject_that_does_not_start_is_named_with_what_it_says() -> None:
    class Broken(Proxy):
        def command(self) -> tuple[list[str | Path], dict[str, str]]:
            return [sys.executable, "-c", "raise SystemExit('no such luck')"], {}

    with (
        pytest.raises(MeasurementError, match="no such luck"),
        Broken(Kind("broken", PROXY), True) as subject,
        Load(subject, 400),
    ):
        pass
