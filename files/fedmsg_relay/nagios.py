"""What a Nagios plugin says: one line, perfdata, and an exit status.

See https://nagios-plugins.org/doc/guidelines.html
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .escapes import escaped

OK, WARNING, CRITICAL, UNKNOWN = range(4)
WORDS = ("OK", "WARNING", "CRITICAL", "UNKNOWN")
# What is known to be wrong is not made less urgent by what is not known.
_URGENCY = (OK, WARNING, UNKNOWN, CRITICAL)


@dataclass
class Report:
    """Several checks in one: the most urgent status, and what each has found."""

    status: int = OK
    texts: list[str] = field(default_factory=list)
    perfdata: list[str] = field(default_factory=list)

    def add(self, status: int, text: str) -> None:
        self.status = max(self.status, status, key=_URGENCY.index)
        self.texts.append(text)

    def join(self, other: Report) -> None:
        self.status = max(self.status, other.status, key=_URGENCY.index)
        self.texts += other.texts
        self.perfdata += other.perfdata

    def line(self, name: str) -> str:
        # A bar begins the perfdata, wherever it stands; a line end begins what Nagios hides. Relays
        # and hubs answer what they like.
        text = escaped("; ".join(self.texts)).replace("|", "/")
        data = f" | {' '.join(self.perfdata)}" if self.perfdata else ""
        return f"{name} {WORDS[self.status]} - {text}{data}"
