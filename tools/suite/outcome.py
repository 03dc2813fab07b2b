"""How a piece ended, after one attempt or two."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .attempt import Attempt
from .junit import Test
from .plan import Piece

# Of lint, which has checks and not tests.
CHECK = re.compile(r"^lint: (.*): (ok|FAILED)$", re.M)
# A step of a scenario; with it, that no test ran: the one that is named with the scenario's name.
STEP = re.compile(r"^\w+ +\S+ ➜ (\w+): Executed: Failed", re.M)
# pytest's own words for what failed, at its end.
NAMED = re.compile(r"^(?:FAILED|ERROR) (\S+::.*)$")
# Molecule draws a frame around what its verifier prints, and breaks lines.
FRAME = re.compile(r"^\s*│ ?", re.M)
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
LOST = re.compile(r"lost_of=\{'acked':[1-9]")


@dataclass(frozen=True)
class Result:
    """`tests`: of all attempts, the last word on each. `again`: those that failed first and
    passed then, with what the first attempt said, if known. `failed`: those that failed at last."""

    piece: Piece
    attempts: Sequence[Attempt]
    tests: dict[str, Test]
    again: dict[str, str]
    failed: list[str]

    @property
    def ok(self) -> bool:
        last = self.attempts[-1]
        return last.status == 0 and not last.stopped and not self.failed

    @property
    def seconds(self) -> float:
        return sum(attempt.seconds for attempt in self.attempts)

    @property
    def over_budget(self) -> bool:
        """Of the first attempt: the second is the price of a failure."""
        return self.attempts[0].seconds > self.piece.budget

    @property
    def may_be_tried_again(self) -> bool:
        # The SOP tries again by itself, what can be; a check of lint has no clock.
        first = self.attempts[0]
        by_itself = self.piece.part in ("lint", "sop")
        hopeless = self.ok or first.stopped or first.status in (130, -2)
        return not (by_itself or hopeless or has_lost(first.text)) and len(self.attempts) == 1

    def count(self, outcome: str) -> int:
        return sum(test.outcome == outcome for test in self.tests.values())


def result_of(piece: Piece, attempts: Sequence[Attempt]) -> Result:
    tests: dict[str, Test] = {}
    again: dict[str, str] = {}
    failed_before: dict[str, str] = {}
    for attempt in attempts:
        ran = dict(attempt.tests) or _checks(attempt.text)
        if attempt.status and not any(test.outcome == "failed" for test in ran.values()):
            # What is not a test has failed: a playbook, the collection of tests.
            ran[_step(piece, attempt.text)] = Test("failed")
        again |= {name: test.again for name, test in ran.items() if test.again}
        for name, said in failed_before.items():
            if attempt.status == 0 or ran.get(name, Test("failed")).outcome == "passed":
                again[name] = said
                ran.setdefault(name, Test("passed"))
        failed_before = {
            name: _said(name, attempt.text) for name, t in ran.items() if t.outcome == "failed"
        }
        tests |= ran
    failed = [name for name, test in tests.items() if test.outcome == "failed"]
    return Result(piece, tuple(attempts), tests, again, failed)


def has_lost(text: str) -> bool:
    """Whether a log tells of a lost message that had been acknowledged."""
    whole = FRAME.sub("", COLOURS.sub("", text))
    return bool(LOST.search(re.sub(r"\s+", "", whole)))


def _checks(text: str) -> dict[str, Test]:
    words = {"ok": "passed", "FAILED": "failed"}
    return {f"lint: {name}": Test(words[word]) for name, word in CHECK.findall(text)}


def _step(piece: Piece, text: str) -> str:
    steps = STEP.findall(COLOURS.sub("", text))
    return f"{piece.name} ({steps[0] if steps else 'the run itself'})"


def _said(name: str, text: str) -> str:
    """What pytest's summary says of a test that failed, where it has a line."""
    function = name.rpartition("::")[2]
    for line in FRAME.sub("", COLOURS.sub("", text)).splitlines():
        if (named := NAMED.match(line.strip(" │"))) and f"::{function} " in f"{named[1]} ":
            return named[1].partition(" - ")[2]
    return ""
