"""One run at a time: a host is claimed by the deploy, rollback, removal or move that changes it.

The roles put this text before that of survey.py, which claims the host before anything is changed.

A claim is {run, by, what, waits, node, process, begun, living}: the run's name; who runs it and
what it is, for people; the seconds for which it may wait beyond LEASE; the machine and the number
of its process there; seconds since 1970; and the numbers of all processes of
that machine. The file of the lock has the claim that holds it. A run that ends well removes it with
what it does last. One that was killed leaves it there: it is over if a run of the same machine does
not find its process any more, or after LEASE for a run of another one, which cannot look.
"""

import contextlib
import fcntl
import json
import os
import syslog
import time
from typing import Any

# Seconds: longer than a run takes, but for what it waits for.
LEASE = 1800
# Of two that begin at the same moment each may have claimed a host before the other. The one that
# began later gives its hosts back, and the other waits for that so many seconds.
GIVEN_BACK = 5.0


def claimed(path: str, claim: dict[str, Any]) -> dict[str, Any]:
    """Claim this host. Returns the claim of the run that has it instead, or an empty dict."""
    until = time.monotonic() + GIVEN_BACK
    while True:
        try:
            holder = attempt(path, claim)
        except PermissionError:
            return {}  # who may not write there may change nothing else, either
        waits = holder and claim["begun"] < holder["begun"] and time.monotonic() < until
        if not waits:
            return holder
        time.sleep(0.1)


def attempt(path: str, claim: dict[str, Any]) -> dict[str, Any]:
    with open(path, "a+", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(stream.fileno()).st_ino == os.stat(path).st_ino:
                stream.seek(0)
                holder = parsed(stream.read())
                if holder and holder["run"] != claim["run"] and is_at_work(holder, claim):
                    return holder
                stream.truncate(0)
                kept = {key: value for key, value in claim.items() if key != "living"}
                json.dump({**kept, "claimed": time.time()}, stream)
                if holder.get("run") != claim["run"]:
                    syslog.openlog("fedmsg-deploy")
                    syslog.syslog(f"run {claim['run']} by {claim['by']}")
                return {}
    # It was given back before it was locked here.
    return attempt(path, claim)


def parsed(text: str) -> dict[str, Any]:
    """A claim, or an empty dict for what is none: a host that crashed may have half of one."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    wanted = {"run", "by", "node", "process", "begun", "claimed"}
    return found if isinstance(found, dict) and wanted <= set(found) else {}


def is_at_work(holder: dict[str, Any], claim: dict[str, Any]) -> bool:
    if holder["node"] == claim["node"]:
        return holder["process"] in claim["living"]
    # A clock that was put back must not make it last for ever.
    return abs(time.time() - float(holder["claimed"])) < LEASE + float(holder.get("waits", 0))
