"""The bridge to AMQP: what the journal has goes to RabbitMQ, and what RabbitMQ has to the relay.

`outward` publishes the journal, `inward` submits what a queue has. What a message looks like on
either side is `convert`'s business. Nothing of the relay knows of the bridge: it reads the journal,
and submits like any other publisher.
"""
