"""Take over what a host had before these roles: its config's keys, its files, its logs.

The roles run it with `python3 -I -c`. A JSON object on standard input; what it asks for is done in
this order, and each thing that was done is one line on standard output:

    compare   what `compare` takes. Changes nothing, and answers with one JSON object
    keep      paths: copied to a directory of their own below /var/backups/fedmsg-relay, unless an
              earlier one has them as they are
    logs_kept with it: paths of which only owner and mode are written down there
    only_look with it: keep nothing, and say whether it would be (check mode)
    logs      paths: given to the user fedmsg, their content stays
    rename    names: files of /etc/fedmsg.d, NAME.py becomes NAME.former.py. It is loaded just
              before NAME.py: keys that the new file does not set stay, with the code that made them
    remove    paths: removed, and directories that are empty then
"""

import contextlib
import glob
import grp
import hashlib
import json
import os
import pwd
import shutil
import socket
import stat
import sys
import time
from typing import Any, Optional

DIRECTORY = "/etc/fedmsg.d"
LATER = "/etc/fedmsg-config.py"
BACKUPS = "/var/backups/fedmsg-relay"
MANIFEST = "MANIFEST"
USER = "fedmsg"

# Fedmsg 1.1.7's own, of keys that all peers must agree on.
DEFAULTS = {
    "topic_prefix": "com.example",
    "environment": "dev",
    "sign_messages": False,
    "validate_signatures": True,
}
# Lists of addresses: more than before is no change.
ADDRESSES = ("relay_inbound", "endpoints.relay_outbound")


def main() -> None:
    request = json.load(sys.stdin)
    if "compare" in request:
        json.dump(compare(**request["compare"]), sys.stdout)
        return
    if "keep" in request:
        keep(request["keep"], request["logs_kept"], request["only_look"])
    for path in request.get("logs", []):
        found = os.lstat(path)
        # Not through a link: the directory may be another user's.
        os.chown(path, *ids_of_user(), follow_symlinks=False)
        if stat.S_ISREG(found.st_mode):
            os.chmod(path, stat.S_IMODE(found.st_mode) | 0o600)
        print(f"{path} is {USER}'s")
    for name in request.get("rename", []):
        path = os.path.join(DIRECTORY, name)
        os.rename(path, os.path.join(DIRECTORY, renamed(name)))
        print(f"{path} is {renamed(name)}")
    for path in request.get("remove", []):
        os.unlink(path)
        with contextlib.suppress(OSError):
            os.rmdir(os.path.dirname(path))
        print(f"{path} is removed")


def ids_of_user() -> tuple[int, int]:
    found = pwd.getpwnam(USER)
    return found.pw_uid, found.pw_gid


def renamed(name: str) -> str:
    """Sorts just before `name`."""
    return f"{name[: -len('.py')]}.former.py"


# Config: what is going to be different.


def compare(
    files: dict[str, str], former: list[str], accepted: list[str], variables: dict[str, str]
) -> dict[str, Any]:
    """`error`, why the former config cannot be taken over, or `changes`: a line for each key that
    is not to be what it was, and is not among `accepted`.

    `files`: name to content, the new ones. `former`: those names of them whose present file is not
    of these roles. `variables`: key to the role's variable for it.
    """
    as_service_user()
    twice = [renamed(n) for n in former if os.path.exists(os.path.join(DIRECTORY, renamed(n)))]
    if twice:
        error = (
            f"{', '.join(twice)} in {DIRECTORY} is of an earlier takeover: put its keys into a file"
            " of another name, or remove it"
        )
        return {"error": error, "changes": []}
    present = [os.path.basename(path) for path in glob.glob(f"{DIRECTORY}/*.py")]
    try:
        before = loaded({name: os.path.join(DIRECTORY, name) for name in present})
        paths = {
            renamed(name) if name in former else name: os.path.join(DIRECTORY, name)
            for name in present
        }
        after = loaded({n: p for n, p in paths.items() if n not in files}, files)
    except Exception as error:
        return {"error": str(error), "changes": []}
    found = []
    for key, old in flat({**DEFAULTS, **before}).items():
        new = at(after, key, DEFAULTS)
        if same(key, old, new) or any(k == key or key.startswith(f"{k}.") for k in accepted):
            continue
        variable = variables.get(key) or variables.get(key.partition(".")[0])
        advice = f" (set {variable})" if variable else ""
        found.append(f"{key} is {old!r} and would be {new!r}{advice}")
    return {"error": "", "changes": found}


def as_service_user() -> None:
    """What is in the config is code, and others than root may have written it."""
    try:
        found = pwd.getpwnam(USER)
    except KeyError:
        found = pwd.getpwnam("nobody")
    os.setgroups([])
    os.setgid(found.pw_gid)
    os.setuid(found.pw_uid)
    os.chdir("/")


def loaded(paths: dict[str, str], contents: Optional[dict[str, str]] = None) -> dict[str, Any]:
    """By fedmsg's rules: in the order of the names, then what is beside the directory."""
    merged: dict[str, Any] = {}
    contents = contents or {}
    for name in sorted([*paths, *contents]):
        merge(merged, executed(paths.get(name, name), contents.get(name)))
    if os.path.isfile(LATER):
        merge(merged, executed(LATER, None))
    return merged


