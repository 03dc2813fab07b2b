"""The daemon as a Unix process: its name, and signals as input to a poll loop."""

from __future__ import annotations

import faulthandler
import signal
import socket
import sys

# The name of the process that serves the backlog: the relay looks for it where a port is held.
BACKLOG = "fedmsg-backlog"


def prepare(name: str, switch_interval: float) -> None:
    """Be a daemon of that name, whose threads take turns after so many seconds."""
    faulthandler.enable()  # the watchdog kills with SIGABRT: leave a traceback of what hung
    set_name(name)
    sys.setswitchinterval(switch_interval)
    if hasattr(sys, "set_int_max_str_digits"):  # what listeners cannot read must not be read here
        sys.set_int_max_str_digits(sys.int_info.default_max_str_digits)


def set_name(name: str) -> None:
    """Be `name` (at most 15 bytes) to ps -C and check_procs, however started: they look at comm."""
    try:
        with open("/proc/self/comm", "w", encoding="ascii") as comm:
            comm.write(name)
    except OSError:
        pass


def wakeup_on(*signals: signal.Signals) -> socket.socket:
    """A socket that can be read from once one of the signals has arrived.

    libzmq's poll does not return for a signal before its handler has run, but it can wait for this
    beside its own sockets. SIGHUP is ignored: nothing has to be told about rotated logs.
    """
    wakeup, written = socket.socketpair()
    written.setblocking(False)
    signal.set_wakeup_fd(written.detach())
    for number in signals:
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    return wakeup
