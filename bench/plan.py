"""What a run of the bench was asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from .subjects import Kind, kinds

T = TypeVar("T")

# What one measurement gave: {"subject": ..., ..., figures}.
Row = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    checkouts: tuple[Path, ...]
    subjects: tuple[str, ...]
    quick: bool = False
    rounds: int | None = None
    seconds: float | None = None
    cells: tuple[str, ...] = ()
    # Sizes of the inventory.
    names: tuple[int, ...] = ()
    say: Callable[[str], object] = print

    def of(self, full: T, quick: T) -> T:
        """One of two values: the run is a full one, or a quick one."""
        return quick if self.quick else full

    def rounds_or(self, full: int, quick: int) -> int:
        return self.of(full, quick) if self.rounds is None else self.rounds

    def seconds_or(self, full: float, quick: float) -> float:
        return self.of(full, quick) if self.seconds is None else self.seconds

    def kinds(self, *among: str) -> list[Kind]:
        """The subjects, of those that a part can measure."""
        return kinds([name for name in self.subjects if name in among], self.checkouts)


def alternated(rounds: int, kinds: list[T]) -> list[tuple[int, T]]:
    """Each once in each round; who begins changes, so that no one always follows the same."""
    order = []
    for number in range(rounds):
        turned = number % len(kinds) if kinds else 0
        order += [(number, kind) for kind in kinds[turned:] + kinds[:turned]]
    return order
