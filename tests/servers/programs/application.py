"""A web application: each request publishes the number that it is asked for."""

import time

import numbered

# So that there is a connection to the relay, of the process that loads this.
numbered.publish(-time.time_ns())


def application(environ, start_response):
    numbered.publish(int(environ["QUERY_STRING"]))
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "3")])
    return [b"ok\n"]
