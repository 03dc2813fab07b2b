"""What the roles learn of a host: the program that they run there."""

from __future__ import annotations

import grp
import runpy
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

COMMANDS = sorted((ROOT / "files/bin").iterdir())
SURVEY = runpy.run_path(str(ROOT / "files/ansible/survey.py"))


class TestMembership:
    """By the tables of this machine, whose root is in no group but its own."""

    def members(self, users: list[str], group: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
        def known(name: str) -> Any:
            if group is None:
                raise KeyError(name)
            return grp.struct_group(("fedmsg", "x", *group))

        monkeypatch.setattr(grp, "getgrnam", known)
        return SURVEY["membership"](users)

    def test_users_by_what_is_to_be_done_for_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        found = self.members(["root", "daemon", "nobody-here"], (990, ["daemon"]), monkeypatch)
        assert found == {"missing": ["nobody-here"], "outside": ["root"]}

    def test_a_user_whose_own_group_it_is_needs_nothing(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert self.members(["root"], (0, []), monkeypatch) == {"missing": [], "outside": []}

    def test_before_the_first_deploy_there_is_no_group(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert self.members(["root"], None, monkeypatch)["outside"] == ["root"]


class TestWhoMayConnect:
    def allowed(self, networks: list[str], **hosts: str) -> dict[str, Any]:
        found: dict[str, Any] = SURVEY["allowed"](networks, hosts, [])
        return found

    def test_hosts_in_no_network(self) -> None:
        found = self.allowed(["192.0.2.0/24"], a="192.0.2.7", b="198.51.100.7", c="2001:db8::7")
        assert found["outside"] == {"b": "198.51.100.7", "c": "2001:db8::7"}

    def test_this_machine_is_never_outside(self) -> None:
        assert self.allowed(["192.0.2.0/24"], a="127.0.0.1")["outside"] == {}

    def test_a_host_that_cannot_be_looked_up_is_given_the_benefit(self) -> None:
        assert self.allowed(["192.0.2.0/24"], a="no-such-host.invalid")["outside"] == {}

    def test_nobody_is_outside_where_everybody_may(self) -> None:
        assert self.allowed([], a="192.0.2.7") == {"wrong": {}, "outside": {}, "policed": {}}

    def test_what_is_no_network(self) -> None:
        wrong = self.allowed(["10.0.0.1/8", "all", "10.0.0.0/8"])["wrong"]
        assert list(wrong) == ["10.0.0.1/8", "all"]
        assert "host bits set" in wrong["10.0.0.1/8"]

    def test_those_who_may_publish_are_another_list(self) -> None:
        found = SURVEY["allowed"](["10.0.0.0/8"], {}, ["10.0.0.1/8", "192.0.2.7"])
        assert found["wrong"] == {} and list(found["policed"]) == ["10.0.0.1/8"]


class TestSpool:
    @pytest.fixture
    def spool(self, tmp_path: Path) -> Path:
        (tmp_path / "failed").mkdir()
        return tmp_path

    def spooled(self, spool: Path) -> dict[str, Any]:
        found: dict[str, Any] = SURVEY["spooled"](str(spool))
        return found

    def test_empty(self, spool: Path) -> None:
        assert self.spooled(spool) == {"waiting": 0, "failed": 0, "oldest": 0}
        assert self.spooled(spool / "none")["waiting"] == 0

    def test_since_when_the_oldest_waits(
        self, spool: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (spool / "0000").write_text("first, by its name")
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 3600)
        found = self.spooled(spool)
        assert found["waiting"] == 1
        assert 3590 <= found["oldest"] <= 3600

    def test_failed(self, spool: Path) -> None:
        for name in ("1", "1.reason", ".lock"):
            (spool / "failed" / name).touch()
        assert self.spooled(spool) == {"waiting": 0, "failed": 1, "oldest": 0}


class TestSystem:
    """What its packages are called follows from this."""

    @pytest.mark.parametrize(
        ("os_release", "family", "name", "version"),
        [
            ('ID=debian\nVERSION_ID="13"\n', "Debian", "debian", "13"),
            ("ID=debian\n", "Debian", "debian", ""),  # testing has no number
            ('ID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\n', "Debian", "ubuntu", "24.04"),
            ("ID=fedora\nVERSION_ID=42\n", "RedHat", "fedora", "42"),
            ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', "RedHat", "rocky", ""),
            ("ID=alpine\n", "alpine", "alpine", ""),
            ("", "linux", "linux", ""),
        ],
    )
    def test_family_and_version(
        self,
        os_release: str,
        family: str,
        name: str,
        version: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        system = SURVEY["operating_system"]
        lines = os_release.splitlines(keepends=True)
        monkeypatch.setitem(system.__globals__, "lines_of", lambda path: lines)
        assert system() == {"family": family, "id": name, "version": version}


class TestStale:
    """What a release before has left where only one is to be."""

    COMMAND = (ROOT / "files/bin/fedmsg-tail").read_text()

    def stale(self, directory: Path, *names: str) -> list[str]:
        package = directory / "fedmsg_relay"
        files = {str(package / "wire.py"): {"mode": "0644", "content": ""}}
        found = SURVEY["stale"](str(package), str(directory), list(names), files)
        return [str(Path(path).relative_to(directory)) for path in found]

    @pytest.fixture
    def library(self, tmp_path: Path) -> Path:
        """As a host has it: the package is a link."""
        (tmp_path / "releases/1/fedmsg_relay/__pycache__").mkdir(parents=True)
        package = tmp_path / "fedmsg_relay"
        package.symlink_to("releases/1/fedmsg_relay")
        for name in ("wire.py", "__pycache__/wire.cpython-311.pyc"):
            (package / name).touch()
        return tmp_path

    def test_modules_and_commands(self, library: Path) -> None:
        assert self.stale(library) == []
        (library / "fedmsg_relay/gone.py").touch()
        (library / "fedmsg_relay/gone").mkdir()
        (library / "fedmsg_relay/gone/table.json").touch()
        (library / "fedmsg-gone").write_text(self.COMMAND)
        (library / "fedmsg-older").write_text(self.COMMAND.replace(" -I", ""))
        assert self.stale(library) == [
            "fedmsg-gone", "fedmsg-older", "fedmsg_relay/gone.py", "fedmsg_relay/gone/table.json"
        ]  # fmt: skip

    def test_what_others_have_made_of_the_package_is_theirs(self, library: Path) -> None:
        (library / "fedmsg-mine").write_text(self.COMMAND + "# and more\n")
        (library / "tail").write_text(self.COMMAND)
        (library / "fedmsg-directory").mkdir()
        (library / "fedmsg-dangling").symlink_to("nowhere")
        (library / "fedmsg-named").write_text(self.COMMAND)
        assert self.stale(library, str(library / "fedmsg-named")) == []

    def test_a_host_with_nothing(self, tmp_path: Path) -> None:
        assert self.stale(tmp_path / "none") == []

    @pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.name)
    def test_each_command_will_be_known_by_what_it_is(self, path: Path) -> None:
        """By the next release, if that has it no more."""
        assert SURVEY["is_command"](str(path))


class TestRead:
    def test_content_mode_and_owner(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_text("[Socket]\n")
        path.chmod(0o640)
        stat = path.stat()
        owner = f"{stat.st_uid}:{stat.st_gid}"
        found = {"content": "[Socket]\n", "mode": "0640", "owner": owner}
        assert SURVEY["contents"](str(path)) == found

    def test_what_is_no_file_has_none(self, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(__file__)
        for name in ("missing", "link", "."):
            assert SURVEY["contents"](str(tmp_path / name)) is None


def test_a_program_that_the_host_lacks_fails_like_one_that_fails() -> None:
    assert SURVEY["output_of"](["fedmsg-no-such-program"]) is None


class TestDifference:
    """What --diff shows of a file."""

    def difference(self, path: Path, **file: str) -> list[str]:
        said: str = SURVEY["difference"](str(path), file)
        return said.splitlines()

    @pytest.fixture
    def there(self, tmp_path: Path) -> Path:
        path = tmp_path / "relay.py"
        path.write_text("one\ntwo\n")
        path.chmod(0o600)
        return path

    def test_changed_text(self, there: Path) -> None:
        found = self.difference(there, content="one\nthree\n", mode="0644")
        assert found == [
            f"{there}: 10 bytes, 0644 root:root, was {SURVEY['described'](str(there))}",
            f"--- {there}",
            f"+++ {there}",
            "@@ -1,2 +1,2 @@",
            " one",
            "-two",
            "+three",
        ]

    def test_changed_mode(self, there: Path) -> None:
        [line] = self.difference(there, content="one\ntwo\n", mode="0755")
        assert line.startswith(f"{there}: 8 bytes, 0755 root:root, was 8 bytes, 0600 ")

    def test_new_program_is_one_line(self, tmp_path: Path) -> None:
        path = tmp_path / "new.py"
        assert self.difference(path, content="one\ntwo\n", mode="0644") == [
            f"{path}: 8 bytes, 0644 root:root, was not there"
        ]

    def test_new_file_below_etc_is_shown(self) -> None:
        path = Path("/etc/fedmsg-relay-none/new.conf")
        found = self.difference(path, content="one\n", mode="0644")
        assert found[0] == f"{path}: 4 bytes, 0644 root:root, was not there"
        assert found[-1] == "+one"

    def test_link(self, there: Path) -> None:
        assert self.difference(there, link="/usr/local/x") == [
            f"{there}: a link to /usr/local/x, was {SURVEY['described'](str(there))}"
        ]
        link = there.with_name("link")
        link.symlink_to("/usr/local/y")
        assert self.difference(link, link="/usr/local/x") == [
            f"{link}: a link to /usr/local/x, was a link to /usr/local/y"
        ]

    def test_something_else_in_its_place(self, tmp_path: Path) -> None:
        found = self.difference(tmp_path, content="one\n", mode="0644")
        assert found == [f"{tmp_path}: 4 bytes, 0644 root:root, was directory"]


def test_kinds(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "file")
    names = ("file", "link", "", "none")
    kinds = [SURVEY["kind"](str(tmp_path / name)) for name in names]
    assert [*kinds, SURVEY["kind"]("/dev/null")] == ["file", "file", "directory", "", "other"]
