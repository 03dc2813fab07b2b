"""What part of the spool the messages of one user may take, so that nobody fills it for all.

The users of a spool that others may write to share it: the messages of one may take as much of the
disk as is left free for a further user. One user alone gets half of `publisher_spool_max_bytes`, of
two that want all of it each gets a third. Whoever has more than that, by files put there by hand,
is counted with that share, so the others keep theirs.

A user who may not list the spool cannot count. For them its owner keeps marks: files that are named
by the number of a user, in a subdirectory to which only the owner may add.
"""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

MARKS = ".over-quota"
# Of releases that knew one mark for all users.
FORMER_MARK = ".full"


def is_shared(directory: os.stat_result) -> bool:
    """Whether other users than its owner may add messages."""
    return bool(directory.st_mode & 0o022)


def share(used: Mapping[int, int], max_bytes: int) -> int:
    """Bytes that one user's messages may take of a shared spool, by what each user's do take."""
    free, others = max_bytes, len(used)
    for each in sorted(used.values()):
        if each > free // (others + 1):
            break
        free -= each
        others -= 1
    return max(0, free // (others + 1))


def room(directory: os.stat_result, used: Mapping[int, int], max_bytes: int, user: int) -> int:
    """Bytes that the `user` may still add, by what the messages of each user take."""
    if not is_shared(directory):
        return max_bytes - sum(used.values())
    return share(used, max_bytes) - used.get(user, 0)


def used_by_owner(directory: str) -> dict[int, int]:
    """Bytes of the disk that each user's files take. For who may list it; raises OSError."""
    used: dict[int, int] = {}
    with os.scandir(directory) as entries:
        for entry in entries:
            try:
                about = entry.stat(follow_symlinks=False)
            except FileNotFoundError:  # drained meanwhile
                continue
            used[about.st_uid] = used.get(about.st_uid, 0) + about.st_blocks * 512
    return used


def is_marked(path: str, directory: os.stat_result, user: int) -> bool:
    """Whether the owner of the spool has marked the `user` as one who has no room left."""
    marks = os.path.join(path, MARKS)
    try:
        about = os.lstat(marks)
        # Anyone may have made a directory of that name where there was none.
        if about.st_uid != directory.st_uid or not _is_kept(about):
            return False
        os.lstat(os.path.join(marks, str(user)))
    except OSError:
        return False
    return True


def mark(directory: int, users: set[int]) -> None:
    """Have marks for these users and for no others, as the owner of the spool. Raises OSError."""
    _remove(directory, FORMER_MARK)
    marks = opened_marks(directory, bool(users))
    if marks is None:
        return
    try:
        wanted = {str(user) for user in users}
        there = set(os.listdir(marks))
        for name in there - wanted:
            _remove(marks, name)
        for name in wanted - there:
            flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            os.close(os.open(name, flags, 0o644, dir_fd=marks))
    finally:
        os.close(marks)


def opened_marks(directory: int, make: bool) -> int | None:
    """A descriptor of the directory of marks. None: there is none, and `make` is False."""
    try:
        about = os.stat(MARKS, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        about = None
    if about is not None and (about.st_uid != os.geteuid() or not _is_kept(about)):
        set_aside(directory, MARKS)
        about = None
    if about is None:
        if not make:
            return None
        os.mkdir(MARKS, 0o755, dir_fd=directory)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(MARKS, flags, dir_fd=directory)
    os.fchmod(descriptor, 0o755)  # whatever the umask was: others have to find their mark
    return descriptor


def set_aside(directory: int, name: str) -> None:
    """Free a name that somebody else has taken: the owner of a directory may rename what is in it.

    Not remove it, since it may be a directory that is not empty. Raises OSError.
    """
    aside = f".aside-{os.urandom(8).hex()}"
    os.rename(name, aside, src_dir_fd=directory, dst_dir_fd=directory)


def _is_kept(about: os.stat_result) -> bool:
    return stat.S_ISDIR(about.st_mode) and not about.st_mode & 0o022


def _remove(directory: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        pass
    except (IsADirectoryError, PermissionError):  # it is a directory, and counts for nothing
        pass
