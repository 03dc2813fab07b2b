from __future__ import annotations

from collections.abc import Iterator

import bus
import pair
import pytest
from testinfra.host import Host


@pytest.fixture(scope="session")
def relay01() -> Host:
    return bus.host("relay01")


@pytest.fixture(scope="session")
def relay02() -> Host:
    return bus.host("relay02")


@pytest.fixture(scope="session")
def app01() -> Host:
    return bus.host("app01")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """With every failure, what the relays said last."""
    report = yield
    if report.failed:
        for name in pair.RELAYS:
            report.sections.append((name, pair.last_words(name)))
    return report
