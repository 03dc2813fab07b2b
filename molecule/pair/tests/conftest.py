from __future__ import annotations

from collections.abc import Iterator

import bus
import pair
import pytest
from listener import Listener
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


@pytest.fixture(scope="session")
def pkgs01() -> Host:
    return bus.host("pkgs01")


@pytest.fixture
def listener(app01: Host) -> Iterator[Listener]:
    """A listener that hears both relays."""
    with pair.listening_to_both(app01) as found:
        yield found


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """With every failure, what the relays and the drain said last."""
    report = yield
    if report.failed:
        for name in (*pair.RELAYS, "pkgs01"):
            report.sections.append((name, pair.last_words(name)))
    return report
