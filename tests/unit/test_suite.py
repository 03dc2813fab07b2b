"""tools/test: what runs beside what, what a second try is good for, and what is said in the end."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml
from suite import attempt, junit, lanes, outcome, plan, table
from suite.plan import Piece

from tests.conftest import ROOT

PLAN = plan.read()


# The plan


def test_every_scenario_is_a_piece_and_no_other() -> None:
    scenarios = {path.parent.parent.name for path in (ROOT / "molecule").glob("*/tests/test_*.py")}
    assert {piece.of for piece in PLAN.pieces if piece.part == "molecule"} == scenarios


def test_every_part_is_a_target_of_make() -> None:
    targets = {line.partition(":")[0] for line in (ROOT / "Makefile").read_text().splitlines()}
    assert {piece.part for piece in PLAN.pieces} <= targets


def test_what_make_test_leaves_out_runs_when_all_is_asked_for() -> None:
    usual = {piece.name for piece in PLAN.of(["molecule"])}
    every = {piece.name for piece in PLAN.of(["molecule"], all_of_it=True)}
    assert every - usual == {"molecule/truth", "molecule/move", "molecule/bridge"}
    assert [piece.name for piece in PLAN.of(["molecule/move"])] == ["molecule/move"]


def test_a_part_that_does_not_exist_is_said_with_those_that_do() -> None:
    with pytest.raises(plan.PlanError, match=r"no such part: molecul; there are .*molecule/pair"):
        PLAN.of(["molecul"])


def test_a_row_with_a_key_that_means_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "parts.yml").write_text(yaml.safe_dump({"budget": 1, "pieces": [{"prat": "x"}]}))
    with pytest.raises(plan.PlanError, match="prat"):
        plan.read(tmp_path / "parts.yml")


# What runs beside what


@pytest.mark.parametrize(
    ("waiting", "running", "begins"),
    [
        # As many as there is room for.
        ([("a", 1), ("b", 1), ("c", 1)], [], "ab"),
        # A smaller one passes a larger that does not fit.
        ([("a", 1.5), ("b", 0.5)], [("x", 1)], "b"),
        # Whatever is larger than the machine runs, by itself.
        ([("a", 9), ("b", 0.5)], [], "a"),
        ([("a", 1)], [("x", 2)], ""),
    ],
)
def test_pieces_begin_as_long_as_there_is_room(
    waiting: list[tuple[str, float]], running: list[tuple[str, float]], begins: str
) -> None:
    found = lanes.startable(
        [Piece(name, load=load) for name, load in waiting],
        [Piece(name, load=load) for name, load in running],
        room=2,
    )
    assert "".join(piece.part for piece in found) == begins


def test_nothing_runs_beside_what_measures() -> None:
    alone = Piece("guard", load=0.1, alone=True)
    assert lanes.startable([alone], [Piece("x", load=0.1)], room=2) == []
    assert lanes.startable([alone, Piece("x", load=0.1)], [], room=2) == [alone]
    assert lanes.startable([Piece("x", load=0.1)], [alone], room=2) == []


class Run:
    """Runs pieces as `script` says: the exit status of each attempt. The first of all meet."""

    def __init__(self, **script: list[int]) -> None:
        self._script = script
        self._all = threading.Barrier(len(script), timeout=60)
        self.log: list[str] = []

    def __call__(self, piece: Piece, number: int, shown: bool) -> attempt.Attempt:
        self.log.append(f"{piece.name} {number}")
        if number == 1:
            # One that ran by itself would wait in vain.
            self._all.wait()
        status = self._script[piece.part][number - 1]
        test = junit.Test("failed" if status else "passed", 0.1)
        text = "FAILED tests/x.py::test_y - AssertionError: late\n" if status else ""
        return attempt.Attempt(status, 0.01, text, {f"tests.{piece.part}::test_y": test})


def test_what_fails_is_tried_once_more_after_all_others_and_named() -> None:
    run = Run(a=[1, 0], b=[0], c=[1, 1])
    pieces = [Piece("a", load=0.5), Piece("b", load=0.5), Piece("c", load=0.5)]
    a, b, c = lanes.Lanes(run, processors=2).run(pieces)
    assert sorted(run.log[:3]) == ["a 1", "b 1", "c 1"]
    assert run.log[3:] == ["a 2", "c 2"]
    assert (a.ok, b.ok, c.ok) == (True, True, False)
    assert a.again == {"tests.a::test_y": "AssertionError: late"}
    assert (b.again, c.again, c.failed) == ({}, {}, ["tests.c::test_y"])


def test_variables_of_make_test_are_not_those_of_its_parts(tmp_path: Path) -> None:
    """`make test ARGS=changed SLOW=10`: parts are to be slow, and changed is no test of theirs."""
    (tmp_path / "Makefile").write_text(
        "ARGS ?=\nSLOW ?=\ntest:\n\t@$(PYTHON) run.py\nunit:\n\t@echo 'got <$(ARGS)> <$(SLOW)>'\n"
    )
    (tmp_path / "run.py").write_text(
        f"import sys; sys.path.insert(0, {str(ROOT / 'tools')!r})\n"
        "from pathlib import Path\n"
        "from suite import attempt, plan\n"
        "attempt.ROOT = Path.cwd(); attempt.LOGS = plan.LOGS = Path('logs')\n"
        "made = attempt.run(plan.Piece('unit'), 1, False)\n"
        "print(made.status, made.text)\n"
    )
    command = ["make", "test", "ARGS=changed", "SLOW=10", f"PYTHON={sys.executable}"]
    said = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert said.split("\n")[0] == "0 got <> <10>"


# What came of it


def attempted(status: int, text: str = "", seconds: float = 1, **tests: str) -> attempt.Attempt:
    made = {name: junit.Test(word) for name, word in tests.items()}
    return attempt.Attempt(status, seconds, text, made)


def test_a_scenario_that_fails_before_its_tests_is_named_by_its_step() -> None:
    text = "ERROR    pair ➜ converge: Executed: Failed\n"
    first = outcome.result_of(Piece("molecule", "pair"), [attempted(2, text)])
    assert (first.ok, first.failed) == (False, ["molecule/pair (converge)"])
    both = outcome.result_of(
        Piece("molecule", "pair"), [attempted(2, text), attempted(0, x="passed")]
    )
    assert both.ok
    assert list(both.again) == ["molecule/pair (converge)"]


def test_a_lost_message_that_was_acknowledged_is_not_tried_again() -> None:
    said = "  │ E   AssertionError: Report(lost=1, lost_of={'acked': \n  │ 1, 'legacy': 0})\n"
    result = outcome.result_of(Piece("molecule", "pair"), [attempted(1, said, x="failed")])
    assert not result.may_be_tried_again
    fewer = said.replace("1, 'legacy'", "0, 'legacy'")
    result = outcome.result_of(Piece("molecule", "pair"), [attempted(1, fewer, x="failed")])
    assert result.may_be_tried_again


def test_what_its_own_plugin_has_tried_again_counts_too(tmp_path: Path) -> None:
    report = tmp_path / "sop.xml"
    report.write_text(
        "<testsuites><testsuite><testcase classname='docs.sop.adoc' name='relay-down' time='2.5'>"
        "<properties><property name='again' value='verify: late'/></properties></testcase>"
        "<testcase classname='docs.sop.adoc' name='flood'><failure/></testcase>"
        "<testcase classname='docs.sop.adoc' name='flood'/>"
        "<testcase classname='' name='x'><skipped/></testcase></testsuite></testsuites>"
    )
    tests = junit.read(report)
    assert {name: test.outcome for name, test in tests.items()} == {
        "docs.sop.adoc::relay-down": "passed",
        "docs.sop.adoc::flood": "failed",
        "x": "skipped",
    }
    result = outcome.result_of(Piece("sop", "1"), [attempt.Attempt(1, 1, "", tests)])
    assert result.again == {"docs.sop.adoc::relay-down": "verify: late"}


def test_a_report_that_is_not_there_or_half_written_has_no_tests(tmp_path: Path) -> None:
    assert junit.read(tmp_path / "none.xml") == {}
    (tmp_path / "half.xml").write_text("<testsuites><testsu")
    assert junit.read(tmp_path / "half.xml") == {}


def test_the_checks_of_lint_are_counted() -> None:
    text = "lint: ruff: ok\nlint: mypy: FAILED\nlint: 1 passed, 1 failed\n"
    result = outcome.result_of(Piece("lint"), [attempted(1, text)])
    assert (result.count("passed"), result.failed) == (1, ["lint: mypy"])
    assert not result.may_be_tried_again


# What is said in the end


def test_the_table_names_what_is_over_budget_what_failed_and_what_passed_late() -> None:
    slow = outcome.result_of(Piece("unit", budget=5), [attempted(0, seconds=7.5, t="passed")])
    late = outcome.result_of(
        Piece("peer", budget=5), [attempted(1, u="failed", v="passed"), attempted(0, u="passed")]
    )
    bad = outcome.result_of(Piece("guard", budget=5), [attempted(1, w="failed")])
    said = list(table.lines([slow, late, bad], seconds=20, budget=15))
    assert said[1].split() == ["unit", "ok", "1", "0", "0", "0", "7.5", "5", "OVER", "BUDGET"]
    assert said[2].split() == ["peer", "ok", "2", "0", "0", "1", "2.0", "5"]
    assert said[4].split() == ["all", "3", "1", "0", "1", "20", "15", "OVER", "BUDGET"]
    assert said[5:] == [
        "failed: w",
        "passed at the second try only: u",
        "over budget: unit: 8 s of 5",
        "2 passed, 1 failed",
    ]


def test_the_table_says_what_a_failure_said_and_not_all_of_it(tmp_path: Path) -> None:
    report = tmp_path / "sop.xml"
    message = "&#10;".join(["diagnose: the page says:", *(f"line {n}" for n in range(40))])
    report.write_text(
        "<testsuites><testsuite><testcase classname='docs.sop.adoc' name='flood'>"
        f"<failure message='{message}'>all of it</failure></testcase></testsuite></testsuites>"
    )
    bad = outcome.result_of(Piece("sop", "1"), [attempt.Attempt(1, 1, "", junit.read(report))])
    said = "\n".join(table.lines([bad], seconds=1, budget=None))
    assert "failed: docs.sop.adoc::flood: diagnose: the page says:\n    line 0\n" in said
    assert "    line 14\n    ... 25 more lines\n" in said
    assert "line 15\n" not in said


def test_second_tries_are_counted_over_the_last_ten_runs(tmp_path: Path) -> None:
    history = tmp_path / "history.jsonl"
    many = {f"t{n}": "passed" for n in range(400)}
    good = outcome.result_of(Piece("unit"), [attempted(0, "", 1, **many)])
    late = outcome.result_of(
        Piece("unit"), [attempted(1, "", 1, **{**many, "t0": "failed"}), attempted(0, t0="passed")]
    )
    assert table.remember([late], history).endswith("1 of 400 in the last 1: more than 1 in 1000")
    for _ in range(9):
        said = table.remember([good], history)
    assert said == (
        "second tries: 0 of 400 tests in this run; 1 of 4000 in the last 10: at most 1 in 1000"
    )
    assert "0 of 4000 in the last 10" in table.remember([good], history)
    assert len([json.loads(line) for line in history.read_text().splitlines()]) == 10
