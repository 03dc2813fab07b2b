"""One deploy at a time on a host: who has it, and when what was left of one is no lock any more."""

from __future__ import annotations

import concurrent.futures
import itertools
import json
import runpy
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

LOCK = runpy.run_path(str(ROOT / "files/ansible/lock.py"))
NUMBERS = itertools.count()


def claim(name: str, node: str = "control01", process: int = 7, **said: Any) -> dict[str, Any]:
    by = f"jane on {node}, process {process}"
    return {
        "run": name, "by": by, "node": node, "process": process, "begun": float(next(NUMBERS)),
        "living": [1, 7, 8], **said,
    }  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "lock")


def claimed(path: str, wanted: dict[str, Any]) -> str:
    """The name of the run that has the host, once this one has asked for it."""
    holder: dict[str, Any] = LOCK["claimed"](path, wanted)
    return str(holder.get("run", wanted["run"]))


def test_the_second_is_told_of_the_first(path: str) -> None:
    first, second = claim("first"), claim("second", process=8)
    assert LOCK["claimed"](path, first) == {}
    assert LOCK["claimed"](path, second)["by"] == "jane on control01, process 7"
    assert claimed(path, first) == "first"  # it asks again where it has changed something
    Path(path).unlink()
    assert claimed(path, second) == "second"


def test_what_a_killed_run_has_left_is_none(path: str) -> None:
    claimed(path, claim("killed", process=9))
    assert claimed(path, claim("next")) == "next"


def test_another_machine_cannot_know_and_waits_for_the_lease(path: str) -> None:
    claimed(path, claim("killed", process=9))
    assert claimed(path, claim("next", node="control02")) == "killed"
    kept = json.loads(Path(path).read_text())
    for seconds in (-LOCK["LEASE"], LOCK["LEASE"] + 60):
        Path(path).write_text(json.dumps({**kept, "claimed": kept["claimed"] + seconds}))
        assert claimed(path, claim(f"next{seconds}", node="control02")) == f"next{seconds}"


def test_one_that_may_wait_has_so_much_longer(path: str) -> None:
    claimed(path, claim("move", process=9, what="move", waits=600.0))
    kept = json.loads(Path(path).read_text())
    assert kept["what"] == "move"
    for seconds, holder in ((540, "move"), (660, "next")):
        claimed_then = kept["claimed"] - LOCK["LEASE"] - seconds
        Path(path).write_text(json.dumps({**kept, "claimed": claimed_then}))
        assert claimed(path, claim("next", node="control02")) == holder


@pytest.mark.parametrize("text", ["", "{", "[]", '{"run": "x"}'])
def test_what_a_crash_has_left_is_none(path: str, text: str) -> None:
    Path(path).write_text(text)
    assert claimed(path, claim("next")) == "next"


def test_many_at_once_have_one_that_goes_on(path: str) -> None:
    claims = [claim(f"run{n}", process=8) for n in range(8)]
    LOCK["attempt"].__globals__["GIVEN_BACK"] = 0.2
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda each: claimed(path, each), claims))
    assert len(found) == 1


def test_the_earlier_of_two_waits_for_what_the_later_one_gives_back(path: str) -> None:
    LOCK["attempt"].__globals__["GIVEN_BACK"] = 60.0
    earlier, later = claim("earlier"), claim("later", process=8)
    claimed(path, later)
    asked = threading.Thread(target=claimed, args=(path, earlier))
    asked.start()
    Path(path).unlink()
    asked.join(30)
    assert json.loads(Path(path).read_text())["run"] == "earlier"
