"""Throughput with a journal that is empty, larger, and as large as it may be.

A full one takes away as much as it adds.
"""

from __future__ import annotations

from dataclasses import replace

from . import journals, throughput
from .plan import Plan, Row, alternated
from .subjects import JOURNAL
from .throughput import MAIN

SIZES = (0, 256 << 20, journals.FULL)


def run(plan: Plan) -> list[Row]:
    rows: list[Row] = []
    kinds = [
        (size, replace(kind, prefilled=journals.prefilled(kind.checkout, size)))
        for kind in plan.kinds(JOURNAL)
        for size in plan.of(SIZES, (0, 64 << 20))
    ]
    for number, (size, kind) in alternated(plan.rounds_or(3, 1), kinds):
        figures = throughput.measure(kind, MAIN, plan.seconds_or(2.5, 1.5))
        rows.append({"subject": kind.name, "journal": size, "round": number, **figures})
        cpu = figures["cpu"]["subject"]
        plan.say(
            f"{kind.name}, journal of {size >> 20} MiB: {figures['rate']:,.0f} /s, {cpu:.1f} us CPU"
        )
    return rows
