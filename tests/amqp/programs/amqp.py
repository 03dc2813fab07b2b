"""What consumers and publishers on the other bus do, a command each, with fedora-messaging's code.

amqp.py URL bind QUEUE PATTERN       a quorum queue
amqp.py URL drain QUEUE              print what is in it, a JSON object a line, and remove it
amqp.py URL publish FIRST LAST       numbered messages, as fedora-messaging's publish sends them
amqp.py URL delete QUEUE
"""

import base64
import json
import sys

import pika
from fedora_messaging import message as messages

url, command, *words = sys.argv[1:]
connection = pika.BlockingConnection(pika.URLParameters(url))
channel = connection.channel()

if command == "bind":
    queue, pattern = words
    arguments = {"x-queue-type": "quorum"}
    channel.queue_declare(queue, durable=True, arguments=arguments)
    channel.queue_bind(queue, "amq.topic", pattern)
elif command == "delete":
    channel.queue_delete(words[0])
elif command == "drain":
    [queue] = words
    while True:
        method, properties, body = channel.basic_get(queue)
        if method is None:
            break
        told = {
            "topic": method.routing_key,
            "id": properties.message_id,
            "headers": dict(properties.headers),
            "mode": properties.delivery_mode,
            "type": properties.content_type,
            "encoding": properties.content_encoding,
            "raw": base64.b64encode(body).decode(),
        }
        # It validates, and raises where the message is none.
        found = messages.get_message(method.routing_key, properties, body)
        found.validate()
        told.update(body=found.body, schema=type(found).__name__, severity=found.severity)
        print(json.dumps(told), flush=True)
        channel.basic_ack(method.delivery_tag)
elif command == "publish":
    channel.confirm_delivery()
    for n in range(int(words[0]), int(words[1])):
        made = messages.Message(topic="org.fedoraproject.dev.amqp.n", body={"n": n})
        made.validate()
        body = json.dumps(made.body).encode()
        channel.basic_publish("amq.topic", made.topic, body, made._properties)
elif command == "send":
    channel.basic_publish("amq.topic", words[0], words[1].encode(), pika.BasicProperties())
connection.close()
