"""Runs on a host, as root: everything about it that who only looks leaves as it is, as JSON.

{kind: {name: value}}. Left out is what changes by itself: what the bus writes, what a login leaves,
and the tests' own traffic.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

TRAFFIC = "sop-traffic.service"
# Where an operator's commands could leave something.
TREES = ("/etc", "/home", "/opt", "/root", "/srv", "/tmp", "/usr/local", "/var", "/run/systemd",
         # A link: what it leads to counts, not where that is.
         "/usr/local/lib/fedmsg-relay/fedmsg_relay")  # fmt: skip
# Files below these are looked at by name, owner and mode alone, for the bus writes them.
WRITTEN = ("/var/lib/fedmsg-relay", "/var/log", "/var/spool/fedmsg")
LEFT_OUT = re.compile(
    r"/(home/[^/]+|root)/(\.ansible|\.ssh|\.cache|\.lesshst|\.bash_history)(/|$).*"
    r"|/run/systemd/(?!system(/|$)|transient(/|$)).*"
    r"|/run/systemd/transient/(session-|sop-traffic).*"
    r"|/tmp/(systemd-private-|ansible).*|/var/tmp/(systemd-private-|sop-traffic).*"
    r"|/var/log/journal/.*|/var/lib/(systemd|private|dhcp|apt|sudo|logrotate)(/|$).*"
    r"|/var/spool/fedmsg/[.0-9].*|/var/lib/fedmsg-relay/.*-(wal|shm|journal)|/var/cache/.*"
    r"|.*/__pycache__(/.*)?|/usr/local/lib/fedmsg-relay/releases(/.*)?"
)
UNIT_PROPERTIES = "Id,Type,ActiveState,MainPID,NRestarts,UnitFileState,DropInPaths"
# These come and go with every command that is run here over ssh, and with what waits.
PASSING = re.compile(r"^(sshd|sshd-session|sshd-auth|sudo|timeout|sleep|systemctl|\(.*)$")
UNIT = re.compile(r"([^/]+\.(service|scope|mount|socket))(/|$)")


def main() -> None:
    every = units()
    # What runs once now and then, by a timer or whoever asks for it.
    once = {name for name, unit in every.items() if unit.get("Type") == "oneshot"} | {TRAFFIC}
    lasting = {name: unit for name, unit in every.items() if name not in once}
    found = {"file": files(), "unit": lasting, "process": processes(once), **network()}
    found["mount"] = {line.split()[1]: line for line in Path("/proc/mounts").read_text().split("\n")
                      if line and "/run/credentials" not in line}  # fmt: skip
    print(json.dumps(found))


def files() -> dict[str, str]:
    found = {}
    for tree in TREES:
        for directory, _, names in os.walk(tree):
            for path in (directory, *(os.path.join(directory, name) for name in names)):
                if not LEFT_OUT.fullmatch(path):
                    with contextlib.suppress(OSError):
                        found[path] = described(path)
    return found


def described(path: str) -> str:
    status = os.lstat(path)
    owner = f"{status.st_mode:o} {status.st_uid}:{status.st_gid}"
    if path.startswith(WRITTEN) or os.path.isdir(path):
        return owner
    return f"{owner} {status.st_size} {status.st_mtime_ns}"


def units() -> dict[str, dict[str, str]]:
    types = "--type=service,socket,timer,path,mount"
    listed = printed("systemctl", "list-units", "--all", "--plain", "--no-legend", types)
    names = [line.split()[0] for line in listed.splitlines()]
    shown = printed("systemctl", "show", f"--property={UNIT_PROPERTIES}", "--", *names)
    found = {}
    for block in shown.split("\n\n"):
        unit = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        found[unit["Id"]] = unit
    return found


def processes(once: set[str]) -> dict[str, str]:
    """`name state unit` of each process that is not of a unit in `once`."""
    found = {}
    mine = lineage()
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            name = (directory / "comm").read_text().strip()
            state = (directory / "stat").read_text().rpartition(")")[2].split()[0]
            groups = UNIT.findall((directory / "cgroup").read_text())
            unit = groups[0][0] if groups else "-"
            if int(directory.name) not in mine and not PASSING.match(name) and unit not in once:
                stopped = "stopped" if state in "Tt" else "runs"
                found[directory.name] = f"{name} {stopped} {unit}"
    return found


def lineage() -> set[int]:
    """This process, and all that it descends from."""
    found, process = set(), os.getpid()
    while process > 1:
        found.add(process)
        process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    return found


def network() -> dict[str, dict[str, str]]:
    rules = re.sub(r"counter packets \d+ bytes \d+", "counter", printed("nft", "list", "ruleset"))
    addresses = "".join(printed("ip", kind) for kind in ("-brief address", "route", "rule"))
    return {"firewall": {"rules": rules}, "network": {"addresses and routes": addresses}}


def printed(*words: str) -> str:
    split = [part for word in words for part in word.split(" ")]
    if not shutil.which(split[0]):  # a bare host has no nft, and so no rules of it
        return ""
    return subprocess.run(split, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
