"""The tables of the fleet, and its targets: ratios of runs that took turns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .fleet import BEFORE, CHECK, DEPLOY, FIRST, MODULES, NOW
from .plan import Row
from .report import MIB, markdown
from .spread import Spread
from .targets import Target


def fleet(rows: list[Row]) -> list[str]:
    lines: list[str] = []
    for names in dict.fromkeys(row["names"] for row in rows):
        sized = [row for row in rows if row["names"] == names]
        table = []
        for work, subject in dict.fromkeys((row["work"], row["subject"]) for row in sized):
            own = of(sized, work, subject)
            table.append(
                [
                    work if subject == MODULES else f"{work}, {subject}",
                    *(Spread.of([row[key] for row in own]).text(1) for key in ("seconds", "cpu")),
                    Spread.of([row["peak"] / MIB for row in own]).text(),
                    *(
                        _text(ratio(own, of(sized, work, BEFORE), key))
                        for key in ("seconds", "cpu")
                    ),
                    _text(ratio(own, of(sized, MODULES, MODULES))),
                ]
            )
        heads = ["run", "seconds", "CPU seconds", "MiB", f"of {BEFORE}'s", f"CPU of {BEFORE}'s",
                 f"of {MODULES}"]  # fmt: skip
        lines += ["", f"{names} names", "", *markdown(heads, table)]
    return lines


def of(rows: Sequence[Row], work: str, subject: str, names: int | None = None) -> list[Row]:
    return [
        row
        for row in rows
        if (row["work"], row["subject"]) == (work, subject) and names in (None, row["names"])
    ]


def ratio(ours: Sequence[Row], theirs: Sequence[Row], key: str = "seconds") -> Spread | None:
    """Of the rounds one by one: what slows the machine down hits both of a round."""
    other = {row["round"]: row[key] for row in theirs}
    found = [row[key] / other[row["round"]] for row in ours if other.get(row["round"])]
    return Spread.of(found) if found else None


def targets(parts: dict[str, Any]) -> list[Target]:
    """What runs of the playbooks are to reach."""
    rows: list[Row] = parts["fleet"]["rows"] if "fleet" in parts else []

    def compared(work: str, names: int, to: str = BEFORE) -> float | None:
        other = MODULES if to == MODULES else work
        found = ratio(of(rows, work, NOW, names), of(rows, other, to, names))
        return found.median if found else None

    def grown(work: str) -> float | None:
        large, small = (of(rows, work, NOW, names) for names in (300, 100))
        if not large or not small:
            return None
        middles = [Spread.of([row["seconds"] for row in own]).median for own in (large, small)]
        return middles[0] / middles[1]

    return [
        Target(f"deploy, nothing to change, 100 hosts, of {BEFORE}'s", compared(DEPLOY, 100), 0.3),
        Target(
            "deploy, nothing to change, 100 hosts, of three modules",
            compared(DEPLOY, 100, MODULES), 2,
        ),
        Target(f"check, 100 hosts, of {BEFORE}'s", compared(CHECK, 100), 0.45),
        Target("deploy, nothing to change, 300 hosts, of 100", grown(DEPLOY), 3.2),
        Target("check, 300 hosts, of 100", grown(CHECK), 3.2),
        Target(f"deploy, nothing to change, 3 hosts, of {BEFORE}'s", compared(DEPLOY, 3), 0.6),
        Target(f"first deploy of 3 hosts, of {BEFORE}'s", compared(FIRST, 3), 0.7),
    ]  # fmt: skip


def _text(spread: Spread | None) -> str:
    return "" if spread is None else spread.text(2)
