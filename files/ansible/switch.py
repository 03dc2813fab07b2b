"""Replace the Python package of the programs: all of it at one moment.

The roles put this text before that of install.py and of release.py, after place.py.

`fedmsg_relay` is a symbolic link to releases/N/fedmsg_relay beside it. The new one is built there,
and the link is replaced by renaming. A program reads the link once, when it imports the package, so
it is of one release even if it was started the moment before; what it may yet import stays, for the
release that was replaced is removed by the next.
"""

import compileall
import ctypes
import os
import shutil
from collections.abc import Callable
from typing import TypeVar

RELEASES = "releases"
File = TypeVar("File")

AT_CWD, EXCHANGE = -100, 2  # of linux/fcntl.h and linux/fs.h


def put_all(files: dict[str, File], package: str, put: Callable[[str, File], None]) -> None:
    """Make all `files` what they are to be: those in `package` at one moment, then the others."""
    modules = {path: file for path, file in files.items() if path.startswith(f"{package}/")}
    if modules:
        switch(package, modules, put)
    for path, file in files.items():
        if path not in modules:
            put(path, file)


def switch(package: str, files: dict[str, File], put: Callable[[str, File], None]) -> None:
    """Replace the directory `package`, or make it, by a copy of itself with these files.

    `files` are by their paths in `package`; `put` makes one of them, or makes it go.
    """
    now = os.path.realpath(package) if os.path.isdir(package) else ""
    releases = os.path.join(os.path.dirname(package), RELEASES)
    name = os.path.basename(package)
    number = os.path.basename(os.path.dirname(now))
    coming = str(int(number) + 1) if number.isdecimal() else "1"
    new = os.path.join(releases, coming, name)
    # Of a run that was cut off.
    shutil.rmtree(os.path.dirname(new), ignore_errors=True)
    if now:
        # With its times, by which Python knows that what it compiled of them is current.
        shutil.copytree(now, new)
    else:
        os.makedirs(new)
    for path, file in files.items():
        put(new + path[len(package) :], file)
    remove_emptied(new)
    # Those who run the modules cannot write beside them, and would compile all at every start,
    # which takes as long as everything else a relay does until it is there.
    compileall.compile_dir(new, quiet=2)
    link = f"{package}.new"
    remove(link)
    os.symlink(os.path.join(RELEASES, coming, name), link)
    if os.path.isdir(package) and not os.path.islink(package):
        # Of a release that knew no link.
        exchange(link, package)
        remove(link)
    else:
        os.rename(link, package)
    for old in os.listdir(releases):
        if old not in (number, coming):
            shutil.rmtree(os.path.join(releases, old))


def remove_emptied(directory: str) -> None:
    """Remove the folders below that have no file but what was compiled of those that are gone."""
    for where, _, names in os.walk(directory, topdown=False):
        if names or os.path.basename(where) == "__pycache__":
            continue
        if set(os.listdir(where)) <= {"__pycache__"}:
            shutil.rmtree(where)


def exchange(one: str, other: str) -> None:
    """Swap two names at one moment or, on a file system that cannot, one after the other."""
    libc = ctypes.CDLL(None)
    if libc.renameat2(AT_CWD, os.fsencode(one), AT_CWD, os.fsencode(other), EXCHANGE) != 0:
        beside = f"{other}.old"
        remove(beside)
        os.rename(other, beside)
        os.rename(one, other)
        os.rename(beside, one)


def remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)
