"""Say what a role needs to know of a host, all in one round trip. Changes nothing but `lock`.

The roles run it with `python3 -I -c`, after lock.py; a JSON object on standard input asks, one on
standard output answers. All keys of the request are optional:

    packages   names             -> packages_installed: those of them that are
    files      path to {content or sha256 or link, mode}
                                 -> files_differing: those that are missing or different
    programs   {package: its directory, commands: where they are, names: paths of others' files}
                                 -> stale: files of a release before, in these directories, that are
                                    neither among the files nor among these names
    read       paths             -> read: path to {content, mode, owner} of that file, or to null
    directories path to "mode owner"
                                 -> directories_differing: those that are missing or different
    show       some of the files -> differences: of those that differ {path: what a person wants to
                                    see of it}, a unified diff or a line
    kinds      paths             -> kinds: {path: "file", "directory", "other" or, where there is
                                    nothing, ""}
    names      host names        -> names: {name: {addresses, local, loopback, error}}; local are
                                    those addresses that are this machine's
    addresses  host:port, with or without tcp://
                                 -> listeners: who listens there already, or on all addresses,
                                    {address: [{process, unit, said}]}; for what systemd holds
                                    itself the process is the socket unit
    units      name to paths     -> units: {name: {state, enabled, outdated}}: ActiveState or
                                    "missing", whether it starts at boot, and one of those Python
                                    and unit files that were written after it started
    allow      {networks, hosts: {host: name or address}, policed}
                                 -> allow: {wrong: {network: why it is none}, outside: {host:
                                    addresses}}, hosts that are in none of them, nor this machine;
                                    policed: as wrong, of other networks
    spool      a directory       -> spool: {waiting, failed, oldest}: how many messages, and the
                                    seconds for which one has been waiting
    members    users             -> members: {missing: those that this host does not know, outside:
                                    those that are not in the group fedmsg}
    lock       {path, claim}     -> lock: {} now that the run has claimed this host, or the claim of
                                    another that is at work here; see lock.py
    former     {files, unit, log}
                                 -> former: what was there before these roles. files: those that
                                    are not of these roles; unit: whether it is there and not of
                                    these roles. Only if so, drop_ins and packaged_drop_ins: what
                                    the admin and packages change of it; logs: the log and old ones
                                    that others own; rotating: other files by which logrotate
                                    rotates this log alone, and rotating_more: this and others;
                                    visitors: who is connected to a port of `addresses` at none of
                                    them

and always: system ({family, id, version}, as os-release(5) has them; the family as Ansible's facts
do), user (whether the user fedmsg exists), config_directory (whether /etc/fedmsg.d does),
deploying (whether a deploy has not come to its end, see release.py), epel_missing (EL only: no
repository offers python3-pyzmq), move (what playbooks/move.yml has left here: {from, to, step}, or
nothing).
"""

import datetime
import difflib
import errno
import fnmatch
import glob
import grp
import hashlib
import ipaddress
import json
import os
import pwd
import re
import site
import socket
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Optional

if TYPE_CHECKING:
    from ansible.lock import claimed

LOCAL_PACKAGES = next(
    (path for path in site.getsitepackages() if path.startswith("/usr/local/")), "/usr/local/lib"
)

WILDCARDS = ("0.0.0.0", "::")
# The last is the bridge's to RabbitMQ.
LOADED = (".py", ".service", ".socket", ".path", ".timer", "/password")
USER = "fedmsg"
# What a file of these roles has, as no file of fedmsg's or of an admin has.
OUR_MARKS = (
    b"# By the roles fedmsg_base and fedmsg_relay",
    b"# By the role fedmsg_monitoring",
    b"# By the role fedmsg_bridge",
    b"from fedmsg_relay",
    # Of releases before that line: what each of their files has. The socket unit is as it was, for
    # another one would close the relay's ports once.
    b"or into fedmsg_base_extra_config.",
    b"# Passive services: each binds its addresses, listeners connect to them.",
    b"# What every fedmsg program of this host logs. On standard output, as fedmsg always had it",
    b"# Every relay of the bus. A relay binds those addresses that are its host's.",
    b"# The relay sees that its log was renamed before it writes the next line",
    b"Description=fedmsg relay from ephemeral scripts to the bus",
    b"# systemd holds the relay's ports, so that what connects while the relay is restarted",
    b"Description=Watch the spool of fedmsg messages",
    b"Description=Deliver spooled fedmsg messages",
    b"Description=Try again to deliver spooled fedmsg messages",
    b'u fedmsg - "fedmsg bus" / -',
    b"d /etc/fedmsg.d 0755 root root -",
)

