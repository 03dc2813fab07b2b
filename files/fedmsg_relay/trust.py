"""Whether a file may be executed: nobody but its reader and root can have put code into it."""

from __future__ import annotations

import os
import stat

_WRITABLE = stat.S_IWGRP | stat.S_IWOTH
_MAX_LINKS = 40  # the kernel's own limit


def why_not(path: str) -> str | None:
    """Why the absolute `path` is not to be executed, or None if it is.

    The file, each directory above it and each symbolic link on the way must be of this user or of
    root, and not writable by others. A directory such as /tmp may be above: in it nobody can
    replace what is somebody else's. Raises OSError where this user cannot look.
    """
    left = path.split("/")[::-1]
    current, links = "/", 0
    while left:
        name = left.pop()
        if name in ("", "."):
            continue
        if name == "..":
            current = os.path.dirname(current)
            continue
        here = os.path.join(current, name)
        found = os.lstat(here)
        if found.st_uid not in (0, os.geteuid()):
            return f"{here} is user {found.st_uid}'s"
        if not stat.S_ISLNK(found.st_mode):
            current = here
            if found.st_mode & _WRITABLE and not _only_ours(here, found):
                return f"{here} is writable by others"
            continue
        links += 1
        if links > _MAX_LINKS:
            return f"{here} is one of too many symbolic links"
        target = os.readlink(here)
        left.extend(target.split("/")[::-1])
        if target.startswith("/"):
            current = "/"
    return None


def _only_ours(path: str, found: os.stat_result) -> bool:
    """Whether the write permission of others that `path` has gives nobody else anything."""
    if stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX:
        return True
    if found.st_mode & stat.S_IWOTH or "system.posix_acl_access" in _attributes(path):
        return False
    if found.st_gid == 0:
        return True
    # The group that many distributions give each user, with an umask that lets it write.
    import grp
    import pwd

    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(found.st_gid)
    except KeyError:
        return False
    is_private = user.pw_gid == group.gr_gid and user.pw_name == group.gr_name
    return is_private and set(group.gr_mem) <= {user.pw_name}


def _attributes(path: str) -> list[str]:
    try:
        return os.listxattr(path, follow_symlinks=False)
    except OSError:  # a file system without any
        return []
