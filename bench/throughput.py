"""Messages per second end to end, and what they cost: one subject, one cell, one round."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import Any

from .load import Load
from .plan import Plan, Row, alternated
from .processes import MeasurementError
from .subjects import KINDS, Kind

WARM_UP = 0.7
# Seconds without a new row after which a journal will not have what it lacks.
JOURNAL_STUCK = 10.0


@dataclass(frozen=True)
class Cell:
    listeners: int
    size: int

    @classmethod
    def parse(cls, text: str) -> Cell:
        """As it is shown: `10x4096` is ten listeners and messages of 4,096 bytes."""
        listeners, _, size = text.partition("x")
        return cls(int(listeners), int(size))

    def __str__(self) -> str:
        return f"{self.listeners}x{self.size}"


# Sender and listener cost as little as pyzmq can, or as much as it costs programs to use it.
LEAN = "lean"
ORDINARY = "ordinary"
PEERS = (LEAN, ORDINARY)

# 400 B and one listener is the cell of the targets.
MAIN = Cell(1, 400)
CELLS = [Cell(listeners, size) for size in (400, 4096, 65536) for listeners in (1, 10, 100, 500)]
# Of a full run and a quick one, where they are not two and one.
ROUNDS = {MAIN: (6, 3), **{cell: (1, 1) for cell in CELLS if cell.listeners * cell.size > 400_000}}


def run(plan: Plan) -> list[Row]:
    """Every cell with every subject, those of one cell in turn."""
    rows: list[Row] = []
    kinds = plan.kinds(*KINDS)
    cells = [Cell.parse(text) for text in plan.cells] or plan.of(CELLS, [MAIN])
    for cell in cells:
        rounds = plan.rounds_or(*ROUNDS.get(cell, (2, 1)))
        seconds = plan.seconds_or(3.0 if cell == MAIN else 1.0, 1.5 if cell == MAIN else 1.0)
        turns = [(kind, peers) for peers in (PEERS if cell == MAIN else (LEAN,)) for kind in kinds]
        for number, (kind, peers) in alternated(rounds, turns):
            figures = measure(kind, cell, seconds, peers)
            place = {"listeners": cell.listeners, "size": cell.size, "peers": peers}
            rows.append({"subject": kind.name, **place, "round": number, **figures})
            cpu = figures["cpu"]["subject"]
            plan.say(f"{cell}, {peers} {kind.name}: {figures['rate']:,.0f} /s, {cpu:.1f} us CPU")
    return rows


def measure(kind: Kind, cell: Cell, seconds: float, peers: str = LEAN) -> dict[str, Any]:
    """Rates are messages a second; `cpu` is microseconds a message, of all of a party's processes.

    `rate` is by what the listeners have received, `journal_rate` by what is on disk.
    """
    ordinary = peers == ORDINARY
    with (
        kind.start() as subject,
        Load(subject, cell.size, cell.listeners, ordinary=ordinary) as load,
    ):
        return measure_running(load, seconds)


def measure_running(load: Load, seconds: float) -> dict[str, Any]:
    load.run_for(WARM_UP)
    _settle(load)
    started, cpu = time.monotonic(), load.cpu()
    found = stretch(load, seconds)
    cost = load.cpu() - cpu
    found["cpu"] = cost.each(found["messages"])
    found["cores"] = (cost.subject + cost.sender + cost.listener) / (time.monotonic() - started)
    return {**found, **load.finish()}


def stretch(load: Load, seconds: float) -> dict[str, Any]:
    """Send for so long, and wait for all of it to arrive and to be on disk."""
    first, started = load.sent, time.monotonic()
    complete = load.run_for(seconds)
    sent = load.sent - first
    if not sent:
        raise MeasurementError(f"nothing was received in {seconds} s")
    found = {"messages": sent, "rate": sent / (load.stamp - started), "complete": complete}
    journaled = _settle(load)
    if journaled is not None:
        found["journal_rate"] = sent / (time.monotonic() - started)
        found["unjournaled"] = load.sent - journaled
    return found


def alternately(
    kinds: list[Kind], rounds: int, seconds: float, peers: str = LEAN
) -> dict[str, list[Row]]:
    """The stretches of subjects that run all the time and take short turns, by name.

    Shorter than what else a machine may be busy with, so that it hits all of them alike.
    """
    rows: dict[str, list[Row]] = {kind.name: [] for kind in kinds}
    with contextlib.ExitStack() as running:
        subjects = [running.enter_context(kind.start()) for kind in kinds]
        loads = [
            running.enter_context(Load(subject, MAIN.size, ordinary=peers == ORDINARY))
            for subject in subjects
        ]
        for load in loads:
            load.run_for(WARM_UP)
            _settle(load)
        for _, (kind, load) in alternated(rounds, list(zip(kinds, loads))):
            rows[kind.name].append(stretch(load, seconds))
        for kind, load in zip(kinds, loads):
            heard = load.finish()
            if heard["missing"] or heard["doubled"]:
                raise MeasurementError(f"{kind.name}: {heard}")
    return rows


def _settle(load: Load) -> int | None:
    """Wait until the journal has all, or grows no more. How many it has."""
    last, since = load.journaled, time.monotonic()
    while last is not None and last < load.sent and time.monotonic() < since + JOURNAL_STUCK:
        time.sleep(0.01)
        found = load.journaled
        if found != last:
            last, since = found, time.monotonic()
    return last
