"""What playbooks/move.yml does on a host beside what the roles do: one request a run.

The roles run it with `python3 -I -c`; a JSON object on standard input asks, by `do` and what the
function of that name below takes, and one on standard output answers: `error` says what is wrong,
or is empty. Whatever waits has a bound, in seconds.
"""

import glob
import json
import os
import pwd
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import Any, Callable, Optional

sys.path.insert(0, "/usr/local/lib/fedmsg-relay")

Answer = dict[str, Any]

USER = "fedmsg"
UNIT = "fedmsg-relay.service"
SPARED = "/run/fedmsg-relay.spared"  # see survey.py
CANARY = "%._heartbeat.fedmsg-probe"

CONNECT = 3.0
POLL = 0.1
ESTABLISHED = "01"


# Can everybody reach the new relay?


def listen(addresses: list[str], seconds: int) -> Answer:
    """Listen where the new relay is going to, in a process of its own that ends by itself."""
    opened = []
    for host, port in map(split, addresses):
        for family, kind, protocol, _, at in found_addresses(host, port):
            listening = socket.socket(family, kind, protocol)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listening.bind(at)
                listening.listen(128)
            except OSError as error:
                return {"error": f"cannot listen on {host}:{port}: {error.strerror}"}
            opened.append(listening)
    pid = os.fork()
    if pid:
        return {"pid": pid}
    os.setsid()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # whatever the parent has made of it
    signal.alarm(seconds)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    while True:  # the kernel accepts; until the alarm
        signal.pause()


def close(pid: int) -> Answer:
    """End what `listen` has started."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as command:
            if b"playbooks/move.yml" in command.read():
                os.kill(pid, signal.SIGKILL)
    except OSError:  # it has ended
        pass
    return {}


def reach(addresses: list[str]) -> Answer:
    """Connect to each. The error names those that cannot be reached, and why."""
    failed = []
    for host, port in map(split, addresses):
        try:
            socket.create_connection((host, port), CONNECT).close()
        except socket.timeout:
            failed.append(f"{host}:{port}: no answer within {CONNECT:g} s, a firewall?")
        except OSError as error:
            failed.append(f"{host}:{port}: {(error.strerror or str(error)).lower()}")
    return {"error": "; ".join(failed)}


def split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition("//")[2].rpartition(":")
    return host.strip("[]"), int(port)


def found_addresses(host: str, port: int) -> list[Any]:
    """Those that libzmq uses: IPv4 or, where there are none, IPv6."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    four = [entry for entry in found if entry[0] == socket.AF_INET]
    return four or found


# What a relay says of itself.


def health(http: str) -> Answer:
    """Whether all is well with the relay here: it runs, and can hand its journal over."""
    said = asked(http)
    if said is None:
        return {"error": f"no answer from http://{http}/health"}
    return {"error": "; ".join(said["problems"])}


def asked(http: str) -> Optional[Answer]:
    try:
        with urllib.request.urlopen(f"http://{http}/health", timeout=5) as answer:
            found: Answer = json.load(answer)
    except urllib.error.HTTPError as error:  # it is not healthy, and says why
        found = json.load(error)
    except (OSError, ValueError):
        return None
    return found


def told(http: str, key: str) -> Any:
    """Of the relay's own words; None while it says nothing."""
    said = asked(http)
    return said["relay"].get(key) if said else None


# Listeners.


def hold() -> Answer:
    signalled = systemctl("kill", "--signal=SIGUSR1", "--kill-who=main", UNIT)
    return {"error": signalled}


def release(http: str) -> Answer:
    """End the hold. If it had ended before that is an error: listeners may have missed some."""
    # It says so once a second.
    over = not wait_for(lambda: told(http, "holds"), 2.5)
    error = systemctl("kill", "--signal=SIGUSR2", "--kill-who=main", UNIT)
    if over:
        error = (
            "the hold was over before all listeners were back: what they missed is in the backlog"
        )
    return {"error": error}


def restart(units: list[str], addresses: list[str], seconds: float) -> Answer:
    """Restart listeners and wait until each is connected to every relay: `connections`, ours.

    That is address to those of our ends of the connections.
    """
    error = systemctl("restart", *units)
    if error:
        return {"error": error}
    found: dict[str, dict[str, list[str]]] = {}

    def connected() -> bool:
        for unit in units:
            found[unit] = {address: [] for address in addresses}
            ours = connections_of(unit)
            for address in addresses:
                host, port = split(address)
                ends = {entry[4][0] for entry in found_addresses(host, port)}
                found[unit][address] = [
                    mine for mine, theirs, at in ours if theirs in ends and at == port
                ]
        return all(ends for unit in found.values() for ends in unit.values())

    if not wait_for(connected, seconds):
        missing = [
            f"{unit} is not connected to {address}"
            for unit, by_address in found.items()
            for address, ends in by_address.items()
            if not ends
        ]
        return {"error": f"{seconds:g} s after their restart: {'; '.join(missing)}"}
    return {
        "connections": {
            address: [end for unit in found.values() for end in unit[address]]
            for address in addresses
        }
    }


