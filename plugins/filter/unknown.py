"""Variables that are meant for the roles, and that they do not know."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

DOCUMENTATION = """
name: unknown
author: The fedmsg-relay authors
short_description: Variables that are meant for the roles and that they do not know
description:
  - Names that begin with C(fedmsg_base_), C(fedmsg_relay_) or C(fedmsg_monitoring_) are meant for
    the roles, and so are others that begin with C(fedmsg_) and are nearly one of theirs. Playbooks
    and other roles may have names of their own.
positional: _input
options:
  _input:
    description: The variable C(hostvars).
    type: dict
    required: true
  hosts:
    description: Names of the hosts to look at.
    type: list
    elements: str
    required: true
  known:
    description: The names that the roles know.
    type: list
    elements: str
    required: true
  seen:
    description: Names that are set for all hosts, such as those of C(--extra-vars) and of the play.
    type: list
    elements: str
    default: []
"""

EXAMPLES = """
- name: Ensure the variables are spelt right
  ansible.builtin.assert:
    that: >-
      hostvars | messaging_sig.fedmsg.unknown(groups['fedmsg_bus'], ['fedmsg_base_address']) == []
"""

RETURN = """
_value:
  description: >-
    For each unknown variable its C(name), the C(hosts) that have it, none if all do, and the known
    one that is C(nearest), in the order of the names.
  type: list
  elements: dict
"""

OURS = ("fedmsg_base_", "fedmsg_relay_", "fedmsg_bridge_", "fedmsg_monitoring_")
# From 0 to 1; between two of our own names it is less.
NEARLY = 0.85


def unknown(
    hostvars: Mapping[str, Any],
    hosts: Iterable[str],
    known: Iterable[str],
    seen: Iterable[str] = (),
) -> list[dict[str, Any]]:
    """Unknown variables with the hosts that have them and the known one that is nearest."""
    names, every = list(known), list(dict.fromkeys(hosts))
    where: dict[str, list[str]] = {}
    for host in every:
        for name in hostvars[host]:
            if str(name).startswith("fedmsg_") and name not in names:
                where.setdefault(str(name), []).append(host)
    for name in seen:
        if name not in names:
            where.setdefault(str(name), every)
    found = []
    for name, having in sorted(where.items()):
        near = difflib.get_close_matches(name, names, n=1, cutoff=NEARLY)
        if near or name.startswith(OURS):
            nearest = near or difflib.get_close_matches(name, names, n=1, cutoff=0)
            hosts_of = [] if len(having) == len(every) else having
            found.append({"name": name, "hosts": hosts_of, "nearest": nearest[0]})
    return found


class FilterModule:
    """Filters of the file."""

    def filters(self) -> dict[str, Any]:
        return {"unknown": unknown}
