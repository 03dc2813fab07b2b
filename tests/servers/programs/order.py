"""Give celery's workers tasks: FIRST to LAST, exclusive."""

import sys

import tasks

for number in range(int(sys.argv[1]), int(sys.argv[2])):
    tasks.publish.delay(number)
