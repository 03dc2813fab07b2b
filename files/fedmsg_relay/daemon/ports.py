"""Bind a port, and say who holds it where that fails, as far as this process may see.

Read from /proc/self/net, not with psutil or ss: the service runs with ProcSubset=pid and without
netlink, where those fail, and the kernel still tells the owner's user there.
"""

from __future__ import annotations

import os
import pwd
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

import zmq

from ..endpoints import WILDCARDS, split
from ..errors import StartError

_LISTEN = "0A"


class _Listening(NamedTuple):
    address: str
    port: int
    uid: int
    inode: str


def bind(bound: zmq.Socket[bytes], address: str, passed: dict[str, int] | None = None) -> None:
    """Bind a numeric `tcp://address:port`, or `tcp://*:port`.

    With the address among `passed`, its descriptor is taken: a socket unit has bound it, and holds
    what connects while nobody is here. It is removed from there. Raises StartError; if the port is
    taken, it names who has it.
    """
    host, port = split(address)
    # What the kernel calls a wildcard.
    names = [f"tcp://{host}:{port}" for host in ("0.0.0.0", "[::]")] if host == "*" else [address]
    fds = [passed.pop(name) for name in names if passed and name in passed]
    try:
        # libzmq refuses IPv6 addresses without this, and with it makes `*` mean IPv6 as well.
        bound.setsockopt(zmq.IPV6, ":" in host)
        bound.setsockopt(zmq.USE_FD, fds[0] if fds else -1)
        bound.bind(address)
    except zmq.ZMQError as error:
        if error.errno != zmq.EADDRINUSE:
            raise StartError(f"cannot bind {address}: {error.strerror}") from error
        held_by = holder(host, port)
        raise StartError(f"cannot bind {address}: the port is held by {held_by}") from error


def holder(address: str, port: int) -> str:
    """Who listens on `port` where `address` (numeric, or a wildcard) would clash with it.

    `process 123 (nginx) of user root`, or `a process of user root` where /proc hides its number, or
    `another process` when nothing is known.
    """
    for listening in _listening():
        clashes = address in (listening.address, *WILDCARDS) or listening.address in WILDCARDS
        if listening.port == port and clashes:
            user = _user_name(listening.uid)
            pid = _pid_of(listening.inode)
            if pid is None:
                return f"a process of user {user}"
            return f"process {pid} ({_name_of(pid)}) of user {user}"
    return "another process"


def _listening() -> Iterator[_Listening]:
    for table in ("/proc/self/net/tcp", "/proc/self/net/tcp6"):
        try:
            with open(table, encoding="ascii") as lines:
                next(lines)  # the header
                for line in lines:
                    fields = line.split()
                    if fields[3] == _LISTEN:
                        address, _, port = fields[1].partition(":")
                        number = int(port, 16)
                        yield _Listening(_unpack(address), number, int(fields[7]), fields[9])
        except OSError:
            continue


def _unpack(digits: str) -> str:
    """An address as the kernel prints it: words of 32 bits in the machine's byte order."""
    words = [int(digits[i : i + 8], 16) for i in range(0, len(digits), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    return socket.inet_ntop(socket.AF_INET if len(words) == 1 else socket.AF_INET6, packed)


def _pid_of(inode: str) -> int | None:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        directory = f"/proc/{pid}/fd"
        try:
            if any(os.readlink(f.path) == f"socket:[{inode}]" for f in os.scandir(directory)):
                return int(pid)
        except OSError:  # gone meanwhile, or another user's
            continue
    return None


def _name_of(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as comm:
            return comm.read().strip()
    except OSError:
        return "?"


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
