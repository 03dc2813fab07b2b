"""What a takeover finds on a host and makes of it: the programs that the roles run there."""

from __future__ import annotations

import os
import runpy
import tarfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

FORMER = runpy.run_path(str(ROOT / "files/ansible/former.py"))
SURVEY = runpy.run_path(str(ROOT / "files/ansible/survey.py"))
TEMPLATES = [*(ROOT / "templates").glob("fedmsg-*.j2"), *(ROOT / "templates/fedmsg.d").glob("*.j2")]


@pytest.fixture
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A /etc/fedmsg.d of the test's own, with backups beside it, read by whoever runs the test."""
    names = FORMER["compare"].__globals__
    directory = tmp_path / "fedmsg.d"
    directory.mkdir()
    monkeypatch.setitem(names, "DIRECTORY", str(directory))
    monkeypatch.setitem(names, "LATER", str(tmp_path / "fedmsg-config.py"))
    monkeypatch.setitem(names, "BACKUPS", str(tmp_path / "backups"))
    monkeypatch.setitem(names, "as_service_user", lambda: None)
    return directory


class TestCompare:
    OURS = (
        "config = {'environment': 'prod', 'topic_prefix': 'org.x', 'validate_signatures': False,"
        " 'zmq_linger': 1000, 'relay_inbound': ['tcp://127.0.0.1:1', 'tcp://127.0.0.1:2'],"
        " 'endpoints': {'relay_outbound': ['tcp://127.0.0.1:3']}}\n"
    )
    # As ours, for the keys that ours has.
    SAME = OURS.replace("config = {", "config = {'validate_signatures': False, ")

    def changes(self, etc: Path, former: str, *accepted: str) -> list[str]:
        (etc / "base.py").write_text(former)
        found = FORMER["compare"](
            {"base.py": self.OURS}, ["base.py"], list(accepted), {"zmq_linger": "our_linger"}
        )
        assert found["error"] == ""
        changes: list[str] = found["changes"]
        return changes

    def test_same_keys_and_more_of_its_own(self, etc: Path) -> None:
        more = self.SAME + "config['irc'] = [1]; config['endpoints']['a.b'] = ['tcp://h:1']\n"
        assert self.changes(etc, more) == []

    def test_value_that_would_change_is_named_with_its_variable(self, etc: Path) -> None:
        changed = self.SAME.replace("1000", "2000")
        [line] = self.changes(etc, changed)
        assert line == "zmq_linger is 2000 and would be 1000 (set our_linger)"
        assert self.changes(etc, changed, "zmq_linger") == []

    def test_default_of_the_former_program_would_change(self, etc: Path) -> None:
        [line] = self.changes(etc, self.SAME.replace("'environment': 'prod', ", ""))
        assert line == "environment is 'dev' and would be 'prod'"

    def test_value_that_a_later_file_sets_stays(self, etc: Path) -> None:
        (etc / "zz.py").write_text("config = {'zmq_linger': 2000}")
        assert self.changes(etc, self.SAME.replace("1000", "2000")) == []

    @pytest.mark.parametrize(
        ("inbound", "fits"),
        [
            ("'tcp://127.0.0.1:2'", True),
            ("['tcp://localhost:1']", True),
            ("['tcp://*:1']", True),
            ("['tcp://127.0.0.1:4']", False),
            ("['tcp://127.0.0.7:1']", False),
            ("['tcp://127.0.0.1:1', 'tcp://127.0.0.1:4']", False),
        ],
    )
    def test_addresses(self, etc: Path, inbound: str, fits: bool) -> None:
        former = self.SAME + f"config['relay_inbound'] = {inbound}\n"
        assert (self.changes(etc, former) == []) is fits

    def test_part_of_a_dict_that_would_change(self, etc: Path) -> None:
        (etc / "logging.py").write_text("config = {'logging': {'loggers': {'x': {'level': 1}}}}")
        ours = "config = {'logging': {'loggers': {'x': {'level': 2}, 'y': {}}}}"
        found = FORMER["compare"]({"logging.py": ours}, ["logging.py"], ["environment"], {})
        assert "logging.loggers.x.level is 1 and would be 2" in found["changes"]
        found = FORMER["compare"]({"logging.py": ours}, ["logging.py"], ["logging"], {})
        assert not any("logging" in line for line in found["changes"])

    def test_broken_file_is_named(self, etc: Path) -> None:
        (etc / "base.py").write_text("config = 1 / 0\n")
        found = FORMER["compare"]({"base.py": self.OURS}, ["base.py"], [], {})
        assert found["error"].startswith(f"{etc}/base.py: ZeroDivisionError")

    def test_second_takeover_is_refused(self, etc: Path) -> None:
        (etc / "base.former.py").write_text("config = {}")
        (etc / "base.py").write_text(self.SAME)
        found = FORMER["compare"]({"base.py": self.OURS}, ["base.py"], [], {})
        assert found["error"].startswith("base.former.py in ")


