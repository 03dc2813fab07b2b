"""A full disk under the journal does not stop the bus, and one under the spool is told of."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator

import bus
import pair
from listener import Listener
from testinfra.host import Host

JOURNAL = "/var/lib/fedmsg-relay"


@contextlib.contextmanager
def small_disk(host: Host, directory: str, mode: str) -> Iterator[None]:
    """A file system of 4 MiB in place of the directory."""
    host.check_output(
        f"mount -t tmpfs -o size=4m,mode={mode},uid=fedmsg,gid=fedmsg tmpfs {directory}"
    )
    try:
        yield
    finally:
        host.check_output(f"umount {directory}")


@contextlib.contextmanager
def full(host: Host, directory: str) -> Iterator[None]:
    host.run(f"dd if=/dev/zero of={directory}/.filled bs=4k")
    try:
        yield
    finally:
        host.check_output(f"rm {directory}/.filled")


@contextlib.contextmanager
def stopped(relay: Host) -> Iterator[None]:
    bus.stop(relay)
    try:
        yield
    finally:
        bus.start(relay)


def test_full_journal(relay01: Host, pkgs01: Host, listener: Listener) -> None:
    with contextlib.ExitStack() as healed:
        with stopped(relay01):
            healed.callback(bus.start, relay01)
            healed.enter_context(small_disk(relay01, JOURNAL, "0700"))
            healed.callback(bus.stop, relay01)
        assert "acked by tcp://relay01:2004" in pair.publish(pkgs01, "room").stderr
        assert pair.health(relay01)[0] == 200
        with full(relay01, JOURNAL):
            bus.wait_for(lambda: _falls_over(pkgs01), "publishers at the other relay")
            status, said = bus.wait_for(
                lambda: pair.health(relay01) if pair.health(relay01)[0] != 200 else None, "health"
            )
            assert status == 503
            assert "journal" in str(said["problems"])
            done = bus.playbook("check")
            assert done.returncode != 0
            assert "relay01: WRONG: not healthy: the journal fails" in done.stdout
            # The bus goes on: what comes in without asking for an acknowledgement goes out.
            legacy = pair.only(pkgs01, "relay01", submit=False)
            text = uuid.uuid4().hex
            pkgs01.check_output(f"fedmsg-logger --config-filename {legacy} --message {text}")
            bus.wait_for(lambda: pair.heard_times(listener, text), "the message")
            # Who knows this relay alone keeps his message.
            text = uuid.uuid4().hex
            run = pair.publish(pkgs01, text, "relay01")
            assert (run.rc, "spooled" in run.stderr) == (0, True), run
            bus.wait_for(lambda: pair.heard_times(listener, text), "the message", 60)
        # And when there is room again, nobody has to do anything.
        bus.wait_for(lambda: pair.health(relay01)[0] == 200, "health", 30)
        run = pair.publish(pkgs01, "room again")
        assert "acked by tcp://relay01:2004" in run.stderr, run


def _falls_over(pkgs01: Host) -> bool:
    """Large messages, so that what room is left in the journal's pages is used up."""
    run = pair.publish(pkgs01, 50_000 * "x")
    assert run.rc == 0, run
    return "acked by tcp://relay02:2004" in run.stderr


def test_full_spool(pkgs01: Host, listener: Listener) -> None:
    text = uuid.uuid4().hex
    with small_disk(pkgs01, bus.SPOOL, "3733"):
        with pair.cut(pkgs01, *pair.RELAYS):
            with full(pkgs01, bus.SPOOL):
                run = pair.publish(pkgs01, "lost, and told so")
                assert run.rc == 75, run
                assert f"spool {bus.SPOOL}: its file system is nearly full" in run.stderr
            run = pair.publish(pkgs01, text)
            assert (run.rc, f"spooled as {bus.SPOOL}" in run.stderr) == (0, True), run
        bus.wait_for(lambda: not bus.spooled(pkgs01), "an empty spool", 60)
    bus.wait_for(lambda: pair.heard_times(listener, text), "the message")
    assert not listener.messages("lost, and told so")
