"""Ask fedmsg's own code about messages: for each line in, one out, `true`, `false` or an exception.

A line is a JSON list of the message and of the config keys to validate it by.
"""

import json
import sys

import fedmsg.crypto

for line in sys.stdin:
    message, config = json.loads(line)
    try:
        print(json.dumps(fedmsg.crypto.validate(message, **config)))
    except Exception as error:
        print(type(error).__name__)
