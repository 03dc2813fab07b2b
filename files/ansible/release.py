"""Keep the release that a deploy replaces, and put it back. All in one round trip.

The roles run it with `python3 -I -c`, after place.py, switch.py. A JSON object on standard input:

    action     keep     before a deploy changes anything: keep what is there now. If the last deploy
                        has not come to its end, what was kept before it stays: what worked last
               close    a deploy has come to its end
               look     what `restore` would do, as JSON; the keys are below
               restore  put back what is kept, and keep what was there instead. A second one undoes
                        the first
    library    the directory of the programs: all of it is kept
    files      paths of all other files that a deploy writes; `SITE/` is as in place.py
    run        the moment of the run that asks, which says later what was done together
    only_look  keep, close, restore: change nothing, and say the same (check mode)

Prints what it has changed, a line each. `look` prints

    kept       whether there is something; if not, the other keys are missing
    run        of the deploy, or the restoring, that replaced what is kept
    version    of the programs that are kept
    changes    the lines that `restore` prints
    diff       of the files that people read: all but the programs
    schema     of the journal: {now, kept}

One file has all that is kept, and is replaced by renaming, so there is always one that is whole.
The Python package is put back as a whole.
"""

import contextlib
import difflib
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Optional

if TYPE_CHECKING:
    from ansible.place import located, put
    from ansible.switch import put_all

UNITS = "/etc/systemd/system/"
STARTED = (".path", ".service", ".socket", ".timer")

# What a file is: {content, mode, owner} or {link}; None where there is none.
File = Optional[dict[str, Any]]


def main() -> None:
    os.umask(0o022)
    request = json.load(sys.stdin)
    store = Store(request["library"])
    paths = [located(path) for path in request["files"]]
    action, only_look = request["action"], request.get("only_look", False)
    if action == "look":
        json.dump(store.look(paths), sys.stdout)
    elif action == "keep":
        print(*store.keep(paths, request["run"], only_look), sep="\n", end="")
    elif action == "close":
        print(*store.close(only_look), sep="\n", end="")
    else:
        print(*store.restore(paths, request["run"], only_look), sep="\n", end="")


class Store:
    """The kept release of this host, beside the programs."""

    def __init__(self, library: str) -> None:
        self.library = library
        self.directory = f"{library}.previous"
        self.path = f"{self.directory}/release.json"
        # What a restoring that was cut off has replaced so far: it is what that began with.
        self.beside = f"{self.path}.new"
        self.open = f"{self.directory}/open"

    def keep(self, paths: list[str], run: str, only_look: bool) -> list[str]:
        if os.path.exists(self.open) or not os.path.isdir(f"{self.library}/fedmsg_relay"):
            return []
        if not only_look:
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
            os.chmod(self.directory, 0o700)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.beside)
            write(self.path, release(self.library, paths, run))
            with open(self.open, "wb"):
                pass
        return [f"kept {self.version(release(self.library, [], run))}"]

    def close(self, only_look: bool) -> list[str]:
        if not os.path.exists(self.open):
            return []
        if not only_look:
            os.unlink(self.open)
        return [f"closed {self.path}"]

    def look(self, paths: list[str]) -> dict[str, Any]:
        if not os.path.exists(self.path):
            return {"kept": False}
        kept = load(self.path)
        now = release(self.library, [*paths, *kept["files"]], "")
        return {
            "kept": True,
            "run": kept["run"],
            "version": self.version(kept),
            "changes": changes(now, kept),
            "diff": "".join(
                difference(path, now["files"].get(path), kept["files"].get(path))
                for path in changed(now, kept) if not path.startswith(f"{self.library}/")
            ),
            "schema": {"now": self.schema(now), "kept": self.schema(kept)},
        }  # fmt: skip

    def restore(self, paths: list[str], run: str, only_look: bool) -> list[str]:
        kept = load(self.path)
        now = release(self.library, [*paths, *kept["files"]], run)
        done = changes(now, kept)
        if only_look or not done:
            return done
        if not os.path.exists(self.beside):
            write(self.beside, now)
        going = [path for path in changed(now, kept) if kept["files"].get(path) is None]
        leaving = [os.path.basename(path) for path in going if is_unit(path)]
        if leaving:
            systemctl("disable", "--now", *leaving)
        files = {path: kept["files"].get(path) for path in changed(now, kept)}
        put_all(files, f"{self.library}/fedmsg_relay", put)
        os.rename(self.beside, self.path)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.open)
        if any(path.startswith(UNITS) for path in changed(now, kept)):
            systemctl("daemon-reload")
        coming = [unit for unit in kept["enabled"] if unit not in now["enabled"]]
        if coming:
            systemctl("enable", "--now", *coming)
        return done

    def version(self, release: dict[str, Any]) -> str:
        return self.found(release, "__init__", r'^__version__ = "(.*)"') or "an unknown version"

    def schema(self, release: dict[str, Any]) -> int:
        # Where it is in this release, and where it was in those that had no rooms.
        pattern = r"^SCHEMA_VERSION = (\d+)"
        for module in ("journal/store", "journal"):
            if number := self.found(release, module, pattern):
                return int(number)
        return 0

    def found(self, release: dict[str, Any], module: str, pattern: str) -> str:
        file = release["files"].get(f"{self.library}/fedmsg_relay/{module}.py") or {}
        match = re.search(pattern, file.get("content", ""), re.M)
        return match[1] if match else ""


