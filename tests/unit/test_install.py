"""Files of a release are written as the roles do it on a host, each by renaming."""

from __future__ import annotations

import json
import os
import runpy
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

FILES = ROOT / "files/ansible"
# As the roles put it together.
PROGRAM = "".join((FILES / name).read_text() for name in ("place.py", "switch.py", "install.py"))
PLACE = runpy.run_path(str(FILES / "place.py"))


def test_all_files_in_one_run(tmp_path: Path) -> None:
    script, linked = tmp_path / "bin" / "tool", tmp_path / "tool"
    linked.write_text("what was here before")
    files = {
        str(script): {"content": "#!/bin/sh\n# é\n", "mode": "0751"},
        str(linked): {"link": "bin/tool"},
    }
    done = subprocess.run([sys.executable, "-c", PROGRAM], input=json.dumps(files), text=True,
                          capture_output=True, timeout=60, check=True)  # fmt: skip
    assert done.stdout.splitlines() == [str(script), str(linked)]
    assert script.read_text(encoding="utf-8") == "#!/bin/sh\n# é\n"
    assert stat.S_IMODE(script.stat().st_mode) == 0o751
    assert os.readlink(linked) == "bin/tool"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["bin", "tool", "tool"]


def test_what_is_of_no_release_goes(tmp_path: Path) -> None:
    gone, caches = tmp_path / "gone.py", tmp_path / "__pycache__"
    caches.mkdir()
    for path in (gone, caches / "gone.cpython-311.pyc", caches / "gone_not.cpython-311.pyc"):
        path.touch()
    files = {str(gone): None, str(tmp_path / "gone already"): None}
    subprocess.run([sys.executable, "-c", PROGRAM], input=json.dumps(files), text=True,
                   capture_output=True, timeout=60, check=True)  # fmt: skip
    assert [path.name for path in tmp_path.rglob("*.py*")] == ["gone_not.cpython-311.pyc"]


def test_what_an_interrupted_run_has_left_is_no_hindrance(tmp_path: Path) -> None:
    path = tmp_path / "file"
    (tmp_path / "file.new").symlink_to(tmp_path / "somewhere else")
    PLACE["place"](str(path), {"content": "x", "mode": 0o600})
    assert path.read_text() == "x"
    assert os.listdir(tmp_path) == ["file"]


def test_whoever_has_it_open_keeps_what_he_opened(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    with path.open() as opened:
        PLACE["place"](str(path), {"content": "after", "mode": 0o600})
        assert (opened.read(), path.read_text()) == ("before", "after")


def test_bytes_that_are_no_text_stay_what_they_are(tmp_path: Path) -> None:
    content = b"\xff\xfe".decode("utf-8", "surrogateescape")
    owner = [os.getuid(), os.getgid()]
    PLACE["place"](str(tmp_path / "file"), {"content": content, "mode": 0o600, "owner": owner})
    assert (tmp_path / "file").read_bytes() == b"\xff\xfe"


def test_local_packages_are_those_of_the_systems_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PLACE["located"].__globals__, "LOCAL_PACKAGES", "/usr/local/lib/python")
    assert PLACE["located"]("SITE/relay.pth") == "/usr/local/lib/python/relay.pth"
    assert PLACE["located"]("/opt/SITE/file") == "/opt/SITE/file"