# All that there is in a command of ours, of this release and of any before. Somebody else's script
# that uses the package is not like that.
COMMAND = re.compile(
    rb"#!/usr/bin/python3( -I)?\nimport sys\n\n"
    rb'sys\.path\.insert\(0, "/usr/local/lib/fedmsg-relay"\)\n\n'
    rb"from fedmsg_relay\.\w+ import main\n\nsys\.exit\(main\(\)\)\n"
)

# What playbooks/move.yml leaves on a host: how far it is, and which start of the relay it spared
# (see move.py), for what it has written until then does not concern that relay.
MOVE = "/etc/fedmsg-move.json"
SPARED = "/run/fedmsg-relay.spared"


def main() -> None:
    request = json.load(sys.stdin)
    holder = claimed(**request["lock"]) if "lock" in request else {}
    system = operating_system()
    files = request.get("files", {})
    differing = [path for path, file in files.items() if differs(path, file)]
    shown = [path for path in differing if path in request.get("show", [])]
    old = stale(files=files, **request["programs"]) if "programs" in request else []
    json.dump(
        {
            "lock": holder,
            "system": system,
            "packages_installed": list(filter(package_installed, request.get("packages", []))),
            "files_differing": differing,
            "stale": old,
            "differences": {
                **{path: difference(path, files[path]) for path in shown},
                **{path: f"{path}: removed, was {described(path)}" for path in old},
            },
            "kinds": {path: kind(path) for path in request.get("kinds", [])},
            "read": {path: contents(path) for path in request.get("read", [])},
            "directories_differing": [
                path for path, wanted in request.get("directories", {}).items()
                if mode_and_owner(path) != wanted
            ],
            "names": {name: resolved(name) for name in request.get("names", [])},
            "listeners": listeners(request.get("addresses", [])),
            "units": {
                name: unit(name, paths) for name, paths in request.get("units", {}).items()
            },
            "allow": allowed(**request.get("allow", {"networks": [], "hosts": {}, "policed": []})),
            "spool": spooled(request["spool"]) if "spool" in request else {},
            "members": membership(request.get("members", [])),
            "former": former(**request["former"], addresses=request.get("addresses", []))
            if "former" in request else {},
            "user": user_exists(USER),
            "config_directory": os.path.isdir("/etc/fedmsg.d"),
            "deploying": os.path.exists("/usr/local/lib/fedmsg-relay.previous/open"),
            "move": json.loads(text_of(MOVE) or "{}"),
            "epel_missing": system["family"] == "RedHat" and not to_be_had("python3-pyzmq"),
        },
        sys.stdout,
    )  # fmt: skip


def operating_system() -> dict[str, str]:
    found = {}
    for line in lines_of("/etc/os-release") or lines_of("/usr/lib/os-release"):
        key, _, value = line.strip().partition("=")
        found[key] = value.strip("\"'")
    names = [found.get("ID", "linux"), *found.get("ID_LIKE", "").split()]
    families = {"debian": "Debian", "fedora": "RedHat", "rhel": "RedHat"}
    return {
        "family": next((families[name] for name in names if name in families), names[0]),
        "id": names[0],
        "version": found.get("VERSION_ID", ""),
    }


def lines_of(path: str) -> list[str]:
    """The lines of a file, none where there is none."""
    try:
        with open(path, encoding="utf-8") as lines:
            return list(lines)
    except OSError:
        return []


