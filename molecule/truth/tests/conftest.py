from __future__ import annotations

from collections.abc import Iterator

import bus
import pytest
from testinfra.host import Host

HOSTS = ("relay01", "relay02", "pkgs01")


@pytest.fixture(scope="session")
def hosts() -> dict[str, Host]:
    return {name: bus.host(name) for name in HOSTS}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """With every failure, what the relays said last."""
    report = yield
    if report.failed:
        for name in ("relay01", "relay02"):
            said = bus.host(name).run(f"journalctl --unit {bus.UNIT} --lines=20 --no-pager")
            report.sections.append((name, said.stdout + said.stderr))
    return report
