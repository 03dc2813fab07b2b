"""The commands where a user may not read, is a number alone, or stands in what others may write."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import RELAY, ROOT, Bus, environment
from tests.support import programs

# A user that has no name. Root becomes it; another user stays who he is, and is no root either.
NOBODY = 54321


def as_user(command: list[str]) -> list[str]:
    if os.geteuid() != 0:
        return command
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *command]


def own(path: Path) -> None:
    """Give a path to the user that the command runs as."""
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)


@pytest.fixture
def home(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the user with the bus's config in .fedmsg.d, and a spool; others may come near."""
    for directory in [bus.directory, *bus.directory.parents]:
        if directory.stat().st_uid == os.geteuid() and directory != Path("/"):
            directory.chmod(directory.stat().st_mode | 0o055)
    made = bus.directory / "home"
    made.mkdir()
    spool = bus.directory / "spool"
    spool.mkdir()
    for path in (made, spool):
        own(path)
    return made


def publish(bus: Bus, home: Path, **options: Any) -> Any:
    variables = {"HOME": str(home)}
    env = {k: v for k, v in environment(**variables).items() if k not in NAMES}
    command = [*programs.module("logger"), "--message", "x"]
    command += ["--config-filename", str(bus.config_directory)] * options.pop("configured", True)
    return programs.run(as_user(command), env=env, **options)


NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME", "VIRTUAL_ENV")


def spooled(bus: Bus) -> list[Any]:
    files = sorted(path for path in (bus.directory / "spool").iterdir() if path.name[0].isdigit())
    return [json.loads(path.read_bytes().partition(b"\n")[2]) for path in files]


