"""docs/delivery.adoc: the tests and figures it names exist."""

from __future__ import annotations

import re

import pytest

from tests.conftest import ROOT

PAGE = (ROOT / "docs/delivery.adoc").read_text()
FIGURES = (ROOT / "docs/include/delivery-figures.adoc").read_text()

NAMED = sorted(set(re.findall(r"`((?:tests|molecule)/\S+\.py)::(\w+)`", PAGE)))


def test_tests_are_named() -> None:
    assert len(NAMED) > 12


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_a_test_that_is_named_exists(path: str, name: str) -> None:
    assert re.search(rf"def {name}\(", (ROOT / path).read_text())


def test_every_figure_on_the_page_is_written_by_a_test() -> None:
    used = set(re.findall(r"\{([a-z-]+)\}", PAGE))
    written = set(re.findall(r"^:([a-z-]+): \S", FIGURES, re.M))
    assert used == written
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    given = set(re.findall(r"(?<!con)figure\(\s*\"([a-z-]+)\"", tests))
    assert used - {"measured-on", "measured-with"} == given