def package_installed(name: str) -> bool:
    if os.path.exists("/usr/bin/dpkg-query"):
        command = ["dpkg-query", "--show", "--showformat=${db:Status-Status}", name]
        return output_of(command) == "installed"
    return output_of(["rpm", "--query", name]) is not None


def to_be_had(name: str) -> bool:
    return package_installed(name) or bool(output_of(["dnf", "--quiet", "repoquery", name]))


def output_of(command: list[str]) -> Optional[str]:
    """What a command prints, or None if it fails or is not there."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def in_place(path: str) -> str:
    return path.replace("SITE", LOCAL_PACKAGES, 1) if path.startswith("SITE/") else path


def differs(path: str, file: dict[str, str]) -> bool:
    path = in_place(path)
    try:
        found = os.lstat(path)
        if "link" in file:
            return not stat.S_ISLNK(found.st_mode) or os.readlink(path) != file["link"]
        with open(path, "rb") as stream:
            return (
                not stat.S_ISREG(found.st_mode)
                or (found.st_uid, found.st_gid) != (0, 0)
                or stat.S_IMODE(found.st_mode) != int(file["mode"], 8)
                or not has(stream.read(), file)
            )
    except OSError:
        return True


def stale(
    package: str, commands: str, names: list[str], files: dict[str, dict[str, str]]
) -> list[str]:
    """What a release before has left, where only this one's files are to be."""
    wanted = {in_place(path) for path in [*files, *names]}
    # Python has its caches there.
    found = [
        os.path.join(where, name) for where, _, below in os.walk(package) for name in below
        if not name.endswith(".pyc")
    ]  # fmt: skip
    found += [path for path in glob.glob(f"{glob.escape(commands)}/fedmsg-*") if is_command(path)]
    return sorted(path for path in found if path not in wanted)


def is_command(path: str) -> bool:
    try:
        with open(path, "rb") as stream:
            return os.path.isfile(path) and bool(COMMAND.fullmatch(stream.read()))
    except OSError:
        return False


def has(found: bytes, file: dict[str, str]) -> bool:
    if "sha256" in file:
        return hashlib.sha256(found).hexdigest() == file["sha256"]
    return found == file["content"].encode()


def contents(path: str) -> Optional[dict[str, str]]:
    try:
        found = os.lstat(path)
        with open(path, encoding="utf-8", errors="replace") as stream:
            if stat.S_ISREG(found.st_mode):
                return {
                    "content": stream.read(),
                    "mode": f"{stat.S_IMODE(found.st_mode):04o}",
                    "owner": f"{found.st_uid}:{found.st_gid}",
                }
    except OSError:
        pass
    return None


def difference(path: str, file: dict[str, str]) -> str:
    """A line that says what is going to be there and what was, then what changes in the text.

    Of a new program only the line: nobody reads all of them.
    """
    path = in_place(path)
    is_file = kind(path) == "file" and not os.path.islink(path)
    if os.path.islink(path):
        was = f"a link to {os.readlink(path)}"
    else:
        was = described(path) if is_file else kind(path)
    if "link" in file:
        return f"{path}: a link to {file['link']}, was {was or 'not there'}"
    old = ""
    if is_file:
        with open(path, encoding="utf-8", errors="replace") as stream:
            old = stream.read()
    size = len(file["content"].encode())
    said = f"{path}: {size} bytes, {file['mode']} root:root, was {was or 'not there'}"
    if old == file["content"] or not (is_file or path.startswith("/etc/")):
        return said
    before, after = old.splitlines(), file["content"].splitlines()
    return "\n".join([said, *difflib.unified_diff(before, after, path, path, lineterm="")])


def described(path: str) -> str:
    found = os.lstat(path)
    mode = f"{stat.S_IMODE(found.st_mode):04o}"
    return f"{found.st_size} bytes, {mode} {owner_of(found.st_uid)}:{found.st_gid or 'root'}"


