"""What the tests of every scenario have: its hosts, and with a failure what these said last.

A plugin of pytest, which Molecule's verifier loads by its name.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import bus
import pytest
from testinfra.host import Host
from testinfra.utils.ansible_runner import AnsibleRunner

SAID = f"""
systemctl status --no-pager --lines=0 'fedmsg-*'
journalctl --unit 'fedmsg-*' --lines=30 --no-pager --output=short-precise
[ ! -e {bus.LOG} ] || tail --lines=30 {bus.LOG}
if command -v nft > /dev/null; then nft list ruleset; fi
if command -v firewall-cmd > /dev/null; then firewall-cmd --info-policy=fedmsg-relay; fi
"""


@functools.cache
def names() -> list[str]:
    found: list[str] = AnsibleRunner(bus.INVENTORY).get_hosts()
    return found


@pytest.fixture(scope="session")
def hosts() -> dict[str, Host]:
    """All hosts of the scenario, by name."""
    return {name: bus.host(name) for name in names()}


def host(name: str) -> Any:
    """A fixture: that host."""

    def found(hosts: dict[str, Host]) -> Host:
        return hosts[name]

    return pytest.fixture(scope="session")(found)


relay = host("busgateway01")  # where there is one relay
relay01 = host("relay01")
relay02 = host("relay02")
app01 = host("app01")
pkgs01 = host("pkgs01")
stranger01 = host("stranger01")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.failed:
        for name in names():
            said = bus.host(name).run(SAID)
            report.sections.append((name, said.stdout + said.stderr))
    return report
