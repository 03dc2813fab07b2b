"""A consumer for upstream's fedmsg-hub: it writes each message it gets as a line to $RECORDED."""

import json
import os

import fedmsg.consumers


class Recorder(fedmsg.consumers.FedmsgConsumer):
    topic = "*"
    config_key = "peer.recorder.enabled"

    def consume(self, message):
        with open(os.environ["RECORDED"], "a") as recorded:
            recorded.write(json.dumps(message) + "\n")
