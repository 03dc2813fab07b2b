"""A RabbitMQ of a test's own: its ports, its directories, its Erlang port mapper, nothing shared.

It is Debian's program, run as an ordinary child. A service of that name on this machine is neither
needed nor touched.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from .ports import free_port
from .programs import Child, run
from .waiting import wait_for

PROGRAMS = Path("/usr/lib/rabbitmq/bin")
USER = "guest"

CONFIG = """\
listeners.tcp.1 = 127.0.0.1:{port}
distribution.listener.interface = 127.0.0.1
disk_free_limit.absolute = 1MB
log.file.level = info
{more}
"""


class Node:
    """One node. `start()` it, and `kill()` it in the end, port mapper and all."""

    def __init__(self, directory: Path, more: str = "", plugins: str = "") -> None:
        self.directory = directory
        directory.mkdir(parents=True)
        self.port, self._distribution, self._mapper = free_port(), free_port(), free_port()
        self.name = f"bridge{self.port}@localhost"
        (directory / "plugins").write_text(f"[{plugins}].\n")
        (directory / "rabbit.conf").write_text(CONFIG.format(port=self.port, more=more))
        self._child: Child | None = None
        self._epmd: Child | None = None

    @property
    def url(self) -> str:
        return f"amqp://{USER}:{USER}@127.0.0.1:{self.port}"

    @property
    def env(self) -> Mapping[str, str]:
        own = self.directory
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(own),
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(self._mapper),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            # It would start a port mapper that outlives it.
            "RABBITMQ_SERVER_START_ARGS": "-start_epmd false",
            # Then the child is the Erlang machine itself, without a shell around it.
            "RUNNING_UNDER_SYSTEMD": "true",
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_DIST_PORT": str(self._distribution),
            "RABBITMQ_MNESIA_BASE": str(own / "mnesia"),
            "RABBITMQ_LOG_BASE": str(own / "log"),
            "RABBITMQ_PID_FILE": str(own / "pid"),
            "RABBITMQ_CONFIG_FILE": str(own / "rabbit.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(own / "none"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(own / "plugins"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        }

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        if self._epmd is None:
            self._epmd = Child(["epmd"], env=dict(self.env))
            wait_for(lambda: _answers(self._mapper), what="the port mapper")
        with (self.directory / "output").open("ab") as output:
            self._child = Child(
                [PROGRAMS / "rabbitmq-server"], env=dict(self.env), stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip
        wait_for(lambda: _answers(self.port), 60, f"RabbitMQ, see {self.directory}")

    def control(self, *words: str) -> str:
        """What `rabbitmqctl WORDS` prints."""
        command: list[str | Path] = [PROGRAMS / "rabbitmqctl", "--quiet", *words]
        done = run(command, env=dict(self.env), timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return str(done.stdout)

    def evaluate(self, code: str) -> str:
        """What some Erlang is, in the node: a call takes half a second."""
        return self.control("eval", code)

    def paused(self) -> AbstractContextManager[None]:
        """Let it hang until the end of the block."""
        assert self._child is not None
        return self._child.paused()

    def kill(self) -> None:
        """SIGKILL, at any moment: what it has confirmed is to survive this."""
        if self._child is not None:
            os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait()
            self._child = None

    def close(self) -> None:
        """End all of it."""
        self.kill()
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait()
            self._epmd = None


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
