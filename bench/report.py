"""Results as a document in Markdown: targets, tables, plots, and where they were measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .plan import Row
from .scripts import PASS
from .spread import Spread, quartiles

MIB = 1 << 20


def throughput(rows: list[Row]) -> list[str]:
    lines: list[str] = []
    for place in _distinct((row["listeners"], row["size"], row["peers"]) for row in rows):
        listeners, size, peers = place
        cell = [row for row in rows if (row["listeners"], row["size"], row["peers"]) == place]
        proxy = [row["rate"] for row in cell if row["subject"] == "zmq_proxy"]
        table = []
        for subject in _distinct(row["subject"] for row in cell):
            own = [row for row in cell if row["subject"] == subject]
            rate = _spread(own, lambda row: row["rate"])
            disk = [row["journal_rate"] for row in own if "journal_rate" in row]
            lost = sum(row["missing"] + row["doubled"] for row in own)
            unjournaled = sum(row.get("unjournaled", 0) for row in own)
            table.append(
                [
                    subject,
                    rate.text(),
                    Spread.of(disk).text() if disk else "",
                    f"{rate.median / Spread.of(proxy).median:.2f}" if proxy else "",
                    _spread(own, lambda row: row["cpu"]["subject"]).text(1),
                    _spread(own, lambda row: row["cpu"]["sender"]).text(1),
                    _spread(own, lambda row: row["cpu"]["listener"]).text(1),
                    _spread(own, lambda row: row["cores"]).text(2),
                    f"{lost}" + f", {unjournaled} not on disk" * bool(unjournaled),
                ]
            )
        plural = "s" * (listeners > 1)
        lines += ["", f"{listeners} listener{plural}, {size:,} bytes, {peers} peers", ""]
        heads = ["subject", "messages/s", "on disk/s", "of proxy", "CPU us/message", "sender",
                 "listener", "cores used", "lost"]  # fmt: skip
        lines += markdown(heads, table)
    return lines


def latency(rows: list[Row]) -> list[str]:
    lines: list[str] = []
    for load in _distinct(row["load"] for row in rows):
        table = []
        for subject in _distinct(row["subject"] for row in rows):
            own = [row for row in rows if (row["load"], row["subject"]) == (load, subject)]
            figures = [_of(own, key).text(digits) for key, digits in _LATENCIES.items()]
            cpu = _spread(own, lambda row: row["cpu"]["subject"]).text(1)
            table.append([subject, *figures, cpu, str(sum(row["missing"] for row in own))])
        heads = ["subject", "messages/s", "p50 us", "p99 us", "p99.9 us", "CPU us/message", "lost"]
        lines += ["", f"Latency at {load}", "", *markdown(heads, table)]
    return lines


_LATENCIES = {"rate": 0, "p50": 0, "p99": 0, "p99.9": 0}


def memory(rows: list[Row]) -> list[str]:
    table = []
    for listeners, size in _distinct((row["listeners"], row["size"]) for row in rows):
        cell = [row for row in rows if (row["listeners"], row["size"]) == (listeners, size)]
        for subject in _distinct(row["subject"] for row in cell):
            own = [row for row in cell if row["subject"] == subject]
            table.append(
                [
                    subject,
                    f"{listeners}",
                    f"{size:,}",
                    f"{own[0]['messages']:,}",
                    _spread(own, lambda row: row["idle"] / MIB).text(),
                    _spread(own, lambda row: row["peak"] / MIB).text(),
                    _of(own, "seconds").text(1),
                    str(sum(row["missing"] + row["doubled"] for row in own)),
                ]
            )
    heads = ["subject", "listeners", "bytes", "messages", "MiB before", "MiB at most", "seconds",
             "lost"]  # fmt: skip
    return ["", "Memory in a burst", "", *markdown(heads, table)]


def submits(rows: list[Row]) -> list[str]:
    table = []
    for subject, size, way in _distinct((r["subject"], r["journal"], r["way"]) for r in rows):
        own = [row for row in rows if (row["subject"], row["journal"], row["way"]) ==
               (subject, size, way)]  # fmt: skip
        quantiles = [_of(own, key).text() if key in own[0] else "" for key in ("p50", "p99")]
        cpu = _spread(own, lambda row: row["cpu"]["subject"]).text(1)
        table.append([subject, way, f"{size >> 20}", _of(own, "rate").text(), *quantiles, cpu])
    heads = ["subject", "way", "journal MiB", "acked/s", "p50 us", "p99 us", "CPU us/message"]
    return ["", "Acknowledged submits", "", *markdown(heads, table)]


def scripts(rows: list[Row]) -> list[str]:
    lines: list[str] = []
    for relay in _distinct(row["relay"] for row in rows):
        here = [row for row in rows if row["relay"] == relay]
        theirs = [row for row in here if row["python"] == "its own"]
        table = []
        for subject, python in _distinct((row["subject"], row["python"]) for row in here):
            own = [row for row in here if (row["subject"], row["python"]) == (subject, python)]
            alone = [row for row in here if (row["subject"], row["python"]) == (PASS, python)]
            table.append(
                [
                    subject,
                    python,
                    *(quartiles([row[key] for row in own], 1) for key in ("wall", "cpu")),
                    f"{_of(own, 'wall').median / _of(alone, 'wall').median:.2f}" if alone else "",
                    f"{_of(own, 'wall').median / _of(theirs, 'wall').median:.3f}",
                ]
            )
        heads = ["command", "Python", "wall ms", "CPU ms", "of python3 -c pass", "of upstream's"]
        lines += ["", f"One message from a script, to {relay}", "", *markdown(heads, table)]
    return lines


def starts(rows: list[Row]) -> list[str]:
    table = []
    for what, subject in _distinct((row["what"], row["subject"]) for row in rows):
        own = [row for row in rows if (row["what"], row["subject"]) == (what, subject)]
        times = [
            _of(own, key).text() if key in own[0] else "" for key in ("serves", "ready", "gap")
        ]
        lost = str(sum(row["missing"] for row in own)) if "missing" in own[0] else ""
        sent = f"{sum(row['sent'] for row in own):,}" if "sent" in own[0] else ""
        table.append([what, subject, *times, sent, lost])
    heads = ["what", "subject", "serves after ms", "READY after ms", "gap ms", "messages", "lost"]
    return ["", "Starts and restarts", "", *markdown(heads, table)]


def growth(rows: list[Row]) -> list[str]:
    table = []
    for subject, size in _distinct((row["subject"], row["journal"]) for row in rows):
        own = [row for row in rows if (row["subject"], row["journal"]) == (subject, size)]
        figures = [_of(own, key).text() for key in ("rate", "journal_rate")]
        cpu = _spread(own, lambda row: row["cpu"]["subject"]).text(1)
        lost = sum(row["missing"] + row["unjournaled"] for row in own)
        table.append([subject, f"{size >> 20}", *figures, cpu, str(lost)])
    heads = ["subject", "journal MiB", "messages/s", "on disk/s", "CPU us/message", "lost"]
    return ["", "Throughput by the size of the journal", "", *markdown(heads, table)]


def servicing(rows: list[Row]) -> list[str]:
    table = []
    for subject, disk, load in _distinct((r["subject"], r["disk"], r["load"]) for r in rows):
        own = [row for row in rows if (row["subject"], row["disk"], row["load"]) ==
               (subject, disk, load)]  # fmt: skip
        figures = [_of(own, "p50").text(1), _of(own, "longest").text(1)]
        newcomers, lost = (f"{sum(row[key] for row in own):,}" for key in ("newcomers", "missing"))
        table.append([subject, disk, load, newcomers, *figures, lost])
    heads = ["subject", "disk", "load", "newcomers", "p50 ms", "longest ms", "lost"]
    return ["", "Until a new publisher is subscribed to", "", *markdown(heads, table)]


ANSWERS = ("answers", "refusals")


def queries(rows: list[Row]) -> list[str]:
    table = []
    for subject in _distinct(row["subject"] for row in rows):
        alone, queried = (
            [row for row in rows if row["subject"] == subject and row["queried"] is asked]
            for asked in (False, True)
        )
        for name, own in (("not queried", alone), ("queried", queried)):
            table.append(
                [
                    f"{subject}, {name}",
                    _of(own, "rate").text(),
                    _of(own, "journal_rate").text(),
                    f"{_of(own, 'rate').median / _of(alone, 'rate').median:.2f}",
                    _spread(own, lambda row: row["cpu"]["alone"]).text(1),
                    *(_of(own, key).text() if name == "queried" else "" for key in ANSWERS),
                    _of(own, "cores").text(2),
                ]
            )
    heads = ["subject", "messages/s", "on disk/s", "ratio", "relay's own CPU us/message",
             "answers/s", "refused/s", "cores used"]  # fmt: skip
    return ["", "While the backlog is queried", "", *markdown(heads, table)]


def markdown(
    heads: Sequence[str], table: Iterable[Sequence[str]], *, numbers: bool = True
) -> list[str]:
    """The first column is text, the others are `numbers`. Aligned, to be read as it is, too."""
    body = [list(heads), *(list(row) for row in table)]
    widths = [max(len(row[at]) for row in body) for at in range(len(heads))]

    def line(cells: Sequence[str]) -> str:
        first = cells[0].ljust(widths[0])
        rest = [
            cell.rjust(width) if numbers else cell.ljust(width)
            for cell, width in zip(cells[1:], widths[1:])
        ]
        return "| " + " | ".join([first, *rest]) + " |"

    end = ":" if numbers else "-"
    rule = ["-" * widths[0], *("-" * (width - 1) + end for width in widths[1:])]
    return [line(heads), "| " + " | ".join(rule) + " |", *map(line, body[1:])]


def _spread(rows: Sequence[Row], figure: Callable[[Row], float]) -> Spread:
    return Spread.of([figure(row) for row in rows])


def _of(rows: Sequence[Row], key: str) -> Spread:
    return Spread.of([row[key] for row in rows])


def _distinct(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))
