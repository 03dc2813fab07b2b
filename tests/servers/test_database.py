"""SQLAlchemy: rows in a message are written as upstream's encoder writes them."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

from .publishers import Publishers


def test_a_row_has_its_columns_and_what_it_is_related_to(publishers: Publishers) -> None:
    program = publishers.start("python", "database.py")
    assert program.wait_for_end(60) == 0, program.output
    with closing(sqlite3.connect(publishers.bus.journal)) as database:
        [(body,)] = database.execute("SELECT body FROM message")
    assert json.loads(body)["msg"] == {
        "n": 1,
        "by": {"name": "ralph"},
        "package": {
            "id": 7,
            "name": "guake",
            # The package again, within itself: its id.
            "builds": [{"id": 1, "release": "1.f41", "package_id": 7, "package": 7}],
        },
    }
