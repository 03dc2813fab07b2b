"""What the hosts' tests read of a deploy's differences is what files/ansible/survey.py says."""

from __future__ import annotations

import sys

from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "molecule" / "shared"))

from predicted import File, _of_text

CONFIG = """\
/etc/fedmsg.d/relay.py: 4 bytes, 0644 root:root, was 2 bytes, 0644 root:root
--- /etc/fedmsg.d/relay.py
+++ /etc/fedmsg.d/relay.py
@@ -1 +1 @@
-1
+100"""
REMOVED = "/usr/local/lib/fedmsg_relay/old.py: removed, was 9 bytes, 0644 root:root"


def test_a_file_that_is_removed_is_an_entry_of_its_own() -> None:
    files = dict(_of_text(f"{CONFIG}\n{REMOVED}"))
    assert files["/usr/local/lib/fedmsg_relay/old.py"] == File(removed=True)
    assert files["/etc/fedmsg.d/relay.py"].unified == tuple(CONFIG.splitlines()[1:])


def test_a_deploy_may_remove_and_do_nothing_else() -> None:
    assert dict(_of_text(REMOVED)) == {"/usr/local/lib/fedmsg_relay/old.py": File(removed=True)}
