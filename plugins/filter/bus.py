"""What follows from the inventory for every host of a bus: its relays, and all addresses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

DOCUMENTATION = """
name: bus
author: The fedmsg-relay authors
short_description: What follows from the inventory for every host of a bus
description:
  - Which addresses the relays of a bus bind, and where the hosts and passive services of the bus
    are.
  - It reads inventory variables of the hosts alone, never their facts, so the answer is the same
    whichever host asks, and under C(--limit).
  - What is of a wrong type is left out, or left as it is, for the roles' checks to refuse with
    words of their own.
positional: _input
options:
  _input:
    description: The variable C(hostvars).
    type: dict
    required: true
  hosts:
    description: Names of the hosts of the bus.
    type: list
    elements: str
    required: true
  relays:
    description: Names of the hosts that run a relay, in the order in which scripts try them.
    type: list
    elements: str
    required: true
  defaults:
    description:
      - What a relay has where the inventory says nothing. The keys are C(inbound_ports),
        C(submit_port), C(outbound_port) and C(http).
    type: dict
    required: true
"""

EXAMPLES = """
- name: Show where listeners connect
  ansible.builtin.debug:
    msg: >-
      {{ (hostvars | messaging_sig.fedmsg.bus(
           hosts=groups['fedmsg_bus'], relays=groups['fedmsg_relay'],
           defaults={'inbound_ports': [2003], 'submit_port': 2004, 'outbound_port': 4001,
                     'http': ['127.0.0.1:4002']})).outbound }}
"""

RETURN = """
_value:
  description: What follows from the inventory.
  type: dict
  contains:
    relays:
      description:
        - For each relay C(host), C(address), C(inbound_ports), C(submit_port), C(outbound_port),
          C(http), and
          C(bus_addresses), which are all that it binds for the bus, the outbound one last.
      type: list
      elements: dict
    inbound:
      description: Addresses of all relays where upstream's library publishes.
      type: list
      elements: str
    submit:
      description: Addresses of all relays where messages are acknowledged.
      type: list
      elements: str
    outbound:
      description: Addresses of all relays where listeners connect.
      type: list
      elements: str
    http:
      description: Where relays serve HTTP, each C(host:port) once.
      type: list
      elements: str
    endpoints:
      description: Name of each passive service to its addresses.
      type: dict
    addresses:
      description: Name of each host of the bus to where its connections come from.
      type: dict
"""


def bus(
    hostvars: Mapping[str, Any],
    hosts: Iterable[str],
    relays: Iterable[str],
    defaults: Mapping[str, Any],
) -> dict[str, Any]:
    """What follows from the inventory; see RETURN. Addresses are like tcp://host:port."""
    found: dict[str, Any] = {"relays": [], "inbound": [], "submit": [], "outbound": [], "http": []}
    for host in relays:
        relay = described(host, hostvars[host], defaults)
        *inbound, submit, outbound = relay["bus_addresses"]
        found["relays"].append(relay)
        found["inbound"] += inbound
        found["submit"].append(submit)
        found["outbound"].append(outbound)
        found["http"] += [each for each in relay["http"] if each not in found["http"]]
    endpoints: dict[str, Any] = {}
    addresses = {}
    for host in hosts:
        said = hostvars[host]
        addresses[host] = address_of(host, said)
        extra = said.get("fedmsg_base_extra_endpoints", {})
        for name, listed in (extra if isinstance(extra, Mapping) else {host: str(extra)}).items():
            endpoints[name] = joined(endpoints[name], listed) if name in endpoints else listed
    return {**found, "endpoints": endpoints, "addresses": addresses}


def described(host: str, said: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """A relay as the inventory has it, with all addresses that it binds for the bus."""
    address = address_of(host, said)
    ports = said.get("fedmsg_base_relay_inbound_ports", defaults["inbound_ports"])
    submit_port = said.get("fedmsg_base_relay_submit_port", defaults["submit_port"])
    outbound_port = said.get("fedmsg_base_relay_outbound_port", defaults["outbound_port"])
    inbound = ports if isinstance(ports, (list, tuple)) else []
    bound = [*inbound, submit_port, outbound_port]
    return {
        "host": host,
        "address": address,
        "inbound_ports": ports,
        "submit_port": submit_port,
        "outbound_port": outbound_port,
        "http": flat(said.get("fedmsg_base_relay_http", defaults["http"])),
        "bus_addresses": [endpoint(address, port) for port in bound],
    }


def address_of(host: str, said: Mapping[str, Any]) -> str:
    return str(said.get("fedmsg_base_address", host))


def endpoint(address: str, port: Any) -> str:
    """A ZeroMQ endpoint. An IPv6 address has brackets in it, as RFC 3986 has it in URLs."""
    bare = ":" in address and not address.startswith("[")
    return f"tcp://[{address}]:{port}" if bare else f"tcp://{address}:{port}"


def flat(value: Any) -> list[Any]:
    """The entries of a list of lists of any depth, or the one value that is none."""
    if not isinstance(value, (list, tuple)):
        return [value]
    return [entry for each in value for entry in flat(each)]


def joined(one: Any, other: Any) -> Any:
    """What two hosts say of the same name: both, where both say lists; else the later."""
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return [each for each in one if each not in other] + list(other)
    return other


class FilterModule:
    """Filters of the file."""

    def filters(self) -> dict[str, Any]:
        return {"bus": bus}
