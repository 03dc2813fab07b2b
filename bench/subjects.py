"""What is measured: our relay without and with its journal, upstream's relay, libzmq's proxy.

Each is started in a directory of its own with addresses of its own, and ended when its `with` block
is left.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.ports import free_address
from tests.support.programs import ROOT, bare_environment

from .processes import MeasurementError, Program

RELAY = "relay"
JOURNAL = "relay+journal"
UPSTREAM = "upstream"
LOOP = "pyzmq loop"
PROXY = "zmq_proxy"
KINDS = (RELAY, JOURNAL, UPSTREAM, LOOP, PROXY)

# On the disk that the checkout is on: /tmp may be memory.
RUNS = ROOT / "build" / "bench" / "runs"


@dataclass(frozen=True)
class Kind:
    """A subject to be: `name` for the results; `checkout` is whose relay it is."""

    name: str
    kind: str
    checkout: Path = ROOT
    # A journal to go on with; none: an empty one.
    prefilled: Path | None = None
    keys: tuple[tuple[str, Any], ...] = ()
    http: bool = False

    def start(self, *, launch: bool = True) -> Subject:
        """Use it in a `with` block; without `launch` it is only prepared."""
        return _CLASSES[self.kind](self, launch)


def kinds(names: Sequence[str], checkouts: Sequence[Path]) -> list[Kind]:
    """The subjects of these names; ours once for each checkout."""
    found = []
    for name in names:
        if name not in KINDS:
            raise MeasurementError(f"no such subject: {name}; there are {', '.join(KINDS)}")
        ours = name in (RELAY, JOURNAL)
        for number, checkout in enumerate(checkouts if ours else [ROOT]):
            suffix = f"@{number + 1}" if ours and len(checkouts) > 1 else ""
            found.append(Kind(name + suffix, name, checkout.resolve()))
    return found


def environment(directory: Path, **variables: str) -> dict[str, str]:
    """For a program that is measured: nothing of this user's config or this virtual environment."""
    return bare_environment(directory, LOGNAME="bench", **variables)


def our_environment(checkout: Path, directory: Path, **variables: str) -> dict[str, str]:
    return environment(directory, PYTHONPATH=str(checkout / "files"), **variables)


def peer_venv() -> Path:
    """Where upstream is installed; built by tools/setup/venv if FEDMSG_PEER_VENV does not say."""
    found = os.environ.get("FEDMSG_PEER_VENV")
    if not found:
        command = [str(ROOT / "tools/setup/venv"), "peer"]
        found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        os.environ["FEDMSG_PEER_VENV"] = found
    return Path(found)


@dataclass
class Subject:
    """One that runs, or is to: `launch` starts its program. Whoever sends finds out by its
    subscription when it serves.
    """

    kind: Kind
    launches: bool
    directory: Path = field(init=False)
    inbound: str = field(init=False, default_factory=free_address)
    outbound: str = field(init=False, default_factory=free_address)

    def __post_init__(self) -> None:
        RUNS.mkdir(parents=True, exist_ok=True)
        self.directory = Path(tempfile.mkdtemp(prefix=f"{self.kind.kind}-", dir=RUNS))
        self._programs: list[Program] = []

    @property
    def name(self) -> str:
        return self.kind.name

    @property
    def pid(self) -> int:
        return self._programs[-1].pid

    @property
    def program(self) -> Program:
        return self._programs[-1]

    def command(self) -> tuple[list[str | Path], dict[str, str]]:
        """What to run, and in which environment."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Write what it needs in its directory."""

    def launch(self, under: Sequence[str | Path] = (), **variables: str) -> Program:
        """Start it, as the argument of the command `under` if there is one."""
        command, env = self.command()
        program = Program(self.directory, [*under, *command], {**env, **variables}, name="subject")
        self._programs.append(program)
        return program

    def addresses(self) -> list[str]:
        """What it binds."""
        return [self.inbound, self.outbound]

    def journaled(self) -> int | None:
        """The seq of the last message on disk, or None for who has no journal."""
        return None

    def __enter__(self) -> Subject:
        try:
            self.prepare()
            if self.launches:
                self.launch()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for program in self._programs:
            program.stop()
        shutil.rmtree(self.directory)

    def _configure(self, **keys: Any) -> None:
        directory = self.directory / "fedmsg.d"
        directory.mkdir()
        (directory / "bench.py").write_text(f"config = {keys!r}\n", encoding="utf-8")

    def _base_keys(self) -> dict[str, Any]:
        return {
            "endpoints": {"relay_outbound": [self.outbound]},
            "relay_inbound": [self.inbound],
            "environment": "dev",
            "sign_messages": False,
            "validate_signatures": False,
            **dict(self.kind.keys),
        }


