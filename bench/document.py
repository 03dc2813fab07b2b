"""results.md: targets, tables and plots of all parts, and where they were measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import fleet_report
from .parts import PARTS
from .plots import PLOTS
from .report import markdown
from .targets import ratios, targets

TITLES = {
    "throughput": "Throughput",
    "growth": "Size of the journal",
    "latency": "Latency",
    "memory": "Memory",
    "submits": "Acknowledged submits",
    "scripts": "Scripts",
    "starts": "Starts and restarts",
    "queries": "Queries of the backlog",
    "servicing": "Servicing of the inbound socket",
    "fleet": "Runs of the playbooks",
}

# Of what `publish` writes.
MARKS = ("<!-- written by make bench -->", "<!-- to here -->")


def verdicts(parts: dict[str, Any]) -> list[str]:
    """The table of the targets."""
    table = [target.cells() for target in (*targets(parts), *fleet_report.targets(parts))]
    return markdown(["relay+journal, and the playbooks", "target", "measured", ""], table)


def write(directory: Path, parts: dict[str, Any]) -> None:
    lines = [
        "# Results of the bench",
        "",
        "Written by `make bench`; what is measured, and how, is in [README.md](../README.md)."
        " Figures are medians of rounds, in brackets their least and most.",
        "",
        "## Targets",
        "",
        *verdicts(parts),
    ]
    for name in PARTS:
        if name in parts:
            lines += ["", f"## {TITLES[name]}", *PARTS[name].tables(parts[name]["rows"])]
            for plot in PLOTS:
                if plot.part == name and (directory / plot.file).exists():
                    lines += ["", f"![{plot.title}]({plot.file})"]
    if parts:
        lines += ["", "## Where and when", *_places(parts)]
    (directory / "results.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def publish(readme: Path, parts: dict[str, Any]) -> None:
    """Write the ratios between their marks in the bench's README."""
    found = ratios(parts)
    table = markdown(["with the journal on", ""], found, numbers=False) if found else []
    text = readme.read_text(encoding="utf-8")
    before, rest = text.split(MARKS[0])
    _, after = rest.split(MARKS[1])
    lines = [before + MARKS[0], *table, MARKS[1] + after]
    readme.write_text("\n".join(lines), encoding="utf-8")


def _places(parts: dict[str, Any]) -> list[str]:
    """Parts that were measured at the same place, on the same day, together."""
    places: dict[str, list[str]] = {}
    for name, part in parts.items():
        place = {**part["where"], "date": part["date"], "run": "quick" if part["quick"] else "full"}
        listed = "\n".join(f"- {key}: {text}" for key, text in place.items())
        places.setdefault(listed, []).append(name)
    lines = []
    for listed, names in places.items():
        lines += ["", f"{', '.join(names)}:", "", listed]
    return lines
