from __future__ import annotations

from collections.abc import Iterator

import bus
import pytest

HOSTS = ("app01", "busgateway01", "pkgs01")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """With every failure, what the relays said last."""
    report = yield
    if report.failed:
        for name in HOSTS[:2]:
            said = bus.host(name).run(
                f"journalctl --unit {bus.UNIT} --lines=10 --no-pager; tail --lines=30 {bus.LOG}"
            )
            report.sections.append((name, said.stdout + said.stderr))
    return report
