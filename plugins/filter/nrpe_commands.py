"""Commands by which Nagios asks a host of the bus how the bus is."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import Any

DOCUMENTATION = """
name: nrpe_commands
author: The fedmsg-relay authors
short_description: NRPE commands of a host of the bus
description:
  - C(check_fedmsg_bus) sends a message through every relay, C(check_fedmsg_relay) through the relay
    of this host, C(check_fedmsg_consumers) asks the hubs of this host.
positional: _input
options:
  _input:
    description: Hubs of this host, as C(fedmsg-probe --monitoring) takes them.
    type: list
    elements: str
    required: true
  relay:
    description: Address of the relay of this host; empty where the host runs none.
    type: str
    required: true
"""

EXAMPLES = """
- name: Show the commands of a host with a hub
  ansible.builtin.debug:
    msg: "{{ ['fedmsg-hub'] | messaging_sig.fedmsg.nrpe_commands(relay='') }}"
"""

RETURN = """
_value:
  description: Name of each command to its command line, quoted for a shell.
  type: dict
"""

PROBE = "/usr/local/bin/fedmsg-probe"


def nrpe_commands(hubs: Iterable[str], relay: str) -> dict[str, str]:
    """Name to command line; see RETURN."""
    words = {"check_fedmsg_bus": [PROBE]}
    if relay:
        words["check_fedmsg_relay"] = [PROBE, "--host", relay]
    if monitored := [word for hub in hubs for word in ("--monitoring", hub)]:
        words["check_fedmsg_consumers"] = [PROBE, "--consumer", "all", *monitored]
    return {name: shlex.join(map(str, command)) for name, command in words.items()}


class FilterModule:
    """Filters of the file."""

    def filters(self) -> dict[str, Any]:
        return {"nrpe_commands": nrpe_commands}
