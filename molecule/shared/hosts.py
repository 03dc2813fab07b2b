#!/usr/bin/env python3
"""Boot real systemd hosts in containers, reached over SSH, and remove them again.

    hosts.py up     --prefix P --state DIR HOST=SUITE[+PACKAGE...][:PORT...] ...
    hosts.py down   --prefix P --state DIR
    hosts.py status
    hosts.py clean

`up` makes the hosts of prefix P exactly those named: it reuses what runs, replaces what differs or
does not answer, and removes the rest. Its hosts share a network on which their names resolve. Each
has an unprivileged user `operator` with sudo. A host with PACKAGEs is a copy of an image that has
them, see images.py. A PORT of a host is published at a free port of 127.0.0.1. DIR then holds
ssh_config (`ssh -F DIR/ssh_config HOST`) and inventory.json (`ansible-playbook -i
DIR/inventory.json`). `status` shows, and `clean` removes, the hosts of every prefix that this
checkout of the project has made.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from access import Access, Host
from engine import EngineError, limit_options, podman, podman_json, require_network_names
from images import ensure_image

# Whose hosts these are: two clones on one machine leave each other's alone.
CHECKOUT = Path(__file__).resolve().parents[2]
CHECKOUT_LABEL = f"fedmsg-relay.checkout={CHECKOUT}"
PREFIX_LABEL = "fedmsg-relay.test-hosts"
SPEC_LABEL = "fedmsg-relay.test-host-spec"
# A host that already ran needs no boot: if it is silent this long (seconds), it is replaced.
REUSE_PATIENCE = 15
# One question of a host that boots (seconds), before it is asked anew: a firewall that starts with
# the host cuts the connections that are there already, and ssh would wait for ever.
ONE_QUESTION = 15
# The package lists as a daily timer keeps them, unless those that are there are of today.
REFRESH = """
command -v apt-get >/dev/null || exit 0
stamp=/var/lib/apt/periodic/update-success-stamp
[ -z "$(find $stamp -mmin -720 2>/dev/null)" ] || exit 0
sudo apt-get --quiet=2 update && sudo install -D /dev/null $stamp
"""


@dataclass(frozen=True)
class Spec:
    """One host as asked for on the command line."""

    name: str
    suite: str
    packages: tuple[str, ...]
    ports: tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> Spec:
        name, equals, rest = text.partition("=")
        image, *ports = rest.split(":")
        suite, *packages = image.split("+")
        if not (name and equals and suite and all(port.isdigit() for port in ports)):
            raise argparse.ArgumentTypeError(f"{text!r} is not HOST=SUITE[+PACKAGE...][:PORT...]")
        return cls(name, suite, tuple(sorted(packages)), tuple(int(port) for port in ports))

    @property
    def image(self) -> tuple[str, tuple[str, ...]]:
        """What ensure_image() is asked for."""
        return self.suite, self.packages


class Hosts:
    """The hosts of one prefix: their network and their containers."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.label = f"{PREFIX_LABEL}={prefix}"

    def containers(self) -> dict[str, dict[str, Any]]:
        """What podman knows of each container of this prefix, by host name."""
        return {
            entry["Names"][0][len(self.prefix) + 1 :]: entry for entry in _containers(self.label)
        }

    def ensure_network(self) -> None:
        if self.prefix not in _networks(self.label):
            labels = [f"--label={self.label}", f"--label={CHECKOUT_LABEL}"]
            podman("network", "create", *labels, self.prefix)

    def remove_network(self) -> None:
        for network in _networks(self.label):
            podman("network", "rm", "--force", network)

    def create(self, spec: Spec, image: str, spec_hash: str, files: bytes) -> None:
        """Start `spec` as a fresh host that has `files`, a tar archive."""
        container = self.container(spec.name)
        podman(
            "create",
            f"--name={container}",
            f"--hostname={spec.name}",
            f"--network={self.prefix}",
            f"--network-alias={spec.name}",
            "--no-hosts",
            f"--label={self.label}",
            f"--label={CHECKOUT_LABEL}",
            f"--label={SPEC_LABEL}={spec_hash}",
            *(f"--publish=127.0.0.1::{port}" for port in (22, *spec.ports)),
            *limit_options(),
            # The units under test set up mounts, namespaces and filters of their own.
            "--privileged",
            "--systemd=always",
            image,
            "/sbin/init",
        )
        podman("cp", "-", f"{container}:/", stdin=files)
        podman("start", container)

    def start(self, name: str) -> None:
        podman("start", self.container(name))

    def remove(self, name: str) -> None:
        podman("rm", "--force", "--volumes", "--time=0", self.container(name))

    def journal(self, name: str) -> str:
        """The last lines of a host's journal, for the person whose host did not come up."""
        container = self.container(name)
        lines = podman("exec", container, "journalctl", "--no-pager", "--lines=80", check=False)
        return lines or podman("logs", "--tail=40", container, check=False)

    def container(self, name: str) -> str:
        return f"{self.prefix}-{name}"


