"""What playbooks/check.yml found: of every host its problems, and one line to read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

DOCUMENTATION = """
name: check_report
author: The fedmsg-relay authors
short_description: What the playbook check found, in one line a host
description:
  - Judges what the tasks of the playbook C(check) have registered for each host, and says so to a
    person.
positional: _input
options:
  _input:
    description: The variable C(hostvars).
    type: dict
    required: true
  hosts:
    description: Names of the hosts that were looked at.
    type: list
    elements: str
    required: true
  relays:
    description: Names of those hosts that run a relay.
    type: list
    elements: str
    required: true
  spool:
    description: Path of the directory in which messages wait.
    type: str
    required: true
"""

EXAMPLES = """
- name: Ensure every host is well
  ansible.builtin.assert:
    that: item.problems == []
  loop: >-
    {{ hostvars | messaging_sig.fedmsg.check_report(
         ansible_play_hosts_all, groups['fedmsg_relay'], fedmsg_base_publisher_spool) }}
"""

RETURN = """
_value:
  description: For each host its C(problems), a list, and its C(line), a text.
  type: list
  elements: dict
"""

# Seconds that a message may wait in the spool before it is a problem.
WAITS_LONG = 600
RELAY_UNITS = ("fedmsg-relay.service", "fedmsg-relay.socket")


def check_report(
    hostvars: Mapping[str, Any], hosts: Iterable[str], relays: Iterable[str], spool: str
) -> list[dict[str, Any]]:
    """For each host {problems, line}."""
    known = list(relays)
    return [judged(host, hostvars[host], known, spool) for host in hosts]


def judged(host: str, said: Mapping[str, Any], relays: list[str], spool: str) -> dict[str, Any]:
    probe = said.get("__fedmsg_base_check_probe") or {}
    problems: list[str] = []
    good: list[str] = []
    if probe.get("unreachable", not probe):
        problems.append(f"cannot be reached: {probe.get('msg', 'no answer')}".strip())
    else:
        survey = said.get("__fedmsg_base_check_survey") or {}
        if survey.get("rc", 1) != 0:
            problems.append(f"cannot be looked at: {survey.get('stderr', survey.get('msg', ''))}")
        else:
            seen = json.loads(survey["stdout"])
            moved(seen["move"], relays, problems)
            problems += [f"{path} is not as it was deployed" for path in seen["files_differing"]]
            units(seen["units"], host, relays, problems, good)
            ports(seen["listeners"], problems, good)
            health(said.get("__fedmsg_base_check_health") or {}, problems, good)
            spooled(seen["spool"], spool, problems, good)
        probed(probe, problems, good)
    verdict = f"WRONG: {'; '.join(problems)}" if problems else f"ok: {', '.join(good)}"
    return {"problems": problems, "line": f"{host}: {verdict}"}


def moved(move: Mapping[str, str], relays: list[str], problems: list[str]) -> None:
    """A move of the relay that the inventory does not know of."""
    if move and (move["step"] != "moved" or move["from"] in relays):
        how = "has moved" if move["step"] == "moved" else "is on its way"
        way = f"from {move['from']} to {move['to']}"
        problems.append(f"the relay {how} {way}, and the inventory is of before")


def units(
    found: Mapping[str, Mapping[str, Any]],
    host: str,
    relays: list[str],
    problems: list[str],
    good: list[str],
) -> None:
    stray = []
    for name, unit in found.items():
        state = unit["state"]
        if name in RELAY_UNITS and host not in relays:
            if state not in ("inactive", "missing"):
                stray.append(f"{name} is {state}")
            elif unit["enabled"]:
                stray.append(f"{name} starts at boot")
        elif name == "logrotate.service":
            # It runs once a day and ends. What it failed at may be our log, or stand before it.
            if state == "failed":
                problems.append(f"logs are not rotated: {name} has failed")
        elif state != "active":
            problems.append(f"{name} is {state}")
        elif name == "fedmsg-relay.service":
            good.append("unit active")
    if stray:
        problems.append(f"{' and '.join(stray)}, and this host is no relay by the inventory")


def ports(
    listeners: Mapping[str, list[dict[str, str]]], problems: list[str], good: list[str]
) -> None:
    """Who holds the relay's addresses: the relay, nobody, or somebody else."""
    for address, holders in listeners.items():
        text = address[len("tcp://") :] if address.startswith("tcp://") else address
        names = [holder["process"] for holder in holders]
        if "fedmsg-relay" in names or "fedmsg-backlog" in names:
            good.append(text)
        elif not names:
            problems.append(f"nobody listens on {text}")
        elif "fedmsg-relay.socket" not in names:
            problems.append(holders[0]["said"])


def health(found: Mapping[str, Any], problems: list[str], good: list[str]) -> None:
    """What the relay says of itself, where it was asked."""
    if found.get("status", 0) == 200:
        good.append("healthy")
    elif "status" in found:
        answer = found.get("json")
        said = answer.get("problems") if isinstance(answer, Mapping) else None
        if said is None:
            said = [found.get("content") or found.get("msg", "")]
        problems.append(f"not healthy: {printable('; '.join(map(str, said)))}")


def spooled(found: Mapping[str, int], spool: str, problems: list[str], good: list[str]) -> None:
    if found["failed"]:
        problems.append(f"{found['failed']} messages that no relay takes are in {spool}/failed")
    if found["oldest"] > WAITS_LONG:
        minutes = found["oldest"] // 60
        problems.append(
            f"{found['waiting']} spooled messages wait, the oldest for {minutes} minutes"
        )
    elif found["waiting"]:
        good.append(f"{found['waiting']} spooled messages wait")


def probed(probe: Mapping[str, Any], problems: list[str], good: list[str]) -> None:
    """Whether a message of this host has passed through every relay."""
    said = printable(str(probe.get("stdout", "")).strip())
    if probe.get("rc", 127) in (0, 1):
        good.append(said)
    else:
        problems.append(said or str(probe.get("stderr") or probe.get("msg", "")).strip())


def printable(text: str) -> str:
    """What a host says, on one line that a terminal only prints: fedmsg_relay.escapes.escaped."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


class FilterModule:
    """Filters of the file."""

    def filters(self) -> dict[str, Any]:
        return {"check_report": check_report}