def release(library: str, paths: list[str], run: str) -> dict[str, Any]:
    """All there is of a release now."""
    files = {path: read(path) for path in sorted({*paths, *programs(library)})}
    units = [os.path.basename(path) for path, file in files.items() if file and is_unit(path)]
    return {"run": run, "enabled": [name for name in units if is_enabled(name)], "files": files}


def programs(library: str) -> Iterator[str]:
    """Paths of all in the library, those of the package as its link has them."""
    for where, directories, names in os.walk(library, followlinks=True):
        if where == library and "releases" in directories:
            directories.remove("releases")
        yield from (os.path.join(where, name) for name in names if not name.endswith(".pyc"))


def is_unit(path: str) -> bool:
    return path.startswith(UNITS) and path.endswith(STARTED)


def is_enabled(unit: str) -> bool:
    asked = subprocess.run(["systemctl", "is-enabled", "--quiet", unit], stderr=subprocess.DEVNULL)
    return asked.returncode == 0


def systemctl(*words: str) -> None:
    subprocess.run(["systemctl", *words], check=True, stdout=subprocess.DEVNULL)


def changed(now: dict[str, Any], kept: dict[str, Any]) -> list[str]:
    every = sorted({*now["files"], *kept["files"]})
    return [path for path in every if now["files"].get(path) != kept["files"].get(path)]


def changes(now: dict[str, Any], kept: dict[str, Any]) -> list[str]:
    lines = []
    for path in changed(now, kept):
        is_new, is_gone = now["files"].get(path) is None, kept["files"].get(path) is None
        lines.append(f"{'+' if is_new else '-' if is_gone else '~'} {path}")
    return lines


def difference(path: str, now: File, kept: File) -> str:
    lines = [(file or {}).get("content", "").splitlines(keepends=True) for file in (now, kept)]
    names = f"{path} (now)", f"{path} (previous)"
    return "".join(difflib.unified_diff(lines[0], lines[1], *names))


def read(path: str) -> File:
    try:
        found = os.lstat(path)
        if stat.S_ISLNK(found.st_mode):
            return {"link": os.readlink(path)}
        with open(path, "rb") as stream:
            content = stream.read().decode("utf-8", "surrogateescape")
    except OSError:
        return None
    owner = [found.st_uid, found.st_gid]
    return {"content": content, "mode": stat.S_IMODE(found.st_mode), "owner": owner}


def load(path: str) -> dict[str, Any]:
    with open(path, encoding="ascii") as stream:
        found: dict[str, Any] = json.load(stream)
    return found


def write(path: str, content: dict[str, Any]) -> None:
    """On disk when this returns: what it replaces may be all there was."""
    written = f"{path}.tmp"
    with open(written, "w", encoding="ascii") as stream:
        os.fchmod(stream.fileno(), 0o600)
        json.dump(content, stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.rename(written, path)


if __name__ == "__main__":
    main()
