"""Whether check mode tells the truth: what `--check --diff` says is what the run then does.

    real = predicted.compare("deploy", ["--extra-vars", "..."], hosts)
    assert real.changes

`compare` runs a playbook in check mode and then for real. It asserts that

- check mode changes nothing on any host: neither files nor units nor processes of units;
- the same tasks, hosts and items change in both runs, and both show the same difference;
- each file was on its host what the difference says that it was, and then is what it says;
- nothing of ours changes on a host that was not shown.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from testinfra.host import Host

ROOT = Path(__file__).parents[2]
SURVEY = (ROOT / "tests/sop/on_host/survey.py").read_text()
# What is there, by path: for a file its text, for a link "-> " and where it leads, else null.
READ = """
import json, os, stat, sys
def there(path):
    if os.path.islink(path): return "-> " + os.readlink(path)
    return open(path).read() if os.path.isfile(path) else None
print(json.dumps({path: there(path) for path in json.load(sys.stdin)}))
"""
SHOWN = "install | Show the files that differ from this release"
DIRECTORIES = "install | Ensure the user and its directories exist"
ENTRY = re.compile(
    r"^(/\S+): (?:(\d+) bytes, (\d{4}) root:root|a link to (\S+)|(removed)), was (.*)$"
)
# What is not of these roles and is replaced is backed up by a task that says so. The release that
# is replaced is kept by another, with a mark that lasts as long as the deploy.
BACK_UP = "install | Back up the files that the takeover replaces"
BACKUPS = "/var/backups/fedmsg-relay"
KEEP = "keep | Keep the release that this deploy replaces"
PREVIOUS = "/usr/local/lib/fedmsg-relay.previous"
KEPT = {PREVIOUS, f"{PREVIOUS}/release.json"}
MARK = f"{PREVIOUS}/open"
# Beside what a deploy writes there is what runs by it, and what systemd notes of enabled units.
BY_ITSELF = re.compile(
    r"/var/log/fedmsg/.+|/var/lib/fedmsg-relay/.+|/var/spool/fedmsg/.+\d.*|.*\.wants/.*"
)


@dataclass(frozen=True)
class Change:
    task: str
    host: str
    item: str


@dataclass(frozen=True)
class File:
    """A file of a host in a difference: text before and after where that was shown, else size."""

    before: str | None = None
    after: str | None = None
    unified: tuple[str, ...] | None = None
    size: int | None = None
    mode: str = ""
    removed: bool = False


@dataclass
class Run:
    """A run of a playbook. Files are by host and path."""

    returncode: int
    output: str
    lines: list[dict[str, Any]] = field(default_factory=list)

    @property
    def changes(self) -> set[Change]:
        return {
            Change(_task(line), line["host"], json.dumps(line["item"]))
            for line in self.lines
            if line["changed"]
        }

    @property
    def failures(self) -> list[str]:
        return [re.sub(r"\s+", " ", str(each["msg"])) for each in self.lines if each["failed"]]

    @property
    def files(self) -> dict[tuple[str, str], File]:
        found: dict[tuple[str, str], File] = {}
        for line in self.lines:
            parts = (
                _of_text(line["msg"])
                if _task(line) == SHOWN
                else _of_module(line["diff"], line["dest"])
            )
            for path, file in parts:
                found[line["host"], path] = file
        return found


def run(playbook: str, inventory: str, *arguments: str) -> Run:
    """Run a playbook as an operator does, with --diff."""
    with tempfile.TemporaryDirectory() as directory:
        record = Path(directory, "recorded")
        record.touch()
        done = subprocess.run(
            ["ansible-playbook", "--inventory", inventory, "--diff", f"playbooks/{playbook}.yml",
             *arguments],
            cwd=ROOT,
            env={
                **os.environ,
                "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                "ANSIBLE_CALLBACK_PLUGINS": str(Path(__file__).parent / "callback_plugins"),
                "ANSIBLE_CALLBACKS_ENABLED": "recorded,frozen",
                "ANSIBLE_NOCOLOR": "1",
                "RECORDED": str(record),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )  # fmt: skip
        lines = [json.loads(line) for line in record.read_text().splitlines()]
    return Run(done.returncode, done.stdout, lines)


def compare(
    playbook: str, inventory: str, hosts: Mapping[str, Host], arguments: Sequence[str] = ()
) -> Run:
    """Run in check mode, then for real; what the real run did. See above for what is asserted."""
    before = snapshots(hosts)
    said = run(playbook, inventory, "--check", *arguments)
    assert said.returncode == 0, said.output
    assert_same(before, snapshots(hosts))
    texts = _read(hosts, said.files)

    done = run(playbook, inventory, *arguments)
    assert done.returncode == 0, done.output
    assert said.changes == done.changes, _apart(said.changes, done.changes)
    assert said.files == done.files, _apart(said.files.items(), done.files.items())
    after = snapshots(hosts)
    now = _read(hosts, said.files)
    for (host, path), file in said.files.items():
        was, is_now = texts[host][path], now[host][path]
        where = f"{host}: {path}"
        if file.removed:
            assert (was is not None, is_now) == (True, None), where
        if file.mode:
            assert after[host]["file"][path].split()[0].endswith(file.mode.lstrip("0")), where
        if file.size is not None:
            assert len((is_now or "").encode()) == file.size, where
        if file.unified is not None:
            # What was a link is replaced by a file, and nothing of it stays.
            old = "" if (was or "").startswith("-> ") else was or ""
            new = is_now or ""
            real = difflib.unified_diff(old.splitlines(), new.splitlines(), path, path, lineterm="")
            assert tuple(real) == file.unified, where
        if file.after is not None:
            assert ((was or ""), is_now) == (file.before, file.after), where
    shown = {*said.files, *_directories(said)}
    keeping = {change.host for change in said.changes if change.task == KEEP}
    backing_up = {change.host for change in said.changes if change.task == BACK_UP}
    for host, changed in _changed(before, after).items():
        ours = {path for path in changed if "fedmsg" in path and not BY_ITSELF.fullmatch(path)}
        hidden = {path for path in ours if (host, path) not in shown}
        # The directories that hold new files are made for them.
        hidden -= {str(parent) for _, path in shown for parent in Path(path).parents}
        hidden -= {MARK, *(KEPT if host in keeping else ())}
        if host in backing_up:
            hidden = {path for path in hidden if not path.startswith(BACKUPS)}
        assert not hidden, f"{host}: changed and not shown: {sorted(hidden)}"
    return done


def snapshots(hosts: Mapping[str, Host]) -> dict[str, dict[str, Any]]:
    """All files, units, mounts and rules of the firewall of every host."""

    def take(host: Host) -> dict[str, Any]:
        found = json.loads(host.check_output(f"python3 -c {shlex.quote(SURVEY)}"))
        return {kind: found[kind] for kind in ("file", "unit", "mount", "firewall")}

    with ThreadPoolExecutor(len(hosts)) as pool:
        return dict(zip(hosts, pool.map(take, hosts.values())))


def assert_same(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    different = [
        f"{host}: {kind} {name}: was {old.get(name)}, is {new.get(name)}"
        for host in before
        for kind, old in before[host].items()
        for new in [after[host][kind]]
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
    assert not different, "\n".join(different)


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, set[str]]:
    return {
        host: {path for path in old.keys() | new.keys() if old.get(path) != new.get(path)}
        for host in before
        for old, new in [(before[host]["file"], after[host]["file"])]
    }


def _read(
    hosts: Mapping[str, Host], files: Iterable[tuple[str, str]]
) -> dict[str, dict[str, str | None]]:
    wanted: dict[str, list[str]] = {name: [] for name in hosts}
    for name, path in files:
        wanted[name].append(path)
    return {
        name: json.loads(
            host.check_output(
                f"echo {shlex.quote(json.dumps(wanted[name]))} | python3 -c {shlex.quote(READ)}"
            )
        )
        for name, host in hosts.items()
    }


def _task(line: Mapping[str, Any]) -> str:
    """Its name without the role's, which a handler has not."""
    return str(line["task"]).rpartition(" : ")[2]


