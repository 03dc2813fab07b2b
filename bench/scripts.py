"""What one fedmsg-logger costs the host it runs on: time by the clock, and of the processor.

Ours as it is installed, with modules compiled, acknowledged and over inbound, under the
distribution's Python and pyzmq where they are here, and under this bench's; upstream's; and the
interpreter alone, which nothing written in Python can be faster than.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.ports import free_address

from .plan import Plan, Row
from .processes import MeasurementError
from .subjects import JOURNAL, JournaledRelay, Kind, environment, peer_venv

DISTRIBUTION = "/usr/bin/python3"

# Where the roles install the package.
INSTALLED = "/usr/local/lib/fedmsg-relay"

ACKED = "fedmsg-logger, acked"
INBOUND = "fedmsg-logger, inbound"
UPSTREAM_LOGGER = "upstream's fedmsg-logger"
PASS = "python3 -c pass"
IMPORT_ZMQ = 'python3 -c "import zmq"'

# Upstream's sleeps for half a second: it gets a turn in every so many rounds only.
UPSTREAM_EVERY = 4


@dataclass(frozen=True)
class Command:
    subject: str
    python: str
    arguments: tuple[str, ...]
    every: int = 1


def run(plan: Plan) -> list[Row]:
    rows: list[Row] = []
    for kind in plan.kinds(JOURNAL):
        found = measure(kind, plan.rounds_or(40, 8), interpreters(), plan.say)
        rows += [{"relay": kind.name, **row} for row in found]
    return rows


def measure(
    kind: Kind, rounds: int, pythons: dict[str, str], say: Callable[[str], object]
) -> list[Row]:
    """Each command in turn, so many times."""
    rows: list[Row] = []
    with kind.start() as relay:
        assert isinstance(relay, JournaledRelay)
        relay.program.wait_for_line("ready")
        commands = list(_commands(relay, pythons))
        env = environment(relay.directory)
        for number in range(rounds):
            for command in commands:
                if number % command.every == 0:
                    wall, cpu = _time(command, relay.directory, env)
                    place = {"subject": command.subject, "python": command.python}
                    rows.append({**place, "round": number, "wall": wall, "cpu": cpu})
            if number % 10 == 9:
                say(f"{kind.name}: {number + 1} of {rounds} rounds")
        _check_arrival(relay, rows)
    return rows


def _check_arrival(relay: JournaledRelay, rows: list[Row]) -> None:
    """What is timed must have been published. Upstream's may lose one, and says nothing."""
    ours = sum(row["subject"] in (ACKED, INBOUND) for row in rows)
    theirs = sum(row["subject"] == UPSTREAM_LOGGER for row in rows)
    least = ours + theirs // 2
    relay.program.wait_for(
        lambda: (relay.journaled() or 0) >= least, f"{least} messages of the scripts"
    )


def interpreters() -> dict[str, str]:
    """By what they are: the distribution's, which hosts have, if it has pyzmq; and this one."""
    found = {"venv": sys.executable}
    if not subprocess.run([DISTRIBUTION, "-c", "import zmq"], capture_output=True).returncode:
        return {"distribution": DISTRIBUTION, **found}
    return found


def _commands(relay: JournaledRelay, pythons: dict[str, str]) -> Iterator[Command]:
    acked = relay.config
    inbound = relay.directory / "inbound.d"
    inbound.mkdir()
    (inbound / "bench.py").write_text(
        f"config = {{'relay_inbound': [{relay.inbound!r}], 'endpoints':"
        f" {{'relay_outbound': [{relay.outbound!r}]}}}}\n",
        encoding="utf-8",
    )
    for name, python in pythons.items():
        logger = _install(relay.kind.checkout, relay.directory / name, python)
        message = ("--message", "It is measured.", "--config-filename")
        yield Command(PASS, name, (python, "-c", "pass"))
        yield Command(IMPORT_ZMQ, name, (python, "-c", "import zmq"))
        yield Command(ACKED, name, (logger, *message, str(acked)))
        yield Command(INBOUND, name, (logger, *message, str(inbound)))
    theirs = str(peer_venv() / "bin" / "fedmsg-logger")
    config = relay.directory / "upstream.d"
    config.mkdir()
    (config / "bench.py").write_text(
        f"config = {{'relay_inbound': {relay.inbound!r}, 'endpoints': {{'relay_outbound':"
        f" [{free_address()!r}]}}, 'environment': 'dev', 'sign_messages': False,"
        " 'validate_signatures': False, 'zmq_enabled': True}\n",
        encoding="utf-8",
    )
    arguments = (theirs, "--message", "It is measured.", "--config-filename", f"{config}/bench.py")
    yield Command(UPSTREAM_LOGGER, "its own", arguments, UPSTREAM_EVERY)


def _install(checkout: Path, directory: Path, python: str) -> str:
    """As the roles do, in a directory of its own. The path of the command."""
    shutil.copytree(
        checkout / "files" / "fedmsg_relay",
        directory / "fedmsg_relay",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    subprocess.run([python, "-m", "compileall", "-q", directory], check=True)
    source = (checkout / "files" / "bin" / "fedmsg-logger").read_text(encoding="utf-8")
    if INSTALLED not in source or not source.startswith(f"#!{DISTRIBUTION}"):
        raise MeasurementError(f"{checkout}/files/bin/fedmsg-logger is not as it was expected")
    command = directory / "fedmsg-logger"
    source = source.replace(INSTALLED, str(directory)).replace(DISTRIBUTION, python, 1)
    command.write_text(source, encoding="utf-8")
    command.chmod(0o755)
    return str(command)


def _time(command: Command, directory: Path, env: dict[str, str]) -> tuple[float, float]:
    """Milliseconds by the clock, and of the processor: user and system."""
    log = directory / "script.log"
    flags = os.O_CREAT | os.O_WRONLY | os.O_APPEND
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), flags, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    started = time.perf_counter()
    pid = os.posix_spawn(command.arguments[0], command.arguments, env, file_actions=actions)
    _, status, used = os.wait4(pid, 0)
    wall = time.perf_counter() - started
    if status:
        raise MeasurementError(
            f"{command.subject}: status {status}: {log.read_text(errors='replace')[-1000:]}"
        )
    return wall * 1000, (used.ru_utime + used.ru_stime) * 1000
