"""Runs on a relay: the text of every message in its journal whose text begins with a name."""

from __future__ import annotations

import os
import re
import sqlite3
import sys

path, name = sys.argv[1:]
if os.path.exists(path):
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as journal:
        for (body,) in journal.execute("SELECT body FROM message WHERE topic LIKE '%.sop.%'"):
            print(*re.findall(rf"{name}-[a-z]+-\d+\.", bytes(body).decode()))
