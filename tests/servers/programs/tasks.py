"""A celery application: each task publishes the number that it is given."""

import time

import celery
import numbered

# So that there is a connection to the relay before the pool forks.
numbered.publish(-time.time_ns())

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
    numbered.publish(number)