def connections_of(unit: str) -> list[tuple[str, str, int]]:
    """Our end, the other end's address, and its port, of every TCP connection of a unit."""
    group = output_of("systemctl", "show", "--property=ControlGroup", "--value", unit).strip()
    inodes = set()
    for path in glob.glob("/proc/[0-9]*/cgroup"):
        try:
            with open(path, encoding="utf-8") as lines:
                groups = [line.rstrip("\n").split(":", 2)[2] for line in lines]
            if not group or not any(g == group or g.startswith(f"{group}/") for g in groups):
                continue
            for entry in os.scandir(f"{os.path.dirname(path)}/fd"):
                inodes.add(os.readlink(entry.path))
        except OSError:  # gone meanwhile
            continue
    return [
        (f"[{mine}]:{port}" if ":" in mine else f"{mine}:{port}", theirs, their_port)
        for mine, port, theirs, their_port, inode in established()
        if f"socket:[{inode}]" in inodes
    ]


def established() -> list[tuple[str, int, str, int, str]]:
    """Both ends of every TCP connection of this host, and its inode."""
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if not os.path.exists(table):
            continue
        with open(table, encoding="ascii") as lines:
            for entry in [line.split() for line in lines][1:]:
                if entry[3] == ESTABLISHED:
                    found.append((*end(entry[1]), *end(entry[2]), entry[9]))
    return found


def end(text: str) -> tuple[str, int]:
    digits, _, port = text.partition(":")
    words = [int(digits[at : at + 8], 16) for at in range(0, len(digits), 8)]
    packed = b"".join(word.to_bytes(4, sys.byteorder) for word in words)
    family = socket.AF_INET if len(words) == 1 else socket.AF_INET6
    address = socket.inet_ntop(family, packed)
    return address.replace("::ffff:", "") if "." in address else address, int(port, 16)


def await_listeners(http: str, connections: list[str], seconds: float) -> Answer:
    """Wait until the relay here knows all these as listeners, which are subscribed then."""
    missing = set(connections)

    def subscribed() -> bool:
        missing.difference_update(told(http, "listener_addresses") or [])
        return not missing

    wait_for(subscribed, seconds)
    names = ", ".join(sorted(missing))
    return {"error": f"not subscribed within {seconds:g} s: {names}" if names else ""}


def listening(http: str) -> Answer:
    """How many listeners the relay here has, by the address that they come from."""
    found = wait_for(lambda: told(http, "listener_addresses") is not None, 5.0)
    if not found:
        return {"error": f"no answer from http://{http}/health"}
    hosts: dict[str, int] = {}
    for address in told(http, "listener_addresses") or []:
        host = address.rpartition(":")[0]
        hosts[host] = hosts.get(host, 0) + 1
    return {"hosts": hosts}


# The old relay falls silent.


def drain(
    journal: str, ports: list[int], hosts: list[str], silence: float, patience: float
) -> Answer:
    """Wait until nothing has come in for `silence` seconds and nobody is connected who could send.

    Not to count: canaries of probes. If that does not come within `patience` seconds the error
    names who is connected, by those of the names `hosts` that lead to them.
    """
    who: set[str] = set()
    quiet = 0.0

    def silent() -> bool:
        nonlocal quiet
        who.clear()
        who.update(theirs for _, port, theirs, _, _ in established() if port in ports)
        quiet = time.time() - last_received(journal)
        return not who and quiet >= silence

    begun = time.monotonic()
    if wait_for(silent, patience):
        return {"quiet": quiet, "waited": time.monotonic() - begun}
    names: dict[str, str] = {}
    for host in hosts:
        try:
            names.update({entry[4][0]: host for entry in found_addresses(host, 0)})
        except OSError:
            continue
    connected = ", ".join(sorted({names.get(address, address) for address in who}))
    return {
        "error": f"not silent within {patience:g} s: connected: {connected or 'nobody now'};"
        f" the last message came {quiet:.0f} s ago"
    }


def last_received(journal: str) -> float:
    db = sqlite3.connect(f"file:{journal}?mode=ro", uri=True, timeout=5)
    try:
        found = db.execute(
            "SELECT received FROM message WHERE topic NOT LIKE ? ORDER BY seq DESC LIMIT 1",
            (CANARY,),
        ).fetchall()
    finally:
        db.close()
    return float(found[0][0]) if found else 0.0


# The journal.


def export(journal: str, directory: str, host: str, after: int, copy: bool) -> Answer:
    """Write what follows seq `after` into a file in `directory`, for the owner of that."""
    from fedmsg_relay.errors import FedmsgRelayError
    from fedmsg_relay.journal import handover

    path = os.path.join(directory, "handed-over.db")
    needed, free = os.path.getsize(journal), shutil.disk_usage(directory).free
    if free < 2 * needed:
        return {"error": f"{directory} has {free >> 20} MiB free, it needs {needed >> 19} MiB"}
    try:
        last = handover.export(journal, path, host, after, copy=copy)
    except FedmsgRelayError as error:
        return {"error": str(error)}
    owner = os.stat(directory)
    os.chown(path, owner.st_uid, owner.st_gid)
    return {"path": path, "last": last}


