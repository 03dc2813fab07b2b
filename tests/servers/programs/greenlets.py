"""Publish in greenlets; with "late", those of a program that was patched after it had published."""

import sys

if "late" in sys.argv:
    import numbered

    numbered.publish(-1)

from gevent import monkey

monkey.patch_all()

import gevent.pool  # noqa: E402
import numbered  # noqa: E402

ticks = 0


def tick():
    global ticks
    while True:
        gevent.sleep(0.001)
        ticks += 1


gevent.spawn(tick)
pool = gevent.pool.Pool(50)
pool.map(numbered.publish, range(int(sys.argv[1])))
# Others went on meanwhile.
assert ticks > 20, ticks
