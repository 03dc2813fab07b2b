"""The most memory a subject takes in a burst: all of it is sent as fast as the sender can.

The sender's queue has no bound, so that it never waits for the subject. 300,000 messages of 400 B
to one listener are the burst that upstream was measured with; the others have as many bytes, or
take as long.
"""

from __future__ import annotations

import time
from typing import Any

from tests.support.waiting import wait_for

from .load import Load
from .plan import Plan, Row, alternated
from .processes import MeasurementError, family, peak_memory
from .subjects import JOURNAL, KINDS, RELAY, Kind
from .throughput import MAIN, Cell

MESSAGES = {
    MAIN: 300_000,
    Cell(10, 400): 100_000,
    Cell(100, 400): 20_000,
    Cell(500, 400): 5_000,
    Cell(1, 4096): 30_000,
    Cell(1, 65536): 1_900,
}


def run(plan: Plan) -> list[Row]:
    rows: list[Row] = []
    cells = [Cell.parse(text) for text in plan.cells] or plan.of(list(MESSAGES), [MAIN])
    for cell in cells:
        kinds = plan.kinds(*KINDS) if cell.listeners == 1 else plan.kinds(RELAY, JOURNAL)
        rounds = plan.rounds_or(2 if cell == MAIN else 1, 1)
        for number, kind in alternated(rounds, kinds):
            figures = measure(kind, cell, MESSAGES[cell])
            place = {"subject": kind.name, "listeners": cell.listeners, "size": cell.size}
            rows.append({**place, "round": number, **figures})
            plan.say(f"{cell} {kind.name}: {figures['peak'] / 2**20:.0f} MiB")
    return rows


def measure(kind: Kind, cell: Cell, messages: int) -> dict[str, Any]:
    """Bytes: `idle` before the burst, `peak` in it, `children` what its children had at most."""
    with (
        kind.start() as subject,
        Load(subject, cell.size, cell.listeners, burst=messages) as load,
    ):
        idle = peak_memory(subject.pid)
        load.go()
        started = time.monotonic()
        wait_for(lambda: load.sent >= messages, 600, "the burst", error=MeasurementError)
        load.pause()
        return {
            "messages": load.sent,
            "idle": idle,
            "peak": peak_memory(subject.pid),
            "children": sum(peak_memory(pid) for pid in list(family(subject.pid))[1:]),
            "seconds": load.stamp - started,
            **load.finish(),
        }
