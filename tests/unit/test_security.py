"""docs/security.adoc: each line of what holds names a test, and these tests exist."""

from __future__ import annotations

import ast
import re

import pytest

from tests.conftest import ROOT

PAGE = (ROOT / "docs/security.adoc").read_text()
HELD = PAGE.partition("[[held]]")[2].partition("\n|===\n")[2].partition("\n|===\n")[0]
# Five cells each, and the header before them.
ROWS = [re.split(r"^\|", row, flags=re.M)[1:] for row in HELD.split("\n\n")[1:]]
NAMED = sorted(set(re.findall(r"`((?:tests|molecule)/\S+\.py)::(\w+)`", PAGE)))


def names_in(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text())
    return {each.name for each in ast.walk(tree) if isinstance(each, ast.FunctionDef)}


def test_the_table_is_read() -> None:
    assert len(ROWS) > 15 and len(NAMED) > 20


@pytest.mark.parametrize("row", ROWS, ids=lambda row: " ".join(row[2].split())[:50])
def test_each_line_says_who_from_where_what_for_and_which_test_shows_it(row: list[str]) -> None:
    who, where, wants, holds, shown = map(str.strip, row)
    assert who and where and wants and holds
    assert re.fullmatch(
        r"`(tests|molecule)/\S+\.py::\w+`( \+\n`(tests|molecule)/\S+::\w+`)*", shown
    )


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_a_test_that_is_named_exists(path: str, name: str) -> None:
    assert name.startswith("test_") and name in names_in(path)


def test_one_that_does_not_exist_is_seen() -> None:
    assert "test_no_such" not in names_in("tests/unit/test_security.py")


def test_what_does_not_hold_is_said() -> None:
    """The first that anybody asks."""
    text = PAGE.partition("== What does not hold")[2]
    for words in ("clear text", "does not verify signatures", "`username`", "for one address"):
        assert words in text
