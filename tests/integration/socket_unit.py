"""What a socket unit of systemd does, for tests on a machine without one: sd_listen_fds(3).

    python socket_unit.py ADDRESS... -- COMMAND...

Binds the addresses, `tcp://host:port`, then runs the command again and again with the sockets as
descriptors 3 and up. SIGHUP is `systemctl restart`: SIGTERM to the command, and when it has ended,
the next one. SIGTERM ends both. Everything stays bound meanwhile.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys

PR_SET_PDEATHSIG = 1


def main() -> int:
    at = sys.argv.index("--")
    addresses, command = sys.argv[1:at], sys.argv[at + 1 :]
    bound = []
    for address in addresses:
        host, _, port = address[len("tcp://") :].rpartition(":")
        listening = socket.create_server((host, int(port)), backlog=4096)
        bound.append(listening)
    for number, listening in enumerate(bound):
        # Out of the way of the descriptors they are to get.
        os.dup2(listening.fileno(), 100 + number)
    wanted = {"again": True}

    def again(*_: object) -> None:
        os.kill(child, signal.SIGTERM)

    def end(*_: object) -> None:
        wanted["again"] = False
        os.kill(child, signal.SIGTERM)

    while wanted["again"]:
        child = os.fork()
        if child == 0:
            # A test that fails kills this process: what it runs must not outlive it.
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            for number in range(len(bound)):
                os.dup2(100 + number, 3 + number, inheritable=True)
            os.environ["LISTEN_PID"] = str(os.getpid())
            os.environ["LISTEN_FDS"] = str(len(bound))
            os.execv(command[0], command)
        signal.signal(signal.SIGHUP, again)
        signal.signal(signal.SIGTERM, end)
        _, status = os.waitpid(child, 0)
        print(f"unit: ended with {os.waitstatus_to_exitcode(status)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
