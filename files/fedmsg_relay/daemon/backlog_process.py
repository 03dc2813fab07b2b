"""The process that answers HTTP, seen from the relay: backlog, health, metrics.

It is a process of its own so that no request, however slow, large or hostile, takes time from the
thread of the sockets: Python runs one thread of a process at a time. It gets the bound sockets, so
that an address that is taken stops the relay loudly, and on its standard input, once a second, what
the relay says of itself. The end of that is its end, even if the relay is killed.
"""

from __future__ import annotations

import errno
import importlib.util
import json
import logging
import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from .. import endpoints, log, process
from ..errors import StartError
from . import ports

MODULE = "fedmsg_relay.backlog"
# Isolated, and with the paths of the relay: from where it was started nothing is imported.
CHILD = """
import runpy, sys
module, paths = sys.argv[1:3]
del sys.argv[1:3]
sys.path[:] = paths.split(":")
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""

# Seconds between two attempts to start it, twice as many after each that did not last for so long,
# up to a limit; and that it gets to end.
RESTART = 5.0
LASTED = 60.0
RESTART_MAX = 300.0
END = 1.0

# Seconds that one whose relay was killed a moment ago gets to give its ports back.
FORMER = 3.0
PAUSE = 0.02

# Connections that the kernel keeps until it takes them.
QUEUE = 128

# Seconds for which the child may read nothing of what the relay says: one that hangs in the middle
# of a query keeps SQLite's log from being reset, and so lets it grow. And bytes that wait for it.
DEAF = 30.0
UNREAD = 1 << 16

logger = logging.getLogger(log.NAME)


class BacklogProcess:
    """The child of one relay. Without addresses there is none. `sop`: where its page links to."""

    def __init__(
        self, addresses: list[str], journal: str | None, allow: list[str], sop: str | None = None
    ) -> None:
        self._addresses = addresses
        self._sop = sop
        self._allow = allow
        self._journal = journal
        self._sockets: list[socket.socket] = []
        self._child: subprocess.Popen[bytes] | None = None
        self._unsent = b""
        self._started = 0.0
        self._heard = 0.0
        self._pause = RESTART
        self._is_down = False

    def open(self) -> None:
        """Bind, and start the child. Raises StartError."""
        if self._addresses and importlib.util.find_spec("waitress") is None:
            raise StartError(
                "relay_http: waitress is not installed: install the package python3-waitress"
                " (or `pip install waitress`), or take relay_http out of the config"
            )
        self._sockets = [_bound(address) for address in self._addresses]
        if self._sockets:
            self._start()

    def tell(self, state: dict[str, object]) -> None:
        """Pass the relay's state on; start the child anew if it has ended. Never waits."""
        if self._child is None:
            return
        if self._child.poll() is not None and not self._restarted():
            return
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

    def _restarted(self) -> bool:
        """Start the child anew if that is due."""
        assert self._child is not None
        now = time.monotonic()
        if not self._is_down:
            self._is_down = True
            self._close_pipe()
            if now - self._started >= LASTED:
                self._pause = RESTART
            if self._pause == RESTART:
                logger.error(
                    "http: ended with status %s, started again; where it ends at once, later and"
                    " later, without a line each time",
                    self._child.returncode,
                )
            for bound in self._sockets:
                # Refused until then, and not kept waiting. They stay bound.
                with suppress(OSError):
                    bound.shutdown(socket.SHUT_RDWR)
        if now - self._started < self._pause:
            return False
        self._pause = min(2 * self._pause, RESTART_MAX)
        try:
            for bound in self._sockets:
                bound.listen(QUEUE)
        except OSError as error:
            self._started = now
            logger.error("http: cannot listen again: %s", error)
            return False
        self._is_down = False
        self._start()
        return True

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
        paths = ":".join([str(Path(__file__).parent.parent.parent), *filter(None, sys.path)])
        command = [sys.executable, "-I", "-c", CHILD, MODULE, paths]
        sop = [] if self._sop is None else [f"--sop={self._sop}"]
        command += [*journal, *allow, *sop, *map(str, fds)]
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
    end = time.monotonic() + FORMER
    while True:
        bound = socket.socket(family, socket.SOCK_STREAM)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(("" if host == "*" else host, port))
            bound.listen(QUEUE)
            return bound
        except OSError as error:
            bound.close()
            why = f": {error}"
            if error.errno == errno.EADDRINUSE:
                holder = ports.holder(host, port)
                if f"({process.BACKLOG})" in holder and time.monotonic() < end:
                    time.sleep(PAUSE)
                    continue
                why = f": the port is held by {holder}"
            raise StartError(f"relay_http: cannot bind {address}{why}") from error
