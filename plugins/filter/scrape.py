"""What Prometheus scrapes: the relays of an inventory, as file-based service discovery has them."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any

DOCUMENTATION = """
name: scrape
author: The fedmsg-relay authors
short_description: Targets of Prometheus, from the relays of an inventory
description:
  - Of each relay the first address of C(fedmsg_base_relay_http) that another host can reach.
    One on all addresses of a host stands for that host's own. Where Prometheus runs on the relay's
    own host, an address that only this host reaches will do.
  - It reads inventory variables of the hosts alone, never their facts.
positional: _input
options:
  _input:
    description: The C(relays) of the filter C(messaging_sig.fedmsg.bus).
    type: list
    elements: dict
    required: true
  hostvars:
    description: The variable C(hostvars).
    type: dict
    required: true
  defaults:
    description:
      - What a host has where the inventory says nothing. The keys are C(environment) and
        C(topic_prefix).
    type: dict
    required: true
  scraper:
    description: Name of the host that runs Prometheus.
    type: str
    required: true
  labels:
    description: Further labels of each target.
    type: dict
    default: {}
"""

EXAMPLES = """
- name: Show what Prometheus is to scrape
  ansible.builtin.debug:
    msg: >-
      {{ (hostvars | messaging_sig.fedmsg.bus(
           hosts=[], relays=groups['fedmsg_relay'],
           defaults={'inbound_ports': [2003], 'submit_port': 2004, 'outbound_port': 4001,
                     'http': ['127.0.0.1:4002']})).relays
         | messaging_sig.fedmsg.scrape(
             hostvars, defaults={'environment': 'dev', 'topic_prefix': 'org.fedoraproject'},
             scraper=inventory_hostname) }}
"""

RETURN = """
_value:
  description: What to scrape, and what cannot be scraped from there.
  type: dict
  contains:
    targets:
      description:
        - For each relay C(targets), a list of one host:port, and C(labels), which are C(relay), its
          name in the inventory, C(environment), C(topic_prefix) and the further ones.
      type: list
      elements: dict
    unreachable:
      description: Names of the relays without an address that Prometheus can reach.
      type: list
      elements: str
"""

# What a process binds that listens on all addresses of its host.
EVERYWHERE = ("*", "0.0.0.0", "[::]")


def scrape(
    relays: Iterable[Mapping[str, Any]],
    hostvars: Mapping[str, Any],
    defaults: Mapping[str, Any],
    scraper: str,
    labels: Mapping[str, Any] | None = None,
) -> dict[str, list[Any]]:
    """Targets by relay, and the relays that cannot be reached; see RETURN."""
    targets: list[dict[str, Any]] = []
    unreachable = []
    for relay in relays:
        host, said = str(relay["host"]), hostvars[relay["host"]]
        address = reachable(relay, host == scraper)
        if not address:
            unreachable.append(host)
            continue
        # Text that Ansible has marked as its own is not what YAML is made of.
        of_relay = {
            "relay": host,
            "environment": said.get("fedmsg_base_environment", defaults["environment"]),
            "topic_prefix": said.get("fedmsg_base_topic_prefix", defaults["topic_prefix"]),
            **(labels or {}),
        }
        written = {str(name): str(value) for name, value in of_relay.items()}
        targets.append({"targets": [address], "labels": written})
    return {"targets": targets, "unreachable": unreachable}


def reachable(relay: Mapping[str, Any], is_here: bool) -> str:
    """host:port of a relay's HTTP for the host that scrapes it, or ""."""
    own = ""
    for each in relay["http"]:
        host, _, port = str(each).rpartition(":")
        if host in EVERYWHERE:
            return f"{bracketed(str(relay['address']))}:{port}"
        if not is_loopback(host):
            return f"{host}:{port}"
        own = own or f"{host}:{port}"
    return own if is_here else ""


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0]).is_loopback
    except ValueError:
        return host == "localhost"


def bracketed(address: str) -> str:
    """An IPv6 address in brackets, as it stands before a port."""
    return f"[{address}]" if ":" in address and not address.startswith("[") else address


class FilterModule:
    """Filters of the file."""

    def filters(self) -> dict[str, Any]:
        return {"scrape": scrape}
