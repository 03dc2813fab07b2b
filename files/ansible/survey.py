"""Say what a role needs to know of a host, all in one round trip. Changes nothing.

The roles run it with `python3 -c`; a JSON object on standard input asks, one on standard output
answers. All keys of the request are optional:

    packages   names             -> packages_missing: those that are not installed
    files      path to {content or link, mode}
                                 -> files_differing: those that are missing or different
    directories path to "mode owner"
                                 -> directories_differing: those that are missing or different
    names      host names        -> names: {name: {addresses, local, loopback, error}}; local are
                                    those addresses that are this machine's
    addresses  host:port, with or without tcp://
                                 -> listeners: who listens there already, or on all addresses,
                                    {address: [{process, said}]}; for what systemd holds itself
                                    the process is the socket unit
    units      name to paths     -> units: {name: {state, enabled, outdated}}: ActiveState or
                                    "missing", whether it starts at boot, and one of those Python
                                    and unit files that were written after it started
    allow      {networks, hosts: {host: name or address}}
                                 -> allow: {wrong: {network: why it is none}, outside: {host:
                                    addresses}}, hosts that are in none of them, nor this machine
    spool      a directory       -> spool: {waiting, failed, oldest}: how many messages, and the
                                    seconds for which one has been waiting

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
import time
from collections.abc import Iterator
from typing import Any, Optional

LOCAL_PACKAGES = next(
    (path for path in site.getsitepackages() if path.startswith("/usr/local/")), "/usr/local/lib"
)

WILDCARDS = ("0.0.0.0", "::")
LOADED = (".py", ".service", ".socket", ".path", ".timer")


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
                path for path, wanted in request.get("directories", {}).items()
                if mode_and_owner(path) != wanted
            ],
            "names": {name: resolved(name) for name in request.get("names", [])},
            "listeners": listeners(request.get("addresses", [])),
            "units": {
                name: unit(name, paths) for name, paths in request.get("units", {}).items()
            },
            "allow": allowed(**request.get("allow", {"networks": [], "hosts": {}})),
            "spool": spooled(request["spool"]) if "spool" in request else {},
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


def mode_and_owner(directory: str) -> str:
    try:
        found = os.lstat(directory)
        owner = pwd.getpwuid(found.st_uid).pw_name
    except (OSError, KeyError):
        return ""
    return f"{stat.S_IMODE(found.st_mode):04o} {owner}" if stat.S_ISDIR(found.st_mode) else ""


def resolved(name: str) -> dict[str, Any]:
    """The addresses that libzmq will use: IPv4 or, where there are none, IPv6."""
    try:
        found = socket.getaddrinfo(name.strip("[]"), None, type=socket.SOCK_STREAM)
    except OSError as error:
        return {"addresses": [], "local": [], "loopback": False, "error": error.strerror}
    four = [str(entry[4][0]) for entry in found if entry[0] == socket.AF_INET]
    addresses = sorted(set(four or [str(entry[4][0]) for entry in found]))
    return {
        "addresses": addresses,
        "local": [address for address in addresses if is_local(address)],
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


def allowed(networks: list[str], hosts: dict[str, str]) -> dict[str, Any]:
    wrong, known = {}, []
    for text in networks:
        try:
            known.append(ipaddress.ip_network(text))
        except ValueError as error:
            wrong[text] = str(error)
    outside = {}
    for host, name in hosts.items() if known else ():
        # A host that cannot be looked up here may still connect, from wherever it is.
        addresses = resolved(name)["addresses"]
        plain = [ipaddress.ip_address(address.partition("%")[0]) for address in addresses]
        inside = any(address in network for address in plain for network in known)
        if addresses and not inside and not any(map(is_local, addresses)):
            outside[host] = ", ".join(addresses)
    return {"wrong": wrong, "outside": outside}


def listeners(addresses: list[str]) -> dict[str, list[dict[str, str]]]:
    """Who holds each address, or its port on all addresses of the machine."""
    wanted = {text: text.rpartition("//")[2].rpartition(":") for text in addresses}
    holding = list(listening({int(port) for _, _, port in wanted.values()}))
    found = {}
    for text, (host, _, port) in wanted.items():
        clashing = [*resolved(host)["addresses"], *WILDCARDS]
        found[text] = [
            holder for address, at, holder in holding if at == int(port) and address in clashing
        ]
    return found


def listening(ports: set[int]) -> Iterator[tuple[str, int, dict[str, str]]]:
    """Address, port and holder of every socket that listens on one of the ports."""
    owners: Optional[dict[str, tuple[int, str]]] = None
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if not os.path.exists(table):
            continue
        with open(table, encoding="ascii") as lines:
            entries = [line.split() for line in lines][1:]
        for entry in entries:
            digits, _, hexadecimal = entry[1].partition(":")
            address, port = address_of(digits), int(hexadecimal, 16)
            if entry[3] != "0A" or port not in ports:  # 0A: listening
                continue
            if owners is None:
                owners = socket_owners()
            pid, process = owners.get(entry[9], (0, "unknown"))
            who = f"process {pid} ({process})"
            if pid == 1:
                process = socket_unit(address, port)
                who = f"systemd ({process})"
            yield address, port, {"process": process, "said": f"port {port} is held by {who}"}


def socket_unit(address: str, port: int) -> str:
    """The socket unit whose address this is."""
    text = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    shown = output_of(["systemctl", "show", "--property=Id,Listen", "*.socket"]) or ""
    for unit_shown in shown.split("\n\n"):
        lines = unit_shown.splitlines()
        if any(line == f"Listen={text} (Stream)" for line in lines):
            return next(line[len("Id=") :] for line in lines if line.startswith("Id="))
    return "systemd"


def address_of(digits: str) -> str:
    words = [int(digits[at : at + 8], 16) for at in range(0, len(digits), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    return socket.inet_ntop(socket.AF_INET if len(words) == 1 else socket.AF_INET6, packed)


def socket_owners() -> dict[str, tuple[int, str]]:
    """Inode of every open socket to (pid, process name) of one process that has it.

    systemd keeps the sockets that it hands to services: it is named where no other has the socket.
    """
    owners: dict[str, tuple[int, str]] = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as comm:
                process = comm.read().strip()
            for entry in os.scandir(f"/proc/{pid}/fd"):
                target = os.readlink(entry.path)
                inode = target[len("socket:[") : -1]
                if target.startswith("socket:[") and owners.get(inode, (1, ""))[0] == 1:
                    owners[inode] = (int(pid), process)
        except OSError:  # gone meanwhile
            continue
    return owners


def unit(name: str, paths: list[str]) -> dict[str, Any]:
    # A service has read its files by the time it is active; it was started before.
    since = "ExecMainStartTimestamp" if name.endswith(".service") else "ActiveEnterTimestamp"
    properties = f"LoadState,ActiveState,UnitFileState,{since}"
    command = ["systemctl", "show", "--timestamp=us+utc", f"--property={properties}", name]
    found = dict(line.split("=", 1) for line in (output_of(command) or "").splitlines())
    if found.get("LoadState") != "loaded":
        return {"state": "missing", "enabled": False, "outdated": ""}
    active = found["ActiveState"] == "active"
    return {
        "state": found["ActiveState"],
        "enabled": found["UnitFileState"] == "enabled",
        "outdated": newer(seconds(found[since]), paths) if active else "",
    }


def seconds(timestamp: str) -> float:
    """Seconds since 1970 of, for example, `Mon 2026-11-23 20:33:11.654321 UTC`."""
    form = "%a %Y-%m-%d %H:%M:%S.%f UTC"
    when = datetime.datetime.strptime(timestamp, form)
    return when.replace(tzinfo=datetime.timezone.utc).timestamp()


def newer(since: float, paths: list[str]) -> str:
    """A Python or unit file in or below `paths` that was written after `since`, or "".

    By the time of the status change: `cp -p` and packages carry the modification's over. Other
    files do not count: Python has its caches beside the program, editors theirs beside the config.
    """
    for path in paths:
        below = (os.path.join(where, n) for where, _, names in os.walk(path) for n in names)
        for file in [path, *below]:
            counts = file.endswith(LOADED) and os.path.isfile(file)
            if counts and os.stat(file).st_ctime > since:
                return file
    return ""


def spooled(directory: str) -> dict[str, int]:
    failed = listed(os.path.join(directory, "failed"))
    waiting = [name for name in listed(directory) if name != "failed"]
    # Not by their names, which any user can choose.
    since = min((written(os.path.join(directory, name)) for name in waiting), default=time.time())
    return {
        "waiting": len(waiting),
        "failed": sum(not name.endswith(".reason") for name in failed),
        "oldest": max(0, int(time.time() - since)),
    }


def written(path: str) -> float:
    try:
        return os.lstat(path).st_ctime
    except OSError:  # delivered meanwhile
        return time.time()


def listed(directory: str) -> list[str]:
    names = os.listdir(directory) if os.path.isdir(directory) else []
    return [name for name in names if not name.startswith(".")]


def user_exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


if __name__ == "__main__":
    main()
