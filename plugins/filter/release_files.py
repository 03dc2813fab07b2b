"""The files of a release that land on hosts as they are: what they are to be, by checksum or
whole."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
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
    description: Paths of the files on the control host.
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
  below:
    description: >-
      Name of the folder on the control host whose files below keep their places under
      O(directory). Without it all files land there, side by side.
    type: str
    default: ""
  whole:
    description: Whether the text is wanted, and not its checksum.
    type: bool
    default: false
"""

EXAMPLES = """
- name: Show what the modules are to be
  ansible.builtin.debug:
    msg: >-
      {{ query('ansible.builtin.fileglob', 'fedmsg_relay/*.py', 'fedmsg_relay/*/*.py')
         | messaging_sig.fedmsg.release_files('/usr/local/lib/fedmsg-relay/fedmsg_relay',
                                              below='fedmsg_relay') }}
"""

RETURN = """
_value:
  description: >-
    Path of each file on the host to its C(mode), and its C(content), a text, or the C(sha256) of it
    in hexadecimal digits. In the order of the names.
  type: dict
"""


def release_files(
    paths: Iterable[str],
    directory: str,
    mode: str = "0644",
    below: str = "",
    whole: bool = False,
) -> dict[str, dict[str, str]]:
    """Path on the host to {mode, content or sha256}. Raises OSError where a file is not there, and
    ValueError where one is not in a folder of the name `below`."""
    found = {}
    for path in sorted(map(Path, paths)):
        text = path.read_bytes()
        file = {"content": text.decode()} if whole else {"sha256": hashlib.sha256(text).hexdigest()}
        found[f"{directory.rstrip('/')}/{_place(path, below)}"] = {**file, "mode": mode}
    return found


def _place(path: Path, below: str) -> str:
    """Where a file belongs under its directory on the host."""
    if not below:
        return path.name
    folders = path.parts[:-1]
    if below not in folders:
        raise ValueError(f"{path} is not below a folder {below}")
    # The last of that name: the checkout may lie in another.
    depth = len(folders) - folders[::-1].index(below)
    return "/".join(path.parts[depth:])


class FilterModule:
    """Filters of the file."""

    def filters(self) -> dict[str, Any]:
        return {"release_files": release_files}
