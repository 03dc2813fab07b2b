"""The alerts of Prometheus, with the address of the SOP that they open."""

from __future__ import annotations

from typing import Any

DOCUMENTATION = """
name: alert_rules
author: The fedmsg-relay authors
short_description: The alerts of Prometheus, with the address of the SOP that they open
description:
  - Each alert opens the SOP by its annotation C(runbook_url). Where the SOP is, the external label
    C(fedmsg_relay_sop) of Prometheus says; this filter sets the address for a Prometheus that has
    no such label.
positional: _input
options:
  _input:
    description: The text of files/prometheus/fedmsg-relay.rules.yml.
    type: str
    required: true
  sop:
    description: Address of the SOP, without a section, quotes, backslashes, braces and blanks.
    type: str
    required: true
"""

EXAMPLES = """
- name: Show the alerts with links to our SOP
  ansible.builtin.debug:
    msg: >-
      {{ lookup('ansible.builtin.file', 'prometheus/fedmsg-relay.rules.yml')
         | messaging_sig.fedmsg.alert_rules('https://docs.example.org/sop.html') }}
"""

RETURN = """
_value:
  description: The text of the rules; all but these addresses is as it was.
  type: str
"""

# Go's template takes the first that is not empty.
LINK = '{{{{ or $externalLabels.fedmsg_relay_sop "{sop}" }}}}#'
DEFAULT = "sop.html"


def alert_rules(text: str, sop: str) -> str:
    """The rules with another address of the SOP. Raises ValueError for rules without links."""
    was = LINK.format(sop=DEFAULT)
    if was not in text:
        raise ValueError(f"no alert of these rules has the link {was}")
    return str(text).replace(was, LINK.format(sop=sop))


class FilterModule:
    """Filters of the file."""

    def filters(self) -> dict[str, Any]:
        return {"alert_rules": alert_rules}
