from __future__ import annotations

from collections.abc import Iterator

import pair
import pytest
from listener import Listener
from testinfra.host import Host


@pytest.fixture
def listener(app01: Host) -> Iterator[Listener]:
    """A listener that hears both relays."""
    with pair.listening_to_both(app01) as found:
        yield found