class TestPlaces:
    """fedmsg's search path has places of the user's: some are none of his, or not there."""

    CONFIG = (
        "config = {{'publisher_spool': {!r}, 'relay_inbound': 'tcp://127.0.0.1:1', 'timeout': 0.1}}"
    )

    def put(self, directory: Path, name: str, bus: Bus) -> Path:
        directory.mkdir(exist_ok=True)
        path = directory / name
        path.write_text(self.CONFIG.format(str(bus.directory / "spool")))
        return path

    def test_own_ones_are_read(self, bus: Bus, home: Path) -> None:
        path = self.put(home / ".fedmsg.d", "a.py", bus)
        own(path)
        own(path.parent)
        done = publish(bus, home, cwd="/", configured=False)
        assert done.returncode == 0, done.stderr
        assert len(spooled(bus)) == 1

    @pytest.mark.parametrize("where", ["home", "here", "both"])
    def test_what_may_not_be_entered_is_passed_over(self, bus: Bus, home: Path, where: str) -> None:
        locked = bus.directory / "locked"
        for each in (locked / ".fedmsg.d", locked / "fedmsg.d"):
            self.put_all(each)
        here = str(locked) if where != "home" else "/"
        if os.geteuid() != 0 and here != "/":
            pytest.skip("a user cannot stand where he may not be")
        locked.chmod(0o700)
        bus.configure("own", publisher_spool=str(bus.directory / "spool"), timeout=0.1)
        done = publish(bus, locked if where != "here" else home, cwd=here)
        # Without --config-filename, too, it is no reason to publish nothing.
        assert done.returncode == 0, done.stderr
        env = environment(HOME=str(locked if where != "here" else home))
        program = "from fedmsg_relay import config; print(config.load()['environment'])"
        loaded = programs.run(as_user([sys.executable, "-c", program]), cwd=here, env=env)
        assert (loaded.returncode, loaded.stdout, loaded.stderr) == (0, "dev\n", "")

    @staticmethod
    def put_all(directory: Path) -> None:
        directory.mkdir(parents=True)
        (directory / "a.py").write_text("config = {'environment': 'locked'}")

    def test_a_working_directory_that_was_removed(self, bus: Bus, home: Path) -> None:
        gone = home / "gone"
        bus.configure("own", publisher_spool=str(bus.directory / "spool"), timeout=0.1)
        program = (
            "import os, sys; os.rmdir(os.getcwd()); from fedmsg_relay import logger;"
            "sys.exit(logger.main(['--message', 'x', *sys.argv[1:]]))"
        )
        options = ["--config-filename", str(bus.config_directory)]
        for given, variables in ((options, {}), ([], {"FEDMSG_CONFIG": options[1]})):
            gone.mkdir(exist_ok=True)
            own(gone)
            done = programs.run(
                as_user([sys.executable, "-c", program, *given]),
                cwd=gone,
                env=environment(HOME=str(home), **variables),
            )
            assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
        loaded = "import os; os.rmdir(os.getcwd()); from fedmsg_relay import config; config.load()"
        gone.mkdir()
        own(gone)
        done = programs.run(
            as_user([sys.executable, "-c", loaded]), cwd=gone, env=environment(HOME=str(home))
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert len(spooled(bus)) == 2

    @pytest.mark.parametrize("fault", ["another's", "everybody's", "a group's", "a file of"])
    def test_what_others_may_write_is_not_executed(self, bus: Bus, home: Path, fault: str) -> None:
        if fault == "another's" and os.geteuid() != 0:
            pytest.skip("only root can give a file away")
        here = bus.directory / "here"
        directory = here / "fedmsg.d"
        directory.mkdir(parents=True)
        witness = home / "executed"
        (directory / "a.py").write_text(f"open({str(witness)!r}, 'w').close()\nconfig = {{}}")
        own(directory)
        own(directory / "a.py")
        if fault == "another's":
            os.chown(directory, 54322, 54322)
        elif fault == "a file of":
            (directory / "a.py").chmod(0o646)
        else:
            directory.chmod(0o757 if fault == "everybody's" else 0o775)
        env = environment(HOME=str(home))
        program = "from fedmsg_relay import config; print(config.load()['environment'])"
        loaded = programs.run(as_user([sys.executable, "-c", program]), cwd=here, env=env)
        assert (loaded.returncode, loaded.stdout) == (0, "dev\n")
        assert loaded.stderr.startswith(f"warning: {directory}")
        assert "is passed over" in loaded.stderr and loaded.stderr.count("\n") == 1
        assert not witness.exists()

    def test_fedmsg_config_names_a_file_or_a_directory(self, bus: Bus, home: Path) -> None:
        for named in (bus.config_directory, bus.config_directory / "base.py"):
            env = environment(FEDMSG_CONFIG=str(named), HOME=str(home))
            program = "from fedmsg_relay import config; print(config.load()['relay_inbound'][0])"
            loaded = programs.run([sys.executable, "-c", program], env=env, cwd="/")
            assert (loaded.stdout, loaded.stderr) == (f"{bus.inbound}\n", "")


def test_a_user_without_a_name_is_a_number(bus: Bus, home: Path) -> None:
    bus.configure("own", publisher_spool=str(bus.directory / "spool"), timeout=0.1)
    assert publish(bus, home, cwd="/").returncode == 0
    name = str(NOBODY) if os.geteuid() == 0 else None
    [message] = spooled(bus)
    assert name is None or message["username"] == name


def test_pkgdb2branch_of_a_user_without_a_name(bus: Bus, home: Path) -> None:
    bus.configure("own", publisher_spool=str(bus.directory / "spool"), timeout=0.1)
    env = environment(FEDMSG_CONFIG=str(bus.config_directory))
    env = {k: v for k, v in env.items() if k not in NAMES} | {"HOME": str(home)}
    script = [sys.executable, str(ROOT / "files/scripts/pkgdb2branch.py"), "guake", "f41"]
    done = programs.run(as_user(script), env=env, cwd="/")
    assert (done.returncode, done.stderr) == (0, "")
    [message] = spooled(bus)
    if os.geteuid() == 0:
        assert message["msg"]["agent"] == message["username"] == str(NOBODY)


@pytest.mark.parametrize("key", ["relay_submit", "relay_inbound", "outbound"])
def test_a_name_that_is_not_ascii_is_refused_where_the_config_is_checked(
    bus: Bus, key: str
) -> None:
    address = "tcp://bücher.example.org:2004"
    bus.with_journal()
    keys = {"endpoints": {"relay_outbound": [address]}} if key == "outbound" else {key: [address]}
    bus.configure("z", **keys)
    for name in ("preflight", "relay"):
        if name == "relay":
            command = ["--check", "--config-filename", str(bus.config_directory)]
            done = programs.run([sys.executable, RELAY, *command])
        else:
            done = bus.tool(name)
        said = done.stdout + done.stderr
        assert done.returncode == 1
        assert (
            "is not an address like tcp://host:port: write its name as xn--bcher-kva.example.org"
            in said
        )
