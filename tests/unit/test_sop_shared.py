"""Two sets of hosts share the tests of the SOP: each runs once, those of one file together."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.conftest import ROOT
from tests.sop.shared import Shared
from tests.support.programs import Child

# As test_drill.py, whose tests build on each other.
TOGETHER = """
import time
import pytest

@pytest.fixture(scope="module")
def seen():
    return []

def test_first(seen):
    time.sleep(0.2)
    seen.append(1)

def test_second(seen):
    assert seen == [1]
"""
# In place of what needs hosts.
# Neither goes on from its first before the other has begun: or one could be done with all of them.
WITHOUT_HOSTS = """
import os
import time
from pathlib import Path
from tests.sop import plugin

def check(self):
    begun = [Path(__file__).with_name(f"begun-{name}") for name in "12"]
    begun[int(os.environ["SOP_SET"]) - 1].touch()
    while not all(path.exists() for path in begun):
        time.sleep(0.01)

plugin.SectionTest.runtest = check
plugin.IncidentTest.runtest = check
"""


def test_a_test_is_taken_once(tmp_path: Path) -> None:
    one, other = (Shared(tmp_path / "taken", name) for name in "12")
    assert one.take("relay-down")
    assert not other.take("relay-down")
    assert one.take("relay-down")
    assert other.take("flood")
    assert (one.is_backward, other.is_backward) == (False, True)


def test_only_one_of_many_gets_a_test(tmp_path: Path) -> None:
    sets = [Shared(tmp_path, str(number)) for number in range(20)]
    with ThreadPoolExecutor(len(sets)) as pool:
        assert sum(pool.map(lambda each: each.take("flood"), sets)) == 1


def started(directory: Path, name: str) -> Child:
    plugins = ["-p", "tests.sop.plugin", "-p", "without_hosts", "-p", "no:cacheprovider"]
    options = [
        "--sop-shared",
        str(directory / "taken"),
        "--junitxml",
        str(directory / f"{name}.xml"),
    ]
    pages = [str(directory / "test_together.py"), "docs/sop.adoc"]
    return Child(
        [sys.executable, "-m", "pytest", *plugins, *options, *pages],
        cwd=ROOT,
        # Without the options of the run that this test is part of, as its report's name.
        env={
            **os.environ,
            "SOP_SET": name,
            "PYTHONPATH": f"{directory}:{ROOT}",
            "PYTEST_ADDOPTS": "",
        },
        stdout=subprocess.DEVNULL,
    )


def test_two_sets_run_every_test_once_between_them(tmp_path: Path) -> None:
    (tmp_path / "test_together.py").write_text(TOGETHER)
    (tmp_path / "without_hosts.py").write_text(WITHOUT_HOSTS)
    with started(tmp_path, "1") as one, started(tmp_path, "2") as other:
        assert (one.wait(100), other.wait(100)) == (0, 0)
    ran = [
        {case.attrib["name"] for case in ET.parse(tmp_path / f"{name}.xml").iter("testcase")}
        for name in ("1", "2")
    ]
    assert ran[0] & ran[1] == set()
    assert {"relay-down", "check-deploy", "test_first", "test_second"} <= ran[0] | ran[1]
    assert ran[0]
    assert ran[1]
    assert any({"test_first", "test_second"} <= names for names in ran)
    incidents = {path.stem for path in (ROOT / "docs" / "incidents").glob("*.adoc")}
    assert incidents <= ran[0] | ran[1]
