from __future__ import annotations

from collections.abc import Iterator

import bus
import pytest
from testinfra.host import Host

RELAYS = ("relay01", "relay02")


@pytest.fixture(scope="session")
def relay01() -> Host:
    return bus.host("relay01")


@pytest.fixture(scope="session")
def relay02() -> Host:
    return bus.host("relay02")


@pytest.fixture(scope="session")
def pkgs01() -> Host:
    return bus.host("pkgs01")


@pytest.fixture(scope="session")
def stranger01() -> Host:
    return bus.host("stranger01")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """With every failure, what the relays said last, and their rules."""
    report = yield
    if report.failed:
        for name in RELAYS:
            said = bus.host(name).run(
                f"tail --lines=30 {bus.LOG}; nft list table inet fedmsg_relay;"
                " nft list table inet filter; firewall-cmd --info-policy=fedmsg-relay"
            )
            report.sections.append((name, said.stdout))
    return report