def accept(file: str, journal: str, name: str) -> Answer:
    """Give a file that was handed over to the relay that runs here."""
    directory = os.path.join(os.path.dirname(journal), "handed-over")
    provide(directory)
    return place(file, os.path.join(directory, name))


def copied(file: str, journal: str) -> Answer:
    """Make a copy of the old relay's journal that of the one that is going to run here."""
    provide(os.path.dirname(journal))
    return {**aside(journal), **place(file, journal)}


def aside(journal: str) -> Answer:
    """Move a journal out of the way. `aside` is where it is then."""
    if not os.path.exists(journal):
        return {"aside": ""}
    moved = f"{journal}.before-{time.strftime('%Y%m%dT%H%M%S')}"
    for suffix in ("-wal", "-shm", ""):
        if os.path.exists(journal + suffix):
            os.rename(journal + suffix, moved + suffix)
    return {"aside": moved}


def provide(directory: str) -> None:
    if not os.path.isdir(directory):
        os.mkdir(directory, 0o700)
        user = pwd.getpwnam(USER)
        os.chown(directory, user.pw_uid, user.pw_gid)


def place(file: str, target: str) -> Answer:
    hidden = os.path.join(os.path.dirname(target), f".{os.path.basename(target)}")
    try:
        shutil.copyfile(file, hidden)
        user = pwd.getpwnam(USER)
        os.chmod(hidden, 0o600)
        os.chown(hidden, user.pw_uid, user.pw_gid)
        with open(hidden, "rb") as written:
            os.fsync(written.fileno())
        os.rename(hidden, target)
    except OSError as error:
        if os.path.exists(hidden):
            os.unlink(hidden)
        return {"error": f"{target}: {error.strerror}"}
    return {}


def taken(journal: str, host: str) -> Answer:
    """`last`: up to which of the other relay's seqs the journal here has it. See handover.py."""
    last = recalled(journal, f"handed-over:{host}")
    copied = recalled(journal, "copied")
    return {"last": last or 0, "copied": copied or 0, "is_there": os.path.exists(journal)}


def await_taken(journal: str, host: str, last: int, name: str, seconds: float) -> Answer:
    """Wait until the relay here has taken in what was given to it as `name`."""
    file = os.path.join(os.path.dirname(journal), "handed-over", name)

    def is_taken() -> bool:
        gone = not os.path.exists(file)
        return gone and (recalled(journal, f"handed-over:{host}") or 0) >= last

    if wait_for(is_taken, seconds):
        return {}
    return {"error": f"not all of {host}'s journal was taken in within {seconds:g} s: see the log"}


def recalled(journal: str, key: str) -> Optional[int]:
    if not os.path.exists(journal):
        return None
    db = sqlite3.connect(f"file:{journal}?mode=ro", uri=True, timeout=5)
    try:
        found = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchall()
    finally:
        db.close()
    return int(found[0][0]) if found else None


def forget(journal: str) -> Answer:
    """Remove a journal that has been handed over."""
    for suffix in ("-wal", "-shm", ""):
        if os.path.exists(journal + suffix):
            os.unlink(journal + suffix)
    return {}


# The rest.


def spare() -> Answer:
    """Note that what was written so far does not concern the relay that runs here: no restart."""
    since = output_of("systemctl", "show", "--timestamp=us+utc",
                      "--property=ExecMainStartTimestamp", "--value", UNIT)  # fmt: skip
    if os.path.exists(SPARED):
        os.unlink(SPARED)
    with open(SPARED, "x", encoding="utf-8") as note:
        note.write(f"{UNIT} {since.strip()}\n")
    return {}


def spooled(spool: str, seconds: float) -> Answer:
    """Wait until the spool is delivered. `left` says what is not, and what never will be."""
    systemctl("start", "--no-block", "fedmsg-spool.service")
    wait_for(lambda: not names(spool), seconds)
    left = [f"{len(names(spool))} messages wait in {spool}"] if names(spool) else []
    failed = [name for name in names(f"{spool}/failed") if not name.endswith(".reason")]
    if failed:
        left.append(f"{len(failed)} that no relay takes are in {spool}/failed")
    return {"left": left}


def names(directory: str) -> list[str]:
    listed = os.listdir(directory) if os.path.isdir(directory) else []
    return [name for name in listed if not name.startswith(".") and name != "failed"]


def systemctl(*arguments: str) -> str:
    """What went wrong, or nothing."""
    done = subprocess.run(["systemctl", *arguments], capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stderr.strip() or f"systemctl {arguments[0]} failed"


def output_of(*command: str) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout


def wait_for(condition: Callable[[], Any], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(POLL)
    return True


ACTIONS: tuple[Callable[..., Answer], ...] = (
    listen, close, reach, health, hold, release, restart, await_listeners, listening, drain, export,
    accept, aside, copied, taken, await_taken, forget, spare, spooled,
)  # fmt: skip


def main() -> None:
    request = json.load(sys.stdin)
    action = {each.__name__: each for each in ACTIONS}[request.pop("do")]
    answer = {"error": "", **action(**request)}
    json.dump(answer, sys.stdout)
    sys.exit(1 if answer["error"] else 0)


if __name__ == "__main__":
    main()
