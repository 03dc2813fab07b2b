"""Chromium as a test drives it: by the DevTools protocol over a pipe, so without a port."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from pathlib import Path
from typing import Any

from .programs import Child

# Chromium reads commands from descriptor 3 and writes answers to 4; a shell moves ours there.
MOVE = 'exec chromium "$@" 3<&{} 4>&{}'


class Browser:
    """One page. `profile` is a directory of the test's."""

    def __init__(self, profile: Path) -> None:
        theirs_in, self._commands = os.pipe()
        self._answers, theirs_out = os.pipe()
        self._numbers = itertools.count(1)
        self._received = b""
        self._session: dict[str, str] = {}
        self.child = Child(
            ["bash", "-c", MOVE.format(theirs_in, theirs_out), "chromium", "--headless=new",
             "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe",
             f"--user-data-dir={profile}", "about:blank"],
            pass_fds=[theirs_in, theirs_out], stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a command of the protocol. Raises RuntimeError when it fails."""
        number = next(self._numbers)
        command = {"id": number, "method": method, "params": parameters, **self._session}
        os.write(self._commands, json.dumps(command).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return dict(answer["result"])

    def value(self, expression: str) -> Any:
        """What the page makes of some JavaScript; a promise is waited for."""
        result = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        return result["result"].get("value")

    def show(self, width: int, scheme: str) -> None:
        """Be so many CSS pixels wide, and of the colour scheme `light` or `dark`."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def close(self) -> None:
        self.child.terminate()
        self.child.wait()
        os.close(self._commands)
        os.close(self._answers)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._received:
            some = os.read(self._answers, 1 << 20)
            if not some:
                raise RuntimeError("chromium has ended")
            self._received += some
        message, _, self._received = self._received.partition(b"\0")
        return dict(json.loads(message))
