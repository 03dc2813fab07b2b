from __future__ import annotations

from collections.abc import Iterator

import bus
import pytest
from testinfra.host import Host


@pytest.fixture(scope="session")
def relay() -> Host:
    return bus.host("busgateway01")


@pytest.fixture(scope="session")
def pkgs01() -> Host:
    return bus.host("pkgs01")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """With every failure, what the relay said last."""
    report = yield
    if report.failed:
        said = bus.host("busgateway01").run(
            f"systemctl status --no-pager --lines=0 {bus.UNIT};"
            f" journalctl --unit {bus.UNIT} --lines=30 --no-pager; tail --lines=30 {bus.LOG}"
        )
        report.sections.append(("the relay's unit, journal and log", said.stdout + said.stderr))
    return report
