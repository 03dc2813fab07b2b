"""What there is to run: the pieces of tests/parts.yml."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "parts.yml"
# Where the pieces leave what they print, and which tests they ran.
LOGS = ROOT / "build" / "test"
# Seconds, for a machine that is many times slower than the one of the budgets.
LIMIT = 3600.0


class PlanError(Exception):
    """What was asked for does not exist, or tests/parts.yml does not make sense."""


@dataclass(frozen=True)
class Piece:
    """One thing to run, see tests/parts.yml. `tests`: of a part of pytest's, these alone."""

    part: str
    of: str = ""
    budget: float = 300
    load: float = 1
    alone: bool = False
    apart: bool = False
    limit: float = 0
    tests: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.part}/{self.of}" if self.of else self.part

    @property
    def most(self) -> float:
        """Seconds after which it is stopped."""
        return self.limit or LIMIT

    @property
    def log(self) -> Path:
        return LOGS / f"{self.name.replace('/', '-')}.log"

    def report(self, attempt: int) -> Path:
        """What pytest says of each test, as JUnit's XML."""
        return self.log.with_suffix(f".{attempt}.xml")

    def command(self) -> list[str]:
        made = ["make", self.part]
        if self.part == "molecule":
            made.append(f"SCENARIO={self.of}")
        elif self.part == "sop" and self.tests:
            made.append(f"ARGS=-k '{' or '.join(self.tests)}'")
        elif self.tests:
            made.append(f"TESTS={' '.join(self.tests)}")
        return made


@dataclass(frozen=True)
class Plan:
    """All pieces, and the seconds that those of `make test` may take together."""

    pieces: tuple[Piece, ...]
    budget: float

    def of(self, parts: Iterable[str], *, all_of_it: bool = False) -> list[Piece]:
        """The pieces of parts, or single ones like molecule/pair, in the plan's order.

        `all_of_it`: those that `make test` leaves out, too; one that is named runs in any case.
        Raises PlanError.
        """
        wanted = set(parts)
        known = {piece.part for piece in self.pieces} | {piece.name for piece in self.pieces}
        if unknown := sorted(wanted - known):
            raise PlanError(
                f"no such part: {', '.join(unknown)}; there are {', '.join(self.names)}"
            )
        return [
            piece
            for piece in self.pieces
            if piece.name in wanted or (piece.part in wanted and (all_of_it or not piece.apart))
        ]

    @property
    def names(self) -> list[str]:
        return [piece.name for piece in self.pieces]


def read(path: Path = DATA) -> Plan:
    data = yaml.safe_load(path.read_text())
    try:
        pieces = tuple(Piece(**row) for row in data["pieces"])
    except TypeError as error:
        raise PlanError(f"{path.name}: {error}") from None
    return Plan(pieces, float(data["budget"]))
