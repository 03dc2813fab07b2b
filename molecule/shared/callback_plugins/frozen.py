"""Has Ansible's workers leave alone what the process that they are forked from has made.

A run forks for each task and host. Each time Python's collector looks through the objects of the
parent, in vain, and copies every page of them on the way: a sixth of what a run with nothing to
change costs the control host. Enabled by name: ANSIBLE_CALLBACKS_ENABLED=frozen.
"""

from __future__ import annotations

import gc
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: frozen
type: aggregate
short_description: spare forked workers the collection of garbage
description: Turns Python's garbage collection off, for a run that ends soon.
"""


class CallbackModule(CallbackBase):  # type: ignore[misc]
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "frozen"
    CALLBACK_NEEDS_ENABLED = True

    def v2_playbook_on_play_start(self, play: Any) -> None:
        gc.collect()
        gc.freeze()
        gc.disable()
