"""python -m bench [PART...]: measure, add to the results, and write the report. See README.md."""

from __future__ import annotations

import argparse
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.support.programs import ROOT

from . import document, results
from .parts import PARTS
from .plan import Plan
from .processes import MeasurementError
from .subjects import KINDS

# Not a part: only what follows the parts.
REPORT = "report"

# The results in git, which the bench's README shows ratios of.
PUBLISHED = ROOT / "bench" / "results"


def main() -> int:
    parser = _parser()
    args = parser.parse_args()
    for name in args.parts:
        if name not in (*PARTS, REPORT):
            parser.error(f"no such part: {name}; there are {', '.join((*PARTS, REPORT))}")
    # What runs is ended on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    plan = Plan(
        checkouts=tuple(args.relay or [ROOT]),
        subjects=tuple(args.subjects),
        quick=args.quick,
        rounds=args.rounds,
        seconds=args.seconds,
        cells=tuple(args.cells),
        names=tuple(args.names),
        say=lambda text: print(text, file=sys.stderr, flush=True),
    )
    _allow_many_connections()
    status = 0
    for name in args.parts or [name for name, part in PARTS.items() if not part.on_request]:
        if name == REPORT:
            continue
        part = PARTS[name]
        plan.say(f"== {name}")
        started = time.monotonic()
        try:
            rows = part.run(plan)
        except MeasurementError as error:
            plan.say(f"{name}: {error}")
            status = 1
            continue
        plan.say(f"== {name}: {time.monotonic() - started:.0f} s")
        results.keep(args.output, name, plan, rows)
        print("\n".join(part.tables(rows)), flush=True)
    measured = results.load(args.output)
    if measured:
        _draw(args.output)
    document.write(args.output, measured)
    if args.output.resolve() == PUBLISHED:
        document.publish(ROOT / "bench" / "README.md", measured)
    print("\n".join(["", *document.verdicts(measured)]))
    return status


def _draw(directory: Path) -> None:
    """By a Python with matplotlib, which nothing else here needs."""
    venv = subprocess.run(
        [ROOT / "tools/setup/venv", "bench"], check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()
    command = [f"{venv}/bin/python", "-m", "bench.plots", str(directory)]
    subprocess.run(command, cwd=ROOT, check=True)


def _allow_many_connections() -> None:
    """500 listeners are a thousand descriptors; children inherit the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    add = parser.add_argument
    add("parts", nargs="*", metavar="PART", help=", ".join((*PARTS, REPORT)))
    add("--quick", action="store_true", help="fewer rounds and cells, for a first look")
    add("--output", type=Path, default=ROOT / "build" / "bench", help="directory of the results")
    add("--relay", type=Path, action="append", help="a checkout whose relay to measure; repeatable")
    add("--subjects", type=_names, default=list(KINDS), help=",".join(KINDS))
    add("--rounds", type=int)
    add("--seconds", type=float, help="of each measurement")
    add("--cells", type=_names, default=[], help="LISTENERSxBYTES,... of the throughput")
    add("--names", type=int, nargs="+", default=[], help="of the inventory, for the fleet: 3 30")
    return parser


def _names(text: str) -> list[str]:
    return text.split(",")


if __name__ == "__main__":
    sys.exit(main())