def _of_text(text: str) -> Iterator[tuple[str, File]]:
    """The files in what files/ansible/survey.py says of them."""
    lines = text.splitlines()
    starts = [number for number, line in enumerate(lines) if ENTRY.match(line)]
    assert starts[:1] == [0], text
    for start, end in zip(starts, [*starts[1:], len(lines)]):
        found = ENTRY.match(lines[start])
        assert found
        path, size, mode, link, removed, _ = found.groups()
        unified = tuple(lines[start + 1 : end]) or None
        if removed:
            yield path, File(removed=True)
        elif link:
            yield path, File(size=len(f"-> {link}"))
        else:
            yield path, File(size=int(size), mode=mode, unified=unified)


def _of_module(diffs: Iterable[Mapping[str, Any]], dest: str) -> Iterator[tuple[str, File]]:
    """The files in what Ansible's own modules show; `dest` is where the module puts one."""
    found: dict[str, File] = {}
    for diff in diffs:
        before, after = diff.get("before"), diff.get("after")
        path = str(diff.get("before_header", dest)).removesuffix(" (content)")
        if isinstance(after, str) and path.startswith("/"):
            found[path] = File(before=str(before), after=after)
        elif isinstance(after, dict) and "path" in after:
            found[after["path"]] = File(mode=str(after.get("mode", "")))
    yield from found.items()


def _directories(run: Run) -> set[tuple[str, str]]:
    """Those that a check run says it is going to make or to change, `path mode owner` each."""
    return {
        (line["host"], said.split()[0])
        for line in run.lines
        if _task(line) == DIRECTORIES
        for said in line["msg"]
    }


def _apart(said: Iterable[Any], done: Iterable[Any]) -> str:
    one, other = list(said), list(done)
    only = [f"said only: {each}" for each in one if each not in other]
    return "\n".join(only + [f"done only: {each}" for each in other if each not in one])
