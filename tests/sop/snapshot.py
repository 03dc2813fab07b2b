"""Whether commands that only look have changed nothing on the hosts."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from . import machines

SURVEY = (Path(__file__).parent / "on_host" / "survey.py").read_text()

# {host: {kind: {name: value}}}; a host that does not answer is None.
Snapshot = dict[str, Any]


def take(names: Sequence[str] = machines.NAMES) -> Snapshot:
    """Of these hosts; all others are left as if they did not answer."""
    with ThreadPoolExecutor(len(machines.NAMES)) as pool:
        return {**dict.fromkeys(machines.NAMES), **dict(zip(names, pool.map(_survey, names)))}


def touched(before: Snapshot, after: Snapshot) -> list[str]:
    """Hosts on which anything is different after, a process too, or that have not answered."""
    different = {host for (host, _, _), _, _ in _differences(before, after)}
    silent = {host for host in before if not (before[host] and after[host])}
    return sorted(different | silent)


def _survey(name: str) -> Any:
    printed = machines.root(name, f"python3 -c {shlex.quote(SURVEY)}")
    if printed.status == machines.UNREACHABLE:
        return None
    assert printed.status == 0, f"{name}: {printed.text}"
    return json.loads(printed.text)


def changes(earlier: Snapshot, before: Snapshot, after: Snapshot) -> list[str]:
    """What is different after, a line each.

    `earlier` and `before` tell what changes by itself: the fault may well not stand still.
    """
    restless = {where for where, _, _ in _differences(earlier, before)}
    found = []
    for where, old, new in _differences(before, after):
        host, kind, name = where
        if where in restless or _by_itself(kind, name, old, new, before[host], after[host]):
            continue
        found.append(f"{host}: {kind} {name}: was {old}, is {new}")
    return found


def _differences(
    before: Snapshot, after: Snapshot
) -> Iterator[tuple[tuple[str, str, str], Any, Any]]:
    for host in before:
        old, new = before[host] or {}, after[host] or {}
        for kind in old.keys() & new.keys():
            for name in sorted(old[kind].keys() | new[kind].keys()):
                pair = old[kind].get(name), new[kind].get(name)
                if pair[0] != pair[1]:
                    yield (host, kind, name), *pair


def _by_itself(kind: str, name: str, old: Any, new: Any, before: Any, after: Any) -> bool:
    if kind == "unit":
        return bool(old and new and _restarted(old, new))
    if kind == "process":
        # A process of a service that systemd has started again meanwhile, or of one on its way up.
        unit = (old or new).split()[-1]
        was, is_now = before["unit"].get(unit), after["unit"].get(unit)
        return bool(was and is_now and _restarted(was, is_now))
    return False


def _restarted(old: dict[str, str], new: dict[str, str]) -> bool:
    """Systemd itself has restarted the service, or is about to: nobody asked it to, for that would
    begin the count anew."""
    count = [int(unit.get("NRestarts") or 0) for unit in (old, new)]
    on_its_way = {"activating", "deactivating"} & {old["ActiveState"], new["ActiveState"]}
    same = {**old, **_OF_A_RUN} == {**new, **_OF_A_RUN}
    up = new["ActiveState"] not in ("inactive", "failed")
    return same and up and (count[1] > count[0] or (count[1] == count[0] and bool(on_its_way)))


_OF_A_RUN = dict.fromkeys(("ActiveState", "MainPID", "NRestarts"), "")
