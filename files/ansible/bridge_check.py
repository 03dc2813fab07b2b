"""Say whether the bridge to RabbitMQ can run with a config that is not in place. Changes nothing.

The role fedmsg_bridge runs it with `python3 -I -c`; a JSON object on standard input:

    config     text of the bridge's config file
    password   of the user at the broker, or ""
    directory  where both are going to be
    group      that may read both meanwhile
    command    words of the bridge's command, as the service user

They are staged in a directory of their own, which is gone in the end, together with links to the
global config. The exit code is that of the command, standard error what it says, under the names
that the files are going to have.
"""

import glob
import grp
import json
import os
import subprocess
import sys
import tempfile

GLOBAL = ("/etc/fedmsg.d/*.py", "/etc/fedmsg-config.py")


def main() -> int:
    os.umask(0o077)
    request = json.load(sys.stdin)
    with tempfile.TemporaryDirectory(prefix="fedmsg-amqp-bridge-") as stage:
        staged(stage, request)
        # From the root: the service user need not be able to enter the directory that we are in.
        command = [*request["command"], "--check", "--config-filename", stage]
        done = subprocess.run(command, cwd="/", capture_output=True, text=True)
    for text, stream in ((done.stdout, sys.stdout), (done.stderr, sys.stderr)):
        stream.write(text.replace(f"{stage}/z-config.py", f"{request['directory']}/config.py"))
    return done.returncode


def staged(stage: str, request: dict[str, str]) -> None:
    """Lay out the whole config, in the order of the names as the bridge is going to read it."""
    found = [path for pattern in GLOBAL for path in sorted(glob.glob(pattern))]
    for number, path in enumerate(found):
        os.symlink(path, f"{stage}/{number:05}.py")
    group = grp.getgrnam(request["group"]).gr_gid
    files = {"z-config.py": request["config"]}
    if request["password"]:
        files["password"] = request["password"] + "\n"
        files["z-staged.py"] = f"config = {{'amqp_password_file': {stage + '/password'!r}}}\n"
    for name, text in files.items():
        with open(f"{stage}/{name}", "w", encoding="utf-8") as file:
            file.write(text)
            os.fchown(file.fileno(), -1, group)
            os.fchmod(file.fileno(), 0o640)
    os.chown(stage, -1, group)
    os.chmod(stage, 0o750)


if __name__ == "__main__":
    sys.exit(main())
