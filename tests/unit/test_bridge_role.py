"""What the role fedmsg_bridge puts on a host: the bridge reads it, and others cannot."""

from __future__ import annotations

import grp
import json
import os
import re
import runpy
import shutil
import sys
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import yaml
from fedmsg_relay import amqp_bridge, config, process
from fedmsg_relay.bridge import settings
from fedmsg_relay.errors import ConfigError

from tests.conftest import ROOT
from tests.support.programs import environment, run

CHECK = ROOT / "files/ansible/bridge_check.py"
PASSWORD = "open-sesame"
# All variables that the config has, none as it is by default.
SAID: dict[str, Any] = {
    "fedmsg_bridge_url": ["amqps://fedmsg@rabbit01/%2Fbus", "amqps://fedmsg@rabbit02:5673"],
    "fedmsg_bridge_password": PASSWORD,
    "fedmsg_bridge_ca_certificate": "/etc/pki/ca.pem",
    "fedmsg_bridge_certificate": "/etc/pki/bridge.pem",
    "fedmsg_bridge_key": "/etc/pki/bridge.key",
    "fedmsg_bridge_exchange": "bus",
    "fedmsg_bridge_out": "org.fedoraproject.prod.#",
    "fedmsg_bridge_out_exclude": ["#.secret", 'a"b'],
    "fedmsg_bridge_schemas": {"#.git.*": "git.receive"},
    "fedmsg_bridge_from": "oldest",
    "fedmsg_bridge_unroutable": "wait",
    "fedmsg_bridge_window": 7,
    "fedmsg_bridge_in": ["*.é.in"],
    "fedmsg_bridge_in_exclude": ["x.é.in"],
    "fedmsg_bridge_queue": "ours",
    "fedmsg_bridge_http": ["127.0.0.1:4003"],
    "fedmsg_bridge_lag_critical_sec": 60,
}
READ = {
    "amqp_url": SAID["fedmsg_bridge_url"],
    "amqp_password_file": "/etc/fedmsg-amqp-bridge/password",
    "amqp_ca_certificate": "/etc/pki/ca.pem",
    "amqp_certificate": "/etc/pki/bridge.pem",
    "amqp_key": "/etc/pki/bridge.key",
    "amqp_exchange": "bus",
    "amqp_out": ["org.fedoraproject.prod.#"],
    "amqp_out_exclude": ["#.secret", 'a"b'],
    "amqp_schemas": {"#.git.*": "git.receive"},
    "amqp_from": "oldest",
    "amqp_unroutable": "wait",
    "amqp_window": 7,
    "amqp_in": ["*.é.in"],
    "amqp_in_exclude": ["x.é.in"],
    "amqp_queue": "ours",
    "amqp_state": "/var/lib/fedmsg-amqp-bridge",
    "amqp_http": ["127.0.0.1:4003"],
    "amqp_lag_critical": 60,
}
LEAST = {"fedmsg_bridge_url": ["amqp://fedmsg@rabbit01"], "fedmsg_bridge_password": PASSWORD}
RENDER = [
    {
        "hosts": "fedmsg_bridge",
        "gather_facts": False,
        "vars": {"fedmsg_base_relay_journal": "/srv/bus/journal.db"},
        "tasks": [
            {
                "ansible.builtin.import_role": {"name": "fedmsg_bridge", "tasks_from": "preflight"},
            },
            {
                "ansible.builtin.copy": {
                    "content": "{{ __fedmsg_bridge_files"
                    " | combine(__fedmsg_bridge_config_files) | to_json }}",
                    "dest": "{{ directory }}/{{ inventory_hostname }}.json",
                    "mode": "0600",
                }
            },
        ],
    }
]

