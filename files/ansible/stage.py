"""Check the global config as it is going to be, as the service user, before any of it is in place.

The roles run it with `python3 -I -c`. A JSON object on standard input:

    files       name to content: the config files of the role
    former      those names whose present file is somebody else's: it is going to be NAME.former.py
    kept        path of what release.py has kept: check its config files instead, by its programs
    relay       whether this host runs a relay, which asks for more
    validate    False where the programs are not installed yet (the first run in check mode)

All other files of /etc/fedmsg.d, and /etc/fedmsg-config.py, are copied beside the new ones with
their owners and modes. What does not load there would not load in its place. The directory is
temporary and gone in any case when this ends.

Exit code 0: the names of those new files that differ from what is in place, one a line.
Exit code 1: the config is refused, and standard error says why.
"""

import contextlib
import glob
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from typing import Optional

DIRECTORY = "/etc/fedmsg.d"
LIBRARY = "/usr/local/lib/fedmsg-relay"
LATER = "/etc/fedmsg-config.py"  # is loaded after the directory
STAGED_LATER = "~fedmsg-config.py"  # sorts last
USER = "fedmsg"
# Isolated: nothing is imported from where the environment or the service user says.
PREFLIGHT = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from fedmsg_relay.preflight import main
sys.exit(main())
"""


def main() -> int:
    os.umask(0o077)
    request = json.load(sys.stdin)
    if request["validate"]:
        with temporary() as staging, temporary() as programs:
            if "kept" in request:
                files = unpack(request["kept"], programs)
                stage(staging, files, [])
                error = refusal(staging, request["relay"], programs)
            else:
                stage(staging, request["files"], request["former"])
                error = refusal(staging, request["relay"], LIBRARY)
        if error:
            print(error, file=sys.stderr)
            return 1
    for name, content in request.get("files", {}).items():
        if differs(os.path.join(DIRECTORY, name), content):
            print(name)
    return 0


@contextlib.contextmanager
def temporary() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="fedmsg-staged-") as directory:
        os.chmod(directory, 0o755)
        yield directory


def unpack(kept: str, programs: str) -> dict[str, Optional[str]]:
    """Write the package that is kept below `programs`. Returns the config files that are kept, by
    name: None for one that there was not."""
    with open(kept, encoding="ascii") as kept_files:
        files = json.load(kept_files)["files"]
    config = {}
    for path, file in files.items():
        directory, name = os.path.split(path)
        if directory == DIRECTORY:
            config[name] = file and file["content"]
        elif path.startswith(f"{LIBRARY}/fedmsg_relay/") and file:
            module = programs + path[len(LIBRARY) :]
            provide(os.path.dirname(module), programs)
            with open(module, "wb") as stream:
                stream.write(file["content"].encode())
                os.fchmod(stream.fileno(), 0o644)
    return config


def provide(directory: str, programs: str) -> None:
    """Make a directory below `programs`, and those above it, for others to read."""
    if directory != programs and not os.path.isdir(directory):
        provide(os.path.dirname(directory), programs)
        os.mkdir(directory)
        os.chmod(directory, 0o755)


def stage(staging: str, files: Mapping[str, Optional[str]], former: list[str]) -> None:
    for path in glob.glob(f"{DIRECTORY}/*.py"):
        if os.path.isfile(path):
            name = os.path.basename(path)
            copy(path, os.path.join(staging, renamed(name) if name in former else name))
    if os.path.isfile(LATER):
        copy(LATER, os.path.join(staging, STAGED_LATER))
    for name, content in files.items():
        path = os.path.join(staging, name)
        if os.path.exists(path):
            os.unlink(path)
        if content is None:
            continue
        with open(path, "wb") as stream:
            stream.write(content.encode())
            os.fchmod(stream.fileno(), 0o644)


def renamed(name: str) -> str:
    """As files/ansible/former.py does it."""
    return f"{name[: -len('.py')]}.former.py"


def copy(source: str, target: str) -> None:
    # What the service user cannot read in /etc, it must not be able to read here.
    found = os.stat(source)
    shutil.copyfile(source, target)
    os.chmod(target, stat.S_IMODE(found.st_mode))
    os.chown(target, found.st_uid, found.st_gid)


def refusal(staging: str, relay: bool, programs: str) -> str:
    """Why the staged config cannot be used, or an empty string."""
    command = [sys.executable, "-I", "-B", "-c", PREFLIGHT, programs]
    command += ["--config-filename", staging]
    checked = subprocess.run(
        command + ["--relay"] * relay,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd="/",
        user=USER,
        group=USER,
        extra_groups=[],
        env={
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
        },
    )
    if checked.returncode == 0:
        return ""
    # Name the files as they are called in their place.
    said = checked.stderr.strip() or f"exit code {checked.returncode}"
    return said.replace(f"{staging}/{STAGED_LATER}", LATER).replace(staging, DIRECTORY)


def differs(path: str, content: str) -> bool:
    try:
        found = os.lstat(path)
        with open(path, "rb") as stream:
            return (
                not stat.S_ISREG(found.st_mode)
                or (found.st_uid, found.st_gid) != (0, 0)
                or stat.S_IMODE(found.st_mode) != 0o644
                or stream.read() != content.encode()
            )
    except OSError:
        return True


if __name__ == "__main__":
    sys.exit(main())
