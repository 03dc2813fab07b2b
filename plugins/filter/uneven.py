"""Which variables that hosts must share are not equal on all of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

DOCUMENTATION = """
name: uneven
author: The fedmsg-relay authors
short_description: Which variables are not equal on all hosts
description:
  - Compares what the inventory says of some variables on each of some hosts.
  - A host that the inventory says nothing of has the default, which is equal to itself alone.
positional: _input
options:
  _input:
    description: The variable C(hostvars).
    type: dict
    required: true
  hosts:
    description: Names of the hosts.
    type: list
    elements: str
    required: true
  names:
    description: Names of the variables.
    type: list
    elements: str
    required: true
"""

EXAMPLES = """
- name: Ensure every host has the same topic prefix
  ansible.builtin.assert:
    that: >-
      hostvars
      | messaging_sig.fedmsg.uneven(groups['fedmsg_bus'], ['fedmsg_base_topic_prefix']) == []
"""

RETURN = """
_value:
  description: Those of O(names) that are not equal, in their order.
  type: list
  elements: str
"""

UNSAID = "(the default)"


def uneven(hostvars: Mapping[str, Any], hosts: Iterable[str], names: Iterable[str]) -> list[str]:
    """Those of the names whose values differ between the hosts."""
    # Each host's variables are put together when it is asked for: once, not once a name.
    said = [hostvars[host] for host in hosts]
    return [name for name in names if len({text_of(each, name) for each in said}) > 1]


def text_of(said: Mapping[str, Any], name: str) -> str:
    return json.dumps(said.get(name, UNSAID), sort_keys=True, default=str)


class FilterModule:
    """Filters of the file."""

    def filters(self) -> dict[str, Any]:
        return {"uneven": uneven}
