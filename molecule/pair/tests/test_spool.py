"""The spool is for all users of a host, and none of them has to trust another."""

from __future__ import annotations

import uuid

import bus
import pair
from listener import Listener
from testinfra.host import Host

# What another user may try with a message, whose name he would have to guess.
ATTEMPTS = (
    f"ls {bus.SPOOL}",
    f"ls {bus.SPOOL}/failed",
    f"touch {bus.SPOOL}/failed/x",
    f"rm -rf {bus.SPOOL}/failed",
    "cat {path}",
    "head -c 1 {path}",
    "rm -f {path}",
    "mv {path} /tmp/mine",
    "mv --no-target-directory /tmp/empty {path}",
    "truncate --size=0 {path}",
    "chmod 666 {path}",
)


def test_other_users_can_do_nothing_to_a_message(pkgs01: Host, listener: Listener) -> None:
    text = uuid.uuid4().hex
    with pair.cut(pkgs01, *pair.RELAYS):
        run = pair.publish(pkgs01, text, user="alice")
        assert (run.rc, "spooled" in run.stderr) == (0, True), run
        [name] = bus.spooled(pkgs01)
        path = f"{bus.SPOOL}/{name}"
        content = pkgs01.file(path).content
        pkgs01.check_output("runuser -u bob -- touch /tmp/empty")
        for attempt in ATTEMPTS:
            command = attempt.format(path=path)
            done = pkgs01.run("runuser -u bob -- bash -c %s", command)
            assert (command, done.rc != 0) == (command, True)
        file = pkgs01.file(path)
        assert (file.user, file.group, file.mode) == ("alice", "fedmsg", 0o640)
        assert file.content == content
    bus.wait_for(lambda: not bus.spooled(pkgs01), "an empty spool", 60)
    bus.wait_for(lambda: pair.heard_times(listener, text), "the message")
    [message] = listener.messages(text)
    assert message["username"] == "alice"


def test_what_is_no_message_holds_up_no_other(pkgs01: Host, listener: Listener) -> None:
    text = uuid.uuid4().hex
    # It sorts before all others.
    poison = f"{bus.SPOOL}/00000000000000000000-poison"
    pkgs01.check_output("rm -f /var/spool/fedmsg/failed/*")
    try:
        with pair.cut(pkgs01, *pair.RELAYS):
            pkgs01.check_output("runuser -u bob -- bash -c %s", f"echo poison > {poison}")
            run = pair.publish(pkgs01, text, user="alice")
            assert (run.rc, "spooled" in run.stderr) == (0, True), run
        bus.wait_for(lambda: not bus.spooled(pkgs01), "an empty spool", 60)
        bus.wait_for(lambda: pair.heard_times(listener, text), "the message")
        failed = pkgs01.check_output(f"ls {bus.SPOOL}/failed").split()
        assert failed == ["00000000000000000000-poison", "00000000000000000000-poison.reason"]
        assert pkgs01.check_output(f"cat {bus.SPOOL}/failed/*.reason")
        done = bus.playbook("check")
        assert done.returncode != 0
        assert "1 messages that no relay takes are in /var/spool/fedmsg/failed" in done.stdout
    finally:
        pkgs01.check_output(f"rm -f {bus.SPOOL}/failed/*")
    assert bus.playbook("check").returncode == 0


def test_drain_by_hand_is_for_the_owner_alone(pkgs01: Host) -> None:
    done = pkgs01.run("runuser -u bob -- fedmsg-logger --drain")
    assert done.rc != 0
    assert "only that user or root may drain it" in done.stderr
    assert pkgs01.run("fedmsg-logger --drain").rc == 0
