"""`python3 -m fedmsg_relay.backlog`, which the relay starts."""

import sys

from .app import main

if __name__ == "__main__":
    sys.exit(main())
