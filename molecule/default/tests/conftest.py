from __future__ import annotations

import bus
import pytest
from testinfra.host import Host

HOSTS = ("busgateway01", "app01", "pkgs01")


@pytest.fixture(scope="session", params=HOSTS)
def bus_host(request: pytest.FixtureRequest) -> Host:
    return bus.host(request.param)
