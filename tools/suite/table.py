"""What is said in the end: each piece beside its budget, and by name what failed or passed late."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from .outcome import Result
from .plan import ROOT

# One line a run: how many tests there were, and which passed at the second try only.
HISTORY = ROOT / "build" / "test-history.jsonl"
RUNS = 10
# So many tests there may be for one that passes at the second try only, over RUNS runs.
FOR_ONE_AGAIN = 1000
# So many lines of what a failure said stand below the table.
SAID_LINES = 16

ROW = "{:<22} {:<7} {:>7} {:>7} {:>8} {:>6} {:>8} {:>7}  {}"


def lines(results: Sequence[Result], seconds: float, budget: float | None) -> Iterator[str]:
    """`seconds`, `budget`: of all together; of a selection there is no budget."""
    yield ROW.format(
        "part", "result", "passed", "failed", "skipped", "again", "seconds", "budget", ""
    )
    for result in results:
        yield _row(result).rstrip()
    over = budget is not None and seconds > budget
    yield ROW.format(
        "all", "", *_sums(results), f"{seconds:.0f}", f"{budget:.0f}" if budget else "",
        "OVER BUDGET" if over else "",
    ).rstrip()  # fmt: skip
    for result in results:
        yield from _named("failed", {name: _short(result, name) for name in result.failed})
    for result in results:
        yield from _named("passed at the second try only", result.again)
    for result in results:
        if result.over_budget:
            yield (
                f"over budget: {result.piece.name}: {result.attempts[0].seconds:.0f} s"
                f" of {result.piece.budget:.0f}"
            )
    bad = sum(not result.ok for result in results)
    yield f"{len(results) - bad} passed, {bad} failed"


def remember(results: Sequence[Result], path: Path = HISTORY) -> str:
    """Add this run to the last ones, and say how many tests of theirs passed at the second try."""
    runs = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    again = [name for result in results for name in result.again]
    runs = [*runs, {"tests": sum(len(result.tests) for result in results), "again": again}][-RUNS:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(run) + "\n" for run in runs))
    tests, tried = sum(run["tests"] for run in runs), sum(len(run["again"]) for run in runs)
    verdict = "more than 1 in 1000" if tried * FOR_ONE_AGAIN > tests else "at most 1 in 1000"
    return (
        f"second tries: {len(again)} of {runs[-1]['tests']} tests in this run;"
        f" {tried} of {tests} in the last {len(runs)}: {verdict}"
    )


def _short(result: Result, name: str) -> str:
    """The first lines of what a failure said: a log of CI may have lost all that stands above."""
    said = result.tests[name].said.strip().splitlines()
    more = [f"... {len(said) - SAID_LINES} more lines"] if len(said) > SAID_LINES else []
    return "\n    ".join([*said[:SAID_LINES], *more])


def _row(result: Result) -> str:
    piece, notes = result.piece, []
    if result.over_budget:
        notes.append("OVER BUDGET")
    if result.attempts[-1].stopped:
        notes.append(f"stopped: over {piece.most:.0f} s")
    elif not result.ok:
        notes.append(f"see {piece.log.relative_to(ROOT)}")
    return ROW.format(
        piece.name,
        "ok" if result.ok else "FAILED",
        *_sums([result]),
        f"{result.seconds:.1f}",
        f"{piece.budget:.0f}",
        "; ".join(notes),
    )


def _sums(results: Sequence[Result]) -> list[int]:
    counts = [sum(r.count(word) for r in results) for word in ("passed", "failed", "skipped")]
    return [*counts, sum(len(result.again) for result in results)]


def _named(what: str, tests: dict[str, str]) -> Iterator[str]:
    for name, said in tests.items():
        yield f"{what}: {name}{': ' + said if said else ''}"