def up(prefix: str, state: Path, specs: list[Spec], timeout: float) -> None:
    """Make the hosts of `prefix` exactly `specs`, each answering within `timeout` seconds.

    Raises EngineError, after printing the journal of a host that does not come up.
    """
    started = time.monotonic()
    require_network_names()
    hosts, access = Hosts(prefix), Access(state)
    names = [spec.name for spec in specs]
    with ThreadPoolExecutor(max_workers=max(len(specs), 1)) as pool:
        wanted = sorted({spec.image for spec in specs})
        images = dict(zip(wanted, pool.map(lambda image: ensure_image(*image), wanted)))
        hashes = {spec.name: _spec_hash(spec, images[spec.image], access) for spec in specs}

        def create(missing: list[Spec]) -> None:
            for _ in pool.map(
                lambda spec: hosts.create(
                    spec, images[spec.image], hashes[spec.name], access.host_files(spec.name)
                ),
                missing,
            ):
                pass
            _write_access(hosts, access, specs)

        def faults(of: list[str], patience: float) -> dict[str, str]:
            found = zip(of, pool.map(lambda name: _fault(access, name, names, patience), of))
            return {name: fault for name, fault in found if fault}

        hosts.ensure_network()
        reused = _usable(hosts, hashes)
        for name in hosts.containers().keys() - reused:
            hosts.remove(name)
        create([spec for spec in specs if spec.name not in reused])
        silent = faults([name for name in names if name in reused], REUSE_PATIENCE)
        for name in silent:
            hosts.remove(name)
        if silent:
            create([spec for spec in specs if spec.name in silent])

        fresh = [name for name in names if name not in reused or name in silent]
        failed = faults(fresh, timeout)
        for name, fault in failed.items():
            print(f"hosts: {name} did not come up: {fault}; its journal:", file=sys.stderr)
            print(hosts.journal(name), file=sys.stderr, flush=True)
        if failed:
            raise EngineError(f"not up after {timeout:.0f} s: {', '.join(failed)}")
        for _ in pool.map(lambda name: _refresh_package_lists(access, name), fresh):
            pass

    for spec in specs:
        how = "started" if spec.name in fresh else "already up"
        print(f"hosts: {spec.name} ({spec.suite}) {how}")
    print(f"hosts: {len(specs)} up in {time.monotonic() - started:.1f} s", flush=True)


def down(prefix: str, state: Path) -> None:
    """Remove the containers and the network of `prefix`, and what `up` wrote into `state`."""
    hosts = Hosts(prefix)
    removed = list(hosts.containers())
    for name in removed:
        hosts.remove(name)
    hosts.remove_network()
    if state.is_dir():
        Access(state).remove()
    print(f"hosts: removed {', '.join(sorted(removed)) or 'nothing'}", flush=True)


def status() -> None:
    """Print each host of this checkout, its state and its ports, a line a host."""
    for entry in sorted(_containers(CHECKOUT_LABEL), key=lambda entry: entry["Names"]):
        ports = [f"{at} -> {port}" for port, at in sorted(_published(entry).items())]
        print(f"{entry['Names'][0]}  {entry['State']}  127.0.0.1: {', '.join(ports)}")


def clean() -> None:
    """Remove every host and network that this checkout has made, whatever its prefix."""
    for entry in _containers(CHECKOUT_LABEL):
        podman("rm", "--force", "--volumes", "--time=0", entry["Id"])
        print(f"hosts: removed {entry['Names'][0]}")
    for network in _networks(CHECKOUT_LABEL):
        podman("network", "rm", "--force", network)


