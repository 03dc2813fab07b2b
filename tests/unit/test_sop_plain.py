"""tests/sop/plain.py: what the drill shows of the SOP, as text."""

from __future__ import annotations

import re

import pytest

from tests.sop.document import SECTIONS, docbook, read
from tests.sop.plain import section

TREE = docbook()
INCIDENTS = {incident.id: incident for incident in read().incidents}


@pytest.mark.parametrize("name", sorted(INCIDENTS))
def test_an_incident_is_there_in_full(name: str) -> None:
    incident, text = INCIDENTS[name], section(TREE, name)
    assert text.startswith(f"{incident.title}\n====")
    assert re.findall(r"^(.*)\n-+$", text, re.M) == list(SECTIONS)
    # Indented, as much as the step that they belong to.
    lines = re.sub(r"^ +", "", text, flags=re.M)
    for block in incident.blocks:
        for command in block.commands:
            words = "\n".join(["$ " + command.text, *command.output])
            assert re.sub(r"^ +", "", words, flags=re.M) in lines
    others = {other.title for other in INCIDENTS.values()} - {incident.title}
    assert not others & set(text.splitlines())


def test_references_are_titles() -> None:
    text = section(TREE, "working")
    assert '"Another program holds a port of the relay"' in text or '"The relay is stopped"' in text
    with pytest.raises(KeyError):
        section(TREE, "no-such-section")
