"""How long a message is under way: at a thousand a second, and at half of what a subject can do.

Messages are sent by the clock, whatever becomes of those before, and their time begins when they
were due: a pause of the subject counts for all that it delayed.
"""

from __future__ import annotations

from typing import Any

from .load import Load
from .plan import Plan, Row, alternated
from .spread import percentile
from .subjects import KINDS, Kind, Subject
from .throughput import MAIN

STEADY = 1000.0
WARM_UP = 0.5
# Of the run that finds out what half of the capacity is.
CALIBRATION = 1.0


def run(plan: Plan) -> list[Row]:
    rows: list[Row] = []
    for number, kind in alternated(plan.rounds_or(4, 2), plan.kinds(*KINDS)):
        rows += measure(kind, number, plan)
        for row in rows[-2:]:
            plan.say(
                f"{kind.name} at {row['load']}, {row['rate']:,.0f} /s:"
                f" p50 {row['p50']:,.0f} us, p99 {row['p99']:,.0f}, p99.9 {row['p99.9']:,.0f}"
            )
    return rows


def measure(kind: Kind, number: int, plan: Plan) -> list[Row]:
    with kind.start() as subject:
        with Load(subject, MAIN.size) as load:
            load.run_for(WARM_UP)
            first, started = load.sent, load.stamp
            load.run_for(CALIBRATION)
            half = (load.sent - first) / (load.stamp - started) / 2
            load.finish()
        place = {"subject": kind.name, "round": number}
        return [
            {**place, "load": load, "rate": rate, **latencies(subject, rate, seconds)}
            for load, rate, seconds in (
                ("1,000/s", STEADY, plan.seconds_or(4.0, 2.0)),
                ("half of capacity", half, plan.seconds_or(2.0, 1.0)),
            )
        ]


def latencies(subject: Subject, rate: float, seconds: float) -> dict[str, Any]:
    """In microseconds."""
    with Load(subject, MAIN.size, rate=rate) as load:
        load.run_for(WARM_UP)
        warmed_up = load.received
        cpu, first = load.cpu(), load.sent
        load.run_for(seconds)
        cost, sent = load.cpu() - cpu, load.sent - first
        heard = load.finish()
        due, arrived = load.times()
    taken = sorted(end - start for start, end in zip(due[warmed_up:], arrived[warmed_up:]))
    shares = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
    return {
        "messages": len(taken),
        **{name: percentile(taken, share) / 1000 for name, share in shares.items()},
        "most": taken[-1] / 1000,
        "cpu": cost.each(sent),
        "missing": heard["missing"],
    }
