"""What the relay is to reach, with its journal on, and what a run has measured of it.

All but three are ratios within one run: they hold on another machine, too.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from .plan import Row
from .scripts import ACKED, PASS, UPSTREAM_LOGGER
from .subjects import JOURNAL, PROXY, UPSTREAM
from .throughput import PEERS

Parts = dict[str, Any]


@dataclass(frozen=True)
class Target:
    """`figure` is the measured one, or None if its part has not been run; `bound` is its limit."""

    name: str
    figure: float | None
    bound: float
    unit: str = ""
    at_least: bool = False

    @property
    def is_met(self) -> bool | None:
        if self.figure is None:
            return None
        return self.figure >= self.bound if self.at_least else self.figure <= self.bound

    def cells(self) -> list[str]:
        """Name, target, figure, verdict."""
        sign = "at least" if self.at_least else "at most"
        verdict = {True: "met", False: "NOT MET", None: "not measured"}[self.is_met]
        figure = "" if self.figure is None else f"{self.figure:.3g}{self.unit}"
        return [self.name, f"{sign} {self.bound:g}{self.unit}", figure, verdict]


def targets(parts: Parts) -> list[Target]:
    return [
        *(
            Target(
                f"throughput{on_disk}, {peers} peers, of {other}'s",
                _throughput(parts, figure, other, peers), bound, at_least=True,
            )
            for other, bound in ((PROXY, 0.6), (UPSTREAM, 4))
            for peers in PEERS
            for figure, on_disk in (("rate", ""), ("journal_rate", " on disk"))
        ),
        Target("p99 at 1,000 messages/s", _p99(parts, JOURNAL), 2, " ms"),
        Target(
            "p99 at 1,000 messages/s, of upstream's",
            _ratio(_p99(parts, JOURNAL), _p99(parts, UPSTREAM)), 1,
        ),
        Target("memory in a burst of 300,000", _memory(parts), 150, " MiB"),
        Target("fedmsg-logger, acked: wall, of upstream's", _script(parts, UPSTREAM_LOGGER), 0.12),
        Target("fedmsg-logger, acked: wall, of python3 -c pass", _script(parts, PASS), 4),
        Target("CPU a listener with 500 of them, of zmq_proxy's", _listener_cost(parts), 1.2),
        Target("throughput while /raw is queried", _queried(parts), 0.9, at_least=True),
        Target("inbound left alone", _unserviced(parts, slow=False), 100, " ms"),
        Target("inbound left alone, disk stalls 2 s", _unserviced(parts, slow=True), 100, " ms"),
    ]  # fmt: skip


def _throughput(parts: Parts, figure: str, other: str, peers: str) -> float | None:
    main = {"listeners": 1, "size": 400, "peers": peers}
    ours = _median(parts, "throughput", figure, subject=JOURNAL, **main)
    return _ratio(ours, _median(parts, "throughput", "rate", subject=other, **main))


def ratios(parts: Parts) -> list[tuple[str, str]]:
    """What can be said of any machine, in words. What has not been measured is left out."""
    script = "one `fedmsg-logger`, acknowledged"
    said = [
        *(
            (f"messages a second, {peers} peers", _throughput(parts, "rate", other, peers), of)
            for peers in PEERS
            for other, of in ((UPSTREAM, "times upstream's"), (PROXY, "of `zmq_proxy`'s"))
        ),
        (
            "99 of 100 messages, at 1,000 a second, arrive within",
            _ratio(_p99(parts, JOURNAL), _p99(parts, UPSTREAM)), "of upstream's time",
        ),
        (
            "memory in a burst of 300,000 messages",
            _ratio(_memory(parts), _memory(parts, UPSTREAM)), "of upstream's",
        ),
        (f"{script}: time", _script(parts, UPSTREAM_LOGGER), "of upstream's"),
        (f"{script}: time", _script(parts, PASS), "times `python3 -c pass`"),
        (
            "processor time a listener, of 500",
            _listener_cost(parts), "of `zmq_proxy`'s",
        ),
        ("messages a second while the backlog is queried", _queried(parts), "of those without"),
    ]  # fmt: skip
    return [(what, f"{ratio:.2g} {of}") for what, ratio, of in said if ratio is not None]


def _p99(parts: Parts, subject: str) -> float | None:
    found = _median(parts, "latency", "p99", subject=subject, load="1,000/s")
    return None if found is None else found / 1000


def _memory(parts: Parts, subject: str = JOURNAL) -> float | None:
    rows = _rows(parts, "memory", subject=subject, listeners=1, size=400)
    return max((row["peak"] / (1 << 20) for row in rows), default=None)


def _script(parts: Parts, other: str) -> float | None:
    """Of the distribution's Python, which hosts have, where it was measured."""
    rows = _rows(parts, "scripts", subject=ACKED)
    pythons = {row["python"] for row in rows}
    python = "distribution" if "distribution" in pythons else "venv"
    ours = _median(parts, "scripts", "wall", subject=ACKED, python=python)
    more = {} if other == UPSTREAM_LOGGER else {"python": python}
    return _ratio(ours, _median(parts, "scripts", "wall", subject=other, **more))


def _listener_cost(parts: Parts) -> float | None:
    def cost(subject: str) -> float | None:
        where = {"subject": subject, "listeners": 500, "size": 400}
        rows = _rows(parts, "throughput", **where)
        return statistics.median(row["cpu"]["subject"] / 500 for row in rows) if rows else None

    return _ratio(cost(JOURNAL), cost(PROXY))


def _queried(parts: Parts) -> float | None:
    def rate(queried: bool) -> float | None:
        return _median(parts, "queries", "rate", subject=JOURNAL, queried=queried)

    return _ratio(rate(True), rate(False))


def _unserviced(parts: Parts, slow: bool) -> float | None:
    rows = [
        row
        for row in _rows(parts, "servicing", subject=JOURNAL)
        if row["disk"].startswith("stalls") is slow
    ]
    return max((row["longest"] for row in rows), default=None)


def _rows(parts: Parts, part: str, **where: object) -> list[Row]:
    rows = parts[part]["rows"] if part in parts else []
    return [row for row in rows if all(row[key] == value for key, value in where.items())]


def _median(parts: Parts, part: str, figure: str, **where: object) -> float | None:
    found = [row[figure] for row in _rows(parts, part, **where)]
    return statistics.median(found) if found else None


def _ratio(ours: float | None, other: float | None) -> float | None:
    return ours / other if ours is not None and other else None
