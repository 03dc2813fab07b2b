#!/usr/bin/python3 -I
"""Tell the bus that a package has new branches, as pkgdb2branch.py does after it has made them.

An example of an ephemeral script in Python: it is run by a person, publishes through the relay and
is gone. One message a branch, on the topic `pkgdb.package.branch.new`, in pkgdb2's shape.

Exit code: 0 published, 75 no relay took it (run it again later), 78 the host's fedmsg config is of
no use, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import getpass
import os
import sys

import fedmsg_relay


def main() -> int:
    arguments = parse_arguments()
    for branch in arguments.branches:
        try:
            fedmsg_relay.publish(
                topic="package.branch.new",
                modname="pkgdb",
                msg=branch_message(arguments, branch),
            )
        except fedmsg_relay.MessageRefused as error:  # and would be again
            return complain(f"{arguments.package} {branch}: {error}", os.EX_DATAERR)
        except fedmsg_relay.PublishError as error:
            return complain(f"{arguments.package} {branch}: {error}", os.EX_TEMPFAIL)
        except (fedmsg_relay.ConfigError, fedmsg_relay.SigningError) as error:
            return complain(str(error), os.EX_CONFIG)
    return os.EX_OK


def user() -> str:
    """Who runs this. In a container a user may be a number alone."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # the second from Python 3.13 on
        return str(os.getuid())


def branch_message(arguments: argparse.Namespace, branch: str) -> dict[str, object]:
    package = {"name": arguments.package, "namespace": arguments.namespace}
    return {
        "agent": arguments.agent,
        "package": package,
        "package_listing": {
            "package": package,
            "collection": {"branchname": branch},
            "point_of_contact": arguments.agent,
            "status": "Approved",
        },
    }


def complain(what: str, exit_code: int) -> int:
    print(f"pkgdb2branch: {what}", file=sys.stderr)
    return exit_code


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Tell the bus that a package has new branches.")
    parser.add_argument("package", help="name of the package, such as guake")
    parser.add_argument("branches", nargs="+", metavar="branch", help="such as f41")
    parser.add_argument("--namespace", default="rpms", help="default: %(default)s")
    parser.add_argument("--agent", default=user(), help="who asked for it; default: you")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
