"""The bus between two incidents: as new, and known to be well."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from tests.support.waiting import WaitedInVainError, wait_for

from . import machines
from .document import FAULTS

# Seconds in which the hosts have to be well after they were made as new.
SETTLING = 60

# What an incident leaves behind that no deploy removes: what the relay and the listener wrote,
# spooled messages, the journals in which an earlier incident would be found again.
_FORGET = """
systemctl stop fedmsg-spool.path fedmsg-spool.timer fedmsg-spool.service
find /var/spool/fedmsg -type f -delete
journalctl --quiet --rotate
rm -f /var/log/journal/*/*@*.journal /run/log/journal/*/*@*.journal
systemctl reset-failed
"""
_FORGET_RELAY = """
systemctl stop fedmsg-relay.socket fedmsg-relay.service
rm -rf /var/lib/fedmsg-relay/* /var/log/fedmsg/fedmsg-relay.log?*
truncate --size=0 /var/log/fedmsg/fedmsg-relay.log
# On a busy machine ports that were closed just now can be in use for a moment longer. The relay
# would bind them by itself, and check.yml would say that the sockets have failed.
for try in 1 2 3 4 5; do systemctl start fedmsg-relay.socket && break; sleep 1; done
systemctl start fedmsg-relay.service || exit
"""
_FORGET_LISTENER = """
truncate --size=0 /var/log/fedmsg-hub.log
systemctl restart fedmsg-hub.service || exit
"""
_WATCH_SPOOL = "systemctl start fedmsg-spool.path fedmsg-spool.timer"

_WELL = """
fedmsg-probe --timeout 3 || exit
fail() { echo "$*"; exit 1; }
systemctl is-active --quiet fedmsg-spool.path fedmsg-spool.timer || fail the spool is not watched
left=$(find /var/spool/fedmsg -type f -name '[0-9]*') || exit
[ -z "$left" ] || fail "spooled: $left"
"""
_WELL_RELAY = """
curl --silent --max-time 3 http://127.0.0.1:4002/health | python3 -c '
import json, sys
health = json.load(sys.stdin)
said = health["problems"] + health["warnings"]
sys.exit("; ".join(said) if said else 0)
'
"""
_WELL_LISTENER = "systemctl is-active fedmsg-hub.service"
_WELL_OTHER = "! systemctl is-active --quiet fedmsg-relay.service || fail a second relay"

# Names the incident whose fault is there, or was when its test ended before its end.
_BROKEN = machines.STATE / "broken"


class Unwell(AssertionError):
    """The hosts are not well although nothing has been broken."""


def renew() -> None:
    """Make hosts that are well be as new. Raises Unwell if they are not well in the end."""
    if _BROKEN.exists():
        fault = _BROKEN.read_text()
        print(f"the test of {fault} did not end well: healing", flush=True)
        machines.renew_control()
        heal(fault)
        deploy()
        over()
    if wrong := _renew():
        # Every fault can be taken back at any time, also one that is not there.
        print(f"not well: {wrong}; healing", flush=True)
        for file in sorted(FAULTS.glob("*.yml")):
            heal(file.stem)
        deploy()
        wrong = _renew()
    if wrong:
        raise Unwell(f"the hosts are not well, although nothing was broken: {wrong}")


def heal(fault: str) -> None:
    """Take a fault back; it need not be there."""
    done = machines.playbook(f"tests/faults/{fault}.yml", "--extra-vars", '{"heal": true}')
    assert done.status == 0, f"heal {fault}: {done.text}"


def inject(fault: str) -> None:
    _BROKEN.write_text(fault)
    done = machines.playbook(f"tests/faults/{fault}.yml")
    assert done.status == 0, f"inject {fault}: {done.text}"


def deploy(hosts: Sequence[str] = machines.NAMES) -> list[str]:
    """Deploy to these hosts as an operator does. What that changed."""
    if not hosts:
        return []
    limit = [] if set(hosts) == set(machines.NAMES) else [f"--limit={','.join(hosts)}"]
    done = machines.playbook("playbooks/deploy.yml", *limit)
    assert done.status == 0, f"deploy: {done.text}"
    return machines.changes(done.text)


def over() -> None:
    """An incident has ended well; its inventory may be another one than before."""
    if machines.inventory_differs():
        machines.renew_control()
        deploy()
    _BROKEN.unlink(missing_ok=True)


def _renew() -> str:
    machines.renew_control()
    print("\n".join(filter(None, _on_all(_forget))), end="", flush=True)
    wrong = ""

    def is_well() -> bool:
        nonlocal wrong
        wrong = "; ".join(filter(None, _on_all(_wrong_with)))
        return not wrong

    with suppress(WaitedInVainError):
        wait_for(is_well, SETTLING, "hosts that are well", pause=0.5)
    return wrong


def _on_all(action: Callable[[str], str]) -> list[str]:
    with ThreadPoolExecutor(len(machines.NAMES)) as pool:
        return list(pool.map(action, machines.NAMES))


def _forget(name: str) -> str:
    script = _FORGET
    if name == machines.RELAY:
        script += _FORGET_RELAY
    elif name == machines.LISTENER:
        script += _FORGET_LISTENER
    done = machines.root(name, script + _WATCH_SPOOL)
    return f"{name}: {done.text}" if done.status else ""


def _wrong_with(name: str) -> str:
    script = _WELL
    if name == machines.RELAY:
        script += _WELL_RELAY
    elif name == machines.LISTENER:
        script += _WELL_LISTENER
    else:
        script += _WELL_OTHER
    done = machines.root(name, script)
    return f"{name}: {done.text.strip()}" if done.status else ""
