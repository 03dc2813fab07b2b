"""The account of every message: counted by what became of it, and logged within reason."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from .. import log
from ..checks.wire import INTERNAL_ERROR, NOT_STRICT, NULL, UNSEEN, Checked
from ..rate_limit import RateLimit
from .monitoring import Monitoring
from .policing import NOT_ALLOWED

SUMMARY_PERIOD = 60.0  # seconds

# What a line of the log says beside the cause: what is behind it, and what to do.
WHY = {
    NULL: "; this is what upstream's publisher sends, with exit status 0, when it cannot sign, as"
    " with pyOpenSSL 24.3 or later: publish with fedmsg-logger of fedmsg-relay on that host",
    NOT_STRICT: "; no JSON to strict parsers, such as jq and those of Node, Go and Java",
    UNSEEN: "; it would have taken too long to check",
}

logger = logging.getLogger(log.NAME)


@dataclass
class Counts:
    """Messages since the start: `untouched` went out byte for byte, the others by cause.

    `noted` are among those that went out: they are as their sender wanted them, and worth a count.
    """

    untouched: int = 0
    repaired: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    noted: Counter[str] = field(default_factory=Counter)

    @property
    def relayed(self) -> int:
        return self.untouched + _total(self.repaired)

    @property
    def received(self) -> int:
        return self.relayed + _total(self.dropped)

    def copy(self) -> Counts:
        return Counts(self.untouched, self.repaired.copy(), self.dropped.copy(), self.noted.copy())

    def since(self, earlier: Counts) -> Counts:
        return Counts(
            self.untouched - earlier.untouched,
            self.repaired - earlier.repaired,
            self.dropped - earlier.dropped,
            self.noted - earlier.noted,
        )

    def __str__(self) -> str:
        """`12 relayed, 2 repaired (wrapped 2), 1 dropped (too large 1)`."""
        return (
            f"{self.relayed} relayed, {_total(self.repaired)} repaired"
            f"{_causes(self.repaired)}, {_total(self.dropped)} dropped{_causes(self.dropped)}"
            + "".join(f", {number} with {cause}" for cause, number in sorted(self.noted.items()))
        )


class Account:
    """`counts` are since the start, those of `monitoring` since its last frame."""

    def __init__(self, monitoring: Monitoring) -> None:
        self.counts = Counts()
        self._monitoring = monitoring
        self._summarised = Counts()
        self._warnings = RateLimit(period=SUMMARY_PERIOD)

    def enter(self, batch: Sequence[Checked], seconds: float) -> None:
        """Enter messages of the inbound side, and how long they took together."""
        self._monitoring.enter(len(batch), seconds)
        changed = [checked for checked in batch if checked.cause is not None]
        self.counts.untouched += len(batch) - len(changed)
        for checked in changed:
            self._enter_changed(checked, checked.cause or "")

    def _enter_changed(self, checked: Checked, cause: str) -> None:
        verb = "dropped" if checked.frames is None else "repaired"
        counter = self.counts.dropped if checked.frames is None else self.counts.repaired
        counter[cause] += 1
        # Of what is not allowed the line that names its sender is policing's.
        if cause != NOT_ALLOWED and self._warnings.allows(cause):
            # %a: a topic is the sender's text, and must not be able to forge a line of this log.
            more = "; more of these are only counted" * self._warnings.is_last(cause)
            logger.warning(
                "%s: %s, topic %.200a%s%s", verb, cause, checked.topic, WHY.get(cause, ""), more
            )

    def enter_not_strict(self, topic: str) -> None:
        """Enter that a message which goes out has NaN or Infinity in it."""
        self.counts.noted[NOT_STRICT] += 1
        if self._warnings.allows(NOT_STRICT):
            more = "; more of these are only counted" * self._warnings.is_last(NOT_STRICT)
            logger.warning(
                "passed on: %s, topic %.200a%s%s", NOT_STRICT, topic, WHY[NOT_STRICT], more
            )

    def enter_submitted(self) -> None:
        """Enter one message of the submit side that has been emitted."""
        self._monitoring.headcount += 1
        self.counts.untouched += 1

    def enter_internal_error(self) -> None:
        """Say what is being handled: called from an `except` clause."""
        self._monitoring.exceptions += 1
        if self._warnings.allows(INTERNAL_ERROR):
            logger.exception(INTERNAL_ERROR)

    def summarise(self, listeners: int) -> None:
        """Log what came since the last time, if anything did."""
        latest = self.counts.since(self._summarised)
        if latest.received:
            logger.info("since the last summary: %s, %d listeners", latest, listeners)
        self._summarised = self.counts.copy()


def _total(counter: Counter[str]) -> int:
    return sum(counter.values())


def _causes(counter: Counter[str]) -> str:
    if not counter:
        return ""
    return " ({})".format(", ".join(f"{cause} {n}" for cause, n in sorted(counter.items())))
