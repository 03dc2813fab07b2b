#!/bin/sh
# A body with NaN is valid for fedora-messaging, and goes out as no JSON.
#
# Versions: fedora-messaging 3.9.1; orjson 3.11.4 as the strict parser.
# Expected: Message.validate(), which publish() calls, refuses a number that JSON does not have.
# Seen: it passes; dumps() writes the word NaN, which a strict parser refuses: for a consumer that is not
# written in Python the message cannot be read.
set -eu
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
python3 -m venv "$made/venv"
"$made/venv/bin/pip" --quiet install fedora-messaging==3.9.1 "setuptools<81" orjson==3.11.4
"$made/venv/bin/python" - <<'PYTHON'
import json

import orjson
from fedora_messaging import message

made = message.Message(topic="build.load", body={"load": float("nan")})
made.validate()
written = message.dumps(made)
print(written.strip()[:24])
assert json.loads(written)["topic"] == "build.load"
try:
    orjson.loads(written)
except orjson.JSONDecodeError as error:
    print("a strict parser:", error)
else:
    raise AssertionError("it is JSON")
PYTHON
