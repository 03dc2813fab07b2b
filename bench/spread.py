"""The rounds of one figure: their middle and how far apart they are."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))

    def text(self, digits: int = 0) -> str:
        """`12,345 (11,900..12,500)`; digits are those after the point."""
        shown = [f"{value:,.{digits}f}" for value in (self.median, self.least, self.most)]
        return shown[0] if self.least == self.most else f"{shown[0]} ({shown[1]}..{shown[2]})"


def quartiles(values: Sequence[float], digits: int) -> str:
    """Of many: the median, and in brackets what the middle half of them lies between."""
    first, middle, last = statistics.quantiles(values, n=4) if len(values) > 1 else [*values] * 3
    return f"{middle:,.{digits}f} ({first:,.{digits}f}..{last:,.{digits}f})"


def percentile(ordered: Sequence[int], share: float) -> int:
    """The value that `share` of the sorted values do not exceed."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
