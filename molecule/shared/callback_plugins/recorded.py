"""What a run of Ansible did, for a program to read: a line of JSON for each task, host and item.

{"task", "host", "item", "changed", "failed", "msg", "diff"}, in the file that RECORDED names. The
difference is what --diff shows, a list. Enabled by name: ANSIBLE_CALLBACKS_ENABLED=recorded.
"""

from __future__ import annotations

import json
import os
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: recorded
type: aggregate
short_description: write what each task did to a file
description: Writes a line of JSON for each task, host and item to the file that RECORDED names.
"""


class CallbackModule(CallbackBase):  # type: ignore[misc]
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "recorded"
    CALLBACK_NEEDS_ENABLED = True

    def v2_runner_on_ok(self, result: Any) -> None:
        self._record(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._record(result, failed=not ignore_errors)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._record(result, failed=True)

    def _record(self, result: Any, *, failed: bool = False) -> None:
        whole = result._result
        with open(os.environ["RECORDED"], "a", encoding="utf-8") as stream:
            for each in whole.get("results") or [whole]:
                if each.get("skipped"):
                    continue
                diff = each.get("diff") or []
                line = {
                    "task": result._task.get_name(),
                    "host": result._host.get_name(),
                    "item": each.get(each.get("ansible_loop_var", "item")),
                    "changed": bool(each.get("changed")),
                    # Of a loop only some may have.
                    "failed": failed and (each is whole or bool(each.get("failed"))),
                    "msg": each.get("msg", ""),
                    # Of a new file the difference itself does not say where it is and, in check
                    # mode, nothing else of the result.
                    "dest": each.get("dest") or _destination(result._task, each.get("item", "")),
                    "diff": diff if isinstance(diff, list) else [diff],
                }
                stream.write(json.dumps(line, default=str) + "\n")


def _destination(task: Any, item: str) -> str:
    dest = str(task.args.get("dest", ""))
    dest = dest.replace("{{ __fedmsg_base_config_directory }}", "/etc/fedmsg.d")
    return dest.replace("{{ item }}", str(item))
