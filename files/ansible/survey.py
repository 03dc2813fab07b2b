"""Say what a role needs to know of a host, all in one round trip. Changes nothing.

The roles run it with `python3 -c`; a JSON object on standard input asks, one on standard output
answers. All keys of the request are optional:

    packages   names             -> packages_missing: those that are not installed
    files      path to {content or link, mode}
                                 -> files_differing: those that are missing or different
    directories path to mode     -> directories_differing: those that are missing or different
    names      host names        -> names: {name: {addresses, local, loopback, error}}
    ports      numbers           -> listeners: who listens there,
                                    [{port, address, process, said}]
    units      name to paths     -> units: {name: {state, enabled, outdated}}: ActiveState or
                                    "missing", whether it starts at boot, and one of those *.py and
                                    *.service files that were written after it started

and always: user (whether the user fedmsg exists), config_directory (whether /etc/fedmsg.d does),
epel_missing (EL only: no repository offers python3-pyzmq).
"""

import datetime
import errno
import ipaddress
import json
import os
import pwd
import site
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, Optional

LOCAL_PACKAGES = next(
    (path for path in site.getsitepackages() if path.startswith("/usr/local/")), "/usr/local/lib"
)


def main() -> None:
    request = json.load(sys.stdin)
    missing = packages_missing(request.get("packages", []))
    json.dump(
        {
            "packages_missing": missing,
            "files_differing": [
                path for path, file in request.get("files", {}).items() if differs(path, file)
            ],
            "directories_differing": [
                path for path, mode in request.get("directories", {}).items()
                if not os.path.isdir(path) or stat.S_IMODE(os.stat(path).st_mode) != int(mode, 8)
            ],
            "names": {name: resolved(name) for name in request.get("names", [])},
            "listeners": list(listeners(set(request.get("ports", [])))),
            "units": {
                name: unit(name, paths) for name, paths in request.get("units", {}).items()
            },
            "user": user_exists("fedmsg"),
            "config_directory": os.path.isdir("/etc/fedmsg.d"),
            "epel_missing": "python3-pyzmq" in missing and not offered("python3-pyzmq"),
        },
        sys.stdout,
    )  # fmt: skip


def packages_missing(names: list[str]) -> list[str]:
    return [name for name in names if not package_installed(name)]


def package_installed(name: str) -> bool:
    if os.path.exists("/usr/bin/dpkg-query"):
        command = ["dpkg-query", "--show", "--showformat=${db:Status-Status}", name]
        return output_of(command) == "installed"
    return output_of(["rpm", "--query", name]) is not None


def offered(name: str) -> bool:
    return bool(output_of(["dnf", "--quiet", "repoquery", name]))


def output_of(command: list[str]) -> Optional[str]:
    """What a command prints, or None if it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


def differs(path: str, file: dict[str, str]) -> bool:
    path = path.replace("SITE", LOCAL_PACKAGES, 1) if path.startswith("SITE/") else path
    try:
        found = os.lstat(path)
        if "link" in file:
            return not stat.S_ISLNK(found.st_mode) or os.readlink(path) != file["link"]
        with open(path, "rb") as stream:
            return (
                not stat.S_ISREG(found.st_mode)
                or (found.st_uid, found.st_gid) != (0, 0)
                or stat.S_IMODE(found.st_mode) != int(file["mode"], 8)
                or stream.read() != file["content"].encode()
            )
    except OSError:
        return True


def resolved(name: str) -> dict[str, Any]:
    """The addresses that libzmq will use: IPv4 or, where there are none, IPv6."""
    try:
        found = socket.getaddrinfo(name.strip("[]"), None, type=socket.SOCK_STREAM)
    except OSError as error:
        return {"addresses": [], "local": False, "loopback": False, "error": error.strerror}
    four = [str(entry[4][0]) for entry in found if entry[0] == socket.AF_INET]
    addresses = four or [str(entry[4][0]) for entry in found]
    return {
        "addresses": sorted(set(addresses)),
        "local": any(map(is_local, addresses)),
        "loopback": all(ipaddress.ip_address(a.partition("%")[0]).is_loopback for a in addresses),
        "error": "",
    }


def is_local(address: str) -> bool:
    """The kernel binds a socket to addresses of this machine only."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError as error:
            return error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
    return True


def listeners(ports: set[int]) -> Iterator[dict[str, Any]]:
    owners: Optional[dict[str, tuple[int, str]]] = None
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if not os.path.exists(table):
            continue
        with open(table, encoding="ascii") as lines:
            entries = [line.split() for line in lines][1:]
        for entry in entries:
            digits, _, port = entry[1].partition(":")
            if entry[3] != "0A" or int(port, 16) not in ports:  # 0A: listening
                continue
            if owners is None:
                owners = socket_owners()
            pid, process = owners.get(entry[9], (0, "unknown"))
            yield {
                "port": int(port, 16),
                "address": address_of(digits),
                "process": process,
                "said": f"port {int(port, 16)} is held by process {pid} ({process})",
            }


def address_of(digits: str) -> str:
    words = [int(digits[at : at + 8], 16) for at in range(0, len(digits), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    return socket.inet_ntop(socket.AF_INET if len(words) == 1 else socket.AF_INET6, packed)


def socket_owners() -> dict[str, tuple[int, str]]:
    """Inode of every open socket to (pid, process name) of one process that has it."""
    owners: dict[str, tuple[int, str]] = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as comm:
                process = comm.read().strip()
            for entry in os.scandir(f"/proc/{pid}/fd"):
                target = os.readlink(entry.path)
                if target.startswith("socket:["):
                    owners[target[len("socket:[") : -1]] = (int(pid), process)
        except OSError:  # gone meanwhile
            continue
    return owners


def unit(name: str, paths: list[str]) -> dict[str, Any]:
    properties = "LoadState,ActiveState,UnitFileState,ExecMainStartTimestamp"
    command = ["systemctl", "show", "--timestamp=us+utc", f"--property={properties}", name]
    found = dict(line.split("=", 1) for line in (output_of(command) or "").splitlines())
    if found.get("LoadState") != "loaded":
        return {"state": "missing", "enabled": False, "outdated": ""}
    active = found["ActiveState"] == "active"
    return {
        "state": found["ActiveState"],
        "enabled": found["UnitFileState"] == "enabled",
        "outdated": newer(seconds(found["ExecMainStartTimestamp"]), paths) if active else "",
    }


def seconds(timestamp: str) -> float:
    """Seconds since 1970 of, for example, `Mon 2026-11-23 20:33:11.654321 UTC`."""
    form = "%a %Y-%m-%d %H:%M:%S.%f UTC"
    when = datetime.datetime.strptime(timestamp, form)
    return when.replace(tzinfo=datetime.timezone.utc).timestamp()


def newer(since: float, paths: list[str]) -> str:
    """A *.py or *.service file in or below `paths` that was written after `since`, or "".

    By the time of the status change: `cp -p` and packages carry the modification's over. Other
    files do not count: Python has its caches beside the program, editors theirs beside the config.
    """
    for path in paths:
        below = (os.path.join(where, n) for where, _, names in os.walk(path) for n in names)
        for file in [path, *below]:
            counts = file.endswith((".py", ".service")) and os.path.isfile(file)
            if counts and os.stat(file).st_ctime > since:
                return file
    return ""


def user_exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


if __name__ == "__main__":
    main()
