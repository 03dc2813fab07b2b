"""Publish in a pool of processes that are recycled, forked from one that has published."""

import multiprocessing
import sys

import numbered

numbered.publish(-1)
with multiprocessing.get_context("fork").Pool(3, maxtasksperchild=50) as pool:
    pool.map(numbered.publish, range(int(sys.argv[1])), chunksize=1)
