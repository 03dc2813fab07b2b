"""Sign messages with fedmsg's own code: `sign.py SSLDIR CERTNAME`, one a line in and out."""

import json
import sys

import fedmsg.crypto
import fedmsg.encoding

ssldir, certname = sys.argv[1:]
for line in sys.stdin:
    signed = fedmsg.crypto.sign(json.loads(line), ssldir=ssldir, certname=certname)
    print(fedmsg.encoding.dumps(signed))
