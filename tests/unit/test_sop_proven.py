"""The SOP's table "last proven" is not older than the incidents. Needs no hosts."""

from __future__ import annotations

from tests.sop import proven
from tests.sop.document import read


def test_every_incident_is_proven_as_it_is_now() -> None:
    stale = proven.stale([incident.id for incident in read().incidents])
    assert not stale, "commit, and run `make sop-prove`:\n" + "\n".join(stale)
