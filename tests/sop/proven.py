"""The table "last proven" of the SOP, docs/include/last-proven.adoc: a run that passes writes it.

    python -m tests.sop.proven      fails if the table is older than an incident, and says which

Each row belongs to the text of its incident and of its fault as they were then: their checksum is
in a comment above the table. Of the times of files or commits a fresh clone knows nothing.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .document import FAULTS, INCIDENTS, ROOT, read
from .trial import Outcome

TABLE = ROOT / "docs" / "include" / "last-proven.adoc"
_HEAD = """\
// Written by `make sop-prove` from the incidents that pass. Do not edit.
"""
_TABLE_HEAD = """
[cols="3,2,2,2,1,2",options="header"]
|===
|Incident |Commit |Date |OS of the relay's host |Seconds to recover |Messages lost
"""


@dataclass(frozen=True)
class Row:
    checksum: str
    cells: str


def checksum(incident: str) -> str:
    """Of the incident's text and its fault: what a row has been proven of."""
    content = b"\0".join(
        path.read_bytes() for path in (INCIDENTS / f"{incident}.adoc", FAULTS / f"{incident}.yml")
    )
    return hashlib.sha256(content).hexdigest()[:16]


def rows(table: Path = TABLE) -> dict[str, Row]:
    """What the table says, by incident; nothing if there is no table yet."""
    if not table.exists():
        return {}
    text = table.read_text()
    checksums = dict(re.findall(r"^// (\S+) ([0-9a-f]{16})$", text, re.M))
    cells = dict(re.findall(r"^\|<<(\S+)>> (\|.*)$", text, re.M))
    return {id_: Row(checksums[id_], cells[id_]) for id_ in checksums if id_ in cells}


def stale(incidents: list[str], table: Path = TABLE) -> list[str]:
    """What is wrong with the table, a line each."""
    known = rows(table)
    found = [f"{id_}: never proven" for id_ in incidents if id_ not in known]
    found += [
        f"{id_}: its text or its fault has changed since it was proven"
        for id_ in incidents
        if id_ in known and known[id_].checksum != checksum(id_)
    ]
    return found + [f"{id_}: no longer an incident" for id_ in known if id_ not in incidents]


def uncommitted() -> str:
    """Files that are not as in the last commit, apart from the table."""
    lines = _git("status", "--porcelain").splitlines()
    return ", ".join(line[3:] for line in lines if line[3:] != str(TABLE.relative_to(ROOT)))


def write(outcomes: Mapping[str, Outcome], incidents: list[str], table: Path = TABLE) -> None:
    """Renew the rows of what has passed, in the order of the page, and drop what is no incident."""
    known = rows(table)
    commit, date = _git("rev-parse", "--short=12", "HEAD").strip(), time.strftime("%Y-%m-%d")
    for id_, outcome in outcomes.items():
        cells = f"|`{commit}` |{date} |{outcome.relay_os} |{outcome.seconds:.0f} |{_lost(outcome)}"
        known[id_] = Row(checksum(id_), cells)
    kept = [id_ for id_ in incidents if id_ in known]
    text = _HEAD + "".join(f"// {id_} {known[id_].checksum}\n" for id_ in kept)
    if kept:
        text += (
            _TABLE_HEAD + "".join(f"\n|<<{id_}>> {known[id_].cells}" for id_ in kept) + "\n|===\n"
        )
    else:
        text += "\nNothing yet.\n"
    table.write_text(text)


def _lost(outcome: Outcome) -> str:
    lost, sent = outcome.cost.lost, outcome.cost.sent
    return f"{lost['acked']} of {sent['acked']}, legacy {lost['legacy']} of {sent['legacy']}"


def _git(*words: str) -> str:
    return subprocess.run(
        ["git", *words], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout


def main() -> int:
    wrong = stale([incident.id for incident in read().incidents])
    for line in wrong:
        print(f"last-proven.adoc: {line}", file=sys.stderr)
    if wrong:
        print("Commit what there is, and run `make sop-prove`.", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
