"""The parts of the bench by name, in the order they run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from . import (
    fleet,
    fleet_report,
    growth,
    latency,
    memory,
    queries,
    report,
    scripts,
    servicing,
    starts,
    submits,
    throughput,
)
from .plan import Plan, Row


@dataclass(frozen=True)
class Part:
    """`run` measures; `tables` shows the rows that came of it, as lines of Markdown.

    One `on_request` is left out unless it is named: it takes an hour, and hosts.
    """

    run: Callable[[Plan], list[Row]]
    tables: Callable[[list[Row]], list[str]]
    on_request: bool = False


PARTS = {
    "throughput": Part(throughput.run, report.throughput),
    "growth": Part(growth.run, report.growth),
    "latency": Part(latency.run, report.latency),
    "memory": Part(memory.run, report.memory),
    "submits": Part(submits.run, report.submits),
    "scripts": Part(scripts.run, report.scripts),
    "starts": Part(starts.run, report.starts),
    "queries": Part(queries.run, report.queries),
    "servicing": Part(servicing.run, report.servicing),
    "fleet": Part(fleet.run, fleet_report.fleet, on_request=True),
}
