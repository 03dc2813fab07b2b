"""A host that cannot be reached, beside one that must refuse: nothing is changed on any.

molecule/collection has the same with hosts, and with each ansible-core that is supported. Here all
hosts but one are this machine, and what is run is check mode.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.roles.test_refusals import DEPLOY, HERE, NOWHERE, groups_of, run

pytestmark = pytest.mark.timeout(300)

HOSTS = ["relay", "app01", "app02", "app03", "app04"]


def test_the_refusal_of_one_ends_the_run_of_all_although_another_is_down(tmp_path: Path) -> None:
    variables: dict[str, dict[str, Any]] = {
        "fedmsg_bus": HERE,
        "relay": {"fedmsg_base_address": "198.51.100.7"},
        "app04": {"ansible_connection": "ssh", **NOWHERE},
    }
    groups = {"fedmsg_bus": HOSTS, "fedmsg_relay": ["relay"]}
    found = run(tmp_path, groups_of(groups, variables), DEPLOY, "--check")
    assert found.returncode != 0, found.output
    assert "198.51.100.7 on relay, which is no address of this host" in found.failures
    assert "Deploy the relays" not in found.output
    assert not [line for line in found.lines if line["changed"]]
