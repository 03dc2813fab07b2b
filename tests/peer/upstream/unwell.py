"""Consumers for upstream's fedmsg-hub that are not well, each in its own way."""

import time

import fedmsg.consumers


class _OfAll(fedmsg.consumers.FedmsgConsumer):
    topic = "*"
    config_key = "peer.unwell.enabled"


class Raises(_OfAll):
    def consume(self, message):
        raise ValueError("as asked for")


class Stuck(_OfAll):
    def consume(self, message):
        time.sleep(3600)


class OfOthers(_OfAll):
    topic = "org.fedoraproject.dev.others.*"


class Off(_OfAll):
    config_key = "peer.unwell.off"
