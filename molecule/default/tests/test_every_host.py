"""Every host of the bus has the same config and tools that work."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import bus
import conftest
import pytest
from testinfra.host import Host


def test_config_is_the_same_everywhere() -> None:
    first, *others = (bus.config_of(bus.host(name)) for name in conftest.HOSTS)
    assert sorted(first) == [f"/etc/fedmsg.d/{name}" for name in bus.CONFIG_FILES]
    assert all(other == first for other in others)


def test_config_is_readable_by_all_and_writable_by_root(bus_host: Host) -> None:
    directory = bus_host.file("/etc/fedmsg.d")
    assert (directory.user, directory.mode) == ("root", 0o755)
    for name in bus.CONFIG_FILES:
        file = bus_host.file(f"/etc/fedmsg.d/{name}")
        assert (file.user, file.group, file.mode) == ("root", "root", 0o644)
        assert "Ansible managed" in file.content_string


def test_each_command_has_its_manual_page(bus_host: Host) -> None:
    commands = bus_host.check_output("ls /usr/local/bin | grep ^fedmsg-").split()
    assert len(commands) >= 3
    for command in commands:
        section = 8 if command == "fedmsg-relay" else 1
        page = bus_host.file(f"/usr/local/share/man/man{section}/{command}.{section}")
        assert page.content_string.startswith(".TH ") or "\n.TH " in page.content_string
        assert (page.user, page.mode) == ("root", 0o644)
    pages = bus_host.check_output("ls /usr/local/share/man/man? | grep ^fedmsg-").split()
    assert sorted(page.rpartition(".")[0] for page in pages) == sorted(commands)


def test_staging_leaves_nothing_behind(bus_host: Host) -> None:
    assert bus_host.check_output("find / -xdev -name 'fedmsg-staged-*' 2>/dev/null || true") == ""


def test_probe_reaches_the_relay(bus_host: Host) -> None:
    as_operator = bus.host(bus_host.backend.host, root=False)
    line = bus.probe(as_operator)
    assert line.startswith("FEDMSG OK - tcp://busgateway01:2003 to tcp://busgateway01:4001 in ")
    assert "; tcp://busgateway01:2004 acknowledged in " in line
    assert re.search(r"\| round_trip=[0-9.]+ms;500;2000;0 ack=[0-9.]+ms;500;2000;0$", line)


def test_python_finds_the_package(bus_host: Host) -> None:
    as_operator = bus.host(bus_host.backend.host, root=False)
    found = as_operator.check_output(
        "cd / && python3 -c 'import fedmsg_relay as f; print(f.__file__)'"
    )
    assert found == "/usr/local/lib/fedmsg-relay/fedmsg_relay/__init__.py"


@contextmanager
def modules_in_the_home(host: Host) -> Iterator[str]:
    """Each name of the standard library's, as a file that leaves a mark where it is imported.

    Of the login user's home; gives the path of the mark.
    """
    as_operator = bus.host(host.backend.host, root=False)
    home = as_operator.check_output("pwd")
    names = sorted(set(sys.stdlib_module_names) - {"sys", "builtins"})
    mark = f"{home}/imported"
    as_operator.check_output(
        f"for name in {' '.join(names)}; do echo \"open('{mark}', 'a').write('$name ')\""
        " > $name.py; done"
    )
    try:
        yield mark
    finally:
        host.check_output(f"rm -f {mark} {' '.join(f'{home}/{name}.py' for name in names)}")


@pytest.fixture(scope="module")
def imported_by_root() -> dict[str, str]:
    """By host: what a deploy and a check of the whole bus import of the login user's home."""
    with ExitStack() as homes:
        hosts = {name: bus.host(name) for name in conftest.HOSTS}
        marks = {
            name: homes.enter_context(modules_in_the_home(host)) for name, host in hosts.items()
        }
        runs = [bus.playbook(name) for name in ("check", "deploy")]
        found = {name: host.run(f"cat {marks[name]}").stdout for name, host in hosts.items()}
    assert [run.returncode for run in runs] == [0, 0], "".join(run.stdout for run in runs)
    return found


def test_no_module_of_the_login_users_home_runs_as_root(
    bus_host: Host, imported_by_root: dict[str, str]
) -> None:
    assert imported_by_root[bus_host.backend.host] == ""


@pytest.mark.parametrize(
    "advice", [{"ansible_become_flags": "-H -S -n -i"}, {"ansible_pipelining": False}]
)
def test_nor_does_one_where_python_does_not_know_of_it(
    app01: Host, advice: dict[str, object]
) -> None:
    """With what the roles' README advises for a Python before 3.11: one without the variable."""
    program = "/usr/local/bin/python3-as-before-3.11"
    text = 'unset PYTHONSAFEPATH\nexec /usr/bin/python3 "$@"'
    app01.check_output(f"printf '#!/bin/sh\n{text}\n' > {program} && chmod 755 {program}")
    variables = {"ansible_python_interpreter": program, **advice}
    try:
        with modules_in_the_home(app01) as mark:
            done = bus.playbook("check", "--limit", "app01", "--extra-vars", json.dumps(variables))
            found = app01.run(f"cat {mark}").stdout
    finally:
        app01.check_output(f"rm {program}")
    assert found == ""
    assert done.returncode == 0, done.stdout


def test_deploys_leave_little_in_the_syslog_and_nothing_of_the_config(bus_host: Host) -> None:
    said = bus_host.check_output("journalctl --output cat --no-pager | grep -i ansible || true")
    assert "topic_prefix" not in said and "relay_inbound" not in said
    assert max(map(len, said.splitlines()), default=0) < 1000, said[:2000]
    who = bus_host.check_output("journalctl --identifier fedmsg-deploy --output cat --no-pager")
    assert re.search(r"^run \S+ .* by \w+ on .*, process \d+$", who, re.M), who


def test_spool_takes_messages_of_all_and_shows_them_to_none(bus_host: Host) -> None:
    spool, failed = bus_host.file(bus.SPOOL), bus_host.file(f"{bus.SPOOL}/failed")
    assert (spool.user, spool.group, spool.mode) == ("fedmsg", "fedmsg", 0o3733)
    assert (failed.user, failed.group, failed.mode) == ("fedmsg", "fedmsg", 0o700)
    as_operator = bus.host(bus_host.backend.host, root=False)
    assert as_operator.run(f"ls {bus.SPOOL}").rc != 0


def test_spool_is_watched(bus_host: Host) -> None:
    for name in ("fedmsg-spool.path", "fedmsg-spool.timer"):
        unit = bus_host.service(name)
        assert unit.is_enabled and unit.is_running
    said = bus_host.check_output("journalctl --unit fedmsg-spool.service --output cat")
    assert "Starting" not in said


def test_service_user_cannot_log_in(bus_host: Host) -> None:
    user = bus_host.user("fedmsg")
    assert user.shell.endswith("/nologin")
    assert user.uid < 1000


def test_check_playbook_says_a_line_a_host_and_changes_nothing() -> None:
    before = [bus.config_of(bus.host(name)) for name in conftest.HOSTS]
    done = bus.playbook("check")
    assert done.returncode == 0, done.stdout
    for name in conftest.HOSTS:
        assert len(re.findall(rf"\(item={name}: ok: .*FEDMSG OK", done.stdout)) == 1, done.stdout
    assert bus.changed_tasks(done.stdout) == set()
    assert before == [bus.config_of(bus.host(name)) for name in conftest.HOSTS]
