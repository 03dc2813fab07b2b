"""A celery application: each task publishes the number that it is given.

Where there is a file KILLED the next task removes it, and is killed somewhere in `publish()`. It
does that itself, while it works: then the other processes of the pool go on, whatever lock they
have in common with it (billiard 4.2, with a broker that has no event loop).
"""

import os
import random
import signal
import threading
import time
from contextlib import suppress

import celery
import numbered

# So that there is a connection to the relay before the pool forks.
numbered.publish(-time.time_ns())

KILLED = "killed"

app = celery.Celery("tasks", broker="filesystem://")
app.conf.update(
    broker_transport_options={
        "data_folder_in": "broker",
        "data_folder_out": "broker",
        "control_folder": "control",
        "polling_interval": 0.01,
    },
    broker_connection_retry_on_startup=True,
    worker_max_tasks_per_child=60,
    worker_concurrency=3,
    worker_hijack_root_logger=False,
)


@app.task
def publish(number):
    to_be_killed = False
    with suppress(FileNotFoundError):
        os.unlink(KILLED)
        to_be_killed = True
    if to_be_killed:
        moment = random.random() * 0.002
        threading.Timer(moment, os.kill, (os.getpid(), signal.SIGKILL)).start()
    numbered.publish(number)
    while to_be_killed:
        signal.pause()