def executed(path: str, content: Optional[str]) -> dict[str, Any]:
    variables: dict[str, Any] = {}
    try:
        if content is None:
            with open(path, encoding="utf-8") as stream:
                content = stream.read()
        with contextlib.redirect_stdout(sys.stderr):
            exec(compile(content, path, "exec"), variables)
    except (Exception, SystemExit) as error:
        raise ValueError(f"{path}: {type(error).__name__}: {error}") from error
    if not isinstance(variables.get("config"), dict):
        raise ValueError(f"{path}: must define a dict named 'config'")
    config: dict[str, Any] = variables["config"]
    return config


def merge(into: dict[str, Any], new: dict[str, Any]) -> None:
    for key, value in new.items():
        if isinstance(value, dict):
            old = into.get(key)
            into[key] = dict(old) if isinstance(old, dict) else {}
            merge(into[key], value)
        else:
            into[key] = value


def flat(config: dict[str, Any], above: str = "") -> dict[str, Any]:
    found = {}
    for key, value in config.items():
        path = f"{above}{key}"
        if isinstance(value, dict) and value:
            found.update(flat(value, f"{path}."))
        else:
            found[path] = value
    return found


def at(config: dict[str, Any], key: str, defaults: dict[str, Any]) -> Any:
    found = flat({**defaults, **config})
    return found.get(key)


def same(key: str, old: Any, new: Any) -> bool:
    if key in ADDRESSES:
        return all(any(covers(n, o) for n in listed(new)) for o in listed(old))
    if key.startswith("endpoints."):
        return sorted(listed(old)) == sorted(listed(new))
    if key == "moksha.monitoring.socket":
        old, new = (str(value).replace("ipc:///var/run/", "ipc:///run/") for value in (old, new))
    # Functions and objects are made anew by each reading of the file.
    return bool(old == new) or (type(old) is type(new) and type(old).__module__ != "builtins")


def listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])


def covers(new: str, old: str) -> bool:
    """Whether who uses the old address gets to the new one: by name, or by what it resolves to."""
    new_host, _, new_port = new.rpartition("//")[2].rpartition(":")
    old_host, _, old_port = old.rpartition("//")[2].rpartition(":")
    if new_port != old_port:
        return False
    return new_host == old_host or old_host == "*" or bool(ips(new_host) & ips(old_host))


def ips(host: str) -> set[str]:
    try:
        found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
    except OSError:
        return set()
    # All of this machine's, for a socket that is bound to all of them.
    return {str(entry[4][0]) for entry in found}


# Backup.


def keep(paths: list[str], logs: list[str], only_look: bool = False) -> None:
    new = [path for path in paths if not any(is_kept(path, old) for old in kept())]
    said = "".join(manifest_of(old) for old in kept())
    entries = [entry(path) for path in new]
    entries += [entry(path, copied=False) for path in logs if f" {path}\n" not in said]
    if not entries:
        return
    os.umask(0o077)
    final = os.path.join(BACKUPS, time.strftime("%Y-%m-%dT%H%M%SZ", time.gmtime()))
    if only_look:
        print(f"what is replaced is going to be in {BACKUPS}")
        return
    beside = f"{final}.new"
    os.makedirs(beside)
    for path in new:
        copy_with_directories(path, beside)
    with open(os.path.join(beside, MANIFEST), "w", encoding="utf-8") as stream:
        stream.write("# mode owner group sha256 path. What has no sum is not here: it stays\n")
        stream.writelines(f"{line}\n" for line in entries)
    os.rename(beside, final)
    print(f"{final} has what is replaced")


def kept() -> list[str]:
    return sorted(os.path.dirname(path) for path in glob.glob(f"{BACKUPS}/*/{MANIFEST}"))


def manifest_of(backup: str) -> str:
    with open(os.path.join(backup, MANIFEST), encoding="utf-8") as stream:
        return stream.read()


def is_kept(path: str, backup: str) -> bool:
    copy = backup + path
    if os.path.islink(path) or os.path.islink(copy):
        return (
            os.path.islink(copy) and os.path.islink(path) and os.readlink(copy) == os.readlink(path)
        )
    return os.path.isfile(copy) and checksum(copy) == checksum(path)


def entry(path: str, copied: bool = True) -> str:
    found = os.lstat(path)
    owner, group = name_of(found.st_uid), group_of(found.st_gid)
    if os.path.islink(path):
        summed = f"link:{os.readlink(path)}"
    else:
        summed = checksum(path) if copied else "-"
    return f"{stat.S_IMODE(found.st_mode):04o} {owner} {group} {summed} {path}"


def name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group_of(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def checksum(path: str) -> str:
    with open(path, "rb") as stream:
        return hashlib.sha256(stream.read()).hexdigest()


def copy_with_directories(path: str, into: str) -> None:
    """So that `cp -a` from there puts all of it back as it was."""
    made = into
    for part in os.path.dirname(path).strip("/").split("/"):
        made = os.path.join(made, part)
        if not os.path.isdir(made):
            os.mkdir(made)
            like(made[len(into) :], made)
    shutil.copy2(path, into + path, follow_symlinks=False)
    like(path, into + path)


def like(original: str, copy: str) -> None:
    found = os.lstat(original)
    os.chown(copy, found.st_uid, found.st_gid, follow_symlinks=False)
    if not stat.S_ISLNK(found.st_mode):
        os.chmod(copy, stat.S_IMODE(found.st_mode))


if __name__ == "__main__":
    main()
