"""What the tests of every scenario have: its hosts, and with a failure what these said last.

A plugin of pytest, which Molecule's verifier loads by its name.
"""

from __future__ import annotations

from collections.abc import Iterator

import bus
import pytest
from testinfra.host import Host
from testinfra.utils.ansible_runner import AnsibleRunner

SAID = f"""
systemctl status --no-pager --lines=0 'fedmsg-*'
journalctl --unit 'fedmsg-*' --lines=30 --no-pager --output=short-precise
[ ! -e {bus.LOG} ] || tail --lines=30 {bus.LOG}
"""


@pytest.fixture(scope="session")
def hosts() -> dict[str, Host]:
    """All hosts of the scenario, by name."""
    return {name: bus.host(name) for name in AnsibleRunner(bus.INVENTORY).get_hosts()}


@pytest.fixture(scope="session")
def relay(hosts: dict[str, Host]) -> Host:
    """The relay's host, where there is one relay."""
    return hosts["busgateway01"]


@pytest.fixture(scope="session")
def relay01(hosts: dict[str, Host]) -> Host:
    return hosts["relay01"]


@pytest.fixture(scope="session")
def relay02(hosts: dict[str, Host]) -> Host:
    return hosts["relay02"]


@pytest.fixture(scope="session")
def app01(hosts: dict[str, Host]) -> Host:
    return hosts["app01"]


@pytest.fixture(scope="session")
def pkgs01(hosts: dict[str, Host]) -> Host:
    return hosts["pkgs01"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.failed:
        for name in AnsibleRunner(bus.INVENTORY).get_hosts():
            said = bus.host(name).run(SAID)
            report.sections.append((name, said.stdout + said.stderr))
    return report
