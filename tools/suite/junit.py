"""What pytest's report, in JUnit's XML, says of each test.

A test that its own plugin has tried again has a property `again`, with what the first try said.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

_WORDS = {"failure": "failed", "error": "failed", "skipped": "skipped"}


@dataclass(frozen=True)
class Test:
    """`outcome`: passed, failed or skipped. `again`: what the first of two tries said, if any.
    `said`: the message of what failed."""

    outcome: str
    seconds: float = 0
    again: str = ""
    said: str = ""


def read(path: Path) -> dict[str, Test]:
    """The tests of a report, by name; none where there is no report, or half of one."""
    try:
        root = ET.parse(path).getroot()
    except (FileNotFoundError, ET.ParseError):
        return {}
    found: dict[str, Test] = {}
    for case in root.iter("testcase"):
        # A test whose teardown fails has two entries.
        name = f"{case.get('classname', '')}::{case.get('name', '')}".removeprefix("::")
        ends = [child for child in case if child.tag in _WORDS]
        outcome = _WORDS[ends[0].tag] if ends else "passed"
        said = ends[0].get("message", "") if outcome == "failed" else ""
        if name in found and found[name].outcome == "failed":
            continue
        again = next(
            (p.get("value", "") for p in case.iter("property") if p.get("name") == "again"), ""
        )
        found[name] = Test(outcome, float(case.get("time", 0)), again, said)
    return found
