"""Break the hosts without saying how, time the person who mends them, then show what applied.

    python -m tests.sop.drill [INCIDENT...]     one of these, or one of all, by chance

What is printed before the end is the same for every incident. What Ansible printed goes to a file.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shlex
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import bus, machines, plain, trial
from .document import FAULTS, PAGE, ROOT, DocumentError, Incident, docbook, read

LOG = machines.STATE / "drill.log"
# The path of the fault that is there, or was when a drill was killed.
BROKEN = machines.STATE / "drill-fault"
SHELL = machines.STATE / "shell"

# Seconds between two looks at the hosts.
PAUSE = 1.0
# Seconds for which all has to be well: at least, for a probe may get through by luck, and at most.
STEADY = 5.0
STEADY_MOST = 30.0
# Seconds between two lines that say that the clock runs.
REMINDER = 60.0

BRIEFING = f"""
Something is wrong with the bus now. The clock runs until all is well again; Ctrl-C gives up.

  the page            docs/sop.adoc; `make docs` makes build/docs/sop.html of it
  log in              ssh -F {{ssh_config}} HOST
  HOST                {", ".join(machines.NAMES)}
  the control host    {{shell}}
                      opens a shell in a copy of this repository, whose inventory/production has
                      these hosts
"""


class DrillError(Exception):
    """Why there is no drill, or why the hosts are not well after it."""


class Drill:
    """One incident, from hosts that are well to hosts that are well. `fault`: its playbook."""

    def __init__(self, incident: Incident, page: Path, fault: Path) -> None:
        self._incident = incident
        self._page = page
        self._fault = fault
        self._window = max((block.within for block in incident.of("alert")), default=0)
        self._steady = min(max(self._window, STEADY), STEADY_MOST)

    def run(self) -> None:
        """Raises DrillError."""
        say("Making the hosts as new.")
        make_as_new()
        try:
            self._break()
            end = f"All is well after {duration(self._time())}."
        except KeyboardInterrupt:
            end = "You gave up."
        # What was broken is healed, whatever else is typed.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        section = plain.section(docbook(self._page), self._incident.id)
        say(f"\n{end} This is what applied, from {self._page.name}:\n\n{section}")
        say("Healing what is left.")
        make_as_new()
        say("The hosts are well.")

    def _break(self) -> None:
        say("Breaking something.")
        BROKEN.write_text(str(self._fault))
        try:
            with logged():
                play(self._fault)
        except DrillError:
            make_as_new()
            raise
        # It is the alert that wakes somebody. Some faults are over before it comes.
        wait_until(self._is_seen, max(self._window, STEADY))

    def _time(self) -> float:
        """Seconds until all was well, and stayed so."""
        say(BRIEFING.format(ssh_config=short(machines.SSH_CONFIG), shell=short(shell())))
        began = reminded = time.monotonic()
        well_since = None
        while True:
            look = time.monotonic()
            if not self._is_well():
                well_since = None
            elif well_since is None:
                well_since = look
            elif look - well_since >= self._steady:
                return well_since - began
            if look - reminded >= REMINDER:
                reminded = look
                say(f"{duration(look - began)}.")
            time.sleep(PAUSE)

    def _is_well(self) -> bool:
        """The probe is green on every host that there is, and the alert is gone. An alert that
        reads what was logged does not go: then Verify tells."""
        with ThreadPoolExecutor() as pool:
            probes = list(pool.map(lambda name: machines.run(name, "fedmsg-probe"), machines.NAMES))
        if any(probe.status not in (0, machines.UNREACHABLE) for probe in probes):
            return False
        return not self._is_seen() or self._matches("verify")

    def _is_seen(self) -> bool:
        return self._matches("alert")

    def _matches(self, phase: str) -> bool:
        blocks = self._incident.of(phase)
        return not any(trial.attempt(block, block.commands) for block in blocks)


def make_as_new() -> None:
    """Take back the fault that is there, if any, and see that the hosts are well."""
    with logged():
        if BROKEN.exists():
            play(Path(BROKEN.read_text()), "--extra-vars", '{"heal": true}')
            # The inventory may have been changed, too.
            machines.renew_control()
            bus.deploy()
            BROKEN.unlink()
        bus.renew()


def play(playbook: Path, *options: str) -> None:
    done = machines.playbook(str(playbook), *options)
    print(done.text)
    assert done.status == 0, f"{playbook.name} failed"


@contextlib.contextmanager
def logged() -> Iterator[None]:
    """What is printed meanwhile goes to the log, and why it failed, too: it may name the fault."""
    with LOG.open("a") as log, contextlib.redirect_stdout(log):
        try:
            yield
        except AssertionError:
            traceback.print_exc(file=log)
            raise DrillError(f"the hosts do not do what they should: see {short(LOG)}") from None


def shell() -> Path:
    """A program that opens the operator's shell on the control host."""
    environment = machines.control_environment()
    names = [name for name in environment if environment[name] != os.environ.get(name)]
    names += ["PATH", "ANSIBLE_HOME"]
    lines = [f"export {name}={shlex.quote(environment[name])}" for name in sorted(set(names))]
    SHELL.write_text("\n".join(["#!/bin/sh", *lines, f"cd {machines.CONTROL_COPY}", "exec bash\n"]))
    SHELL.chmod(0o755)
    return SHELL


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(PAUSE)


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def short(path: Path) -> str:
    """From where make is run."""
    return str(path.relative_to(ROOT))


def say(text: str) -> None:
    print(text, flush=True)


def chosen(page: Path, faults: Path, names: list[str]) -> Incident:
    """One of the page's incidents that are named, or one of all. Raises DrillError."""
    try:
        incidents = {incident.id: incident for incident in read(page, faults).incidents}
    except DocumentError as error:
        raise DrillError(str(error)) from None
    if unknown := set(names) - incidents.keys():
        raise DrillError(
            f"no such incident: {', '.join(unknown)}; there are {', '.join(incidents)}"
        )
    return incidents[random.choice(names or list(incidents))]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="drill", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("incidents", nargs="*", metavar="INCIDENT")
    parser.add_argument("--page", type=Path, default=PAGE, help=argparse.SUPPRESS)
    parser.add_argument("--faults", type=Path, default=FAULTS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    page, faults = asked.page.resolve(), asked.faults.resolve()
    try:
        incident = chosen(page, faults, asked.incidents)
        Drill(incident, page, faults / f"{incident.id}.yml").run()
    except DrillError as error:
        print(f"drill: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # before anything was broken
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