def test_renamed_file_is_loaded_just_before_the_new_one() -> None:
    names = ["base.py", "relay.py", "bodhi.py", "base2.py"]
    assert sorted([*names, FORMER["renamed"]("base.py")])[:2] == ["base.former.py", "base.py"]


def test_what_is_kept_is_kept_once_with_owner_and_mode(
    etc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (etc / "base.py").write_text("config = {}")
    (etc / "base.py").chmod(0o640)
    link = etc / "link"
    link.symlink_to("base.py")
    log = tmp_path / "relay.log"
    log.touch()
    paths = [str(etc / "base.py"), str(link)]
    for already in (False, True):
        FORMER["keep"](paths, [str(log)], True)
        assert bool(capsys.readouterr().out) != already
        assert (tmp_path / "backups").exists() == already
        FORMER["keep"](paths, [str(log)])
        assert bool(capsys.readouterr().out) != already
    [backup] = (tmp_path / "backups").iterdir()
    kept = Path(f"{backup}{etc}/base.py")
    assert (kept.read_text(), kept.stat().st_mode & 0o777) == ("config = {}", 0o640)
    assert os.readlink(f"{backup}{link}") == "base.py"
    lines = (backup / "MANIFEST").read_text().splitlines()[1:]
    assert [line.split()[-1] for line in lines] == [*paths, str(log)]
    assert lines[2].split()[3] == "-"
    assert not Path(f"{backup}{log}").exists()


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_what_is_ours_says_so(template: Path) -> None:
    """Or else the next deploy would take it for somebody else's."""
    if template.name != "fedmsg-example.service.j2":
        assert SURVEY["is_ours"](str(template))


def test_files_of_releases_before_they_said_so_are_ours(tmp_path: Path) -> None:
    with tarfile.open(ROOT / "molecule/upgrade/files/older-release.tar.gz") as release:
        release.extractall(tmp_path, filter="data")
    files = [*tmp_path.glob("templates/fedmsg.d/*.py.j2"), *tmp_path.glob("templates/fedmsg-*.j2"),
             *tmp_path.glob("files/bin/*")]  # fmt: skip
    assert len(files) == 16
    taken = [path.name for path in files if not SURVEY["is_ours"](str(path))]
    # Of examples, which no deploy looks at.
    assert taken == ["fedmsg-example.service.j2"]


def test_commands_are_ours_and_upstreams_are_not(tmp_path: Path) -> None:
    assert SURVEY["is_ours"](str(ROOT / "files/bin/fedmsg-logger"))
    (tmp_path / "fedmsg-relay").write_text(
        "#!/usr/bin/python3\nfrom fedmsg.commands import relay\n"
    )
    assert not SURVEY["is_ours"](str(tmp_path / "fedmsg-relay"))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("/var/log/a.log {\n  daily\n}\n", ["/var/log/a.log"]),
        ('# /no\n/a/*.log /b.log\n{\n size /x\n}\n"/c.log" {}\n', ["/a/*.log", "/b.log", "/c.log"]),
    ],
)
def test_logs_that_a_file_of_logrotate_names(tmp_path: Path, text: str, names: list[str]) -> None:
    (tmp_path / "x").write_text(text)
    assert SURVEY["rotated"](str(tmp_path / "x")) == names