Files = dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Files]:
    """By host, the files as the role would write them: path to content, mode and group."""
    directory = tmp_path_factory.mktemp("rendered")
    (directory / "site.yml").write_text(yaml.safe_dump(RENDER))
    # Where a play's own tasks look.
    for name in ("files", "templates"):
        (directory / name).symlink_to(ROOT / name)
    hosts = {"said": SAID, "least": LEAST}
    here = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "directory": str(directory),
    }
    inventory = {
        "fedmsg_relay": {"hosts": dict.fromkeys(hosts)},
        "fedmsg_bridge": {"hosts": hosts, "vars": here},
    }
    (directory / "hosts.yml").write_text(yaml.safe_dump(inventory))
    done = run(
        ["ansible-playbook", f"--inventory={directory}/hosts.yml", directory / "site.yml"],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {host: json.loads((directory / f"{host}.json").read_text()) for host in hosts}


CONFIG = "/etc/fedmsg-amqp-bridge/config.py"
UNIT = "/etc/systemd/system/fedmsg-amqp-bridge.service"


def test_the_bridge_reads_what_was_said(rendered: dict[str, Files], tmp_path: Path) -> None:
    (tmp_path / "config.py").write_text(rendered["said"][CONFIG]["content"])
    loaded = config.load(str(tmp_path))
    assert {key: loaded[key] for key in loaded if key.startswith("amqp_")} == READ
    assert set(READ) == settings._KNOWN


def test_what_was_not_said_is_as_without_the_role(
    rendered: dict[str, Files], tmp_path: Path
) -> None:
    (tmp_path / "config.py").write_text(rendered["least"][CONFIG]["content"])
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    loaded = config.load(str(tmp_path / "config.py"))
    assert loaded["amqp_password_file"] == READ["amqp_password_file"]
    own = {"amqp_password_file": str(tmp_path / "password"), "amqp_url": loaded["amqp_url"]}
    assert settings.of({**loaded, **own}) == settings.of(own)
    assert settings.of(own).brokers[0].password == PASSWORD


def test_only_the_service_user_s_group_can_read_the_config(rendered: dict[str, Files]) -> None:
    modes = {path: (file["mode"], file["group"]) for path, file in rendered["said"].items()}
    assert modes.pop(CONFIG) == ("0640", "fedmsg")
    assert {group for _, group in modes.values()} == {"root"}
    assert PASSWORD not in json.dumps(rendered)
    tasks = yaml.safe_load((ROOT / "roles/fedmsg_bridge/tasks/configure.yml").read_text())
    # A task that has the password shows neither it nor a difference.
    having = [task for task in tasks if "{{ fedmsg_bridge_password }}" in json.dumps(task)]
    assert [task["no_log"] for task in having] == [True, True]
    [copied] = [task["ansible.builtin.copy"] for task in having if "ansible.builtin.copy" in task]
    assert (copied["mode"], copied["group"]) == ("0640", "fedmsg")
    specs = yaml.safe_load((ROOT / "roles/fedmsg_bridge/meta/argument_specs.yml").read_text())
    assert specs["argument_specs"]["main"]["options"]["fedmsg_bridge_password"]["no_log"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_takes_the_unit(rendered: dict[str, Files], tmp_path: Path) -> None:
    text = rendered["said"][UNIT]["content"]
    unit = tmp_path / "fedmsg-amqp-bridge.service"

    def verified(text: str) -> CompletedProcess[str]:
        # The command is not on this machine.
        unit.write_text(re.sub("(?m)^ExecStart=.*$", "ExecStart=/bin/true", text))
        return run(["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", unit])

    done = verified(text)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Restrat" in verified(text.replace("Restart=", "Restrat=")).stderr


def test_the_unit_is_confined_as_the_relays_is(rendered: dict[str, Files]) -> None:
    def lines(text: str) -> list[str]:
        return [line for line in text.splitlines() if re.match(r"[A-Z]\w+=", line)]

    relay = lines((ROOT / "templates/fedmsg-relay.service.j2").read_text())
    confined = relay[
        relay.index("ProtectSystem=strict") : relay.index("WantedBy=multi-user.target")
    ]
    unit = lines(rendered["said"][UNIT]["content"])
    assert len(confined) > 25
    # The relay alone has a process whose priority it lowers.
    assert [line for line in confined if line not in unit] == [
        "SystemCallFilter=sched_setscheduler setpriority"
    ]
    assert {"User=fedmsg", "Group=fedmsg", "Restart=on-failure", "Type=notify"} <= set(unit)
    assert "ReadWritePaths=/srv/bus" in unit
    assert "StateDirectory=fedmsg-amqp-bridge" in unit


def test_the_command_is_ours_for_a_takeover_and_no_command_of_every_host() -> None:
    survey = runpy.run_path(str(ROOT / "files/ansible/survey.py"))
    command = ROOT / "files/bridge/fedmsg-amqp-bridge"
    assert survey["is_command"](str(command)) and survey["is_ours"](str(command))
    assert os.access(command, os.X_OK)
    base = yaml.safe_load((ROOT / "roles/fedmsg_base/vars/main.yml").read_text())
    # Or else each deploy would remove it as a former release's.
    assert "/usr/local/bin/fedmsg-amqp-bridge" in base["__fedmsg_base_programs"]["names"]


def test_a_password_that_was_written_after_the_start_is_a_reason_to_restart(tmp_path: Path) -> None:
    newer = runpy.run_path(str(ROOT / "files/ansible/survey.py"))["newer"]
    (tmp_path / "password.swp").touch()
    assert newer(0.0, [str(tmp_path)]) == ""
    (tmp_path / "password").touch()
    assert newer(0.0, [str(tmp_path)]) == str(tmp_path / "password")


class TestOwnDirectory:
    """The bridge's own config comes after the global one."""

    @pytest.fixture
    def etc(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        (tmp_path / "fedmsg.d").mkdir()
        (tmp_path / "fedmsg.d/a.py").write_text("config = {'amqp_queue': 'a', 'amqp_out': ['a']}")
        monkeypatch.setattr(config, "ETC_DIRECTORY", str(tmp_path / "fedmsg.d"))
        monkeypatch.setattr(config, "ETC_FILE", str(tmp_path / "fedmsg-config.py"))
        (tmp_path / "fedmsg-config.py").write_text("config = {'amqp_queue': 'b'}")
        return tmp_path

    def test_it_wins(self, etc: Path) -> None:
        own = etc / "own"
        own.mkdir()
        (own / "config.py").write_text("config = {'amqp_queue': 'c'}")
        loaded = config.load(system=True, further=str(own))
        assert (loaded["amqp_queue"], loaded["amqp_out"]) == ("c", ["a"])

    def test_there_need_be_none(self, etc: Path) -> None:
        loaded = config.load(system=True, further=str(etc / "none"))
        assert loaded["amqp_queue"] == "b"

    def test_a_path_that_is_given_is_all_that_is_read(self, etc: Path) -> None:
        loaded = config.load(str(etc / "fedmsg.d"), system=True, further=str(etc))
        assert loaded["amqp_queue"] == "a"

    def test_the_command_reads_it(
        self, etc: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (etc / "own").mkdir()
        (etc / "own/config.py").write_text("config = {'amqp_uri': 'x'}")
        assert amqp_bridge.CONFIG == "/etc/fedmsg-amqp-bridge"
        monkeypatch.setattr(amqp_bridge, "CONFIG", str(etc / "own"))
        # It is this process that would become a daemon.
        monkeypatch.setattr(process, "prepare", lambda *_: None)
        assert amqp_bridge.main(["--check"]) == 1
        assert "config key 'amqp_uri' is none of the bridge's" in capsys.readouterr().err


# In place of `fedmsg-amqp-bridge --check`, which needs pika: what the bridge would have.
LOADED = """
import os, stat, sys
from fedmsg_relay import config, errors
from fedmsg_relay.bridge import settings
directory = sys.argv[-1]
print(stat.S_IMODE(os.stat(directory).st_mode), *sorted({
    stat.S_IMODE(os.stat(os.path.join(directory, name)).st_mode)
    for name in os.listdir(directory) if not os.path.islink(os.path.join(directory, name))}))
try:
    [broker] = settings.of(config.load(directory, system=True)).brokers
except errors.ConfigError as error:
    sys.exit(f"refused: {error}")
print(broker.user, broker.password)
"""


class TestStagedCheck:
    def check(self, tmp_path: Path, text: str, password: str = "") -> CompletedProcess[str]:
        request = {
            "config": text,
            "password": password,
            "directory": "/etc/fedmsg-amqp-bridge",
            "group": grp.getgrgid(os.getgid()).gr_name,
            "command": [sys.executable, "-c", LOADED],
        }
        return run(
            [sys.executable, CHECK],
            input=json.dumps(request),
            env=environment(TMPDIR=str(tmp_path)),
        )

    def test_it_is_read_as_it_is_going_to_be(
        self, rendered: dict[str, Files], tmp_path: Path
    ) -> None:
        done = self.check(tmp_path, rendered["least"][CONFIG]["content"], PASSWORD)
        assert (done.returncode, done.stderr) == (0, "")
        # Nobody but root and the group can read it meanwhile, and nothing is left.
        assert done.stdout == f"{0o750} {0o640}\nfedmsg {PASSWORD}\n"
        assert list(tmp_path.iterdir()) == []

    def test_a_refusal_names_the_file_that_is_to_be(self, tmp_path: Path) -> None:
        done = self.check(tmp_path, "config = {\n 'amqp_url': nowhere}")
        assert done.returncode == 1
        assert done.stderr == (
            "refused: /etc/fedmsg-amqp-bridge/config.py:2: "
            "NameError: name 'nowhere' is not defined\n"
        )
        assert list(tmp_path.iterdir()) == []

    def test_a_certificate_that_is_missing_is_refused(
        self, rendered: dict[str, Files], tmp_path: Path
    ) -> None:
        done = self.check(tmp_path, rendered["said"][CONFIG]["content"], PASSWORD)
        assert done.returncode == 1
        assert "config key 'amqp_ca_certificate': /etc/pki/ca.pem" in done.stderr


def test_an_own_directory_that_cannot_be_read_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not a bridge with another config."""
    (tmp_path / "own").write_text("no directory")
    monkeypatch.setattr(config, "ETC_DIRECTORY", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="own: Not a directory"):
        config.load(system=True, further=str(tmp_path / "own"))