def owner_of(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def kind(path: str) -> str:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return ""
    return "file" if stat.S_ISREG(mode) else "directory" if stat.S_ISDIR(mode) else "other"


def mode_and_owner(directory: str) -> str:
    try:
        found = os.lstat(directory)
        owner = pwd.getpwuid(found.st_uid).pw_name
    except (OSError, KeyError):
        return ""
    return f"{stat.S_IMODE(found.st_mode):04o} {owner}" if stat.S_ISDIR(found.st_mode) else ""


def resolved(name: str) -> dict[str, Any]:
    """The addresses of a host: IPv4 or, where there are none, IPv6.

    A name without IPv4 is an error: to libzmq, and so to upstream's programs, a name means IPv4.
    """
    try:
        found = socket.getaddrinfo(name.strip("[]"), None, type=socket.SOCK_STREAM)
    except OSError as error:
        return {"addresses": [], "local": [], "loopback": False, "error": error.strerror}
    four = [str(entry[4][0]) for entry in found if entry[0] == socket.AF_INET]
    addresses = sorted(set(four or [str(entry[4][0]) for entry in found]))
    is_name = ":" not in name
    only = f"it has IPv6 addresses alone ({', '.join(addresses)}), and to ZeroMQ a name means IPv4"
    return {
        "addresses": addresses,
        "local": [address for address in addresses if is_local(address)],
        "loopback": all(ipaddress.ip_address(a.partition("%")[0]).is_loopback for a in addresses),
        "error": only if is_name and not four else "",
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


def allowed(networks: list[str], hosts: dict[str, str], policed: list[str]) -> dict[str, Any]:
    known, wrong = parsed_networks(networks)
    outside = {}
    for host, name in hosts.items() if known else ():
        # A host that cannot be looked up here may still connect, from wherever it is.
        addresses = resolved(name)["addresses"]
        plain = [ipaddress.ip_address(address.partition("%")[0]) for address in addresses]
        inside = any(address in network for address in plain for network in known)
        if addresses and not inside and not any(map(is_local, addresses)):
            outside[host] = ", ".join(addresses)
    return {"wrong": wrong, "outside": outside, "policed": parsed_networks(policed)[1]}


def parsed_networks(texts: list[str]) -> tuple[list[Any], dict[str, str]]:
    """The networks, and those texts that are none, each with the reason."""
    known, wrong = [], {}
    for text in texts:
        try:
            known.append(ipaddress.ip_network(text))
        except ValueError as error:
            wrong[text] = str(error)
    return known, wrong


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
    for entry in tcp_entries():
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
        said = f"port {port} is held by {who}"
        yield address, port, {"process": process, "unit": unit_of(pid), "said": said}


def tcp_entries() -> Iterator[list[str]]:
    """Each line of the kernel's tables: its second and third words are a socket's two ends."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if os.path.exists(table):
            with open(table, encoding="ascii") as lines:
                yield from [line.split() for line in lines][1:]


def socket_unit(address: str, port: int) -> str:
    """The socket unit whose address this is."""
    text = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    shown = output_of(["systemctl", "show", "--property=Id,Listen", "*.socket"]) or ""
    for unit_shown in shown.split("\n\n"):
        lines = unit_shown.splitlines()
        if any(line == f"Listen={text} (Stream)" for line in lines):
            return next(line[len("Id=") :] for line in lines if line.startswith("Id="))
    return "systemd"


def unit_of(pid: int) -> str:
    """The service a process is of, whatever it calls itself, or ""."""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8") as lines:
            found = [line.strip().rpartition("/")[2] for line in lines]
    except OSError:  # gone meanwhile
        return ""
    return next((name for name in found if name.endswith(".service")), "")


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
    read = seconds(found[since]) if active else 0.0
    if text_of(SPARED) == f"{name} {found[since]}\n":
        read = max(read, written(SPARED))
    return {
        "state": found["ActiveState"],
        "enabled": found["UnitFileState"] == "enabled",
        "outdated": newer(read, paths) if active else "",
    }


def text_of(path: str) -> str:
    """Of a small file; nothing if there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""


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


def former(files: list[str], unit: str, log: str, addresses: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "files": [path for path in files if os.path.lexists(path) and not is_ours(path)],
        "unit": False,
        "drop_ins": [],
        "packaged_drop_ins": [],
        "logs": [],
        "rotating": [],
        "rotating_more": [],
        "visitors": [],
    }
    if not unit:
        return found
    shown = output_of(["systemctl", "show", "--property=FragmentPath,DropInPaths", unit]) or ""
    paths = dict(line.split("=", 1) for line in shown.splitlines())
    fragment = paths.get("FragmentPath", "")
    if not fragment or is_ours(fragment):
        return found
    found["unit"] = True
    # Those of all services, in service.d, are for this one as well.
    drop_ins = [path for path in paths["DropInPaths"].split() if f"/{unit}.d/" in path]
    found["drop_ins"] = [path for path in drop_ins if path.startswith(("/etc/", "/run/"))]
    found["packaged_drop_ins"] = [path for path in drop_ins if path not in found["drop_ins"]]
    found["logs"] = sorted(
        path for path in glob.glob(f"{glob.escape(log)}*") if owner(path) != USER
    )
    for path in sorted(glob.glob("/etc/logrotate.d/*")):
        patterns = rotated(path)
        if path not in files and any(fnmatch.fnmatch(log, pattern) for pattern in patterns):
            found["rotating" if patterns == [log] else "rotating_more"].append(path)
    found["visitors"] = visitors(addresses)
    return found


def is_ours(path: str) -> bool:
    if os.path.realpath(path).startswith("/usr/local/lib/fedmsg-relay/"):
        return True
    try:
        with open(path, "rb") as stream:
            content = stream.read()
    except OSError:
        return False
    return any(mark in content for mark in OUR_MARKS)


def owner(path: str) -> str:
    try:
        return pwd.getpwuid(os.lstat(path).st_uid).pw_name
    except (OSError, KeyError):
        return ""


def rotated(path: str) -> list[str]:
    """What a file of logrotate names before its blocks."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            text = re.sub(r"^\s*#.*$", "", stream.read(), flags=re.MULTILINE)
    except OSError:
        return []
    words = re.sub(r"\{[^}]*\}", " ", text).replace('"', " ").split()
    return [word for word in words if word.startswith("/")]


def visitors(addresses: list[str]) -> list[str]:
    """Who is connected to one of these ports at an address that is not among them."""
    offered: dict[int, set[str]] = {}
    for text in addresses:
        host, _, port = text.rpartition("//")[2].rpartition(":")
        offered.setdefault(int(port), set()).update(resolved(host)["addresses"])
    found = set()
    for entry in tcp_entries():
        (here, at), (there, _) = end_of(entry[1]), end_of(entry[2])
        if entry[3] == "01" and at in offered and here not in offered[at]:  # 01: established
            found.add(f"{there} to {here}:{at}")
    return sorted(found)


def end_of(text: str) -> tuple[str, int]:
    digits, _, hexadecimal = text.partition(":")
    address = address_of(digits)
    # What comes by IPv4 to a socket of IPv6.
    return address.rpartition("::ffff:")[2] or address, int(hexadecimal, 16)


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


def membership(users: list[str]) -> dict[str, list[str]]:
    """Of the group of our user: which of these there are not, and which are not in it.

    By the system's own tables, of which a process that runs has seen what there was at its start.
    """
    try:
        group = grp.getgrnam(USER)
    except KeyError:
        group = None
    missing = [name for name in users if not user_exists(name)]
    return {
        "missing": missing,
        "outside": [
            name for name in users
            if name not in missing
            and not (group and (name in group.gr_mem or pwd.getpwnam(name).pw_gid == group.gr_gid))
        ],
    }  # fmt: skip


def user_exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


if __name__ == "__main__":
    main()
