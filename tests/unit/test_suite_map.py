"""tests/map.yml: every file has a row, and each row is right as far as imports tell."""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path

import pytest
from suite import changed, imports, plan
from suite.changed import Row
from suite.imports import reached

from tests.conftest import ROOT

ROWS = changed.rows()
PLAN = plan.read()
# These change what every test runs by. They have no row, and everything runs.
DELIBERATELY_EVERYTHING = (
    ".ci/run",
    "Makefile",
    "pyproject.toml",
    "requirements/*",
    "tools/setup/cache",
    "tools/setup/lock",
    "tools/setup/packages",
    "tools/setup/run",
    "tools/setup/venv",
)


@functools.cache
def tracked() -> list[str]:
    words = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--deduplicate"]
    listed = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    # A link is what it leads to.
    return [file for file in listed.splitlines() if os.path.lexists(ROOT / file)]


def test_every_file_has_a_row_or_runs_everything_on_purpose() -> None:
    everything = Row(DELIBERATELY_EVERYTHING, ())
    unmapped = {file for file in tracked() if changed.row_of(file, ROWS) is None}
    assert {file for file in unmapped if not everything.matches(file)} == set()
    assert {file for file in tracked() if everything.matches(file)} <= unmapped


# Pieces of the project that come later.
NOT_YET = {"findings/*", "tools/names"}


def test_every_pattern_is_the_first_for_some_file() -> None:
    needed: set[str] = set()
    for file in tracked():
        if row := changed.row_of(file, ROWS):
            needed |= {pattern for pattern in row.files if Row((pattern,), ()).matches(file)}
    assert {pattern for row in ROWS for pattern in row.files} - needed - NOT_YET == set()


def test_what_rows_name_exists() -> None:
    stems = {path.stem for path in (ROOT / "docs" / "incidents").glob("*.adoc")}
    sections = {f"check-{word}" for word in ("deploy", "restart")} | {"drill"}
    for file in tracked():
        for each in row.of(file) if (row := changed.row_of(file, ROWS)) else []:
            part, _, test = each.partition(":")
            assert PLAN.of([part]), each
            if part == "sop" and test:
                assert test in stems | sections, each
            elif test:
                assert (ROOT / test).exists(), f"{file}: {each}"


def wrong(map_: list[Row], tests: list[str]) -> list[str]:
    """`FILE does not run TEST, which imports it`, for each."""
    return [
        f"{file} does not run {test}, which imports it"
        for test in tests
        for file in sorted(reached(test))
        if (row := changed.row_of(file, map_)) and not changed.covers(row, file, test)
    ]


TESTS = imports.tests()


def test_a_file_that_a_test_imports_runs_that_test() -> None:
    assert len(TESTS) > 50
    assert wrong(ROWS, TESTS) == []


def test_a_wrong_row_is_caught() -> None:
    """The two tests that the row should name import it, one of them through another module."""
    test = "tests/unit/test_sop_plain.py"
    assert {"tests/sop/plain.py", "tests/sop/document.py"} <= reached(test)
    map_ = [Row(("tests/sop/document.py",), ("sop", "unit:tests/unit/test_sop.py")), *ROWS]
    assert wrong(map_, [test]) == [f"tests/sop/document.py does not run {test}, which imports it"]


def test_tests_that_import_from_another_test_run_with_it() -> None:
    selected = changed.row_of("tests/sop/plain.py", [Row(("*",), ("{importers}",))])
    assert selected
    assert selected.of("tests/sop/plain.py") == ["unit:tests/unit/test_sop_plain.py"]
    assert "molecule/pair" in imports.importers("molecule/shared/flow.py")


@pytest.mark.parametrize(
    ("files", "runs"),
    [
        (["docs/incidents/flood.adoc"], {"lint", "unit", "sop/1"}),
        (["tests/unit/test_wire.py"], {"lint", "unit"}),
        (["molecule/move/prepare.yml"], {"lint", "unit", "molecule/move"}),
        (["LICENSE"], {"lint"}),
        ([], set()),
    ],
)
def test_a_change_runs_what_its_rows_say(
    files: list[str], runs: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changed, "changed_files", lambda base: files)
    assert {piece.name for piece in changed.pieces(PLAN, "HEAD")} == runs


def test_some_tests_of_a_part_are_run_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    files = ["docs/incidents/flood.adoc", "tests/faults/relay-down.yml"]
    monkeypatch.setattr(changed, "changed_files", lambda base: files)
    by_name = {piece.name: piece for piece in changed.pieces(PLAN, "HEAD")}
    assert by_name["sop/1"].command() == ["make", "sop", "ARGS=-k 'flood or relay-down'"]
    assert by_name["unit"].command()[2].startswith("TESTS=tests/unit/test_sop.py ")


def test_a_file_that_no_row_knows_runs_everything(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(changed, "changed_files", lambda base: ["LICENSE", "new/thing.c"])
    everything = [piece.name for piece in PLAN.of({piece.part for piece in PLAN.pieces})]
    assert [piece.name for piece in changed.pieces(PLAN, "HEAD")] == everything
    assert "no row for new/thing.c: everything runs" in capsys.readouterr().out


def test_changes_are_those_since_the_branch_began_and_those_not_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*words: str) -> None:
        who = ["-c", "user.name=x", "-c", "user.email=x@y", "-c", "init.defaultBranch=main"]
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    def commit(name: str) -> None:
        (tmp_path / name).write_text(name)
        git("add", "--all")
        git("commit", "-m", name)

    monkeypatch.setattr(changed, "ROOT", tmp_path)
    git("init")
    commit("before")
    commit("gone")
    git("checkout", "-b", "branch")
    commit("committed")
    git("checkout", "main")
    commit("of-others")
    git("checkout", "branch")
    (tmp_path / "gone").unlink()
    (tmp_path / "before").write_text("changed")
    (tmp_path / "untracked").write_text("new")
    assert changed.changed_files("main") == ["before", "committed", "gone", "untracked"]
    assert changed._base() == "main"
    with pytest.raises(plan.PlanError, match="no-such-base"):
        changed.changed_files("no-such-base")
