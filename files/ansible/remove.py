"""Remove all that the roles have put on a host, in one round trip.

The roles run it with `python3 -I -c`; a JSON object on standard input:

    files        paths; `SITE/` is as in install.py. A unit is stopped and disabled first
    trees        directories that are ours with all that is in them
    patterns     of files that our programs have written
    logs         paths of logs: each goes with what logrotate has made of it
    journals     paths of journals: each goes with what SQLite keeps beside it, and with those that
                 the relay, a move or a rollback has put aside; not what only begins like it
    directories  that are ours, deepest first: each goes if nothing of others is left in it
    shared       that the system may not have had before: each goes with our last file in it, if
                 that leaves it empty
    user         of the service, and its group; "" if it shall stay
    spool        directory of what waits for a relay
    discard      whether what is in the spool may be lost
    only_look    change nothing, and say the same (check mode)

Messages in the spool are delivered first, if a relay takes them. Exit code 3: some are left, and
nothing was changed; standard error says how many. Otherwise standard output has a line for each
thing that was removed, and standard error one for each directory that stays for what others have
put there.
"""

import contextlib
import glob
import grp
import json
import os
import pwd
import re
import shutil
import site
import stat
import subprocess
import sys

LOCAL_PACKAGES = next(
    (path for path in site.getsitepackages() if path.startswith("/usr/local/")), "/usr/local/lib"
)
UNITS = "/etc/systemd/system/"
# What starts others goes first.
STARTED = (".socket", ".path", ".timer", ".service")
DRAIN = ("fedmsg-spool.path", "fedmsg-spool.timer")
LOGGER = "/usr/local/bin/fedmsg-logger"
# What follows the name of a log, numbered or, where logrotate.conf says dateext, dated, and that of
# a journal.
LOGS = r"((\.\d+|-\d{8}(-\d+)?)(\.(gz|bz2|xz|zst))?)?"
JOURNALS = r"(\.(broken|before)-\d{8}T\d{6}(-\d+)?|\.schema-\d+|-index)?(-wal|-shm|-journal)?"


def main() -> int:
    request = json.load(sys.stdin)
    only_look = request["only_look"]
    paths = [
        path.replace("SITE", LOCAL_PACKAGES, 1) if path.startswith("SITE/") else path
        for path in request["files"]
    ]
    names = sorted(
        (os.path.basename(p) for p in paths if p.startswith(UNITS) and p.endswith(STARTED)),
        key=lambda name: STARTED.index(os.path.splitext(name)[1]),
    )
    units = [name for name in names if os.path.exists(UNITS + name)]
    spool = Spool(request["spool"])
    left = spool.messages() if only_look else spool.emptied()
    if left and not request["discard"]:
        if only_look:
            # What a relay takes by then nobody knows.
            print(
                f"{left} messages wait in {spool.path}: they are delivered first, or else it ends",
                file=sys.stderr,
            )
        else:
            spool.reopen(units)
            print(
                f"{left} messages are in {spool.path} and no relay has taken them", file=sys.stderr
            )
            return 3
    gone = [f"unit {name}" for name in units]
    if units and not only_look:
        # One that is failed, or being started again and again, is stopped as well.
        call("systemctl", "disable", "--now", *units)
        call("systemctl", "reset-failed", *units)
    if left and request["discard"]:
        gone.append(f"{left} messages in {spool.path}")
    files = [path for path in paths if os.path.lexists(path)]
    files += [path for pattern in request["patterns"] for path in sorted(glob.glob(pattern))]
    files += [path for log in request["logs"] for path in named(log, LOGS)]
    files += [path for journal in request["journals"] for path in named(journal, JOURNALS)]
    trees = [path for path in request["trees"] if os.path.isdir(path)]
    gone += files + trees
    if not only_look:
        for path in files:
            shutil.rmtree(path) if is_directory(path) else os.unlink(path)
        for path in trees:
            shutil.rmtree(path)
    # In check mode what is in them is still there.
    away = set(files) | set(trees)
    for path in request["directories"]:
        if path in away or not os.path.isdir(path):
            continue
        others = sorted({os.path.join(path, name) for name in os.listdir(path)} - away)
        if others:
            print(f"{path} stays: there is {', '.join(others[:5])}", file=sys.stderr)
            continue
        gone.append(path)
        away.add(path)
        if not only_look:
            os.rmdir(path)
    for path in request["shared"]:
        emptied = {os.path.join(path, name) for name in names_in(path, hidden=True)} <= away
        if emptied and any(os.path.dirname(file) == path for file in files):
            gone.append(path)
            if not only_look:
                os.rmdir(path)
    if request["user"]:
        gone += account(request["user"], only_look)
    if units and not only_look:
        call("systemctl", "daemon-reload")
    print("\n".join(gone), end="")
    return 0


class Spool:
    def __init__(self, path: str) -> None:
        self.path = path

    def messages(self) -> int:
        """How many messages there are: that wait, and that no relay has wanted."""
        waiting = [name for name in names_in(self.path) if name != "failed"]
        failed = [
            n for n in names_in(os.path.join(self.path, "failed")) if not n.endswith(".reason")
        ]
        return len(waiting) + len(failed)

    def emptied(self) -> int:
        """Let nobody add to it, deliver what waits, and say how many messages are left."""
        if not os.path.isdir(self.path):
            return 0
        self.mode = stat.S_IMODE(os.stat(self.path).st_mode)
        os.chmod(self.path, 0o700)
        if self.messages() and os.path.exists(LOGGER):
            call("systemctl", "stop", *DRAIN)
            call(LOGGER, "--drain")
        return self.messages()

    def reopen(self, units: list[str]) -> None:
        os.chmod(self.path, self.mode)
        if set(units) & set(DRAIN):
            call("systemctl", "start", *DRAIN)


def account(name: str, only_look: bool) -> list[str]:
    """Remove the user and the group. What there was of them, a line each."""
    there = []
    for what, known in (("user", pwd.getpwnam), ("group", grp.getgrnam)):
        with contextlib.suppress(KeyError):
            known(name)
            there.append(f"{what} {name}")
    if there and not only_look:
        call("userdel", name)
        # Where it has not gone with its user.
        call("groupdel", name)
    return there


def names_in(directory: str, hidden: bool = False) -> list[str]:
    found = os.listdir(directory) if os.path.isdir(directory) else []
    return [name for name in found if hidden or not name.startswith(".")]


def named(path: str, endings: str) -> list[str]:
    """What there is of that name, by itself or with one of these endings."""
    directory, name = os.path.split(path)
    wanted = re.compile(re.escape(name) + endings)
    found = sorted(each for each in names_in(directory, hidden=True) if wanted.fullmatch(each))
    return [os.path.join(directory, each) for each in found]


def is_directory(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def call(*words: str) -> None:
    """Some of these fail for there is nothing to do, as reset-failed does."""
    subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


if __name__ == "__main__":
    sys.exit(main())
