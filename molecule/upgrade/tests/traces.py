"""What is on a host, so that what a deploy has left there can be told from what was before."""

from __future__ import annotations

import json
import shlex

from testinfra.host import Host

# By host, what there is: a file by its path, an account, a unit, the firewall.
Snapshots = dict[str, dict[str, str]]

# Runs on a host. Files of packages are those of who installed them, and stay.
PROGRAM = r"""
import hashlib, json, os, re, subprocess

TREES = ("/etc", "/home", "/opt", "/root", "/run", "/srv", "/tmp", "/usr", "/var")
LEFT_OUT = re.compile(
    # the system's own: its packages, its logs, who has logged in
    r"/var/(cache|lib/(dpkg|apt|systemd|private|ucf)|log/(journal|apt|wtmp|lastlog|btmp))(/.*)?"
    r"|/var/log/(dpkg|alternatives)\.log"
    r"|/run/(?!fedmsg|systemd/system/).*|/(etc|var)/\.updated|/(tmp|var/tmp)/.*"
    # beside the files of accounts, what they were; they themselves are compared
    r"|/etc/(passwd|shadow|group|gshadow|subuid|subgid)-|/etc/\.pwd\.lock|/etc/ld\.so\.cache"
    # the operator's
    r"|/(home/[^/]+|root)/\.(ansible|ssh|cache|sudo_as_admin_successful).*"
    # when logs were rotated last
    r"|/var/lib/logrotate(/.*)?"
    # what Python compiled of packages, and what it has read of them
    r"|/usr/(lib|share)/.*\.pyc|/usr/(lib|share)/.*__pycache__"
    # that packages enable or offer
    r"|/etc/(alternatives|rc.\.d)(/.*)?|/etc/systemd/system/timers\.target\.wants/logrotate\.timer"
)

def printed(*words):
    return subprocess.run(words, capture_output=True, text=True).stdout

packaged = set(printed("sh", "-c", "cat /var/lib/dpkg/info/*.list").splitlines())
found = {}
for tree in TREES:
    for directory, _, names in os.walk(tree):
        for path in [directory, *(os.path.join(directory, name) for name in names)]:
            # /lib is /usr/lib
            if LEFT_OUT.fullmatch(path) or {path, path.replace("/usr/", "/", 1)} & packaged:
                continue
            status = os.lstat(path)
            seen = f"{status.st_mode:o} {status.st_uid}:{status.st_gid}"
            if os.path.islink(path):
                seen += f" -> {os.readlink(path)}"
            elif os.path.isfile(path) and path.startswith(("/etc", "/usr/local")):
                with open(path, "rb") as stream:
                    seen += " " + hashlib.sha256(stream.read()).hexdigest()
            found[path] = seen
for kind in ("passwd", "group"):
    for line in printed("getent", kind).splitlines():
        found[f"{kind} {line.split(':')[0]}"] = line
# Of units: those that packages have not brought, and what systemd remembers of ours.
plain = ("--no-legend", "--plain")
for line in printed("systemctl", "list-unit-files", *plain).splitlines():
    unit = line.split()[0]
    known = ("/usr/lib/systemd/system/", "/run/systemd/transient/")
    if not any(os.path.exists(where + unit) for where in known):
        found[f"unit file {unit}"] = " ".join(line.split()[:2])
for line in printed("systemctl", "list-units", "--all", *plain, "fedmsg*").splitlines():
    found[f"unit {line.split()[0]}"] = line
found["firewall"] = printed("sh", "-c", "nft list ruleset 2>/dev/null")
print(json.dumps(found))
"""


def take(hosts: list[Host]) -> Snapshots:
    program = f"python3 -c {shlex.quote(PROGRAM)}"
    return {host.backend.host: json.loads(host.check_output(program)) for host in hosts}


def differences(before: Snapshots, after: Snapshots) -> list[str]:
    return [
        f"{host}: {name}: was {old.get(name)}, is {new.get(name)}"
        for (host, old), new in zip(before.items(), after.values())
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
