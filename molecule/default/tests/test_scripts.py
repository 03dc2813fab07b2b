"""The scripts that the SOP names, and the passive service: one listener sees them all."""

from __future__ import annotations

import uuid

import bus
from listener import listening
from testinfra.host import Host

PREFIX = "org.fedoraproject.dev"


def test_one_listener_sees_all_four(app01: Host) -> None:
    marker = uuid.uuid4().hex
    person = bus.host("pkgs01", root=False)
    with listening(app01) as listener:
        person.check_output(_push(marker))
        person.check_output(f"pkgdb2branch.py guake-{marker} f41 epel10")
        log = f"compiling {marker}\nlinking {marker}\n"
        person.check_output(f"printf '{log}' | announce-build.sh guake-{marker} 3.10")
        bus.wait_for(lambda: _post(app01, marker) and _passive(listener, marker), "passive service")
        bus.wait_for(lambda: len(listener.messages(marker)) >= 3 + 2 + 3 + 1, "all messages")
        messages = listener.messages(marker)

    _, commits = _by_topic(messages, "git.receive")
    assert [commit["msg"]["commit"]["summary"] for commit in commits] == [
        f"{n} {marker}" for n in ("one", "two", "three")
    ]
    for commit in (message["msg"]["commit"] for message in commits):
        assert set(commit) == {
            "name", "email", "username", "agent", "summary", "message", "rev", "branch", "repo",
            "namespace", "path", "seen", "stats",
        }  # fmt: skip
        assert (commit["repo"], commit["path"]) == ("demo", "/srv/git/demo.git")
        assert commit["stats"]["total"] == {"additions": 1, "deletions": 0, "lines": 1, "files": 1}
    _, branches = _by_topic(messages, "pkgdb.package.branch.new")
    assert [
        message["msg"]["package_listing"]["collection"]["branchname"] for message in branches
    ] == ["f41", "epel10"]
    _, lines = _by_topic(messages, "buildsys.build.log")
    assert [message["msg"] for message in lines] == [
        {"log": f"{word} {marker}"} for word in ("compiling", "linking")
    ]
    count, _ = _by_topic(messages, "buildsys.build.complete")
    assert count == 1
    count, _ = _by_topic(messages, "app.login")
    assert count >= 1
    for message in messages:
        assert {"topic", "msg", "timestamp", "msg_id", "i", "username"} <= set(message)


def test_what_scripts_publish_while_the_relay_is_away_arrives_later(
    relay: Host, app01: Host, pkgs01: Host
) -> None:
    marker = uuid.uuid4().hex
    person = bus.host("pkgs01", root=False)
    with listening(app01) as listener:
        bus.stop(relay)
        try:
            person.check_output(f"pkgdb2branch.py guake-{marker} f41")
            done = person.run(f"echo {marker} | fedmsg-logger")
            assert (done.rc, done.stdout) == (0, "")
            assert "1 message spooled in /var/spool/fedmsg" in done.stderr
            assert person.run(f"echo {marker} | fedmsg-logger --no-spool").rc == 75
            assert len(bus.spooled(pkgs01)) == 2
        finally:
            bus.start(relay)
        bus.wait_for(lambda: not bus.spooled(pkgs01), "an empty spool", 60)
        bus.wait_for(lambda: len(listener.messages(marker)) >= 2, "both messages")
        assert [m["topic"].rpartition(f"{PREFIX}.")[2] for m in listener.messages(marker)] == [
            "pkgdb.package.branch.new",
            "logger.log",
        ]


def test_passive_service_runs_unprivileged(app01: Host) -> None:
    service = app01.service("fedmsg-example.service")
    assert service.is_running and service.is_enabled
    pid = app01.check_output("systemctl show --property=MainPID --value fedmsg-example.service")
    assert app01.check_output(f"ps -o user:20= -p {pid}") == "fedmsg-example"


def _push(marker: str) -> str:
    commits = "".join(
        f"echo {n} > {n}-{marker}; git add .; git commit --quiet -m '{n} {marker}';"
        for n in ("one", "two", "three")
    )
    return (
        "set -e; work=$(mktemp -d); cd $work; git clone --quiet /srv/git/demo.git . 2>/dev/null;"
        "git config user.name 'Jane Packager'; git config user.email jane@example.org;"
        f"git checkout --quiet -b branch-{marker}; {commits}"
        f"git push --quiet origin branch-{marker}; cd /; rm -rf $work"
    )


def _post(app01: Host, marker: str) -> bool:
    """What a user's browser does to the passive service."""
    app01.check_output(
        'python3 -c "import urllib.request as u;'
        f' u.urlopen(\'http://127.0.0.1:8099/app/login\', b\'{{\\"user\\": \\"{marker}\\"}}\')"'
    )
    return True


def _passive(listener, marker: str) -> bool:
    return any(message["topic"] == f"{PREFIX}.app.login" for message in listener.messages(marker))


def _by_topic(messages: list[dict], topic: str) -> tuple[int, list[dict]]:
    found = [message for message in messages if message["topic"] == f"{PREFIX}.{topic}"]
    return len(found), found
