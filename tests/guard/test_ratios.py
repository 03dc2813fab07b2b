"""Ratios within one run, against half of what the relay is to reach (bench/targets.py).

A ratio that is missed is measured again, twice: a machine that is busy with something else does not
fail these, and a relay that has become slower does.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import pytest

from bench import latency, memory, scripts, throughput
from bench.subjects import JOURNAL, PROXY, UPSTREAM, Kind
from bench.throughput import MAIN

ATTEMPTS = 3
# Of the throughput: turns of each, and their seconds.
ROUNDS = 7
TURN = 0.3
# Of the latency.
SECONDS = 2.0

OURS, THEIRS, LIBZMQ = (Kind(name, name) for name in (JOURNAL, UPSTREAM, PROXY))


def reaches(ratio: Callable[[], float], is_enough: Callable[[float], bool]) -> None:
    """Fail if `is_enough` is true of none of three values of `ratio()`."""
    found = []
    for _ in range(ATTEMPTS):
        found.append(ratio())
        if is_enough(found[-1]):
            print(f"measured: {found[-1]:.3g}")
            return
    pytest.fail(f"measured: {', '.join(f'{value:.3g}' for value in found)}")


def throughput_beside(other: Kind) -> float:
    found = throughput.alternately([OURS, other], ROUNDS, TURN, throughput.ORDINARY)
    unjournaled = sum(row["unjournaled"] for row in found[OURS.name])
    if unjournaled:
        print(f"{unjournaled} messages are not in the journal: this does not count")
        return 0.0
    ours, others = (
        statistics.median(row["rate"] for row in found[kind.name]) for kind in (OURS, other)
    )
    return ours / others


def p99(kind: Kind) -> float:
    with kind.start() as subject:
        return float(latency.latencies(subject, latency.STEADY, SECONDS)["p99"])


def test_throughput_beside_the_proxy() -> None:
    reaches(lambda: throughput_beside(LIBZMQ), lambda ratio: ratio >= 0.3)


def test_throughput_beside_upstream() -> None:
    reaches(lambda: throughput_beside(THEIRS), lambda ratio: ratio >= 2)


def test_latency_at_a_thousand_a_second_beside_upstream() -> None:
    reaches(lambda: p99(OURS) / p99(THEIRS), lambda ratio: ratio <= 2)


def test_memory_in_a_burst() -> None:
    found = memory.measure(OURS, MAIN, memory.MESSAGES[MAIN])
    assert (found["missing"], found["doubled"]) == (0, 0)
    assert found["peak"] < 300 << 20


def test_a_script_beside_upstreams() -> None:
    name, python = next(iter(scripts.interpreters().items()))

    def ratio() -> float:
        rows = scripts.measure(OURS, 5, {name: python}, print)
        ours, theirs = (
            statistics.median(row["wall"] for row in rows if row["subject"] == subject)
            for subject in (scripts.ACKED, scripts.UPSTREAM_LOGGER)
        )
        return ours / theirs

    reaches(ratio, lambda ratio: ratio <= 0.24)
