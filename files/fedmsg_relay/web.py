"""The process that answers HTTP, seen from the relay: backlog, health, metrics.

It is a process of its own so that no request, however slow, large or hostile, takes time from the
thread of the sockets: Python runs one thread of a process at a time. It gets the bound sockets, so
that an address that is taken stops the relay loudly, and on its standard input, once a second, what
the relay says of itself. The end of that is its end, even if the relay is killed.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from . import endpoints, log, ports
from .errors import StartError

MODULE = "fedmsg_relay.backlog"
# Isolated, and with the paths of the relay: from where it was started nothing is imported.
CHILD = """
import runpy, sys
module, paths = sys.argv[1:3]
del sys.argv[1:3]
sys.path[:] = paths.split(":")
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""

# Seconds between two attempts to start it, and that it gets to end.
RESTART = 5.0
END = 1.0

# Seconds for which the child may read nothing of what the relay says: one that hangs in the middle
# of a query keeps SQLite's log from being reset, and so lets it grow. And bytes that wait for it.
DEAF = 30.0
UNREAD = 1 << 16

logger = logging.getLogger(log.NAME)


class Web:
    """The child of one relay. Without addresses there is none."""

    def __init__(self, addresses: list[str], journal: str | None, allow: list[str]) -> None:
        self._addresses = addresses
        self._allow = allow
        self._journal = journal
        self._sockets: list[socket.socket] = []
        self._child: subprocess.Popen[bytes] | None = None
        self._unsent = b""
        self._started = 0.0
        self._heard = 0.0

    def open(self) -> None:
        """Bind, and start the child. Raises StartError."""
        self._sockets = [_bound(address) for address in self._addresses]
        if self._sockets:
            self._start()

    def tell(self, state: dict[str, object]) -> None:
        """Pass the relay's state on; start the child anew if it has ended. Never waits."""
        if self._child is None:
            return
        if self._child.poll() is not None:
            if time.monotonic() - self._started < RESTART:
                return
            logger.error("http: ended with status %s, started again", self._child.returncode)
            self._close_pipe()
            self._start()
        if len(self._unsent) < UNREAD:
            self._unsent += json.dumps(state).encode() + b"\n"
        assert self._child.stdin is not None
        try:
            written = os.write(self._child.stdin.fileno(), self._unsent)
            self._unsent = self._unsent[written:]
            self._heard = time.monotonic()
        except OSError:  # full, or it has just ended
            if time.monotonic() - self._heard > DEAF:
                self._child.kill()

    def close(self) -> None:
        """Tell the child to end. Waits END seconds at most."""
        for bound in self._sockets:
            bound.close()
        if self._child is None:
            return
        self._close_pipe()
        try:
            self._child.wait(END)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait(END)

    def _start(self) -> None:
        fds = [bound.fileno() for bound in self._sockets]
        journal = [] if self._journal is None else ["--journal", self._journal]
        allow = [f"--allow={network}" for network in self._allow]
        paths = ":".join([str(Path(__file__).parent.parent), *filter(None, sys.path)])
        command = [sys.executable, "-I", "-c", CHILD, MODULE, paths]
        command += [*journal, *allow, *map(str, fds)]
        self._unsent = b""
        self._started = self._heard = time.monotonic()
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=fds)
        assert self._child.stdin is not None
        os.set_blocking(self._child.stdin.fileno(), False)

    def _close_pipe(self) -> None:
        assert self._child is not None and self._child.stdin is not None
        with suppress(OSError):
            self._child.stdin.close()


def _bound(address: str) -> socket.socket:
    host, port = endpoints.split(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("" if host == "*" else host, port))
        bound.listen(128)
    except OSError as error:
        bound.close()
        holder = (
            f": the port is held by {ports.holder(host, port)}"
            if error.errno == errno.EADDRINUSE
            else ""
        )
        raise StartError(f"relay_http: cannot bind {address}{holder or f': {error}'}") from error
    return bound
