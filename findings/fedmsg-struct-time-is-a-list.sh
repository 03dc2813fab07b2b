#!/bin/sh
# fedmsg has a rule for time.struct_time that is never asked.
#
# Versions: fedmsg 1.1.7, Python 3.11.
# Expected: its encoder says that a struct_time goes out as seconds since 1970, as a datetime does.
# Seen: it goes out as a list of nine numbers. A struct_time is a tuple, and Python's json writes tuples
# itself before it asks an encoder. A listener finds a list where the source promises a number.
set -eu
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
python3 -m venv "$made/venv"
"$made/venv/bin/pip" --quiet install wheel "setuptools<81"
"$made/venv/bin/pip" --quiet install fedmsg==1.1.7 "setuptools<81"
TZ=UTC "$made/venv/bin/python" - <<'PYTHON'
import datetime
import time

import fedmsg.encoding

moment = time.gmtime(86400)
as_datetime = fedmsg.encoding.dumps({"at": datetime.datetime(*moment[:6])})
as_struct = fedmsg.encoding.dumps({"at": moment})
print("datetime:   ", as_datetime)
print("struct_time:", as_struct)
assert as_datetime == '{"at":86400.0}'
assert as_struct == '{"at":[1970,1,2,0,0,0,4,2,0]}'
assert fedmsg.encoding.encoder.default(moment) == 86400.0, "the rule itself says seconds"
PYTHON
