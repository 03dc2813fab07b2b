"""fedmsg-logger --drain: all of it, in order, once; nothing that lies there can hold it up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fedmsg_relay.errors import SpoolError
from fedmsg_relay.publishing import drain, quota
from fedmsg_relay.publishing import spool as spools
from fedmsg_relay.publishing.spool import Spool, encoded

from tests.conftest import Bus, Listener, environment, wait_for
from tests.support.programs import Child
from tests.support.users import NOBODY, SOMEBODY, as_user, needs_root, shared_spool
from tests.support.waiting import at_most

MakeListener = Callable[..., Listener]


def message(number: int, **more: Any) -> tuple[bytes, bytes]:
    body = {"topic": "t", "timestamp": 1, "msg_id": f"id-{number}", "msg": {}, **more}
    return b"t", json.dumps(body).encode()


def fill(directory: Path, *numbers: int) -> None:
    """As Spool.write does it, less what makes it safe, and slow."""
    for number in numbers:
        (directory / f"{number:020d}-0").write_bytes(encoded(*message(number)))


def ids(*numbers: int) -> list[str]:
    return [f"id-{number}" for number in numbers]


def waiting(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if path.name != "failed")


def reasons(directory: Path) -> dict[str, str]:
    return {
        path.name[: -len(".reason")]: path.read_text()
        for path in (directory / "failed").glob("*.reason")
    }


def test_in_order_and_each_file_is_removed(bus: Bus, spool: Path, listener: MakeListener) -> None:
    receiving = listener(bus.relay())
    fill(spool, *range(3000))
    result = bus.tool("logger", "--drain")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"3000 messages delivered from {spool}\n"
    assert [receiving.receive() for _ in range(3000)] == [[*message(n)] for n in range(3000)]
    assert bus.journaled() == ids(*range(3000))
    assert waiting(spool) == []


def test_what_was_spooled_is_what_arrives(bus: Bus, spool: Path, listener: MakeListener) -> None:
    assert bus.tool("logger", "--message", "häi", "--timeout", "0.3").returncode == 0
    [path] = spool.iterdir()
    content = path.read_bytes()
    receiving = listener(bus.relay())
    assert bus.tool("logger", "--drain").returncode == 0
    assert encoded(*receiving.receive()) == content


def test_nothing_to_do_is_0_and_silent(bus: Bus, spool: Path) -> None:
    started = time.monotonic()
    result = bus.tool("logger", "--drain")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    at_most(3, since=started)  # no relay, and none is waited for


def test_no_relay_is_75_and_everything_stays(bus: Bus, spool: Path) -> None:
    fill(spool, 1, 2)
    result = bus.tool("logger", "--drain", "--timeout", "0.5")
    assert (result.returncode, result.stdout) == (75, "")
    assert result.stderr == (
        f"fedmsg-logger: the rest stays in {spool}:"
        f" no relay answered within 0.5 s: {bus.submit}: connection refused\n"
    )
    assert len(waiting(spool)) == 2


def test_a_relay_that_comes_while_it_waits(bus: Bus, spool: Path) -> None:
    fill(spool, 1, 2)
    child = Child([*bus.command("logger"), "--drain"], env=environment())
    bus.relay()
    assert child.wait(30) == 0
    assert bus.journaled() == ids(1, 2)


def test_through_a_relay_that_does_not_acknowledge(
    bus: Bus, spool: Path, listener: MakeListener
) -> None:
    (bus.config_directory / "journal.py").unlink()
    bus.configure("spool", publisher_spool=str(spool))
    receiving = listener(bus.relay())
    total = 2 * drain.UNACKNOWLEDGED + 7
    fill(spool, *range(total))
    assert bus.tool("logger", "--drain").returncode == 0
    assert [receiving.receive() for _ in range(total)] == [[*message(n)] for n in range(total)]
    assert waiting(spool) == []


class TestPoison:
    """Any user may put anything into the spool."""

    def contents(self, number: int, **more: Any) -> bytes:
        return encoded(*message(number, **more))

    def test_it_goes_to_failed_with_its_reason_and_holds_up_nothing(
        self, bus: Bus, spool: Path, tmp_path: Path
    ) -> None:
        bus.configure("z", relay_max_message_bytes=5000)
        bus.relay()
        fill(spool, 10, 20, 30)
        outside = tmp_path / "outside"
        outside.write_bytes(self.contents(99))
        (spool / "05-empty").touch()
        (spool / "06-garbage").write_bytes(b"\xff\0\n\xfe")
        (spool / "11-not-complete").write_bytes(b't\n{"topic": "t"}')
        (spool / "12-no-body").write_bytes(b"t\n")
        (spool / "13-large").write_bytes(self.contents(98, text="x" * 5000))
        (spool / "14-link").symlink_to(outside)
        os.link(outside, spool / "15-other-name")
        os.mkfifo(spool / "16-fifo")
        (spool / "17-directory").mkdir()
        (spool / ("18" + "x" * 250)).write_bytes(b"x")
        (spool / os.fsdecode(b"19-\xff\n")).write_bytes(b"x")
        with (spool / "21-sparse").open("wb") as sparse:
            sparse.truncate(1 << 40)
        result = bus.tool("logger", "--drain")
        assert result.returncode == 0
        assert bus.journaled() == ids(10, 20, 30)
        assert result.stdout == f"3 messages delivered from {spool}, 11 moved to failed/\n"
        assert waiting(spool) == ["17-directory"]
        found = reasons(spool)
        assert len(found) == 11
        assert "not a topic" in found["05-empty"]
        assert "not a message as publishers write it" in found["11-not-complete"]
        assert "relay_max_message_bytes" in found["13-large"]
        assert "symbolic link" in found["14-link"]
        assert "another name" in found["15-other-name"]
        assert "not a regular file" in found["16-fifo"]
        assert "relay_max_message_bytes" in found["21-sparse"]
        assert (spool / "failed" / "06-garbage").read_bytes() == b"\xff\0\n\xfe"
        assert outside.read_bytes() == self.contents(99)
        # And it is not looked at again.
        assert bus.tool("logger", "--drain").stdout == ""

    def test_what_the_relay_refuses(self, bus: Bus, spool: Path) -> None:
        bus.configure("z", relay_max_message_bytes=1000)
        bus.relay()
        bus.configure("z", relay_max_message_bytes=1500)
        fill(spool, 1, 3)
        (spool / f"{2:020d}-0").write_bytes(self.contents(2, text="x" * 1000))
        assert bus.tool("logger", "--drain").returncode == 0
        assert bus.journaled() == ids(1, 3)
        [reason] = reasons(spool).values()
        assert reason.startswith(f"{bus.submit} refused it: ")

    def test_failed_is_bounded_too_and_the_oldest_go(self, bus: Bus, spool: Path) -> None:
        bus.configure("z", publisher_spool_max_bytes=10 * 10 * 4096)
        for number in range(15):
            (spool / f"{number:03d}").write_bytes(b"x")
        result = bus.tool("logger", "--drain")
        assert result.returncode == 0
        assert result.stderr.count("goes to failed/") == drain.SHOWN
        assert "failed/ was full: 5 files removed" in result.stderr
        assert sorted(reasons(spool)) == [f"{number:03d}" for number in range(5, 15)]


class TestInterrupted:
    def test_killed_in_the_middle(self, bus: Bus, spool: Path) -> None:
        bus.relay()
        total = 5000
        fill(spool, *range(total))
        for part in range(1, 4):
            child = Child([*bus.command("logger"), "--drain"], env=environment())
            wait_for(lambda: len(bus.journaled()) > 1000 * part)  # noqa: B023
            child.kill()
            child.wait()
        assert bus.tool("logger", "--drain").returncode == 0
        assert bus.journaled() == ids(*range(total))
        assert waiting(spool) == []

    def test_the_relay_killed_in_the_middle(self, bus: Bus, spool: Path) -> None:
        relay = bus.relay()
        total = 5000
        fill(spool, *range(total))
        child = Child([*bus.command("logger"), "--drain"], env=environment())
        wait_for(lambda: len(bus.journaled()) > 1000)
        relay.kill()
        bus.relay()
        assert child.wait(30) == 0
        assert sorted(bus.journaled()) == sorted(ids(*range(total)))

    def test_two_at_once(self, bus: Bus, spool: Path) -> None:
        fill(spool, 1)
        first = Child([*bus.command("logger"), "--drain"], env=environment())
        wait_for(lambda: (spool / "failed" / ".lock").exists())
        second = bus.tool("logger", "--drain")
        assert second.returncode == 75
        assert "another process is draining it" in second.stderr
        bus.relay()
        assert first.wait(30) == 0


class TestHousekeeping:
    def test_the_mark_of_a_full_spool_comes_and_goes(self, bus: Bus, spool: Path) -> None:
        bus.configure("z", publisher_spool_max_bytes=10 * 4096)
        fill(spool, *range(11))
        assert bus.tool("logger", "--drain", "--timeout", "0.2").returncode == 75
        assert os.listdir(spool / quota.MARKS) == [str(spool.stat().st_uid)]
        result = bus.tool("logger", "--message", "x", "--timeout", "0.2")
        assert result.returncode == 75
        assert "is full" in result.stderr
        bus.relay()
        assert bus.tool("logger", "--drain").returncode == 0
        assert waiting(spool) == [quota.MARKS]
        assert os.listdir(spool / quota.MARKS) == []

    def test_what_was_never_finished_is_removed_after_an_hour(
        self, spool: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = {
            "publisher_spool": str(spool),
            "publisher_spool_max_bytes": 1 << 30,
            "relay_max_message_bytes": 1 << 20,
        }
        (spool / f"{spools.TEMPORARY}x").write_bytes(b"x")
        (spool / ".hidden").mkdir()
        drain.drain(config)
        assert waiting(spool) == [".hidden", f"{spools.TEMPORARY}x"]
        now = time.time()
        later = now + drain.STALE + 60
        monkeypatch.setattr("fedmsg_relay.publishing.drain.time.time", lambda: later)
        drain.drain(config)
        assert waiting(spool) == [".hidden"]

    @pytest.mark.parametrize("mode", [0o700, 0o755])
    def test_a_failed_that_is_not_the_owners_is_an_error(self, spool: Path, mode: int) -> None:
        config = {"publisher_spool": str(spool)}
        if mode == 0o700:
            (spool / "failed").symlink_to("/tmp")
        else:
            (spool / "failed").mkdir(mode=mode)
        with pytest.raises(SpoolError, match="remove it"):
            drain.drain(config)

    def test_no_spool_is_2(self, bus: Bus) -> None:
        result = bus.tool("logger", "--drain")
        assert (result.returncode, result.stdout) == (2, "")
        assert "publisher_spool is not set" in result.stderr
        bus.configure("z", publisher_spool="/no/such/directory")
        result = bus.tool("logger", "--drain")
        assert result.returncode == 2
        assert "/no/such/directory: No such file or directory" in result.stderr


def test_a_hundred_thousand(bus: Bus, spool: Path) -> None:
    """All of them, in bounded memory."""
    total = 100_000
    fill(spool, *range(total))
    bus.relay()
    script = (
        "import re, sys\nfrom fedmsg_relay import logger\n"
        "status = logger.main(sys.argv[1:])\n"
        "[most] = re.findall(r'VmHWM:\\s*(\\d+) kB', open('/proc/self/status').read())\n"
        "print(most, file=sys.stderr)\n"
        "sys.exit(status)\n"
    )
    options = ["--config-filename", str(bus.config_directory), "--drain"]
    started = time.monotonic()
    result = subprocess.run(
        [sys.executable, "-c", script, *options],
        env=environment(),
        capture_output=True,
        text=True,
    )
    print(f"{time.monotonic() - started:.1f} s, {result.stderr.strip()} KiB at most")
    assert result.returncode == 0
    assert int(result.stderr) < 60_000
    assert waiting(spool) == []
    assert bus.journaled() == ids(*range(total))


@needs_root
class TestUsers:
    """As on a host: the spool is the user fedmsg's, here NOBODY, and SOMEBODY publishes."""

    @pytest.fixture
    def shared(self) -> Iterator[Path]:
        with shared_spool() as path:
            yield path

    def write(self, uid: int, spool: Path) -> str:
        return as_user(uid, lambda: Spool(str(spool), 1 << 30).write(*message(uid)))

    def test_users_cannot_list_read_or_remove_what_is_not_theirs(self, shared: Path) -> None:
        path = Path(self.write(SOMEBODY, shared))
        about = path.stat()
        assert (about.st_uid, about.st_gid, about.st_mode & 0o777) == (SOMEBODY, NOBODY, 0o640)
        attempts: dict[str, Callable[[], object]] = {
            "list": lambda: os.listdir(shared),
            "read": path.read_bytes,
            "remove": path.unlink,
            "rename": lambda: path.rename(shared / "other"),
        }
        for name, attempt in attempts.items():
            assert as_user(65532, attempt).startswith("PermissionError"), name
        assert path.exists()

    def test_root_drains_as_the_owner(self, bus: Bus, shared: Path) -> None:
        bus.with_journal(publisher_spool=str(shared))
        bus.relay()
        for uid in (SOMEBODY, NOBODY):
            self.write(uid, shared)
        result = bus.tool("logger", "--drain")
        assert (result.returncode, result.stderr) == (0, "")
        assert bus.journaled() == ids(SOMEBODY, NOBODY)
        assert waiting(shared) == []
        assert (shared / "failed").stat().st_uid == NOBODY

    def test_what_the_owner_may_not_read_goes_to_failed(self, bus: Bus, shared: Path) -> None:
        bus.with_journal(publisher_spool=str(shared))
        bus.relay()
        Path(self.write(SOMEBODY, shared)).chmod(0o600)
        self.write(NOBODY, shared)
        result = bus.tool("logger", "--drain")
        assert bus.journaled() == ids(NOBODY)
        assert "Permission denied" in result.stderr
        assert waiting(shared) == []

    def test_nobody_else_drains(self, shared: Path) -> None:
        refusal = as_user(SOMEBODY, lambda: drain.drain({"publisher_spool": str(shared)}))
        assert "only that user or root may drain it" in refusal

    def test_a_mark_of_someone_elses_does_not_count(self, shared: Path) -> None:
        mark = shared / quota.MARKS / str(SOMEBODY)
        mark.parent.mkdir()
        mark.touch()
        os.chown(mark.parent, SOMEBODY, SOMEBODY)
        assert self.write(SOMEBODY, shared).startswith(str(shared))
        os.chown(mark.parent, NOBODY, NOBODY)
        assert "is full" in self.write(SOMEBODY, shared)
