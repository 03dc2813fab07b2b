"""Publish in a pool of threads."""

import sys
from concurrent.futures import ThreadPoolExecutor

import numbered

with ThreadPoolExecutor(8) as pool:
    list(pool.map(numbered.publish, range(int(sys.argv[1]))))
