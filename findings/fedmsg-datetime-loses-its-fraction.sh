#!/bin/sh
# A datetime loses its fraction of a second in fedmsg, though it becomes a float.
#
# Versions: fedmsg 1.1.7, Python 3.11.
# Expected: 0.75 s after midnight is written with .75: the encoder writes seconds with a decimal point.
# Seen: it is always .0, so two events of one second are equal, and an end minus a start that took half a
# second is 0 or 1. A publisher that needs the fraction writes the number itself.
set -eu
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
python3 -m venv "$made/venv"
"$made/venv/bin/pip" --quiet install wheel "setuptools<81"
"$made/venv/bin/pip" --quiet install fedmsg==1.1.7 "setuptools<81"
TZ=UTC "$made/venv/bin/python" - <<'PYTHON'
import datetime

import fedmsg.encoding

moment = datetime.datetime(1970, 1, 2, 0, 0, 0, 750000)
written = fedmsg.encoding.dumps({"at": moment, "seconds": (moment - datetime.datetime(1970, 1, 1)).total_seconds()})
print(written)
assert written == '{"at":86400.0,"seconds":86400.75}'
PYTHON
