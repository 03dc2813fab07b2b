"""The files of a release that land on hosts as they are: what they are to be, by checksum or
whole."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

DOCUMENTATION = """
name: release_files
author: The fedmsg-relay authors
short_description: The files of a release, by checksum or with what is in them
description:
  - Reads files of the control host that land on hosts under the same names.
  - To find out whether a host has a file its checksum is enough, which is a hundredth of the text.
positional: _input
options:
  _input:
    description: >-
      Paths of files on the control host. A directory stands for all Python files in it and below,
      which keep their places.
    type: list
    elements: str
    required: true
  directory:
    description: Where they are going to be on the host.
    type: path
    required: true
  mode:
    description: Their mode there, in octal digits.
    type: str
    default: "0644"
  whole:
    description: Whether the text is wanted, and not its checksum.
    type: bool
    default: false
"""

EXAMPLES = """
- name: Show what the modules are to be
  ansible.builtin.debug:
    msg: >-
      {{ ['/path/to/fedmsg_relay']
         | messaging_sig.fedmsg.release_files('/usr/local/lib/fedmsg-relay/fedmsg_relay') }}
"""

RETURN = """
_value:
  description: >-
    Path of each file on the host to its C(mode), and its C(content), a text, or the C(sha256) of it
    in hexadecimal digits. In the order of the names.
  type: dict
"""


def release_files(
    paths: Iterable[str], directory: str, mode: str = "0644", whole: bool = False
) -> dict[str, dict[str, str]]:
    """Path on the host to {mode, content or sha256}. Raises OSError where a file is not there."""
    places = {place: path for each in paths for place, path in _places(Path(each))}
    found = {}
    for place, path in sorted(places.items()):
        text = path.read_bytes()
        file = {"content": text.decode()} if whole else {"sha256": hashlib.sha256(text).hexdigest()}
        found[f"{directory.rstrip('/')}/{place}"] = {**file, "mode": mode}
    return found


def _places(path: Path) -> Iterator[tuple[str, Path]]:
    """Where under its directory on the host a file belongs, or each file of a directory."""
    if not path.is_dir():
        yield path.name, path
        return
    for module in path.rglob("*.py"):
        yield module.relative_to(path).as_posix(), module


class FilterModule:
    """Filters of the file."""

    def filters(self) -> dict[str, Any]:
        return {"release_files": release_files}
