from __future__ import annotations

from collections.abc import Iterator

import bus
import pytest
from testinfra.host import Host

RULES = """
nft list table inet fedmsg_relay
nft list table inet filter
firewall-cmd --info-policy=fedmsg-relay
"""


@pytest.fixture(scope="session")
def stranger01(hosts: dict[str, Host]) -> Host:
    return hosts["stranger01"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """With every failure, the rules of the relays' hosts."""
    report = yield
    if report.failed:
        for name in ("relay01", "relay02"):
            report.sections.append((f"rules of {name}", bus.host(name).run(RULES).stdout))
    return report
