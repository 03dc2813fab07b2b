"""What is left of the throughput while the backlog is asked for hard: see readers.py."""

from __future__ import annotations

import sys
import time
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.support.programs import ROOT

from . import journals, throughput
from .load import Load
from .plan import Plan, Row, alternated
from .processes import Program
from .subjects import JOURNAL, JournaledRelay, Kind, environment
from .throughput import MAIN


def run(plan: Plan) -> list[Row]:
    rows: list[Row] = []
    size = plan.of(journals.FULL, 64 << 20)
    kinds = [
        replace(kind, http=True, prefilled=journals.prefilled(kind.checkout, size))
        for kind in plan.kinds(JOURNAL)
    ]
    for number, kind in alternated(plan.rounds_or(4, 2), kinds):
        rows += measure(kind, number, plan.seconds_or(3.0, 2.0))
        for row in rows[-2:]:
            plan.say(
                f"{kind.name}, {'' if row['queried'] else 'not '}queried: {row['rate']:,.0f} /s,"
                f" {row.get('answers', 0):,.0f} answers/s"
            )
    return rows


def measure(kind: Kind, number: int, seconds: float) -> list[Row]:
    """Of one relay: without queries and with them, or the other way around."""
    rows = []
    with kind.start() as subject:
        assert isinstance(subject, JournaledRelay)
        subject.program.wait_for(lambda: _is_healthy(subject.http), "being healthy")
        for queried in (False, True) if number % 2 else (True, False):
            with Load(subject, MAIN.size) as load:
                readers = _Readers(subject) if queried else None
                try:
                    figures = throughput.measure_running(load, seconds)
                finally:
                    answers = readers.stop() if readers else {}
            place = {"subject": kind.name, "queried": queried, "round": number}
            rows.append({**place, **answers, **figures})
    return rows


class _Readers:
    def __init__(self, subject: JournaledRelay) -> None:
        self._report = subject.directory / "readers"
        command: list[str | Path] = [sys.executable, "-m", "bench.readers", subject.http]
        env = environment(subject.directory, PYTHONPATH=str(ROOT))
        self._program = Program(subject.directory, [*command, self._report], env, name="readers")
        self._started = time.monotonic()

    def stop(self) -> dict[str, float]:
        """A second: answers, and refusals."""
        seconds = time.monotonic() - self._started
        self._program.stop(timeout=60)
        if self._program.child.returncode:
            self._program.fail("has failed")
        answers, refusals = self._report.read_text(encoding="ascii").split()
        return {"answers": int(answers) / seconds, "refusals": int(refusals) / seconds}


def _is_healthy(address: str) -> Any:
    try:
        with urllib.request.urlopen(f"http://{address}/health", timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False