class Relay(Subject):
    """Ours, with no journal and no HTTP."""

    def prepare(self) -> None:
        self._configure(**self._keys())

    def command(self) -> tuple[list[str | Path], dict[str, str]]:
        checkout = self.kind.checkout
        command: list[str | Path] = [sys.executable, checkout / "relay.py"]
        return [*command, "--config-filename", self.config], our_environment(
            checkout, self.directory
        )

    @property
    def config(self) -> Path:
        return self.directory / "fedmsg.d"

    def _keys(self) -> dict[str, Any]:
        # Nobody was there before that it could wait for.
        return {"relay_hold_max": 0, **self._base_keys()}


class JournaledRelay(Relay):
    """Ours, with a journal and a submit address, and with HTTP if asked for."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.journal = self.kind.prefilled or self.directory / "journal.db"
        self.submit = free_address()
        self.http = free_address().removeprefix("tcp://")

    def addresses(self) -> list[str]:
        return [*super().addresses(), self.submit]

    def journaled(self) -> int | None:
        if not self.journal.exists():
            return 0
        db = sqlite3.connect(f"file:{self.journal}?mode=ro", uri=True, timeout=10)
        try:
            found = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'message'").fetchall()
        except sqlite3.OperationalError:  # it is being made
            return 0
        finally:
            db.close()
        return int(found[0][0]) if found else 0

    def _keys(self) -> dict[str, Any]:
        bounds = {}
        if self.kind.prefilled:
            # It shall stay as large as it is, and not be emptied where it was filled weeks ago.
            size = self.kind.prefilled.stat().st_size
            bounds = {"relay_journal_max_bytes": size, "relay_journal_max_age": 10 * 365 * 86400}
        http = {"relay_http": [self.http]} if self.kind.http else {}
        journal = {"relay_journal": str(self.journal), "relay_submit": [self.submit]}
        return {**journal, **bounds, **http, **super()._keys()}


class Upstream(Subject):
    """fedmsg 1.1.7's, in a virtual environment of its own."""

    def prepare(self) -> None:
        # Its own defaults otherwise. In the directory it runs in, which is where it looks.
        keys = {"zmq_enabled": True, "active": True, **self._base_keys()}
        self._configure(**{**keys, "relay_inbound": self.inbound})

    def command(self) -> tuple[list[str | Path], dict[str, str]]:
        return [peer_venv() / "bin" / "fedmsg-relay"], environment(self.directory)


class Proxy(Subject):
    """libzmq's own."""

    module = "bench.proxy"

    def command(self) -> tuple[list[str | Path], dict[str, str]]:
        command: list[str | Path] = [sys.executable, "-m", self.module]
        env = environment(self.directory, PYTHONPATH=str(ROOT))
        return [*command, self.inbound, self.outbound], env


class Loop(Proxy):
    """The same, by a loop in Python."""

    module = "bench.loop"


_CLASSES: dict[str, type[Subject]] = {
    RELAY: Relay,
    JOURNAL: JournaledRelay,
    UPSTREAM: Upstream,
    LOOP: Loop,
    PROXY: Proxy,
}
