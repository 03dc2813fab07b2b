"""The longest time that the inbound socket is left alone, on a disk that is quick or that stalls.

At a thousand messages a second, and with as many as the relay takes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.support.programs import ROOT

from . import newcomers, slow_disk
from .load import Load
from .plan import Plan, Row, alternated
from .processes import Program
from .subjects import JOURNAL, KINDS, Kind, environment
from .throughput import MAIN

# Seconds for which each wait for the disk takes, where it stalls.
STALL = 2.0
WARM_UP = 1.0

QUICK_DISK = "as it is"
SLOW_DISK = f"stalls of {STALL:g} s"


def run(plan: Plan) -> list[Row]:
    rows: list[Row] = []
    for number, kind in alternated(plan.rounds_or(2, 1), plan.kinds(*KINDS)):
        for disk in (QUICK_DISK, SLOW_DISK) if kind.kind == JOURNAL else (QUICK_DISK,):
            for load, rate in (("1,000/s", 1000.0), ("all it takes", 0.0)):
                figures = measure(kind, rate, disk, plan.seconds_or(5.0, 5.0))
                place = {"subject": kind.name, "disk": disk, "load": load, "round": number}
                rows.append({**place, **figures})
                plan.say(f"{kind.name}, disk {disk}, {load}: {figures['longest']:.1f} ms at most")
    return rows


def measure(kind: Kind, rate: float, disk: str, seconds: float) -> dict[str, Any]:
    """Milliseconds until a newcomer is subscribed to."""
    with kind.start(launch=False) as subject:
        subject.launch(under=slow_disk.under(STALL) if disk == SLOW_DISK else ())
        with Load(subject, MAIN.size, rate=rate) as load:
            load.run_for(WARM_UP)
            with newcomers_at(subject.inbound, subject.directory) as waits:
                load.run_for(seconds)
            heard = load.finish()
        waits.sort()
    return {
        "newcomers": len(waits),
        "p50": waits[len(waits) // 2],
        "longest": waits[-1],
        "missing": heard["missing"],
    }


@contextmanager
def newcomers_at(address: str, directory: Path) -> Iterator[list[float]]:
    """Publishers come and go meanwhile; afterwards the list has how long each of them waited."""
    stop, report = directory / "newcomers-stop", directory / "newcomers.json"
    stop.unlink(missing_ok=True)
    order = newcomers.Order(address, str(stop), str(report))
    command: list[str | Path] = [sys.executable, "-m", "bench.newcomers", json.dumps(asdict(order))]
    env = environment(directory, PYTHONPATH=str(ROOT))
    program = Program(directory, command, env, name="newcomers")
    waits: list[float] = []
    try:
        yield waits
        stop.touch()
        program.finish()
    finally:
        program.stop()
    waits += json.loads(report.read_text(encoding="utf-8"))
