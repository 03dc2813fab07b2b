"""The plots of the results, as SVG that can be read on a light and on a dark page.

    python -m bench.plots DIRECTORY

Run by a Python that has matplotlib: `tools/setup/venv bench`.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Rows = list[dict[str, Any]]

# Readable on white and on black.
GREY = "#7d7d7d"
COLOURS = {
    "relay": "#2a9d8f",
    "relay+journal": "#d1495b",
    "upstream": "#b8860b",
    "zmq_proxy": "#4c8bc9",
}
MARKERS = {"relay": "o", "relay+journal": "s", "upstream": "^", "zmq_proxy": "D"}


@dataclass(frozen=True)
class Plot:
    part: str
    file: str
    title: str
    draw: Callable[[Any, Rows], None]
    panels: int = 1


def listeners(axes: Any, rows: Rows) -> None:
    """One panel for each size: messages a second over the number of listeners."""
    rows = [row for row in rows if row["peers"] == "lean"]
    sizes = sorted({row["size"] for row in rows})
    for panel, size in zip(axes, sizes):
        _lines(panel, [row for row in rows if row["size"] == size], "listeners", _rate)
        panel.set(xscale="log", yscale="log", xlabel="listeners", title=f"{size:,} bytes")
        panel.set_xticks([1, 10, 100, 500], ["1", "10", "100", "500"])
    axes[0].set_ylabel("messages/s")


def cost(axes: Any, rows: Rows) -> None:
    """Processor time of the subject: over the number of listeners, and over the size."""
    rows = [row for row in rows if row["peers"] == "lean"]
    by_listeners, by_size = axes
    _lines(by_listeners, [row for row in rows if row["size"] == 400], "listeners", _cpu)
    by_listeners.set(xscale="log", yscale="log", xlabel="listeners", title="400 bytes")
    by_listeners.set_xticks([1, 10, 100, 500], ["1", "10", "100", "500"])
    by_listeners.set_ylabel("CPU µs/message")
    _lines(by_size, [row for row in rows if row["listeners"] == 1], "size", _cpu)
    by_size.set(xscale="log", yscale="log", xlabel="bytes", title="1 listener")
    by_size.set_xticks([400, 4096, 65536], ["400", "4 Ki", "64 Ki"])


def growth(axes: Any, rows: Rows) -> None:
    rate, cpu = axes
    in_mib = [{**row, "MiB": row["journal"] / (1 << 20)} for row in rows]
    _lines(rate, in_mib, "MiB", lambda row: float(row["journal_rate"]))
    _lines(cpu, in_mib, "MiB", _cpu)
    rate.set(xlabel="journal, MiB", ylabel="messages/s on disk", ylim=(0, None))
    cpu.set(xlabel="journal, MiB", ylabel="CPU µs/message", ylim=(0, None))


def latency(axes: Any, rows: Rows) -> None:
    names = ("p50", "p99", "p99.9")
    for panel, load in zip(axes, dict.fromkeys(row["load"] for row in rows)):
        own = [row for row in rows if row["load"] == load]
        subjects = _subjects(own)
        for number, subject in enumerate(subjects):
            of_subject = [row for row in own if row["subject"] == subject]
            points = {
                place + (number - (len(subjects) - 1) / 2) * 0.12: [
                    row[name] / 1000 for row in of_subject
                ]
                for place, name in enumerate(names)
            }
            _points(panel, points, subject, line="none")
        panel.set(yscale="log", title=f"at {load}")
        panel.set_xticks(range(len(names)), names)
    axes[0].set_ylabel("ms")


def memory(axes: Any, rows: Rows) -> None:
    own = [row for row in rows if (row["listeners"], row["size"]) == (1, 400)]
    bars = {
        subject: [row["peak"] / (1 << 20) for row in own if row["subject"] == subject]
        for subject in _subjects(own)
    }
    _bars(axes[0], bars, [COLOURS[subject] for subject in bars])
    axes[0].set(xlabel="MiB at most", title="300,000 messages of 400 bytes, one listener")


def scripts(axes: Any, rows: Rows) -> None:
    commands = list(dict.fromkeys((row["subject"], row["python"]) for row in rows))
    ours = COLOURS["relay+journal"]
    colours = [ours if "logger" in subject else GREY for subject, _ in commands]
    colours[-1] = COLOURS["upstream"]
    for panel, key in zip(axes, ("wall", "cpu")):
        bars = {
            f"{subject} ({python})": [
                row[key] for row in rows if (row["subject"], row["python"]) == (subject, python)
            ]
            for subject, python in commands
        }
        _bars(panel, bars, colours)
        panel.set(xlabel="wall, ms" if key == "wall" else "CPU, ms")
    axes[1].set_yticks([])


PLOTS = (
    Plot("throughput", "listeners.svg", "Throughput by listeners and size", listeners, 3),
    Plot("throughput", "cost.svg", "Processor time of the relay by listeners and by size", cost, 2),
    Plot("growth", "journal.svg", "Throughput and cost by the size of the journal", growth, 2),
    Plot("latency", "latency.svg", "Latency", latency, 2),
    Plot("memory", "memory.svg", "Memory in a burst", memory),
    Plot("scripts", "scripts.svg", "One message from a script", scripts, 2),
)


def _rate(row: dict[str, Any]) -> float:
    return float(row["rate"])


def _cpu(row: dict[str, Any]) -> float:
    return float(row["cpu"]["subject"])


def _subjects(rows: Rows) -> list[str]:
    found = {row["subject"] for row in rows}
    return [name for name in COLOURS if name in found]


def _lines(panel: Any, rows: Rows, key: str, figure: Callable[[dict[str, Any]], float]) -> None:
    """One line a subject."""
    for subject in _subjects(rows):
        own = [row for row in rows if row["subject"] == subject]
        places = sorted({row[key] for row in own})
        points = {place: [figure(row) for row in own if row[key] == place] for place in places}
        _points(panel, points, subject)


def _points(
    panel: Any, points: dict[float, list[float]], subject: str, line: str = "solid"
) -> None:
    """Medians; the thin lines go from the least to the most."""
    middles = [statistics.median(values) for values in points.values()]
    spread = [
        [middle - min(values) for middle, values in zip(middles, points.values())],
        [max(values) - middle for middle, values in zip(middles, points.values())],
    ]
    panel.errorbar(
        list(points), middles, yerr=spread, label=subject, color=COLOURS[subject],
        marker=MARKERS[subject], markersize=4, capsize=2, linewidth=1.5, elinewidth=1,
        linestyle=line,
    )  # fmt: skip


def _bars(panel: Any, bars: dict[str, list[float]], colours: list[str]) -> None:
    """Medians, with their values."""
    middles = [statistics.median(values) for values in bars.values()]
    drawn = panel.barh(range(len(bars)), middles, 0.6, color=colours)
    panel.bar_label(drawn, [f" {middle:,.0f}" for middle in middles], color=GREY)
    panel.set_yticks(range(len(bars)), list(bars))
    panel.margins(x=0.15)
    panel.invert_yaxis()


def main() -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update(
        {
            # The same figures give the same file.
            "svg.hashsalt": "fedmsg-relay",
            "svg.fonttype": "none",
            "font.family": "sans-serif",
            "font.size": 9,
            "savefig.transparent": True,
            **dict.fromkeys(
                ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"),
                GREY,
            ),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.color": GREY,
            "grid.alpha": 0.25,
            "axes.axisbelow": True,
        }
    )
    from matplotlib import pyplot

    directory = Path(sys.argv[1])
    parts = json.loads((directory / "results.json").read_text(encoding="utf-8"))
    for plot in PLOTS:
        if plot.part not in parts:
            continue
        figure, axes = pyplot.subplots(
            1,
            plot.panels,
            figsize=(3.4 * max(plot.panels, 1.4), 3.2),
            squeeze=False,
            layout="constrained",
        )
        plot.draw(axes[0], parts[plot.part]["rows"])
        figure.suptitle(plot.title)
        for panel in axes[0]:
            panel.minorticks_off()
            if panel.lines:  # of bars, the names are here
                panel.yaxis.set_major_formatter("{x:,g}")
        handles, labels = axes[0][0].get_legend_handles_labels()
        unique = dict(zip(labels, handles))
        if len(unique) > 1:
            figure.legend(
                unique.values(), unique.keys(), loc="outside lower center", ncols=4, frameon=False
            )
        figure.savefig(directory / plot.file, metadata={"Date": None})
        pyplot.close(figure)


if __name__ == "__main__":
    main()
