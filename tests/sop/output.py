"""What a page says that a command prints, compared with what it printed.

The lines have to be the same, all of them and in full. `<word>` stands for anything within its
line, and a line that is only `<lines>` for any number of lines, none too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

LINES = "<lines>"
_WILDCARD = re.compile(r"<[a-z][a-z0-9 _-]*>")


def tidy(printed: str) -> list[str]:
    """The lines of an output as a page can show them: it has no space at the end of a line, nor
    empty lines at its own end."""
    return [line.rstrip() for line in printed.rstrip().splitlines()]


def matches(expected: Sequence[str], printed: str) -> bool:
    return _matches([_pattern(line) for line in expected], tidy(printed))


def _pattern(line: str) -> re.Pattern[str] | None:
    if line.strip() == LINES:
        return None
    literal = map(re.escape, _WILDCARD.split(line.rstrip()))
    return re.compile(".*".join(literal))


def _matches(patterns: Sequence[re.Pattern[str] | None], lines: Sequence[str]) -> bool:
    """Line by line, `reached` being how many lines the patterns so far may have used up."""
    reached = {0}
    for pattern in patterns:
        if pattern is None:
            reached = set(range(min(reached), len(lines) + 1)) if reached else set()
        else:
            reached = {
                count + 1
                for count in reached
                if count < len(lines) and pattern.fullmatch(lines[count])
            }
    return len(lines) in reached


def difference(expected: Sequence[str], printed: str) -> str:
    """What was expected and what came, for the person who has to mend one of them."""
    said = ["the page says:", *(f"    {line}" for line in expected or ["(nothing)"])]
    came = ["it printed:", *(f"    {line}" for line in tidy(printed) or ["(nothing)"])]
    return "\n".join([*said, *came])