def _usable(hosts: Hosts, hashes: dict[str, str]) -> set[str]:
    """Names of the hosts that are as asked for and run, after starting those that were stopped."""
    usable = set()
    for name, entry in hosts.containers().items():
        # "created" is what an interrupted run leaves behind, perhaps before the keys were in it.
        if entry["Labels"].get(SPEC_LABEL) != hashes.get(name) or entry["State"] == "created":
            continue
        try:
            if entry["State"] != "running":
                hosts.start(name)
        except EngineError:
            continue
        usable.add(name)
    return usable


def _write_access(hosts: Hosts, access: Access, specs: list[Spec]) -> None:
    entries = hosts.containers()
    access.write(
        [
            Host(spec.name, hosts.container(spec.name), spec.suite, _published(entries[spec.name]))
            for spec in specs
        ]
    )


def _containers(label: str) -> list[dict[str, Any]]:
    entries = podman_json("ps", "--all", "--filter", f"label={label}", "--format", "json")
    return list(entries)


def _networks(label: str) -> list[str]:
    label_filter = f"label={label}"
    return podman("network", "ls", "--filter", label_filter, "--format", "{{.Name}}").split()


def _published(entry: dict[str, Any]) -> dict[int, int]:
    """Ports of a container -> ports of 127.0.0.1. Podman joins adjacent ones into ranges."""
    return {
        mapping["container_port"] + i: mapping["host_port"] + i
        for mapping in entry["Ports"] or []
        for i in range(mapping.get("range") or 1)
    }


def _fault(access: Access, name: str, names: list[str], patience: float) -> str:
    """Wait until a host is booted, logged into and resolves every name; what is wrong otherwise.

    A name that resolves to loopback counts as wrong: services would bind an address that other
    hosts cannot reach.
    """
    deadline = time.monotonic() + patience
    booted = "systemctl is-system-running --wait"
    resolved = f"getent ahostsv4 {' '.join(names)}"
    fault = "no answer"
    while (left := deadline - time.monotonic()) > 0:
        try:
            boot = access.ssh(name, booted, min(left, ONE_QUESTION))
            if boot.stdout.strip() in ("running", "degraded"):
                lookup = access.ssh(name, resolved, min(left, ONE_QUESTION))
                addresses = lookup.stdout.split()[::3]
                if lookup.returncode == 0 and not any(a.startswith("127.") for a in addresses):
                    return ""
                fault = f"`{resolved}` says {lookup.stdout.strip() or 'nothing'!r}"
            else:
                fault = f"`{booted}` says {boot.stdout.strip()!r}"
        except subprocess.TimeoutExpired as error:
            fault = f"{error.cmd[-1]!r} took over {error.timeout:.0f} s"
        time.sleep(0.2)
    return fault


def _refresh_package_lists(access: Access, name: str) -> None:
    """Download the package lists, as a real host's daily timer has done: check mode reads them."""
    # An image that has packages has the lists of the day it was built. Half a day is fresh enough.
    answer = access.ssh(name, REFRESH, 120)
    if answer.returncode != 0:
        print(f"hosts: {name}: no package lists: {answer.stdout.strip()}", file=sys.stderr)


def _spec_hash(spec: Spec, image: str, access: Access) -> str:
    words = f"{spec} {image} {access.public_keys(spec.name)}"
    return hashlib.sha256(words.encode()).hexdigest()[:16]


@contextmanager
def _alone(state: Path) -> Iterator[None]:
    """Let one run at a time work on a state directory; the next waits for it."""
    state.mkdir(parents=True, exist_ok=True)
    with (state / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=["up", "down", "status", "clean"])
    parser.add_argument("--prefix", help="names the containers and their network")
    parser.add_argument("--state", type=Path, help="directory for keys and connection files")
    parser.add_argument("--timeout", type=float, default=300, help="seconds a boot may take")
    parser.add_argument("hosts", nargs="*", type=Spec.parse, metavar="HOST=SUITE[:PORT...]")
    asked = parser.parse_intermixed_args()
    try:
        if asked.action in ("status", "clean"):
            status() if asked.action == "status" else clean()
            return 0
        if not (asked.prefix and asked.state):
            parser.error(f"{asked.action} needs --prefix and --state")
        state = asked.state.resolve()
        with _alone(state):
            if asked.action == "up":
                up(asked.prefix, state, asked.hosts, asked.timeout)
            else:
                down(asked.prefix, state)
    except EngineError as error:
        print(f"hosts: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
